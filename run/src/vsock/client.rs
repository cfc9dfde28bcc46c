//! The way for programs of ours on the host to a port of a running guest.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::sockets::CONNECT;
use crate::host::Folder;

/// Longest answer, `OK` and a number.
const ANSWER_BYTES: usize = 32;

/// Connects to a port of the guest of the machine that has this state folder. Waits at most `patience` for the guest to take
/// it: a machine that starts takes nobody before its driver is there.
///
/// # Errors
/// `NotFound` or `ConnectionRefused`: no machine runs. `ConnectionReset`: nobody listens at that port of the guest's, or not
/// yet. `WouldBlock`: no answer in time.
pub fn connect_to_guest(state_dir: &Path, port: u32, patience: Duration) -> io::Result<UnixStream> {
    let folder = Folder::open(state_dir)?;
    let mut stream = UnixStream::connect(folder.file(CONNECT))?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(format!("CONNECT {port}\n").as_bytes())?;
    let mut answer = Vec::new();
    // Byte by byte: what follows the answer is the guest's.
    while answer.len() < ANSWER_BYTES && !answer.ends_with(b"\n") {
        let mut byte = [0];
        match stream.read(&mut byte)? {
            0 => break,
            _ => answer.extend(byte),
        }
    }
    if !(answer.starts_with(b"OK ") && answer.ends_with(b"\n")) {
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    stream.set_read_timeout(None)?;
    Ok(stream)
}

//! A log that somebody else keeps: LinuxKit's memlogd takes descriptors at a socket and reads them to their end.

use std::fs::File;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::pipe::{PipeFlags, pipe_with};

/// Where it listens. `/var/run` is the same folder.
pub const SOCKET: &str = "/run/linuxkit-external-logging.sock";

/// Gives it a new log called `name`; what is written to the file goes there. A write does not wait: while nobody reads, what is
/// beyond a pipe's 64 KiB fails with `WouldBlock`.
///
/// # Errors
/// Nobody listens at `socket`, or has no room now.
pub fn hand_over(socket: &Path, name: &str) -> io::Result<File> {
    let to = UnixDatagram::unbound()?;
    to.connect(socket)?;
    let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    let descriptors = [read.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    sendmsg(&to, &[IoSlice::new(name.as_bytes())], &mut control, SendFlags::DONTWAIT)?;
    Ok(write.into())
}

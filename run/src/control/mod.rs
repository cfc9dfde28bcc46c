//! The way to a running machine from other programs: a socket in its state folder, which only its user may open. A
//! request is a line of JSON, and so is its answer.

mod client;
mod server;
mod words;

use std::io;
use std::path::{Path, PathBuf};

pub use client::{AskError, Client};
pub use server::ControlSocket;
pub use words::{Carries, Port, PortHost, Request};

/// Name of the socket.
pub const SOCKET: &str = "control.sock";
/// Longest line, either way: a list of the most ports that can be.
const LINE_BYTES: u64 = 1 << 20;

/// The socket cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot make the machine's control socket `{}`", path.display())]
pub struct ControlError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// A name for a file of `folder` that is short enough for a socket, however long the folder's is; good as long as the
/// descriptor is open.
fn short(folder: &Path) -> io::Result<(rustix::fd::OwnedFd, PathBuf)> {
    use rustix::fs::{Mode, OFlags};
    use std::os::fd::AsRawFd;
    let folder = rustix::fs::open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let path = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(SOCKET);
    Ok((folder, path))
}

#[cfg(test)]
mod tests;

//! Addresses of Unix sockets, also where the path is longer than an address can be.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, open};
use rustix::net::SocketAddrUnix;

/// An address that counts as long as it lives.
#[derive(Debug)]
pub(crate) struct Address {
    pub(crate) unix: SocketAddrUnix,
    /// Through which the path is short enough.
    _folder: Option<OwnedFd>,
}

impl Address {
    /// The socket at `path`.
    ///
    /// # Errors
    /// The path is too long and its folder cannot be opened.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        if let Ok(unix) = SocketAddrUnix::new(path) {
            return Ok(Self { unix, _folder: None });
        }
        let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let folder = open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let short: PathBuf = ["/proc/self/fd", &folder.as_raw_fd().to_string()].iter().collect();
        let unix = SocketAddrUnix::new(short.join(name))?;
        Ok(Self { unix, _folder: Some(folder) })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use rustix::net::{AddressFamily, SocketType, connect, socket};

    use super::*;

    #[test]
    fn a_socket_far_down_is_reached() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("x".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let path = deep.join("socket");
        assert!(UnixListener::bind(&path).is_err(), "the path is short enough for everybody");
        let socket = |kind| socket(AddressFamily::UNIX, kind, None).unwrap();
        let listener = socket(SocketType::STREAM);
        rustix::net::bind(&listener, &Address::of(&path).unwrap().unix).unwrap();
        rustix::net::listen(&listener, 1).unwrap();
        connect(socket(SocketType::STREAM), &Address::of(&path).unwrap().unix).unwrap();
        assert!(Address::of(&deep.join("no").join("socket")).is_err());
    }
}

//! Sockets that have a place among the files.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;

/// Listens at `path`. A socket there that nobody has any more is replaced; whatever else is there stays.
///
/// # Errors
/// The place is taken, or cannot be made.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    remove_left_over(path)?;
    UnixListener::bind(path)
}

/// Receives datagrams at `path`, as [`listen`] does connections.
///
/// # Errors
/// As [`listen`].
pub fn receive(path: &Path) -> io::Result<UnixDatagram> {
    remove_left_over(path)?;
    UnixDatagram::bind(path)
}

fn remove_left_over(path: &Path) -> io::Result<()> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    // One who would send a datagram never waits; a socket of either kind that is somebody's gives another answer.
    let asked = || UnixDatagram::unbound()?.connect(path);
    match is_socket.then(asked) {
        Some(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_somebodys_stays() {
        let folder = tempfile::tempdir().unwrap();
        let [file, stream, datagrams] = ["file", "stream", "datagrams"].map(|name| folder.path().join(name));
        fs::write(&file, "mine").unwrap();
        let _stream = UnixListener::bind(&stream).unwrap();
        let _datagrams = UnixDatagram::bind(&datagrams).unwrap();
        for path in [&file, &stream, &datagrams] {
            assert_eq!(listen(path).unwrap_err().kind(), io::ErrorKind::AddrInUse, "{}", path.display());
            assert_eq!(receive(path).unwrap_err().kind(), io::ErrorKind::AddrInUse, "{}", path.display());
        }
        assert_eq!(fs::read(&file).unwrap(), b"mine");
    }

    #[test]
    fn a_socket_that_was_left_is_replaced_whatever_its_kind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        drop(listen(&path).unwrap());
        drop(receive(&path).unwrap());
        drop(listen(&path).unwrap());
        assert!(listen(&folder.path().join("no folder/socket")).is_err());
    }
}

//! The host's end of a connection.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::sockopt::{set_socket_linger, set_tcp_nodelay, socket_error};
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};

/// Discarded at once; nothing is copied there.
const DISCARD_BYTES: usize = 64 * 1024;

/// A connected, or connecting, stream socket that is never waited for.
#[derive(Debug)]
pub struct StreamSocket {
    fd: OwnedFd,
}

impl StreamSocket {
    /// Takes a socket that does not block. What it receives is looked at from its start on.
    ///
    /// # Errors
    /// The kernel cannot look at what was received from an offset on.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        set_tcp_nodelay(&fd, true)?;
        let socket = Self { fd };
        socket.look_from(0)?;
        Ok(socket)
    }

    /// The socket.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Sends what it takes of `bytes`.
    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(send(&self.fd, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?)
    }

    /// The next look begins `offset_bytes` behind the first byte that was not discarded.
    ///
    /// # Errors
    /// The kernel cannot do that: Linux can for IPv4 since 6.9.
    #[expect(unsafe_code, reason = "no crate knows SO_PEEK_OFF")]
    pub fn look_from(&self, offset_bytes: u32) -> io::Result<()> {
        let offset = libc::c_int::try_from(offset_bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
        let len = libc::socklen_t::try_from(size_of_val(&offset)).map_err(|_| io::ErrorKind::InvalidInput)?;
        let fd = self.fd.as_raw_fd();
        // SAFETY: the option's value is an int that lives until the call returns, and `len` is its size.
        let result =
            unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_PEEK_OFF, (&raw const offset).cast(), len) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Throws `len_bytes` away that were received and looked at. The next look begins at the same byte as before.
    pub fn discard(&self, len_bytes: u32) -> io::Result<()> {
        let mut nothing = [0; DISCARD_BYTES];
        let mut left = usize::try_from(len_bytes).unwrap_or(usize::MAX);
        while left > 0 {
            let part = nothing.get_mut(..left.min(DISCARD_BYTES)).unwrap_or_default();
            match recv(&self.fd, part, RecvFlags::TRUNC | RecvFlags::DONTWAIT)?.1 {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                len => left -= len.min(left),
            }
        }
        Ok(())
    }

    /// No more data comes from the guest.
    pub fn end(&self) -> io::Result<()> {
        Ok(shutdown(&self.fd, Shutdown::Write)?)
    }

    /// From now on, closing it resets the connection.
    pub fn reset_on_close(&self) {
        // If it cannot be, the peer sees an end instead of a reset.
        let _ = set_socket_linger(&self.fd, Some(Duration::ZERO));
    }

    /// What went wrong since somebody last asked.
    pub fn take_error(&self) -> io::Result<()> {
        socket_error(&self.fd)?.map_err(io::Error::from)
    }
}

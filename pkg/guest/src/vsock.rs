//! Sockets between machine and host (vsock(7)), as far as guest programs use them.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, VsockAddr, bind, connect, getpeername, listen, socket,
};

/// The host's number.
pub const CID_HOST: u32 = 2;
/// Any number of this machine's.
const CID_ANY: u32 = u32::MAX;
/// Listens on a port.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
}

impl Listener {
    /// Listens on `port`.
    ///
    /// # Errors
    /// The kernel's: `EAFNOSUPPORT` where it knows no such sockets, `EADDRINUSE` where another one listens.
    pub fn bind(port: u32) -> io::Result<Self> {
        let socket = socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        bind(socket.as_raw_fd(), &VsockAddr::new(CID_ANY, port))?;
        // As many as the kernel lets wait: it turns the next one away.
        listen(&socket, Backlog::MAXALLOWABLE)?;
        Ok(Self { socket })
    }

    /// Takes the next connection, and tells whose it is by his number. The stream's type is that of another kind of socket:
    /// reading, writing, shutting and waiting are the same.
    ///
    /// # Errors
    /// The kernel's; most are about one connection, and the next may be good.
    pub fn accept(&self) -> io::Result<(UnixStream, u32)> {
        let stream = rustix::net::accept_with(&self.socket, rustix::net::SocketFlags::CLOEXEC)?;
        let peer: VsockAddr = getpeername(stream.as_raw_fd())?;
        Ok((stream.into(), peer.cid()))
    }
}

/// Connects to a port of the host's.
///
/// # Errors
/// The kernel's: `ECONNRESET` where nobody listens, or as for [`Listener::bind`].
pub fn connect_to_host(port: u32) -> io::Result<UnixStream> {
    let stream = socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    connect(stream.as_raw_fd(), &VsockAddr::new(CID_HOST, port))?;
    Ok(stream.into())
}

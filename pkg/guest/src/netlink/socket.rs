//! A route socket: requests, lists, news.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::message::{self, DONE, ERROR, Part};

/// The kernel fills at most 32 KiB of a list's datagram.
const DATAGRAM_LIMIT_BYTES: usize = 64 << 10;
/// Datagrams of one answer: thousands of links.
const ANSWER_LIMIT: usize = 1024;

/// A socket on which the kernel's routing answers.
#[derive(Debug)]
pub struct RouteSocket {
    socket: OwnedFd,
}

impl RouteSocket {
    /// Opens it in the caller's network namespace. `groups` is what it is told of unasked (`RTMGRP_…`); a socket with groups
    /// is for [`news`](Self::news) alone.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open(groups: u32) -> io::Result<Self> {
        let flags = if groups == 0 { SocketFlags::CLOEXEC } else { SocketFlags::CLOEXEC | SocketFlags::NONBLOCK };
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, groups))?;
        Ok(Self { socket })
    }

    /// Asks, and waits for the kernel's consent.
    ///
    /// # Errors
    /// The kernel's.
    pub fn ask(&self, request: Vec<u8>) -> io::Result<()> {
        self.exchange(request, |_| {})
    }

    /// Asks, and gives each message of the answer to `each`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn exchange(&self, request: Vec<u8>, mut each: impl FnMut(&Part<'_>)) -> io::Result<()> {
        rustix::net::sendto(&self.socket, &request, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        let mut datagram = vec![0; DATAGRAM_LIMIT_BYTES];
        for _ in 0..ANSWER_LIMIT {
            let (len, _) = rustix::net::recv(&self.socket, &mut datagram[..], RecvFlags::empty())?;
            let mut parts = message::parts(datagram.get(..len).unwrap_or_default()).peekable();
            if parts.peek().is_none() {
                return Err(io::ErrorKind::InvalidData.into());
            }
            for part in parts {
                match part.kind {
                    ERROR | DONE => return acknowledged(part.body),
                    _ => each(&part),
                }
            }
        }
        Err(io::ErrorKind::InvalidData.into())
    }

    /// Whether something happened since the last call. What it was is to be asked for: news can be lost.
    pub fn news(&self) -> bool {
        let mut any = false;
        let mut datagram = [0; 4096];
        for _ in 0..ANSWER_LIMIT {
            match rustix::net::recv(&self.socket, &mut datagram[..], RecvFlags::TRUNC) {
                Ok(_) | Err(rustix::io::Errno::NOBUFS) => any = true,
                Err(_) => break,
            }
        }
        any
    }
}

impl AsFd for RouteSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Code 0 for success and a negated errno otherwise.
fn acknowledged(body: &[u8]) -> io::Result<()> {
    match body.first_chunk().map(|code| i32::from_ne_bytes(*code)) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.wrapping_neg())),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_cut_short_is_an_error() {
        assert!(acknowledged(&[]).is_err());
        assert!(acknowledged(&[0; 3]).is_err());
        assert_eq!(acknowledged(&(-1_i32).to_ne_bytes()).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert!(acknowledged(&[0; 20]).is_ok());
    }
}

//! The host's end of a connection.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::sockopt::{set_socket_linger, set_tcp_nodelay, socket_error};
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};

use super::Budget;
use super::kept::{Kept, Looked};
use crate::port::{GuestPort, Reading, Shape};
use crate::wire::Headers;

/// Discarded at once; nothing is copied there.
const DISCARD_BYTES: usize = 64 << 10;
/// While the guest has not acknowledged all, what it has is discarded in parts of this size.
const DONE_LIMIT_BYTES: u32 = 32 << 10;
/// When it has, only a little that came in few pieces stays. More would hold much of the queue's room, because a piece
/// goes as a whole, and a peer that has no room to send would never wake us.
const LITTLE_BYTES: u32 = 2 << 10;
const LITTLE_PARTS: u32 = 8;

/// Where data stays that a peer sent until the guest has acknowledged it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keeping {
    /// In the kernel's queue, which is looked at from an offset (`SO_PEEK_OFF`; Linux, for IPv4 since 6.9). Where the
    /// kernel cannot do that, it is [`Here`](Self::Here).
    #[default]
    Kernel,
    /// Here, in a buffer of each connection.
    Here,
}

/// Where received data is looked at.
#[derive(Debug)]
enum Source {
    Kernel {
        /// Where the kernel's next look begins.
        offset_bytes: u32,
        /// At the start of the queue: acknowledged, not discarded yet.
        done_bytes: u32,
        done_parts: u32,
        /// Nothing that was looked at stood in front of it when it began.
        is_whole: bool,
        /// The last look saw all that there was.
        was_all: bool,
    },
    Here(Kept),
}

/// A connected, or connecting, stream socket that is never waited for.
#[derive(Debug)]
pub struct StreamSocket {
    fd: OwnedFd,
    source: Source,
}

impl StreamSocket {
    /// Takes a socket that does not block. What it receives is looked at from its start on.
    ///
    /// # Errors
    /// The host's: it is no TCP socket.
    pub fn new(fd: OwnedFd, keeping: Keeping) -> io::Result<Self> {
        set_tcp_nodelay(&fd, true)?;
        let source = match keeping {
            Keeping::Kernel if peek::set_offset(fd.as_fd(), 0).is_ok() => {
                Source::Kernel { offset_bytes: 0, done_bytes: 0, done_parts: 0, is_whole: true, was_all: true }
            }
            _ => Source::Here(Kept::default()),
        };
        Ok(Self { fd, source })
    }

    /// Takes a socket, of TCP or a Unix one, before whose data `first` is to come.
    ///
    /// # Errors
    /// The host's.
    pub fn beginning_with(fd: OwnedFd, first: Vec<u8>) -> io::Result<Self> {
        match set_tcp_nodelay(&fd, true) {
            // A Unix socket delays nothing.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOPROTOOPT) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Self { fd, source: Source::Here(Kept::beginning_with(first)) })
    }

    /// The socket.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Sends what it takes of `bytes`.
    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(send(&self.fd, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?)
    }

    /// Looks at most at `limit` bytes, `offset_bytes` behind the first byte that is not [done](Self::done), for
    /// frames of this shape.
    ///
    /// # Errors
    /// The socket's.
    pub fn look(
        &mut self,
        offset_bytes: u32,
        (shape, limit): (Shape, usize),
        port: &mut dyn GuestPort,
        budget: &mut Budget,
    ) -> io::Result<Looked> {
        match &mut self.source {
            Source::Kernel { offset_bytes: current, done_bytes, was_all, .. } => {
                let wanted = done_bytes.saturating_add(offset_bytes);
                if *current != wanted {
                    peek::set_offset(self.fd.as_fd(), wanted)?;
                    *current = wanted;
                }
                match port.receive(shape, limit, self.fd.as_fd(), Reading::Peek) {
                    Ok(0) => Ok(Looked::End),
                    Ok(len_bytes) => {
                        *current = wanted.saturating_add(u32::try_from(len_bytes).unwrap_or(u32::MAX));
                        *was_all = len_bytes < limit;
                        Ok(Looked::Data { len_bytes, is_all: *was_all })
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Looked::Nothing),
                    Err(error) => Err(error),
                }
            }
            Source::Here(kept) => kept.look(offset_bytes, limit, self.fd.as_fd(), budget),
        }
    }

    /// Sends the guest what [`look`](Self::look) found last. False if there was no room.
    pub fn send_looked(&mut self, headers: Headers, port: &mut dyn GuestPort) -> bool {
        match &self.source {
            Source::Kernel { .. } => {
                port.send_received(headers);
                true
            }
            Source::Here(kept) => port.send(headers, kept.looked()),
        }
    }

    /// The guest has the first `len_bytes` that were looked at.
    ///
    /// # Errors
    /// The socket's.
    pub fn done(&mut self, len_bytes: u32, budget: &mut Budget) -> io::Result<()> {
        match &mut self.source {
            Source::Kernel { offset_bytes, done_bytes, done_parts, is_whole, .. } => {
                *done_bytes = done_bytes.saturating_add(len_bytes);
                *done_parts += 1;
                let is_little = *is_whole && *done_bytes <= LITTLE_BYTES && *done_parts <= LITTLE_PARTS;
                let is_on_its_way = *offset_bytes > *done_bytes && *done_bytes < DONE_LIMIT_BYTES;
                if is_little || is_on_its_way { Ok(()) } else { self.discard() }
            }
            Source::Here(kept) => {
                kept.done(len_bytes, budget);
                Ok(())
            }
        }
    }

    /// Throws away what is done with. The next look begins at the same byte as before. A socket that is closed with
    /// something in its queue would be reset.
    ///
    /// # Errors
    /// The socket's.
    pub fn discard(&mut self) -> io::Result<()> {
        let Source::Kernel { offset_bytes, done_bytes, done_parts, is_whole, was_all } = &mut self.source else {
            return Ok(());
        };
        let mut nothing = [const { MaybeUninit::<u8>::uninit() }; DISCARD_BYTES];
        while *done_bytes > 0 {
            let most = usize::try_from(*done_bytes).unwrap_or(DISCARD_BYTES).min(DISCARD_BYTES);
            let part = nothing.get_mut(..most).unwrap_or_default();
            let (_, len) = recv(&self.fd, part, RecvFlags::TRUNC | RecvFlags::DONTWAIT)?;
            let len = u32::try_from(len).unwrap_or(u32::MAX).min(*done_bytes);
            if len == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            *done_bytes -= len;
            *offset_bytes = offset_bytes.saturating_sub(len);
        }
        // The rest of a large buffer, however little, keeps all of it, and the peer's window closed.
        (*done_parts, *is_whole) = (0, *offset_bytes == 0 && *was_all);
        Ok(())
    }

    /// Gives back what is held of the budget, when the connection is gone.
    pub fn release(&mut self, budget: &mut Budget) {
        if let Source::Here(kept) = &mut self.source {
            kept.release(budget);
        }
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

#[cfg(target_os = "linux")]
mod peek {
    use std::io;
    use std::os::fd::{AsRawFd, BorrowedFd};

    /// The next look begins `offset_bytes` behind the first byte in the queue; each look moves it on, each read back.
    #[expect(unsafe_code, reason = "no crate knows SO_PEEK_OFF")]
    pub(super) fn set_offset(fd: BorrowedFd<'_>, offset_bytes: u32) -> io::Result<()> {
        let offset = libc::c_int::try_from(offset_bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
        let len = libc::socklen_t::try_from(size_of_val(&offset)).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: the option's value is an int that lives until the call returns, and `len` is its size.
        let result = unsafe {
            libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEEK_OFF, (&raw const offset).cast(), len)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

#[cfg(not(target_os = "linux"))]
mod peek {
    use std::io;
    use std::os::fd::BorrowedFd;

    pub(super) fn set_offset(_: BorrowedFd<'_>, _: u32) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::memory::MemoryPort;

    #[test]
    fn what_the_guest_has_does_not_stay_in_the_way_of_what_comes() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut peer = listener.accept().unwrap().0;
        let mut socket = StreamSocket::new(ours.into(), Keeping::Kernel).unwrap();
        let (mut port, mut budget) = (MemoryPort::new(64), Budget::new(0));
        let shape = Shape { header_bytes: 54, segment_bytes: usize::MAX };
        let mut look_at = |socket: &mut StreamSocket, count: usize| {
            let mut looked = 0;
            while looked < count {
                let offset = u32::try_from(looked).unwrap();
                match socket.look(offset, (shape, count - looked), &mut port, &mut Budget::new(0)).unwrap() {
                    Looked::Data { len_bytes, .. } => looked += len_bytes,
                    _ => std::thread::yield_now(),
                }
            }
        };
        let queued = |socket: &StreamSocket| rustix::io::ioctl_fionread(socket.fd()).unwrap();
        for _ in 0..3 {
            peer.write_all(&[1; 60_000]).unwrap();
            look_at(&mut socket, 60_000);
            for part in [100, 30_000, 1_900, 25_000, 2_000, 1_000] {
                socket.done(part, &mut budget).unwrap();
            }
            assert_eq!(queued(&socket), 0, "nothing is on its way any more");
        }
        for _ in 0..100 {
            peer.write_all(&[1; 300]).unwrap();
            look_at(&mut socket, 300);
            socket.done(300, &mut budget).unwrap();
            assert!(queued(&socket) <= u64::from(LITTLE_BYTES));
        }
    }
}

//! The guest's side, as connections see it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;

use super::packet::Header;

/// The data of a packet of the guest's, still in its memory.
pub trait Payload {
    /// Its length.
    fn len_bytes(&self) -> usize;

    /// Sends it to a socket, which is not waited for; gives how many bytes were taken.
    ///
    /// # Errors
    /// The socket's.
    fn send_to(&self, socket: BorrowedFd<'_>) -> io::Result<usize>;

    /// Copies what is behind its first `skip` bytes.
    fn copy_to(&self, skip: usize, to: &mut VecDeque<u8>);
}

/// What was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// How much; 0 is the end.
    pub bytes: usize,
    /// There was room for more.
    pub is_short: bool,
}

/// The guest's buffers for packets.
pub trait Inbox {
    /// Data that the next packet can carry at most; `None` while the guest has no buffer.
    fn room(&mut self) -> Option<usize>;

    /// Gives the guest a packet with data that it has [`room`](Self::room) for.
    fn send(&mut self, header: &Header, data: &[u8]);

    /// Receives at most `limit` bytes from a stream socket, which is not waited for, and gives the guest as many packets as
    /// they need. All have this header, each with its own length. With nothing received there is no packet.
    ///
    /// # Errors
    /// The socket's.
    fn receive(&mut self, socket: BorrowedFd<'_>, limit: usize, header: &Header) -> io::Result<Received>;
}

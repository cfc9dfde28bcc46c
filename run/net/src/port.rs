//! The seam between the stack and whatever a guest is attached by: a virtqueue, a socket of another VMM, or memory.

use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;

use crate::wire::Headers;

/// A frame that came from the guest.
pub trait GuestFrame {
    /// Its first bytes, copied: all of it, or at least [`HEADERS_LIMIT_BYTES`](crate::wire::HEADERS_LIMIT_BYTES).
    fn head(&self) -> &[u8];

    /// Its length.
    fn len_bytes(&self) -> usize;

    /// Sends the bytes of `range` to a socket, which is not waited for; says how many it took.
    fn send_to(&self, range: Range<usize>, socket: BorrowedFd<'_>) -> io::Result<usize>;

    /// Appends the bytes of `range`. They may be others than those that [`send_to`](Self::send_to) sent: the guest can
    /// write there at any time.
    fn copy_to(&self, range: Range<usize>, to: &mut Vec<u8>);
}

/// What the guest's side of a port does by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Abilities {
    /// It takes frames whose checksum is not complete.
    pub checksum: bool,
    /// It takes TCP segments that are longer than its link allows.
    pub segmentation: bool,
}

/// How data is read from a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// It goes away.
    Take,
    /// It stays, and the next look begins behind it (`SO_PEEK_OFF`).
    Peek,
}

/// The way to the guest. Nothing here waits.
pub trait GuestPort {
    /// What the guest does by itself.
    fn abilities(&self) -> Abilities;

    /// How many bytes of payload the next frame can hold behind headers of `header_bytes`. 0: no frame can be sent now.
    fn room(&mut self, header_bytes: usize) -> usize;

    /// Sends a frame. False if there was no room: then it is lost.
    fn send(&mut self, headers: Headers, payload: &[u8]) -> bool;

    /// Reads at most `limit` bytes of a socket straight into the next frame, behind `header_bytes`. The frame goes with
    /// [`send_received`](Self::send_received), or is forgotten by the next call.
    ///
    /// # Errors
    /// The socket's; [`io::ErrorKind::WouldBlock`] also when there is no room.
    fn receive(
        &mut self,
        header_bytes: usize,
        limit: usize,
        socket: BorrowedFd<'_>,
        reading: Reading,
    ) -> io::Result<usize>;

    /// Sends the frame that was read last, with these headers in front.
    fn send_received(&mut self, headers: Headers);
}

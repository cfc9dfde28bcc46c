//! The seam between the stack and whatever a guest is attached by: a virtqueue, a socket of another VMM, or memory.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::net::{RecvAncillaryBuffer, RecvFlags, SendFlags, recvmsg, send};

use crate::wire::{Headers, Offload, SegmentKind};

/// Where whole frames go.
#[derive(Debug, Clone, Copy)]
pub enum Outlet<'a> {
    /// A socket. Nobody's end of it ends this program.
    Socket(BorrowedFd<'a>),
    /// A network device of the host's, which does not block.
    Device(BorrowedFd<'a>),
}

impl Outlet<'_> {
    /// Gives it `bytes`; says how many it took.
    ///
    /// # Errors
    /// The host's.
    pub fn send(self, bytes: &[u8]) -> io::Result<usize> {
        Ok(match self {
            Self::Socket(socket) => send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?,
            Self::Device(device) => rustix::io::write(device, bytes)?,
        })
    }
}

impl AsFd for Outlet<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Socket(fd) | Self::Device(fd) => *fd,
        }
    }
}

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

    /// What the guest left to be done about it.
    fn offload(&self) -> Offload {
        Offload::default()
    }

    /// Sends all of it behind `prefix`, in one piece unless `to` is a stream; says how many bytes it took.
    ///
    /// # Errors
    /// The host's; [`io::ErrorKind::WouldBlock`] if there is no room.
    fn send_whole(&self, prefix: &[u8], to: Outlet<'_>) -> io::Result<usize> {
        let mut bytes = Vec::with_capacity(prefix.len() + self.len_bytes());
        bytes.extend_from_slice(prefix);
        self.copy_to(0..self.len_bytes(), &mut bytes);
        to.send(&bytes)
    }
}

/// What the guest's side of a port does by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Abilities {
    /// It takes frames whose checksum is not complete.
    pub checksum: bool,
    /// It takes TCP segments that are longer than its link allows.
    pub segmentation: bool,
    /// It takes several UDP datagrams of one length in one frame.
    pub datagrams: bool,
}

impl Abilities {
    /// All of them.
    pub const ALL: Self = Self { checksum: true, segmentation: true, datagrams: true };

    /// Whether a frame may come of which so much is left to be done.
    pub fn cover(&self, offload: &Offload) -> bool {
        let covers_segments = match offload.segments.map(|segments| segments.kind) {
            None => true,
            Some(SegmentKind::TcpV4 | SegmentKind::TcpV6) => self.segmentation,
            Some(SegmentKind::Udp) => self.datagrams,
        };
        covers_segments && (self.checksum || offload.checksum_start == 0)
    }
}

/// How data is read from a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// It goes away.
    Take,
    /// It stays, and the next look begins behind it (`SO_PEEK_OFF`).
    Peek,
}

impl Reading {
    /// Reads at most `room` bytes of a socket into `to`, which then has them alone: for ports whose frames go through
    /// memory.
    ///
    /// # Errors
    /// The socket's; [`io::ErrorKind::WouldBlock`] also when there is no room.
    pub fn into_memory(self, room: usize, socket: BorrowedFd<'_>, to: &mut Vec<u8>) -> io::Result<usize> {
        if room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let flags = match self {
            Self::Take => RecvFlags::DONTWAIT,
            Self::Peek => RecvFlags::DONTWAIT | RecvFlags::PEEK,
        };
        to.resize(room, 0);
        let mut ancillary = RecvAncillaryBuffer::new(&mut []);
        let read = recvmsg(socket, &mut [io::IoSliceMut::new(to)], &mut ancillary, flags);
        let count = read.as_ref().map_or(0, |read| read.bytes);
        to.truncate(count);
        read?;
        Ok(count)
    }
}

/// What frames are like that are read from a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Length of the headers of each.
    pub header_bytes: usize,
    /// Payload of each but the last, at least 1, for a guest that takes no longer segments.
    pub segment_bytes: usize,
}

/// The way to the guest. Nothing here waits.
pub trait GuestPort {
    /// What the guest does by itself.
    fn abilities(&self) -> Abilities;

    /// How many bytes of payload the next frame can hold behind headers of `header_bytes`. 0: no frame can be sent now.
    fn room(&mut self, header_bytes: usize) -> usize;

    /// How many bytes of payload one look at a socket can bring now. 0: no frame can be sent.
    fn reach(&mut self, shape: Shape) -> usize {
        let room = self.room(shape.header_bytes);
        if self.abilities().segmentation { room } else { room.min(shape.segment_bytes) }
    }

    /// Sends a frame. False if there was no room: then it is lost.
    fn send(&mut self, headers: Headers, payload: &[u8]) -> bool;

    /// Reads at most `limit` bytes of a socket, and not more than it [reaches](Self::reach), straight into the next frame
    /// or frames. They go with [`send_received`](Self::send_received), or are forgotten by the next call.
    ///
    /// # Errors
    /// The socket's; [`io::ErrorKind::WouldBlock`] also when there is no room.
    fn receive(&mut self, shape: Shape, limit: usize, socket: BorrowedFd<'_>, reading: Reading) -> io::Result<usize>;

    /// Sends what was read last, with these headers in front. If it is longer than a segment may be, they say so.
    fn send_received(&mut self, headers: Headers);

    /// Sends a frame that was made elsewhere. What the guest does not do by itself is done before. False if there was no
    /// room for all of it, or if it is not what `offload` says: then it is lost.
    fn send_frame(&mut self, frame: &[u8], offload: &Offload) -> bool {
        if self.abilities().cover(offload) {
            let (headers, rest) = Headers::of_frame(frame, offload);
            return self.send(headers, rest);
        }
        let mut is_sent = true;
        let finished = offload.finish(frame, |frame| {
            let (headers, rest) = Headers::of_frame(frame, &Offload::default());
            is_sent &= self.send(headers, rest);
        });
        finished.is_ok() && is_sent
    }
}

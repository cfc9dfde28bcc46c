//! A port over a Unix stream socket: each frame behind its length, four bytes, the highest first. QEMU's `-netdev stream`,
//! passt, gvproxy and socket_vmnet speak so.

use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{RecvAncillaryBuffer, RecvFlags, SendFlags, recv, recvmsg, send};

use crate::port::{Abilities, GuestFrame, GuestPort, Reading};
use crate::wire::{HEADERS_LIMIT_BYTES, Headers, Malformed, Offload, VIRTIO_HEADER_BYTES};

/// The length in front of each frame.
pub const LENGTH_BYTES: usize = 4;
/// Longest frame: a segment of 64 KiB with its headers.
const FRAME_LIMIT_BYTES: usize = 65_536 + HEADERS_LIMIT_BYTES;
/// What may wait for the other side before no frame is made any more.
const WAITING_LIMIT_BYTES: usize = 512 << 10;
/// Read at once.
const READ_BYTES: usize = 256 << 10;

/// The frame in front of which virtio's header stands, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Ethernet frames with complete checksums.
    Plain,
    /// In front of each the twelve bytes of virtio-net (Virtual I/O Device 1.2, section 5.1.6), which tell of checksums and
    /// segments.
    Virtio,
}

impl Framing {
    /// Takes apart what came as one: the frame, and what is not done about it.
    ///
    /// # Errors
    /// The header in front of it cannot be one.
    pub fn split(self, whole: &[u8]) -> Result<(&[u8], Offload), Malformed> {
        let Self::Virtio = self else { return Ok((whole, Offload::default())) };
        let (header, frame) = whole.split_first_chunk().ok_or(Malformed::Short)?;
        Ok((frame, Offload::read(header, frame.len())?))
    }

    fn header_bytes(self) -> usize {
        match self {
            Self::Plain => 0,
            Self::Virtio => VIRTIO_HEADER_BYTES,
        }
    }
}

/// What came and is not looked at yet.
#[derive(Debug)]
pub struct Incoming {
    buffer: Vec<u8>,
    read: Range<usize>,
    framing: Framing,
}

/// One frame of [`Incoming`].
struct StreamFrame<'a> {
    bytes: &'a [u8],
    offload: Offload,
}

impl GuestFrame for StreamFrame<'_> {
    fn head(&self) -> &[u8] {
        self.bytes.get(..HEADERS_LIMIT_BYTES).unwrap_or(self.bytes)
    }

    fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    fn send_to(&self, range: Range<usize>, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let bytes = self.bytes.get(range).unwrap_or_default();
        Ok(send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
    }

    fn copy_to(&self, range: Range<usize>, to: &mut Vec<u8>) {
        to.extend_from_slice(self.bytes.get(range).unwrap_or_default());
    }

    fn offload(&self) -> Offload {
        self.offload
    }
}

impl Incoming {
    /// Nothing came yet.
    pub fn new(framing: Framing) -> Self {
        Self { buffer: vec![0; READ_BYTES + FRAME_LIMIT_BYTES], read: 0..0, framing }
    }

    /// Reads what there is. False at the end.
    ///
    /// # Errors
    /// The socket's; [`io::ErrorKind::WouldBlock`] if nothing came.
    pub fn fill(&mut self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        self.buffer.copy_within(self.read.clone(), 0);
        self.read = 0..self.read.len();
        let room = self.buffer.get_mut(self.read.end..).unwrap_or_default();
        let (len, _) = recv(socket, room, RecvFlags::DONTWAIT)?;
        self.read.end += len;
        Ok(len > 0)
    }

    /// Gives each whole frame to `take`.
    ///
    /// # Errors
    /// What comes is no frame, so nothing behind it can be either.
    pub fn frames(&mut self, mut take: impl FnMut(&dyn GuestFrame)) -> io::Result<()> {
        while let Some(whole) = self.first()? {
            // A header that cannot be makes its frame none.
            if let Ok((bytes, offload)) = self.framing.split(whole) {
                take(&StreamFrame { bytes, offload });
            }
            self.skip();
        }
        Ok(())
    }

    /// The first frame that came, behind its virtio header if it has one. It stays the first until it is skipped.
    ///
    /// # Errors
    /// What comes is no frame, so nothing behind it can be either.
    pub fn first(&self) -> io::Result<Option<&[u8]>> {
        let rest = self.buffer.get(self.read.clone()).unwrap_or_default();
        let Some((length, rest)) = rest.split_first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let len = u32::from_be_bytes(*length) as usize;
        if len > FRAME_LIMIT_BYTES || len < self.framing.header_bytes() {
            let text = format!("a frame of {len} bytes: the other side speaks something else");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(rest.get(..len))
    }

    /// Forgets the first frame, if it is whole.
    pub fn skip(&mut self) {
        if let Ok(Some(frame)) = self.first() {
            self.read.start += LENGTH_BYTES + frame.len();
        }
    }
}

/// Frames for the other side.
#[derive(Debug)]
pub struct StreamPort {
    socket: OwnedFd,
    framing: Framing,
    waiting: Vec<u8>,
    /// How much of it the socket has taken.
    sent: usize,
    /// How much of the payload of the next frame was read into the end of `waiting`.
    received: Option<(usize, usize)>,
}

impl StreamPort {
    /// The port at the other side of `socket`, which does not block.
    pub fn new(socket: OwnedFd, framing: Framing) -> Self {
        Self { socket, framing, waiting: Vec::new(), sent: 0, received: None }
    }

    /// The socket.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether something waits for the socket.
    pub fn is_waiting(&self) -> bool {
        self.sent < self.waiting.len()
    }

    /// Gives the socket what it takes.
    ///
    /// # Errors
    /// The other side is gone.
    pub fn flush(&mut self) -> io::Result<()> {
        while let Some(rest) = self.waiting.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match send(&self.socket, rest, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(len) => self.sent += len,
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.waiting.clear();
        self.sent = 0;
        Ok(())
    }

    /// A frame that was read and never sent is none.
    fn forget_received(&mut self) {
        if let Some((frame, _)) = self.received.take() {
            self.waiting.truncate(frame);
        }
    }

    fn prefix(&self, headers: &Headers, payload_bytes: usize) -> ([u8; LENGTH_BYTES + VIRTIO_HEADER_BYTES], usize) {
        let mut prefix = [0; LENGTH_BYTES + VIRTIO_HEADER_BYTES];
        let skipped = self.framing.header_bytes();
        let len = skipped + headers.bytes().len() + payload_bytes;
        prefix[..LENGTH_BYTES].copy_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
        if self.framing == Framing::Virtio {
            prefix[LENGTH_BYTES..].copy_from_slice(&headers.offload().bytes(1));
        }
        (prefix, LENGTH_BYTES + skipped)
    }
}

impl GuestPort for StreamPort {
    fn abilities(&self) -> Abilities {
        let is_virtio = self.framing == Framing::Virtio;
        Abilities { checksum: is_virtio, segmentation: is_virtio }
    }

    fn room(&mut self, header_bytes: usize) -> usize {
        let waits = self.waiting.len() - self.sent;
        if waits >= WAITING_LIMIT_BYTES { 0 } else { FRAME_LIMIT_BYTES - HEADERS_LIMIT_BYTES - header_bytes }
    }

    fn send(&mut self, mut headers: Headers, payload: &[u8]) -> bool {
        self.forget_received();
        if self.room(headers.bytes().len()) < payload.len() {
            return false;
        }
        if self.framing == Framing::Plain {
            headers.complete_checksum(payload);
        }
        let (prefix, prefix_len) = self.prefix(&headers, payload.len());
        self.waiting.extend_from_slice(prefix.get(..prefix_len).unwrap_or_default());
        self.waiting.extend_from_slice(headers.bytes());
        self.waiting.extend_from_slice(payload);
        true
    }

    fn receive(
        &mut self,
        header_bytes: usize,
        limit: usize,
        socket: BorrowedFd<'_>,
        reading: Reading,
    ) -> io::Result<usize> {
        let flags = match reading {
            Reading::Take => RecvFlags::DONTWAIT,
            Reading::Peek => RecvFlags::DONTWAIT | RecvFlags::PEEK,
        };
        self.forget_received();
        let frame = self.waiting.len();
        let start = frame + LENGTH_BYTES + self.framing.header_bytes() + header_bytes;
        self.waiting.resize(start + limit, 0);
        let room = self.waiting.get_mut(start..).unwrap_or_default();
        let mut ancillary = RecvAncillaryBuffer::new(&mut []);
        let read = recvmsg(socket, &mut [IoSliceMut::new(room)], &mut ancillary, flags);
        match read {
            Ok(read) if read.bytes > 0 => {
                self.received = Some((frame, read.bytes));
                // Cut to its length when it is sent; cut off if it is not.
                self.waiting.truncate(start + read.bytes);
                Ok(read.bytes)
            }
            other => {
                self.waiting.truncate(frame);
                Ok(other?.bytes)
            }
        }
    }

    fn send_received(&mut self, mut headers: Headers) {
        let Some((frame, payload_bytes)) = self.received.take() else { return };
        let payload = self.waiting.len() - payload_bytes;
        if self.framing == Framing::Plain {
            headers.complete_checksum(self.waiting.get(payload..).unwrap_or_default());
        }
        let (prefix, prefix_len) = self.prefix(&headers, payload_bytes);
        let place = self.waiting.get_mut(frame..payload).unwrap_or_default();
        if let Some((first, second)) = place.split_at_mut_checked(prefix_len)
            && second.len() == headers.bytes().len()
        {
            first.copy_from_slice(prefix.get(..prefix_len).unwrap_or_default());
            second.copy_from_slice(headers.bytes());
        }
    }
}

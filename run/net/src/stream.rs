//! A port over a Unix stream socket: each frame behind its length, four bytes, the highest first. QEMU's `-netdev stream`,
//! passt, gvproxy and socket_vmnet speak so.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, send, sendmsg};

use crate::port::{Abilities, GuestFrame, GuestPort, Reading};
use crate::wire::{HEADERS_LIMIT_BYTES, Headers, Malformed, Offload, VIRTIO_HEADER_BYTES};

/// The length in front of each frame.
pub const LENGTH_BYTES: usize = 4;
/// Longest frame: a segment of 64 KiB with its headers.
const FRAME_LIMIT_BYTES: usize = 65_536 + HEADERS_LIMIT_BYTES;
/// What may wait for the other side before no frame is made any more. A processor's cache should hold it.
const WAITING_BYTES: usize = 256 << 10;
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

/// Frames for the other side: a ring in which no frame is cut in two.
#[derive(Debug)]
pub struct StreamPort {
    socket: OwnedFd,
    framing: Framing,
    ring: Vec<u8>,
    /// Where what the socket takes next begins.
    head: usize,
    /// Where the next frame begins.
    tail: usize,
    /// Where the frames end that come before the one at the ring's start.
    turn: Option<usize>,
    /// How much payload was read into the next frame, and how long its headers are.
    received: Option<(usize, usize)>,
}

impl StreamPort {
    /// The port at the other side of `socket`, which does not block.
    pub fn new(socket: OwnedFd, framing: Framing) -> Self {
        let ring = vec![0; WAITING_BYTES + FRAME_LIMIT_BYTES];
        Self { socket, framing, ring, head: 0, tail: 0, turn: None, received: None }
    }

    /// The socket.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether something waits for the socket.
    pub fn is_waiting(&self) -> bool {
        self.head != self.tail || self.turn.is_some()
    }

    /// Gives the socket what it takes.
    ///
    /// # Errors
    /// The other side is gone.
    pub fn flush(&mut self) -> io::Result<()> {
        while self.is_waiting() {
            let (first, second) = match self.turn {
                Some(turn) => (self.head..turn, 0..self.tail),
                None => (self.head..self.tail, 0..0),
            };
            let parts = [first, second].map(|part| IoSlice::new(self.ring.get(part).unwrap_or_default()));
            let mut none = SendAncillaryBuffer::default();
            match sendmsg(&self.socket, &parts, &mut none, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(len) => self.taken(len),
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn taken(&mut self, len: usize) {
        self.head += len;
        if let Some(turn) = self.turn
            && self.head >= turn
        {
            (self.head, self.turn) = (self.head - turn, None);
        }
        if !self.is_waiting() {
            (self.head, self.tail) = (0, 0);
        }
    }

    /// Whether a frame of `len` bytes fits at `tail`, which is moved to the ring's start if it fits there.
    fn fits(&mut self, len: usize) -> bool {
        if self.turn.is_some() {
            // One byte stays free: else a full ring would look like an empty one.
            return self.head - self.tail > len;
        }
        if self.tail + len <= self.ring.len() {
            return true;
        }
        let is_free = self.head > len;
        if is_free {
            (self.turn, self.tail) = (Some(self.tail), 0);
        }
        is_free
    }

    fn front_bytes(&self) -> usize {
        LENGTH_BYTES + self.framing.header_bytes()
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

    /// Writes the headers at `tail`, in front of a payload that is there already.
    fn push(&mut self, mut headers: Headers, payload_bytes: usize) {
        let payload = self.tail + self.front_bytes() + headers.bytes().len();
        if self.framing == Framing::Plain {
            headers.complete_checksum(self.ring.get(payload..payload + payload_bytes).unwrap_or_default());
        }
        let (prefix, prefix_len) = self.prefix(&headers, payload_bytes);
        let place = self.ring.get_mut(self.tail..payload).unwrap_or_default();
        if let Some((first, second)) = place.split_at_mut_checked(prefix_len)
            && second.len() == headers.bytes().len()
        {
            first.copy_from_slice(prefix.get(..prefix_len).unwrap_or_default());
            second.copy_from_slice(headers.bytes());
            self.tail = payload + payload_bytes;
        }
    }
}

impl GuestPort for StreamPort {
    fn abilities(&self) -> Abilities {
        let is_virtio = self.framing == Framing::Virtio;
        // Kernels before Linux 6.2 take no long datagrams: who is behind the stream may have one.
        Abilities { checksum: is_virtio, segmentation: is_virtio, datagrams: false }
    }

    fn room(&mut self, header_bytes: usize) -> usize {
        self.received = None;
        if self.fits(FRAME_LIMIT_BYTES) { FRAME_LIMIT_BYTES - HEADERS_LIMIT_BYTES - header_bytes } else { 0 }
    }

    fn send(&mut self, headers: Headers, payload: &[u8]) -> bool {
        self.received = None;
        let front = self.front_bytes() + headers.bytes().len();
        if !self.fits(front + payload.len()) {
            return false;
        }
        let start = self.tail + front;
        if let Some(place) = self.ring.get_mut(start..start + payload.len()) {
            place.copy_from_slice(payload);
        }
        self.push(headers, payload.len());
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
        let limit = limit.min(self.room(header_bytes));
        if limit == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let start = self.tail + self.front_bytes() + header_bytes;
        let place = self.ring.get_mut(start..start + limit).unwrap_or_default();
        let (count, _) = recv(socket, place, flags)?;
        self.received = Some((count, header_bytes)).filter(|_| count > 0);
        Ok(count)
    }

    fn send_received(&mut self, headers: Headers) {
        if let Some((payload_bytes, header_bytes)) = self.received.take()
            && header_bytes == headers.bytes().len()
        {
            self.push(headers, payload_bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// Frames of every size through a socket that takes little: none is lost, cut or doubled, and the ring stays as it is.
    #[test]
    fn frames_come_out_as_they_went_in_however_slow_the_other_side_is() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let mut port = StreamPort::new(ours.into(), Framing::Plain);
        let ring_bytes = port.ring.len();
        let (mut sent, mut came, mut refused) = (Vec::new(), Vec::new(), 0);
        let mut buffer = vec![0; 20_000];
        for number in 0..4_000_usize {
            let payload = vec![u8::try_from(number % 251).unwrap(); number * 7919 % 65_000];
            let head = [u8::try_from(number % 13).unwrap(); 20];
            if port.send(Headers::whole(&head), &payload) {
                sent.extend(u32::try_from(20 + payload.len()).unwrap().to_be_bytes());
                sent.extend(head);
                sent.extend(payload);
            } else {
                refused += 1;
            }
            port.flush().unwrap();
            if let Ok(count) = theirs.read(&mut buffer) {
                came.extend_from_slice(&buffer[..count]);
            }
        }
        while port.is_waiting() {
            port.flush().unwrap();
            while let Ok(count) = theirs.read(&mut buffer) {
                came.extend_from_slice(&buffer[..count]);
            }
        }
        assert!(refused > 100, "there was not always room");
        assert!(came == sent && port.ring.len() == ring_bytes);
    }
}

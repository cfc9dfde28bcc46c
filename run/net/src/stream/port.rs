//! The way to the other side.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendFlags, recvmsg, sendmsg};

use super::{FRAME_LIMIT_BYTES, Framing, LENGTH_BYTES};
use crate::port::{Abilities, GuestPort, Reading, Shape};
use crate::wire::{HEADERS_LIMIT_BYTES, Headers, VIRTIO_HEADER_BYTES};

/// What may wait for the other side before no frame is made any more. A processor's cache should hold it.
const WAITING_BYTES: usize = 256 << 10;
const RING_BYTES: usize = WAITING_BYTES + FRAME_LIMIT_BYTES;

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
    /// How much payload was read into the next frames, and what they are like.
    received: Option<(usize, Shape)>,
}

impl StreamPort {
    /// The port at the other side of `socket`, which does not block.
    pub fn new(socket: OwnedFd, framing: Framing) -> Self {
        Self { socket, framing, ring: Vec::new(), head: 0, tail: 0, turn: None, received: None }
    }

    /// The socket.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether something waits for the socket.
    pub fn is_waiting(&self) -> bool {
        self.head != self.tail || self.turn.is_some()
    }

    /// Whether there is memory that nothing needs now.
    pub fn is_idle(&self) -> bool {
        !self.is_waiting() && !self.ring.is_empty()
    }

    /// Gives back memory that nothing needs now.
    pub fn give_back(&mut self) {
        if self.is_idle() {
            (self.ring, self.received) = (Vec::new(), None);
        }
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
        if self.ring.is_empty() {
            self.ring = vec![0; RING_BYTES];
        }
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

    /// How long a frame of this shape is, with what stands in front of it.
    fn stride(&self, shape: Shape) -> usize {
        (self.front_bytes() + shape.header_bytes).saturating_add(shape.segment_bytes)
    }

    /// Writes the headers at `tail`, in front of a payload that is there already, in one frame or in several.
    fn push(&mut self, headers: &Headers, payload_bytes: usize) {
        if self.framing == Framing::Virtio {
            return self.push_one(headers, payload_bytes);
        }
        let mut pushed = 0;
        while let Ok((mut headers, count)) = headers.segment(pushed, payload_bytes) {
            let payload = self.tail + self.front_bytes() + headers.bytes().len();
            headers.complete_checksum(self.ring.get(payload..payload + count).unwrap_or_default());
            self.push_one(&headers, count);
            pushed += count;
            if pushed >= payload_bytes {
                return;
            }
        }
    }

    fn push_one(&mut self, headers: &Headers, payload_bytes: usize) {
        let payload = self.tail + self.front_bytes() + headers.bytes().len();
        let (prefix, prefix_len) = self.prefix(headers, payload_bytes);
        let place = self.ring.get_mut(self.tail..payload).unwrap_or_default();
        if let Some((first, second)) = place.split_at_mut_checked(prefix_len)
            && second.len() == headers.bytes().len()
        {
            first.copy_from_slice(prefix.get(..prefix_len).unwrap_or_default());
            second.copy_from_slice(headers.bytes());
            self.tail = payload + payload_bytes;
        }
    }

    /// Where in the ring `limit` bytes of payload go, in frames of this shape.
    fn places(&mut self, shape: Shape, limit: usize) -> Vec<IoSliceMut<'_>> {
        let (start, stride) = (self.front_bytes() + shape.header_bytes, self.stride(shape));
        let mut left = limit;
        let space = self.ring.get_mut(self.tail..).unwrap_or_default();
        let frames = space.chunks_mut(stride).map_while(|frame| {
            let count = left.min(shape.segment_bytes);
            left -= count;
            frame.get_mut(start..start + count).filter(|_| count > 0).map(IoSliceMut::new)
        });
        frames.collect()
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

    fn reach(&mut self, shape: Shape) -> usize {
        let room = self.room(shape.header_bytes);
        match self.framing {
            Framing::Virtio => room,
            // Several whole ones, or a part of one.
            Framing::Plain => {
                room.min(shape.segment_bytes.saturating_mul((FRAME_LIMIT_BYTES / self.stride(shape)).max(1)))
            }
        }
    }

    fn send(&mut self, headers: Headers, payload: &[u8]) -> bool {
        self.received = None;
        let header_bytes = headers.bytes().len();
        let segments = headers.offload().segments.filter(|_| self.framing == Framing::Plain);
        let segment_bytes = segments.map_or(payload.len(), |segments| segments.payload_bytes.into()).max(1);
        let shape = Shape { header_bytes, segment_bytes };
        let front_bytes = (self.front_bytes() + header_bytes) * payload.len().div_ceil(segment_bytes).max(1);
        if !self.fits(front_bytes + payload.len()) {
            return false;
        }
        let places = self.places(shape, payload.len());
        places
            .into_iter()
            .zip(payload.chunks(segment_bytes))
            .for_each(|(mut place, piece)| place.copy_from_slice(piece));
        self.push(&headers, payload.len());
        true
    }

    fn receive(&mut self, shape: Shape, limit: usize, socket: BorrowedFd<'_>, reading: Reading) -> io::Result<usize> {
        let flags = match reading {
            Reading::Take => RecvFlags::DONTWAIT,
            Reading::Peek => RecvFlags::DONTWAIT | RecvFlags::PEEK,
        };
        let limit = limit.min(self.reach(shape));
        if limit == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let shape = match self.framing {
            Framing::Virtio => Shape { segment_bytes: limit, ..shape },
            Framing::Plain => shape,
        };
        let mut none = RecvAncillaryBuffer::default();
        let count = recvmsg(socket, &mut self.places(shape, limit), &mut none, flags)?.bytes;
        self.received = Some((count, shape)).filter(|_| count > 0);
        Ok(count)
    }

    fn send_received(&mut self, headers: Headers) {
        if let Some((payload_bytes, shape)) = self.received.take()
            && shape.header_bytes == headers.bytes().len()
        {
            self.push(&headers, payload_bytes);
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
        assert!(came == sent && port.ring.len() == RING_BYTES);
    }
}

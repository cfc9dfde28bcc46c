//! What comes from the other side.

use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;

use rustix::net::{RecvFlags, recv};

use super::train::Train;
use super::{FRAME_LIMIT_BYTES, Framing, LENGTH_BYTES};
use crate::memory::MemoryFrame;
use crate::port::GuestFrame;

/// Read at once.
const READ_BYTES: usize = 256 << 10;
/// Who sent so much sends on.
const FLOWING_BYTES: usize = 64 << 10;

/// What came and is not looked at yet.
#[derive(Debug)]
pub struct Incoming {
    buffer: Vec<u8>,
    read: Range<usize>,
    is_flowing: bool,
    framing: Framing,
}

impl Incoming {
    /// Nothing came yet.
    pub fn new(framing: Framing) -> Self {
        Self { buffer: Vec::new(), read: 0..0, is_flowing: false, framing }
    }

    /// Whether so much came last that there may be more already.
    pub fn is_flowing(&self) -> bool {
        self.is_flowing
    }

    /// Whether there is memory that nothing needs now.
    pub fn is_idle(&self) -> bool {
        self.read.is_empty() && !self.buffer.is_empty()
    }

    /// Gives back memory that nothing needs now.
    pub fn give_back(&mut self) {
        if self.is_idle() {
            self.buffer = Vec::new();
        }
    }

    /// Reads what there is. False at the end.
    ///
    /// # Errors
    /// The socket's; [`io::ErrorKind::WouldBlock`] if nothing came.
    pub fn fill(&mut self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        if self.buffer.is_empty() {
            self.buffer = vec![0; READ_BYTES + FRAME_LIMIT_BYTES];
        }
        self.buffer.copy_within(self.read.clone(), 0);
        self.read = 0..self.read.len();
        let room = self.buffer.get_mut(self.read.end..).unwrap_or_default();
        self.is_flowing = false;
        let (len, _) = recv(socket, room, RecvFlags::DONTWAIT)?;
        self.is_flowing = len >= FLOWING_BYTES;
        self.read.end += len;
        Ok(len > 0)
    }

    /// Gives each whole frame to `take`; segments that follow each other as one, if whoever takes them `joins` such.
    ///
    /// # Errors
    /// What comes is no frame, so nothing behind it can be either.
    pub fn frames(&mut self, joins: bool, mut take: impl FnMut(&dyn GuestFrame)) -> io::Result<()> {
        let joins = joins && self.framing == Framing::Plain;
        while let Some(first) = self.first()? {
            let mut end = self.read.start + LENGTH_BYTES + first.len();
            let second = if joins { self.at(end)? } else { None };
            if let Some(second) = second
                && let Some(mut train) = Train::of(first, second)
            {
                end += LENGTH_BYTES + second.len();
                while let Some(next) = self.at(end)?
                    && train.add(next)
                {
                    end += LENGTH_BYTES + next.len();
                }
                if let Ok(frame) = train.frame() {
                    take(&frame);
                }
            } else if let Ok((bytes, offload)) = self.framing.split(first) {
                // A header that cannot be makes its frame none.
                take(&MemoryFrame { bytes, offload });
            }
            self.read.start = end;
        }
        Ok(())
    }

    /// The first frame that came, behind its virtio header if it has one. It stays the first until it is skipped.
    ///
    /// # Errors
    /// What comes is no frame, so nothing behind it can be either.
    pub fn first(&self) -> io::Result<Option<&[u8]>> {
        self.at(self.read.start)
    }

    fn at(&self, start: usize) -> io::Result<Option<&[u8]>> {
        let rest = self.buffer.get(start..self.read.end).unwrap_or_default();
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

//! Segments that came one behind the other, as one frame: what follows costs once, not for each.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::fd::BorrowedFd;

use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};

use crate::port::GuestFrame;
use crate::wire::{HEADERS_LIMIT_BYTES, Joined, Malformed, Offload};

/// Frames of one: at the usual size of segments they hold as much as a packet can.
const FRAMES_LIMIT: usize = 64;

/// Frames that can be taken as one.
#[derive(Debug)]
pub(super) struct Train<'a> {
    joined: Joined,
    frames: [&'a [u8]; FRAMES_LIMIT],
    count: usize,
}

impl<'a> Train<'a> {
    /// `first` and `second`, if they can be.
    pub(super) fn of(first: &'a [u8], second: &'a [u8]) -> Option<Self> {
        let mut joined = Joined::begin(first)?;
        let mut frames: [&[u8]; FRAMES_LIMIT] = [&[]; FRAMES_LIMIT];
        [frames[0], frames[1]] = [first, second];
        joined.add(second).then_some(Self { joined, frames, count: 2 })
    }

    /// Takes `next`, too; false if it is something else.
    pub(super) fn add(&mut self, next: &'a [u8]) -> bool {
        let Some(place) = self.frames.get_mut(self.count).filter(|_| self.joined.add(next)) else { return false };
        *place = next;
        self.count += 1;
        true
    }

    /// The frame that stands for them.
    ///
    /// # Errors
    /// None, of frames that were read before.
    pub(super) fn frame(self) -> Result<JoinedFrame<'a>, Malformed> {
        let (head, offload) = self.joined.head()?;
        let (header_bytes, len_bytes) = (self.joined.header_bytes(), self.joined.len_bytes());
        Ok(JoinedFrame { head, header_bytes, frames: self.frames, count: self.count, len_bytes, offload })
    }
}

/// A frame whose payload is in several places.
#[derive(Debug)]
pub(super) struct JoinedFrame<'a> {
    head: [u8; HEADERS_LIMIT_BYTES],
    header_bytes: usize,
    frames: [&'a [u8]; FRAMES_LIMIT],
    count: usize,
    len_bytes: usize,
    offload: Offload,
}

impl JoinedFrame<'_> {
    /// Where the bytes of `range` are.
    fn parts(&self, range: Range<usize>) -> impl Iterator<Item = &[u8]> {
        let headers = self.head.get(..self.header_bytes).unwrap_or_default();
        let payloads =
            self.frames.iter().take(self.count).map(|frame| frame.get(self.header_bytes..).unwrap_or_default());
        let mut end = 0;
        std::iter::once(headers).chain(payloads).filter_map(move |part| {
            let start = end;
            end += part.len();
            let (first, last) = (range.start.max(start), range.end.min(end));
            (first < last).then(|| part.get(first - start..last - start))?
        })
    }
}

impl GuestFrame for JoinedFrame<'_> {
    fn head(&self) -> &[u8] {
        &self.head
    }

    fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    fn send_to(&self, range: Range<usize>, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let (mut places, mut count) = ([IoSlice::new(&[]); FRAMES_LIMIT + 1], 0);
        for (place, part) in places.iter_mut().zip(self.parts(range)) {
            *place = IoSlice::new(part);
            count += 1;
        }
        let parts = places.get(..count).unwrap_or_default();
        let mut none = SendAncillaryBuffer::default();
        Ok(sendmsg(socket, parts, &mut none, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
    }

    fn copy_to(&self, range: Range<usize>, to: &mut Vec<u8>) {
        self.parts(range).for_each(|part| to.extend_from_slice(part));
    }

    fn offload(&self) -> Offload {
        self.offload
    }
}

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
    frames: Vec<&'a [u8]>,
}

impl<'a> Train<'a> {
    /// `first` and `second`, if they can be.
    pub(super) fn of(first: &'a [u8], second: &'a [u8]) -> Option<Self> {
        let mut joined = Joined::begin(first)?;
        joined.add(second).then(|| Self { joined, frames: vec![first, second] })
    }

    /// Takes `next`, too; false if it is something else.
    pub(super) fn add(&mut self, next: &'a [u8]) -> bool {
        let is_next = self.frames.len() < FRAMES_LIMIT && self.joined.add(next);
        if is_next {
            self.frames.push(next);
        }
        is_next
    }

    /// The frame that stands for them.
    ///
    /// # Errors
    /// None, of frames that were read before.
    pub(super) fn frame(self) -> Result<JoinedFrame<'a>, Malformed> {
        let (head, offload) = self.joined.head()?;
        let header_bytes = self.joined.header_bytes();
        let payloads = self.frames.iter().map(|frame| frame.get(header_bytes..).unwrap_or_default()).collect();
        Ok(JoinedFrame { head, header_bytes, payloads, len_bytes: self.joined.len_bytes(), offload })
    }
}

/// A frame whose payload is in several places.
#[derive(Debug)]
pub(super) struct JoinedFrame<'a> {
    head: [u8; HEADERS_LIMIT_BYTES],
    header_bytes: usize,
    payloads: Vec<&'a [u8]>,
    len_bytes: usize,
    offload: Offload,
}

impl JoinedFrame<'_> {
    /// Where the bytes of `range` are.
    fn parts(&self, range: Range<usize>) -> impl Iterator<Item = &[u8]> {
        let headers = self.head.get(..self.header_bytes).unwrap_or_default();
        let mut end = 0;
        std::iter::once(headers).chain(self.payloads.iter().copied()).filter_map(move |part| {
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
        let parts: Vec<IoSlice<'_>> = self.parts(range).map(IoSlice::new).collect();
        let mut none = SendAncillaryBuffer::default();
        Ok(sendmsg(socket, &parts, &mut none, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
    }

    fn copy_to(&self, range: Range<usize>, to: &mut Vec<u8>) {
        self.parts(range).for_each(|part| to.extend_from_slice(part));
    }

    fn offload(&self) -> Offload {
        self.offload
    }
}

//! A frame in a chain of the transmit queue.

use std::{io, ops::Range, os::fd::BorrowedFd};

use kiln_net::{
    port::{GuestFrame, Outlet},
    wire::{HEADERS_LIMIT_BYTES, Offload},
};

use super::spec::header;
use crate::mem::{
    GuestMemory,
    transfer::{self, Span, copy_from_guest, part, total_len},
};

/// A frame of the guest's. Its first bytes are copied, so that what was checked stays as it was.
pub(super) struct ChainFrame<'a> {
    memory: &'a GuestMemory,
    spans: &'a [Span],
    head: [u8; HEADERS_LIMIT_BYTES],
    head_bytes: usize,
    len_bytes: usize,
    offload: Offload,
}

impl<'a> ChainFrame<'a> {
    /// The frame in `spans`, behind its header. `None` if there is none, or its header says what it cannot be.
    pub(super) fn new(memory: &'a GuestMemory, spans: &'a [Span]) -> Option<Self> {
        let len_bytes = usize::try_from(total_len(spans)).ok()?.checked_sub(header::BYTES)?;
        let mut header = [0; header::BYTES];
        copy_from_guest(memory, spans, &mut header);
        let offload = Offload::read(&header, len_bytes).ok()?;
        let mut head = [0; HEADERS_LIMIT_BYTES];
        let start = part(spans, header::BYTES as u64, HEADERS_LIMIT_BYTES as u64);
        let head_bytes = copy_from_guest(memory, &start, &mut head);
        Some(Self { memory, spans, head, head_bytes, len_bytes, offload })
    }

    fn part(&self, range: &Range<usize>) -> Vec<Span> {
        part(self.spans, (header::BYTES + range.start) as u64, range.len() as u64)
    }
}

impl GuestFrame for ChainFrame<'_> {
    fn head(&self) -> &[u8] {
        self.head.get(..self.head_bytes).unwrap_or_default()
    }

    fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    fn send_to(&self, range: Range<usize>, socket: BorrowedFd<'_>) -> io::Result<usize> {
        transfer::send(socket, self.memory, &self.part(&range))
    }

    fn copy_to(&self, range: Range<usize>, to: &mut Vec<u8>) {
        let start = to.len();
        to.resize(start + range.len(), 0);
        let copied = copy_from_guest(self.memory, &self.part(&range), to.get_mut(start..).unwrap_or_default());
        to.truncate(start + copied);
    }

    fn offload(&self) -> Offload {
        self.offload
    }

    fn send_whole(&self, prefix: &[u8], to: Outlet<'_>) -> io::Result<usize> {
        transfer::send_behind(prefix, to, self.memory, &self.part(&(0..self.len_bytes)))
    }
}

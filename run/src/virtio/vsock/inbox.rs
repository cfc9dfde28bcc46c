//! The receive queue, as connections see it.

use std::{collections::VecDeque, io, os::fd::BorrowedFd, sync::Arc};

use crate::{
    mem::{
        GuestMemory,
        transfer::{self, Receiving, Span, copy_from_guest, copy_to_guest, part, total_len},
    },
    virtio::{Chain, Misuse, Ring, Signal, receive::ReceiveQueue},
    vsock::{
        Inbox, Payload, Received,
        packet::{HEADER_BYTES, Header},
    },
};

/// Most chains that are filled by one call: Linux gives buffers of 4 KiB each.
const CHAINS_AT_ONCE: usize = 32;

/// The receive queue.
pub(super) struct QueueInbox {
    queue: ReceiveQueue,
    /// Taken from the ring, not filled yet.
    ready: VecDeque<Chain>,
}

/// Bytes of data that a chain has room for.
fn room(chain: &Chain) -> usize {
    usize::try_from(total_len(chain.writable())).unwrap_or(usize::MAX).saturating_sub(HEADER_BYTES)
}

impl QueueInbox {
    pub(super) fn new(memory: GuestMemory, ring: Ring, signal: Arc<dyn Signal>) -> Self {
        Self { queue: ReceiveQueue::new(memory, ring, signal), ready: VecDeque::new() }
    }

    pub(super) fn ring(&self) -> &Ring {
        self.queue.ring()
    }

    /// Tells the driver what was pushed, if it wants to know.
    ///
    /// # Errors
    /// How the driver broke the rules since the last call.
    pub(super) fn finish(&mut self) -> Result<(), Misuse> {
        self.queue.finish().map(drop)
    }

    /// Takes chains from the ring until there is room for so much data, or there are no more.
    fn gather(&mut self, wanted_bytes: usize) {
        let mut gathered: usize = self.ready.iter().map(room).sum();
        while gathered < wanted_bytes
            && self.ready.len() < CHAINS_AT_ONCE
            && let Some(chain) = self.queue.take()
        {
            match room(&chain) {
                // No packet fits.
                0 => self.queue.give(chain, 0),
                bytes => {
                    gathered = gathered.saturating_add(bytes);
                    self.ready.push_back(chain);
                }
            }
        }
    }
}

impl Inbox for QueueInbox {
    fn room(&mut self) -> Option<usize> {
        self.gather(1);
        self.ready.front().map(room)
    }

    fn send(&mut self, header: &Header, data: &[u8]) {
        let Some(chain) = self.ready.pop_front() else { return };
        copy_to_guest(self.queue.memory(), chain.writable(), &[&header.bytes()[..], data].concat());
        self.queue.give(chain, (HEADER_BYTES + data.len()) as u64);
    }

    fn receive(&mut self, socket: BorrowedFd<'_>, limit: usize, header: &Header) -> io::Result<Received> {
        self.gather(limit);
        let mut spans = Vec::with_capacity(self.ready.len());
        for chain in &self.ready {
            spans.extend(part(chain.writable(), HEADER_BYTES as u64, u64::MAX));
        }
        let spans = part(&spans, 0, limit as u64);
        let room_bytes = usize::try_from(total_len(&spans)).unwrap_or(usize::MAX);
        let bytes = transfer::receive(socket, self.queue.memory(), &spans, Receiving::Take)?;
        let mut left = bytes;
        while left > 0
            && let Some(chain) = self.ready.pop_front()
        {
            let len = room(&chain).min(left);
            left -= len;
            let header = Header { len: u32::try_from(len).unwrap_or(u32::MAX), ..*header };
            copy_to_guest(self.queue.memory(), chain.writable(), &header.bytes());
            self.queue.give(chain, (HEADER_BYTES + len) as u64);
        }
        Ok(Received { bytes, is_short: bytes < room_bytes })
    }
}

/// The data of a packet in a chain of the transmit queue.
pub(super) struct ChainPayload<'a> {
    memory: &'a GuestMemory,
    spans: Vec<Span>,
}

impl<'a> ChainPayload<'a> {
    /// The packet in `spans`. `None` if there is no whole header.
    pub(super) fn read(memory: &'a GuestMemory, spans: &[Span]) -> Option<(Header, Self)> {
        let mut header = [0; HEADER_BYTES];
        if copy_from_guest(memory, spans, &mut header) < HEADER_BYTES {
            return None;
        }
        let header = Header::from_bytes(&header);
        // A buffer may be longer than what it holds.
        let spans = part(spans, HEADER_BYTES as u64, header.len.into());
        Some((header, Self { memory, spans }))
    }
}

impl Payload for ChainPayload<'_> {
    fn len_bytes(&self) -> usize {
        usize::try_from(total_len(&self.spans)).unwrap_or(usize::MAX)
    }

    fn send_to(&self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        if self.spans.is_empty() { Ok(0) } else { transfer::send(socket, self.memory, &self.spans) }
    }

    fn copy_to(&self, skip: usize, to: &mut VecDeque<u8>) {
        let mut bytes = vec![0; self.len_bytes().saturating_sub(skip)];
        copy_from_guest(self.memory, &part(&self.spans, skip as u64, u64::MAX), &mut bytes);
        to.extend(bytes);
    }
}

//! The receive queue, as the stack sees it.

use std::{collections::VecDeque, io, os::fd::BorrowedFd, sync::Arc};

use kiln_net::{
    port::{Abilities, GuestPort, Reading, Shape},
    wire::Headers,
};

use super::spec::{feature, header};
use crate::{
    mem::{
        GuestMemory,
        transfer::{self, Receiving, Span, copy_from_guest, copy_to_guest, part, total_len},
    },
    virtio::{Chain, Misuse, Ring, Signal, receive::ReceiveQueue},
};

/// Room that is looked for: a segment of 64 KiB with all headers.
const WANTED_BYTES: u64 = 65_536 + 256;
/// With less room than this, nothing is read from a socket: it would go in crumbs.
const LEAST_PAYLOAD_BYTES: usize = 1_024;

/// The receive queue.
pub(super) struct QueuePort {
    queue: ReceiveQueue,
    features: u64,
    /// Taken from the ring, not filled yet.
    ready: VecDeque<Chain>,
    ready_bytes: u64,
    /// Payload that was read into the ready chains.
    received: Option<usize>,
}

impl QueuePort {
    pub(super) fn new(memory: GuestMemory, ring: Ring, signal: Arc<dyn Signal>, features: u64) -> Self {
        let queue = ReceiveQueue::new(memory, ring, signal);
        Self { queue, features, ready: VecDeque::new(), ready_bytes: 0, received: None }
    }

    pub(super) fn ring(&self) -> &Ring {
        self.queue.ring()
    }

    /// Tells the driver what was pushed, if it wants to know; true if it did.
    ///
    /// # Errors
    /// How the driver broke the rules since the last call.
    pub(super) fn finish(&mut self) -> Result<bool, Misuse> {
        self.queue.finish()
    }

    /// From now on the driver takes this of what was agreed on.
    pub(super) fn set_offloads(&mut self, offloads: u64) {
        self.features = self.features & !feature::GUEST_OFFLOADS | offloads;
    }

    /// Whether all of these count.
    fn has(&self, features: u64) -> bool {
        self.features & features == features
    }

    /// Takes chains from the ring until there is room for `wanted_bytes`, or there are no more.
    fn gather(&mut self, wanted_bytes: u64) {
        let is_single = !self.has(feature::MRG_RXBUF);
        while self.ready_bytes < wanted_bytes
            && (!is_single || self.ready.is_empty())
            && let Some(chain) = self.queue.take()
        {
            self.ready_bytes += total_len(chain.writable());
            self.ready.push_back(chain);
        }
    }

    fn spans(&self) -> Vec<Span> {
        self.ready.iter().flat_map(Chain::writable).copied().collect()
    }

    /// Writes both headers in front of `payload_bytes` that are there or come, and gives the driver the chains.
    fn push(&mut self, headers: &Headers, payload_bytes: usize) {
        let total = (header::BYTES + headers.bytes().len() + payload_bytes) as u64;
        let mut left = total;
        let mut count: u16 = 0;
        for chain in &self.ready {
            count += 1;
            left = left.saturating_sub(total_len(chain.writable()));
            if left == 0 {
                break;
            }
        }
        let front = [&headers.offload().bytes(count)[..], headers.bytes()].concat();
        copy_to_guest(self.queue.memory(), &self.spans(), &front);
        left = total;
        while left > 0
            && let Some(chain) = self.ready.pop_front()
        {
            let len = total_len(chain.writable());
            self.ready_bytes -= len;
            self.queue.give(chain, len.min(left));
            left = left.saturating_sub(len);
        }
    }

    /// For drivers that take no frame whose checksum is not complete.
    fn complete(&self, headers: &mut Headers, payload_bytes: usize) {
        if !self.has(feature::GUEST_CSUM) && headers.offload().checksum_start > 0 {
            let mut payload = vec![0; payload_bytes];
            let start = (header::BYTES + headers.bytes().len()) as u64;
            copy_from_guest(self.queue.memory(), &part(&self.spans(), start, payload_bytes as u64), &mut payload);
            headers.complete_checksum(&payload);
        }
    }
}

impl GuestPort for QueuePort {
    fn abilities(&self) -> Abilities {
        Abilities {
            checksum: self.has(feature::GUEST_CSUM),
            segmentation: self.has(feature::GUEST_CSUM | feature::GUEST_TSO4 | feature::GUEST_TSO6),
            datagrams: self.has(feature::GUEST_CSUM | feature::GUEST_USO4 | feature::GUEST_USO6),
        }
    }

    fn room(&mut self, header_bytes: usize) -> usize {
        self.gather(WANTED_BYTES);
        let front = header::BYTES + header_bytes;
        let room = usize::try_from(self.ready_bytes).unwrap_or(usize::MAX).saturating_sub(front);
        if room < LEAST_PAYLOAD_BYTES { 0 } else { room }
    }

    fn send(&mut self, mut headers: Headers, payload: &[u8]) -> bool {
        self.received = None;
        let front = header::BYTES + headers.bytes().len();
        let total = (front + payload.len()) as u64;
        self.gather(total);
        if self.ready_bytes < total {
            return false;
        }
        if !self.has(feature::GUEST_CSUM) {
            headers.complete_checksum(payload);
        }
        copy_to_guest(self.queue.memory(), &part(&self.spans(), front as u64, payload.len() as u64), payload);
        self.push(&headers, payload.len());
        true
    }

    fn receive(&mut self, shape: Shape, limit: usize, socket: BorrowedFd<'_>, reading: Reading) -> io::Result<usize> {
        self.received = None;
        let room = self.reach(shape).min(limit);
        if room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let spans = part(&self.spans(), (header::BYTES + shape.header_bytes) as u64, room as u64);
        let how = match reading {
            Reading::Take => Receiving::Take,
            Reading::Peek => Receiving::Peek,
        };
        let count = transfer::receive(socket, self.queue.memory(), &spans, how)?;
        self.received = Some(count).filter(|count| *count > 0);
        Ok(count)
    }

    fn send_received(&mut self, mut headers: Headers) {
        let Some(payload_bytes) = self.received.take() else { return };
        self.complete(&mut headers, payload_bytes);
        self.push(&headers, payload_bytes);
    }
}

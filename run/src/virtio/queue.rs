//! A queue that is in use: checked descriptor chains out, used buffers back (2.7, split virtqueues).

use std::sync::Arc;

use virtio_queue::{Queue, QueueOwnedT, QueueT, desc::split::Descriptor};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};
use vmm_sys_util::eventfd::EventFd;

use super::{Signal, spec::feature};
use crate::mem::{GuestMemory, transfer::Span};

/// The available ring's flag by which the driver asks for no interrupt (2.7.6, `VIRTQ_AVAIL_F_NO_INTERRUPT`).
const NO_INTERRUPT: u16 = 1;

/// Most buffers of one chain. A chain of the queue's own descriptors cannot exceed the queue; drivers let a table of
/// descriptors be longer than that, but none needs more than this.
const MAX_BUFFERS: usize = 1024;

/// How a driver broke the rules of queues. The device stops.
#[derive(Debug, thiserror::Error)]
pub enum Misuse {
    /// The available index ran ahead of what the queue can hold, or a ring left guest memory.
    #[error("queue {queue} has a broken ring")]
    Ring {
        /// Number of the queue.
        queue: u16,
        /// What is wrong with it.
        #[source]
        source: virtio_queue::Error,
    },
    /// A chain loops, leaves its table, is too long, or nests tables.
    #[error("queue {queue} holds a broken chain at descriptor {head}")]
    Chain {
        /// Number of the queue.
        queue: u16,
        /// First descriptor of the chain.
        head: u16,
    },
    /// A buffer lies outside of guest memory.
    #[error("queue {queue} holds a buffer outside of memory: {len} bytes at {address:#x}")]
    Buffer {
        /// Number of the queue.
        queue: u16,
        /// Guest-physical address of the buffer.
        address: u64,
        /// Its length in bytes.
        len: u32,
    },
    /// A buffer does not fit the request it belongs to.
    #[error("queue {queue} holds a malformed request at descriptor {head}")]
    Request {
        /// Number of the queue.
        queue: u16,
        /// First descriptor of the chain.
        head: u16,
    },
}

/// One request of the driver: buffers for the device to read, then buffers for it to fill. All lie in guest memory;
/// none is empty; together they are shorter than 4 GiB, and no more than [`MAX_BUFFERS`].
#[derive(Debug, Default)]
pub struct Chain {
    head: u16,
    spans: Vec<Span>,
    readable: usize,
}

impl Chain {
    /// Number of its first descriptor: the chain's name.
    #[must_use]
    pub fn head(&self) -> u16 {
        self.head
    }

    /// What the device reads, in order.
    #[must_use]
    pub fn readable(&self) -> &[Span] {
        self.spans.get(..self.readable).unwrap_or_default()
    }

    /// What the device fills, in order.
    #[must_use]
    pub fn writable(&self) -> &[Span] {
        self.spans.get(self.readable..).unwrap_or_default()
    }
}

/// Where a driver has put a queue. Nothing of it is checked before [`Layout::ring`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Its size in descriptors.
    pub size: u16,
    /// Guest-physical address of the descriptors.
    pub descriptors: u64,
    /// That of the available ring.
    pub driver_area: u64,
    /// That of the used ring.
    pub device_area: u64,
    /// Chains that were taken from it, and given back, before.
    pub done: u16,
}

impl Layout {
    /// The queue ready for use, or `None` if its size (at most `max_size`), its addresses or their alignment break the rules
    /// (2.7).
    #[must_use]
    pub fn ring(
        &self,
        number: u16,
        max_size: u16,
        features: u64,
        memory: &GuestMemory,
        doorbell: Arc<EventFd>,
    ) -> Option<Ring> {
        let mut queue = Queue::new(max_size).ok()?;
        queue.try_set_size(self.size).ok()?;
        queue.try_set_desc_table_address(GuestAddress(self.descriptors)).ok()?;
        queue.try_set_avail_ring_address(GuestAddress(self.driver_area)).ok()?;
        queue.try_set_used_ring_address(GuestAddress(self.device_area)).ok()?;
        queue.set_event_idx(features & feature::EVENT_IDX != 0);
        queue.set_next_avail(self.done);
        queue.set_next_used(self.done);
        queue.set_ready(true);
        queue.is_valid(memory).then(|| Ring::new(number, queue, doorbell))
    }
}

/// A queue that the driver has enabled and whose rings were checked to lie in guest memory.
#[derive(Debug)]
pub struct Ring {
    number: u16,
    queue: Queue,
    doorbell: Arc<EventFd>,
}

impl Ring {
    /// Wraps a checked queue. `doorbell` is signalled when the driver has made buffers available.
    #[must_use]
    pub fn new(number: u16, queue: Queue, doorbell: Arc<EventFd>) -> Self {
        Self { number, queue, doorbell }
    }

    /// The queue's number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }

    /// Signalled when the driver has made buffers available.
    #[must_use]
    pub fn doorbell(&self) -> &EventFd {
        &self.doorbell
    }

    /// Rings the doorbell by hand: the device stopped before all was served.
    pub fn ring_again(&self) {
        // The one failure is a full counter, and then the doorbell rings already.
        let _ = self.doorbell.write(1);
    }

    /// Puts the next chain into `chain` and returns true, or returns false if there is none now.
    pub fn pop(&mut self, memory: &GuestMemory, chain: &mut Chain) -> Result<bool, Misuse> {
        let number = self.number;
        let next = self.queue.iter(memory).map_err(|source| Misuse::Ring { queue: number, source })?.next();
        let Some(descriptors) = next else { return Ok(false) };
        chain.head = descriptors.head_index();
        chain.spans.clear();
        chain.readable = 0;
        let broken = Misuse::Chain { queue: number, head: chain.head };
        let mut last: Option<Descriptor> = None;
        for descriptor in descriptors {
            if last.is_some_and(|last| last.is_write_only()) && !descriptor.is_write_only() {
                return Err(broken);
            }
            last = Some(descriptor);
            let span = Span { address: descriptor.addr(), len: descriptor.len() };
            if span.len == 0 {
                continue;
            }
            if chain.spans.len() == MAX_BUFFERS {
                return Err(broken);
            }
            let bytes = usize::try_from(span.len).unwrap_or(usize::MAX);
            if !GuestMemoryBackend::check_range(memory, span.address, bytes) {
                return Err(Misuse::Buffer { queue: number, address: span.address.0, len: span.len });
            }
            chain.spans.push(span);
            chain.readable += usize::from(!descriptor.is_write_only());
        }
        // The iterator ends early, and says nothing, on a loop, a wild index or a nested table.
        match last {
            Some(last) if !last.has_next() => Ok(true),
            _ => Err(broken),
        }
    }

    /// Gives a chain back with `written` bytes of its writable part filled.
    pub fn push(&mut self, memory: &GuestMemory, head: u16, written: u32) -> Result<(), Misuse> {
        let queue = self.number;
        self.queue.add_used(memory, head, written).map_err(|source| Misuse::Ring { queue, source })
    }

    /// The driver need not ring the doorbell: the device looks by itself.
    pub fn disable_doorbell(&mut self, memory: &GuestMemory) -> Result<(), Misuse> {
        let queue = self.number;
        self.queue.disable_notification(memory).map_err(|source| Misuse::Ring { queue, source })
    }

    /// From now on the doorbell rings. True if buffers have come meanwhile, for which it may not ring.
    pub fn enable_doorbell(&mut self, memory: &GuestMemory) -> Result<bool, Misuse> {
        let queue = self.number;
        self.queue.enable_notification(memory).map_err(|source| Misuse::Ring { queue, source })
    }

    /// Whether the driver wants to be told of what was pushed since the last call.
    fn wants_signal(&mut self, memory: &GuestMemory) -> Result<bool, Misuse> {
        let queue = self.number;
        if !self.queue.event_idx_enabled() {
            let flags = memory.read_obj::<u16>(GuestAddress(self.queue.avail_ring()));
            return Ok(flags.is_ok_and(|flags| u16::from_le(flags) & NO_INTERRUPT == 0));
        }
        self.queue.needs_notification(memory).map_err(|source| Misuse::Ring { queue, source })
    }

    /// Tells the driver of what was pushed since the last call, if it wants to know; true if it did.
    pub fn tell(&mut self, memory: &GuestMemory, signal: &dyn Signal) -> Result<bool, Misuse> {
        let is_wanted = self.wants_signal(memory)?;
        if is_wanted {
            signal.queue_used(self.number);
        }
        Ok(is_wanted)
    }

    /// The error for a chain whose buffers do not make a request.
    #[must_use]
    pub fn malformed(&self, chain: &Chain) -> Misuse {
        Misuse::Request { queue: self.number, head: chain.head }
    }
}

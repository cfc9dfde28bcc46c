//! The queues of an active balloon.

use std::io;
use std::sync::Arc;

use vm_memory::GuestAddress;

use super::handle::{BalloonHandle, GuestStats};
use super::spec::{PAGE_BYTES, PAGE_NUMBER_BYTES, queue, stats};
use crate::event::{EventHandler, Interest};
use crate::mem::GuestMemory;
use crate::mem::discard::discard;
use crate::mem::transfer::{Span, copy_from_guest, part, total_len};
use crate::virtio::{Chain, Misuse, Ring, Signal, thread::stop};

/// Page numbers looked at together. Linux sends 256 with one request.
const PAGE_NUMBERS_AT_ONCE: usize = 256;
/// Most page numbers of one request, a GiB's; a request of more is no request.
const MAX_PAGE_NUMBERS: u64 = 1 << 18;
/// Most statistics that are looked at: there are 16 kinds.
const MAX_STATS: usize = 64;
/// Requests after which the thread serves other devices.
const REQUESTS_PER_TURN: u32 = 8;

/// Token of the flag by which statistics are wanted; the queues have their numbers.
const COUNT: u32 = u32::MAX;

/// An active balloon.
pub(super) struct Worker {
    memory: GuestMemory,
    signal: Arc<dyn Signal>,
    handle: BalloonHandle,
    /// Pages by number: into the balloon, and out of it.
    handing: Vec<Ring>,
    stats: Option<Ring>,
    /// Free pages as buffers.
    reporting: Vec<Ring>,
    chain: Chain,
    /// Buffer of the statistics queue, kept until statistics are wanted.
    stats_buffer: Option<u16>,
}

impl Worker {
    pub(super) fn new(
        memory: GuestMemory,
        signal: Arc<dyn Signal>,
        handle: BalloonHandle,
        handing: Vec<Ring>,
        stats: Option<Ring>,
        reporting: Vec<Ring>,
    ) -> Self {
        Self { memory, signal, handle, handing, stats, reporting, chain: Chain::default(), stats_buffer: None }
    }

    fn serve(&mut self, token: u32) -> Result<(), Misuse> {
        if token == COUNT {
            self.handle.count().take();
            return self.ask_for_stats();
        }
        let number = u16::try_from(token).unwrap_or(u16::MAX);
        if number == queue::STATS {
            return self.take_stats();
        }
        let Self { memory, signal, handing, reporting, chain, .. } = self;
        let Some(ring) = handing.iter_mut().chain(reporting).find(|ring| ring.number() == number) else {
            return Ok(());
        };
        // Takes the doorbell down; it fails when it is down already.
        let _ = ring.doorbell().read();
        for _ in 0..REQUESTS_PER_TURN {
            if !ring.pop(memory, chain)? {
                if ring.enable_doorbell(memory)? {
                    continue;
                }
                return Ok(());
            }
            match number {
                queue::INFLATE => inflate(memory, ring, chain)?,
                // What leaves the balloon comes back by itself when it is touched.
                queue::DEFLATE => {}
                _ => chain.writable().iter().for_each(|span| give_back(memory, span.address, u64::from(span.len))),
            }
            ring.push(memory, chain.head(), 0)?;
            ring.tell(memory, &**signal)?;
        }
        ring.ring_again();
        Ok(())
    }

    /// The driver's buffer holds statistics, and waits here until new ones are wanted (5.5.6.3).
    fn take_stats(&mut self) -> Result<(), Misuse> {
        let Some(ring) = &mut self.stats else { return Ok(()) };
        let _ = ring.doorbell().read();
        loop {
            if !ring.pop(&self.memory, &mut self.chain)? {
                if ring.enable_doorbell(&self.memory)? {
                    continue;
                }
                return Ok(());
            }
            if self.stats_buffer.is_some() {
                // There is one buffer only.
                return Err(ring.malformed(&self.chain));
            }
            let mut bytes = [0; MAX_STATS * stats::ENTRY_BYTES];
            let len = copy_from_guest(&self.memory, self.chain.readable(), &mut bytes);
            self.handle.set_stats(read_stats(bytes.get(..len).unwrap_or_default()));
            self.stats_buffer = Some(self.chain.head());
        }
    }

    fn ask_for_stats(&mut self) -> Result<(), Misuse> {
        let (Some(ring), Some(head)) = (&mut self.stats, self.stats_buffer.take()) else { return Ok(()) };
        ring.push(&self.memory, head, 0)?;
        ring.tell(&self.memory, &*self.signal)?;
        Ok(())
    }

    fn rings(&self) -> impl Iterator<Item = &Ring> {
        self.handing.iter().chain(&self.reporting).chain(&self.stats)
    }
}

/// Gives the pages of one request back to the host, neighbours together.
fn inflate(memory: &GuestMemory, ring: &Ring, chain: &Chain) -> Result<(), Misuse> {
    let bytes = total_len(chain.readable());
    if bytes > MAX_PAGE_NUMBERS * PAGE_NUMBER_BYTES as u64 {
        return Err(ring.malformed(chain));
    }
    let mut run: Option<(u64, u64)> = None;
    let mut numbers = [0; PAGE_NUMBERS_AT_ONCE * PAGE_NUMBER_BYTES];
    let mut done = 0;
    while done < bytes {
        let spans: Vec<Span> = part(chain.readable(), done, numbers.len() as u64);
        let len = copy_from_guest(memory, &spans, &mut numbers);
        for number in numbers.get(..len).unwrap_or_default().chunks_exact(PAGE_NUMBER_BYTES) {
            let page = number.try_into().map_or(0, |number| u64::from(u32::from_le_bytes(number)));
            run = Some(match run {
                Some((first, count)) if first + count == page => (first, count + 1),
                // Linux takes pages from the end of a free range as often as from its start.
                Some((first, count)) if page + 1 == first => (page, count + 1),
                other => {
                    give_back_pages(memory, other);
                    (page, 1)
                }
            });
        }
        if len < numbers.len() {
            break;
        }
        done += len as u64;
    }
    give_back_pages(memory, run);
    Ok(())
}

fn give_back_pages(memory: &GuestMemory, run: Option<(u64, u64)>) {
    if let Some((first, count)) = run {
        give_back(memory, GuestAddress(first * PAGE_BYTES), count * PAGE_BYTES);
    }
}

/// What is no memory, or what the host does not take, stays as it is: the guest loses nothing by that.
fn give_back(memory: &GuestMemory, address: GuestAddress, len: u64) {
    let _not_taken = discard(memory, address, len);
}

fn read_stats(bytes: &[u8]) -> GuestStats {
    let mut said = GuestStats::default();
    for entry in bytes.chunks_exact(stats::ENTRY_BYTES) {
        let [t0, t1, value @ ..] = entry else { continue };
        let Ok(value) = value.try_into().map(u64::from_le_bytes) else { continue };
        match u16::from_le_bytes([*t0, *t1]) {
            stats::FREE => said.free_bytes = Some(value),
            stats::TOTAL => said.total_bytes = Some(value),
            stats::AVAILABLE => said.available_bytes = Some(value),
            _ => {}
        }
    }
    said
}

impl EventHandler for Worker {
    fn start(&mut self, interest: &mut Interest<'_>) -> io::Result<()> {
        interest.watch(self.handle.count(), COUNT)?;
        self.rings().try_for_each(|ring| interest.watch(ring.doorbell(), ring.number().into()))
    }

    fn ready(&mut self, token: u32, interest: &mut Interest<'_>) {
        if self.serve(token).is_err() {
            stop(&*self.signal, interest);
        }
    }
}

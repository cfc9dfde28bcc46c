//! The thread of one queue of an active disk: chains in, completions out. A request that comes alone or whose bytes are in
//! memory is done here; of the others, those whose bytes have a place in a file go to the kernel at once, and the rest to
//! threads that wait for them.

use std::{io, sync::Arc};

use super::{
    pool::{Finished, Hand},
    request::{Facts, Job},
    spec::Status,
};
use crate::{
    block::{BlockBackend, Place, Request},
    event::{EventHandler, Interest},
    mem::{
        GuestMemory,
        transfer::total_len,
        uring::{DataRing, Move},
    },
    virtio::{Chain, Misuse, Ring, Signal, thread::after_turn},
};

/// Requests that are taken from the queue at once.
const REQUESTS_AT_ONCE: usize = 64;
/// Rounds after which the thread looks at its other events, above all the one that ends it.
const ROUNDS_PER_TURN: u32 = 4;
/// Requests on their way: as many as a queue of honest chains holds.
const MAX_IN_FLIGHT: usize = 256;

const DOORBELL: u32 = 0;
const POOL: u32 = 1;
const RING: u32 = 2;

/// What all queues of a disk share.
#[derive(Clone)]
pub(super) struct Disk {
    pub backend: Arc<dyn BlockBackend>,
    pub memory: GuestMemory,
    pub signal: Arc<dyn Signal>,
    pub facts: Facts,
    pub hand: Hand,
}

/// One queue of an active disk.
pub(super) struct Worker {
    disk: Disk,
    ring: Ring,
    chain: Chain,
    batch: Vec<Job>,
    /// Handed to threads.
    finished: Arc<Finished>,
    waited_for: usize,
    kernel: Kernel,
    /// Handed to the kernel, by number.
    moving: Vec<Option<(Job, Place)>>,
    free: Vec<usize>,
}

/// The kernel's own queue of reads and writes.
enum Kernel {
    NotAsked,
    Refused,
    Serves(Box<DataRing>),
}

impl Worker {
    pub fn new(disk: Disk, ring: Ring) -> io::Result<Self> {
        Ok(Self {
            disk,
            ring,
            chain: Chain::default(),
            batch: Vec::new(),
            finished: Arc::new(Finished::new()?),
            waited_for: 0,
            kernel: Kernel::NotAsked,
            moving: Vec::new(),
            free: Vec::new(),
        })
    }

    /// Serves what is waiting. True if it stopped before all was served.
    fn turn(&mut self, interest: &mut Interest<'_>) -> Result<bool, Misuse> {
        self.collect()?;
        for _ in 0..ROUNDS_PER_TURN {
            self.ring.disable_doorbell(&self.disk.memory)?;
            self.take_batch()?;
            let is_empty = self.batch.is_empty();
            self.start_batch(interest)?;
            self.collect()?;
            self.ring.tell(&self.disk.memory, &*self.disk.signal)?;
            if self.in_flight() >= MAX_IN_FLIGHT {
                // Goes on when some of them are done.
                return Ok(false);
            }
            if is_empty && !self.ring.enable_doorbell(&self.disk.memory)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn in_flight(&self) -> usize {
        self.waited_for + self.moving.len() - self.free.len()
    }

    fn take_batch(&mut self) -> Result<(), Misuse> {
        let room = MAX_IN_FLIGHT.saturating_sub(self.in_flight()).min(REQUESTS_AT_ONCE);
        while self.batch.len() < room && self.ring.pop(&self.disk.memory, &mut self.chain)? {
            let job = Job::read(&self.chain, &self.disk.memory, &self.disk.facts)
                .map_err(|_| self.ring.malformed(&self.chain))?;
            self.batch.push(job);
        }
        Ok(())
    }

    fn start_batch(&mut self, interest: &mut Interest<'_>) -> Result<(), Misuse> {
        let is_alone = self.batch.len() == 1 && self.in_flight() == 0;
        for job in std::mem::take(&mut self.batch) {
            if is_alone && job.moves_bytes() {
                self.run_here(&job)?;
            } else {
                self.start(job, interest)?;
            }
        }
        if let Kernel::Serves(ring) = &mut self.kernel
            && ring.submit().is_err()
        {
            // The kernel has no room now: once more in the next turn, which comes at once.
            self.finished.flag.raise();
        }
        Ok(())
    }

    fn run_here(&mut self, job: &Job) -> Result<(), Misuse> {
        let status = job.run(self.disk.backend.as_ref(), &self.disk.memory, self.disk.facts.features);
        self.end(job, status)
    }

    fn start(&mut self, job: Job, interest: &mut Interest<'_>) -> Result<(), Misuse> {
        let place = job.to_place(&self.disk.facts).and_then(|request| self.disk.backend.place(request));
        let left = match place {
            Some(Place { is_memory: true, .. }) => {
                drop(place);
                return self.run_here(&job);
            }
            Some(place) => self.start_in_kernel(job, place, interest),
            None => Some(job),
        };
        if let Some(job) = left {
            self.waited_for += 1;
            self.disk.hand.give(job, &self.finished);
        }
        Ok(())
    }

    /// Gives the job back if the kernel cannot do it.
    fn start_in_kernel(&mut self, job: Job, place: Place, interest: &mut Interest<'_>) -> Option<Job> {
        let Some(request) = job.to_place(&self.disk.facts) else { return Some(job) };
        if matches!(self.kernel, Kernel::NotAsked) {
            self.kernel = match DataRing::new(self.disk.memory.clone(), MAX_IN_FLIGHT) {
                Ok(ring) if interest.watch(ring.finished(), RING).is_ok() => Kernel::Serves(Box::new(ring)),
                _ => Kernel::Refused,
            };
        }
        let Kernel::Serves(ring) = &mut self.kernel else { return Some(job) };
        let number = self.free.pop().unwrap_or_else(|| {
            self.moving.push(None);
            self.moving.len() - 1
        });
        let started = match request {
            Request::Read { into, .. } => ring.start(number, Move::Read, &place.file, into, place.offset),
            Request::Write { from, .. } => ring.start(number, Move::Write, &place.file, from, place.offset),
            _ => Err(io::ErrorKind::Unsupported.into()),
        };
        match (started, self.moving.get_mut(number)) {
            (Ok(()), Some(slot)) => {
                *slot = Some((job, place));
                None
            }
            _ => {
                self.free.push(number);
                Some(job)
            }
        }
    }

    /// Ends what the threads and the kernel have done.
    fn collect(&mut self) -> Result<(), Misuse> {
        for (job, status) in self.finished.take() {
            self.waited_for = self.waited_for.saturating_sub(1);
            self.end(&job, status)?;
        }
        loop {
            let Kernel::Serves(ring) = &mut self.kernel else { return Ok(()) };
            let Some((number, moved)) = ring.next_finished() else { return Ok(()) };
            let Some((job, place)) = self.moving.get_mut(number).and_then(Option::take) else { continue };
            self.free.push(number);
            drop(place);
            let wanted = match job.to_place(&self.disk.facts) {
                Some(Request::Read { into, .. }) => total_len(into),
                Some(Request::Write { from, .. }) => total_len(from),
                _ => 0,
            };
            if moved.is_ok_and(|moved| moved == wanted) {
                self.end(&job, Status::Ok)?;
            } else {
                // The file ends there, or is full, or the kernel would rather not: the long way tells.
                self.waited_for += 1;
                self.disk.hand.give(job, &self.finished);
            }
        }
    }

    fn end(&mut self, job: &Job, status: Status) -> Result<(), Misuse> {
        let written = job.finish(&self.disk.memory, status);
        self.ring.push(&self.disk.memory, job.head, written)
    }
}

impl EventHandler for Worker {
    fn start(&mut self, interest: &mut Interest<'_>) -> io::Result<()> {
        interest.watch(&self.finished.flag, POOL)?;
        interest.watch(self.ring.doorbell(), DOORBELL)
    }

    fn ready(&mut self, token: u32, interest: &mut Interest<'_>) {
        if token == DOORBELL {
            // Takes the doorbell down; it fails when it is down already.
            let _ = self.ring.doorbell().read();
        }
        let turn = self.turn(interest);
        after_turn(turn, &self.ring, &*self.disk.signal, interest);
    }
}

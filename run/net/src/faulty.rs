//! A link that loses frames, doubles them and lets them come late, for tests: the same ones on each run.

use std::io;
use std::os::fd::BorrowedFd;

use crate::Millis;
use crate::chance::Chance;
use crate::link::Link;
use crate::memory::MemoryFrame;
use crate::port::{Abilities, GuestFrame, GuestPort, Reading, Shape};
use crate::wire::Headers;

/// Frames that are late at once, in one direction; what is more is lost.
const LATE_LIMIT: usize = 1_024;

/// What happens to frames, both ways, of 1,000 each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// So many are lost.
    pub lost: u16,
    /// So many come twice.
    pub doubled: u16,
    /// So many come late, and so behind others.
    pub late: u16,
    /// By so much, at most.
    pub late_ms: Millis,
    /// Where chance begins.
    pub seed: u64,
}

/// A frame on its way.
#[derive(Debug, Clone)]
struct Late {
    frame: MemoryFrame,
    due: Millis,
}

/// Frames of one direction.
#[derive(Debug)]
struct Way {
    faults: Faults,
    chance: Chance,
    late: Vec<Late>,
}

impl Way {
    fn new(faults: Faults, seed: u64) -> Self {
        Self { faults, chance: Chance::new(seed), late: Vec::new() }
    }

    fn happens(&mut self, of_1000: u16) -> bool {
        self.chance.below(1_000) < of_1000.into()
    }

    /// How often a frame goes on at once; it may be kept for later.
    fn times(&mut self, frame: impl FnOnce(Millis) -> Late, now: Millis) -> u8 {
        if self.happens(self.faults.lost) {
            return 0;
        }
        if self.happens(self.faults.late) {
            let due = now + 1 + self.chance.below(self.faults.late_ms);
            if self.late.len() < LATE_LIMIT {
                self.late.push(frame(due));
            }
            return 0;
        }
        1 + u8::from(self.happens(self.faults.doubled))
    }

    fn due(&mut self, now: Millis) -> Vec<Late> {
        self.late.extract_if(.., |late| late.due <= now).collect()
    }

    fn deadline(&self) -> Option<Millis> {
        self.late.iter().map(|late| late.due).min()
    }
}

/// A link with faults.
#[derive(Debug)]
pub struct Faulty<L> {
    link: L,
    up: Way,
    down: Way,
}

impl<L: Link> Faulty<L> {
    /// `link`, but worse.
    pub fn new(link: L, faults: Faults) -> Self {
        Self { link, up: Way::new(faults, faults.seed), down: Way::new(faults, !faults.seed) }
    }

    /// The link itself, without faults.
    pub fn into_link(self) -> L {
        self.link
    }
}

impl<L: Link> Link for Faulty<L> {
    fn fd(&self) -> BorrowedFd<'_> {
        self.link.fd()
    }

    fn takes(&self) -> Abilities {
        self.link.takes()
    }

    fn from_guest(&mut self, frame: &dyn GuestFrame, port: &mut dyn GuestPort, now: Millis) {
        let keep = |due| {
            let mut bytes = Vec::new();
            frame.copy_to(0..frame.len_bytes(), &mut bytes);
            Late { frame: MemoryFrame { bytes, offload: frame.offload() }, due }
        };
        let mut port = Worse { port, way: &mut self.down, received: Vec::new(), now };
        for _ in 0..self.up.times(keep, now) {
            self.link.from_guest(frame, &mut port, now);
        }
    }

    fn turn(&mut self, port: &mut dyn GuestPort, now: Millis) -> io::Result<bool> {
        for Late { frame, .. } in self.down.due(now) {
            // Lost, if there is no room.
            let _ = port.send_frame(&frame.bytes, &frame.offload);
        }
        let mut port = Worse { port, way: &mut self.down, received: Vec::new(), now };
        for late in self.up.due(now) {
            self.link.from_guest(&late.frame, &mut port, now);
        }
        self.link.turn(&mut port, now)
    }

    fn deadline(&self) -> Option<Millis> {
        [self.link.deadline(), self.up.deadline(), self.down.deadline()].into_iter().flatten().min()
    }

    fn change_guest(&mut self) {
        self.link.change_guest();
    }

    fn is_full(&self) -> bool {
        self.link.is_full()
    }

    fn is_up(&self) -> bool {
        self.link.is_up()
    }

    fn lost(&self) -> u64 {
        self.link.lost()
    }
}

/// The way to the guest, with faults.
struct Worse<'a> {
    port: &'a mut dyn GuestPort,
    way: &'a mut Way,
    received: Vec<u8>,
    now: Millis,
}

impl GuestPort for Worse<'_> {
    fn abilities(&self) -> Abilities {
        self.port.abilities()
    }

    fn room(&mut self, header_bytes: usize) -> usize {
        self.port.room(header_bytes)
    }

    fn send(&mut self, headers: Headers, payload: &[u8]) -> bool {
        let keep = |due| {
            let bytes = [headers.bytes(), payload].concat();
            Late { frame: MemoryFrame { bytes, offload: headers.offload() }, due }
        };
        let times = self.way.times(keep, self.now);
        (0..times).all(|_| self.port.send(headers.clone(), payload))
    }

    fn receive(&mut self, shape: Shape, limit: usize, socket: BorrowedFd<'_>, reading: Reading) -> io::Result<usize> {
        let room = self.reach(shape).min(limit);
        reading.into_memory(room, socket, &mut self.received)
    }

    fn send_received(&mut self, headers: Headers) {
        let payload = std::mem::take(&mut self.received);
        if !payload.is_empty() {
            self.send(headers, &payload);
        }
    }
}

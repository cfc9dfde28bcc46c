//! Where the time of a build goes: what passes between two laps, and the bytes that meters counted meanwhile.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::progress::{Meter, Progress};

/// One step of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phase {
    /// Such as `unpack`, `write x.tar`.
    pub name: String,
    /// How long it took.
    pub wall: Duration,
    /// What the process' threads computed in that time, all together, the kernel's work for them included.
    pub cpu: Duration,
    /// What it read or wrote, where it counts that; else 0.
    pub bytes: u64,
}

/// Passes progress on, and takes the time.
pub(super) struct Timer<'a> {
    progress: &'a dyn Progress,
    bytes: Arc<AtomicU64>,
    laps: Mutex<Laps>,
}

struct Laps {
    last: Reading,
    /// When the first image was pulled since.
    pull: Option<Reading>,
    phases: Vec<Phase>,
}

#[derive(Clone, Copy)]
struct Reading {
    at: Instant,
    cpu: Duration,
}

impl Reading {
    fn now() -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let (seconds, nanos) = (u64::try_from(cpu.tv_sec), u32::try_from(cpu.tv_nsec));
        Self { at: Instant::now(), cpu: Duration::new(seconds.unwrap_or(0), nanos.unwrap_or(0)) }
    }

    fn phase(self, until: Self, name: &str, bytes: u64) -> Phase {
        let (wall, cpu) = (until.at.duration_since(self.at), until.cpu.saturating_sub(self.cpu));
        Phase { name: name.into(), wall, cpu, bytes }
    }
}

impl<'a> Timer<'a> {
    /// Starts now.
    pub fn new(progress: &'a dyn Progress) -> Self {
        let laps = Laps { last: Reading::now(), pull: None, phases: Vec::new() };
        Self { progress, bytes: Arc::default(), laps: Mutex::new(laps) }
    }

    /// What passed since the last lap was `name`. If images were pulled, that was a phase of its own.
    pub fn lap(&self, name: &str) {
        let now = Reading::now();
        let bytes = self.bytes.swap(0, Ordering::Relaxed);
        let mut laps = self.laps.lock().unwrap_or_else(PoisonError::into_inner);
        let last = std::mem::replace(&mut laps.last, now);
        match laps.pull.take() {
            Some(pull) => {
                laps.phases.push(last.phase(pull, name, 0));
                laps.phases.push(pull.phase(now, "fetch", bytes));
            }
            None => laps.phases.push(last.phase(now, name, bytes)),
        }
    }

    /// All laps.
    pub fn into_phases(self) -> Vec<Phase> {
        self.laps.into_inner().unwrap_or_else(PoisonError::into_inner).phases
    }
}

impl Progress for Timer<'_> {
    fn begin(&self, what: &str, total_bytes: Option<u64>) -> Box<dyn Meter> {
        if what.starts_with("pull ") {
            let mut laps = self.laps.lock().unwrap_or_else(PoisonError::into_inner);
            laps.pull.get_or_insert_with(Reading::now);
        }
        Box::new(Counting { meter: self.progress.begin(what, total_bytes), bytes: self.bytes.clone() })
    }

    fn note(&self, line: &str) {
        self.progress.note(line);
    }
}

struct Counting {
    meter: Box<dyn Meter>,
    bytes: Arc<AtomicU64>,
}

impl Meter for Counting {
    fn advance(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.meter.advance(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;

    #[test]
    fn a_lap_has_its_own_bytes_and_a_pull_is_told_apart() {
        let timer = Timer::new(&Silent);
        timer.lap("config");
        timer.begin("pull a", None).advance(7);
        timer.begin("pull b", None).advance(1);
        timer.lap("pin");
        timer.begin("unpack layers", None).advance(3);
        timer.lap("unpack");
        let phases = timer.into_phases();
        let shown: Vec<_> = phases.iter().map(|phase| (phase.name.as_str(), phase.bytes)).collect();
        assert_eq!(shown, [("config", 0), ("pin", 0), ("fetch", 8), ("unpack", 3)]);
    }
}

//! The host's hand on a balloon, from any thread.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::spec::PAGE_BYTES;
use crate::event::Flag;
use crate::virtio::Signal;

/// How long a guest may take to count its memory.
const STATS_PATIENCE: Duration = Duration::from_millis(500);

/// What the guest says of its memory. It may say anything, or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GuestStats {
    /// Memory that nothing uses, in bytes.
    pub free_bytes: Option<u64>,
    /// Memory that new programs could have, in bytes.
    pub available_bytes: Option<u64>,
    /// All that its kernel has, in bytes.
    pub total_bytes: Option<u64>,
}

/// A balloon as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BalloonState {
    /// Memory that the guest is asked to give, in bytes.
    pub target_bytes: u64,
    /// Memory that the guest says it has given, in bytes. Without a driver for the device it stays 0.
    pub actual_bytes: u64,
    /// What it says of the rest.
    pub stats: GuestStats,
}

/// Reaches the balloon of a machine. Cheap to clone; good before the machine runs, and across its restarts.
#[derive(Debug, Clone)]
pub struct BalloonHandle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Most that the balloon can be asked for, in pages.
    most_pages: u32,
    state: Mutex<State>,
    /// New statistics came.
    counted: Condvar,
    /// Raised when statistics are wanted.
    count: Flag,
}

#[derive(Debug, Default)]
struct State {
    target_pages: u32,
    actual_pages: u32,
    stats: GuestStats,
    /// Raised by one with each answer.
    answers: u64,
    /// The way to the driver, while there is one.
    signal: Option<Arc<dyn Signal>>,
}

impl BalloonHandle {
    /// The handle of a balloon in a machine of so much memory. Fails if the host has no more descriptors.
    pub fn new(memory_bytes: u64) -> io::Result<Self> {
        let most_pages = u32::try_from(memory_bytes / PAGE_BYTES).unwrap_or(u32::MAX);
        let (state, counted) = (Mutex::default(), Condvar::new());
        Ok(Self { shared: Arc::new(Shared { most_pages, state, counted, count: Flag::new()? }) })
    }

    /// Asks the guest to give so much memory, rounded up to pages; what it gave above that it may take back. More than the
    /// machine has counts as all of it: the guest gives what it can spare.
    pub fn set_target(&self, bytes: u64) {
        let pages = u32::try_from(bytes.div_ceil(PAGE_BYTES)).unwrap_or(u32::MAX).min(self.shared.most_pages);
        let signal = {
            let mut state = self.lock();
            state.target_pages = pages;
            state.signal.clone()
        };
        if let Some(signal) = signal {
            signal.config_changed();
        }
    }

    /// The balloon as it is now. Waits up to half a second for a guest that is asked to count.
    #[must_use]
    pub fn state(&self) -> BalloonState {
        let mut state = self.lock();
        if state.signal.is_some() {
            let answers = state.answers;
            self.shared.count.raise();
            let no_answer = |state: &mut State| state.answers == answers && state.signal.is_some();
            let waited = self.shared.counted.wait_timeout_while(state, STATS_PATIENCE, no_answer);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        BalloonState {
            target_bytes: u64::from(state.target_pages) * PAGE_BYTES,
            actual_bytes: u64::from(state.actual_pages) * PAGE_BYTES,
            stats: state.stats,
        }
    }

    /// What the driver reads: pages that are asked for, pages that it said it gave.
    pub(super) fn pages(&self) -> (u32, u32) {
        let state = self.lock();
        (state.target_pages, state.actual_pages)
    }

    /// The driver says how many pages the balloon has; it cannot have more than there are.
    pub(super) fn set_actual(&self, pages: u32) {
        self.lock().actual_pages = pages.min(self.shared.most_pages);
    }

    /// Raised when statistics are wanted.
    pub(super) fn count(&self) -> &Flag {
        &self.shared.count
    }

    /// The driver has answered.
    pub(super) fn set_stats(&self, stats: GuestStats) {
        let mut state = self.lock();
        state.stats = stats;
        state.answers = state.answers.wrapping_add(1);
        drop(state);
        self.shared.counted.notify_all();
    }

    /// A driver is there, or gone, and its balloon with it.
    pub(super) fn set_signal(&self, signal: Option<Arc<dyn Signal>>) {
        let mut state = self.lock();
        if signal.is_none() {
            (state.actual_pages, state.stats) = (0, GuestStats::default());
        }
        state.signal = signal;
        drop(state);
        self.shared.counted.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

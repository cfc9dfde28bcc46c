//! Where vCPUs go on, wait or end: what a user's hand on the machine does to their threads.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::hv::Kick;

/// How long vCPUs may take to come to the gate. One takes longer only while the reader of the console takes nothing.
const PATIENCE: Duration = Duration::from_secs(5);

/// The gate that each vCPU passes before it enters the guest.
#[derive(Default)]
pub(super) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    paused: bool,
    stopped: bool,
    /// Of each vCPU that is there.
    kicks: Vec<Arc<dyn Kick>>,
    /// vCPUs that wait.
    waiting: usize,
}

/// What a vCPU is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    /// Enter the guest.
    Go,
    /// Enter the guest, after a pause.
    GoOn,
    /// End.
    Stop,
}

/// vCPUs did not come to the gate.
#[derive(Debug)]
pub(super) struct TooSlow;

impl Gate {
    /// One more vCPU. Whoever stops or pauses either finds it here, or it sees that at the gate.
    pub(super) fn join(&self, kick: Arc<dyn Kick>) {
        self.lock().kicks.push(kick);
    }

    /// A vCPU is at the gate; it has forgotten its kicks before. Waits while the machine is paused.
    pub(super) fn pass(&self) -> Pass {
        let mut state = self.lock();
        if !state.paused || state.stopped {
            return if state.stopped { Pass::Stop } else { Pass::Go };
        }
        state.waiting += 1;
        self.changed.notify_all();
        while state.paused && !state.stopped {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting -= 1;
        if state.stopped { Pass::Stop } else { Pass::GoOn }
    }

    /// Holds all vCPUs. Returns when all wait, or none.
    pub(super) fn pause(&self) -> Result<(), TooSlow> {
        let kicks = {
            let mut state = self.lock();
            state.paused = true;
            state.kicks.clone()
        };
        kicks.iter().for_each(|kick| kick.kick());
        let some_run = |state: &mut State| state.waiting < state.kicks.len() && state.paused && !state.stopped;
        let waited = self.changed.wait_timeout_while(self.lock(), PATIENCE, some_run);
        let (mut state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            state.paused = false;
            self.changed.notify_all();
            return Err(TooSlow);
        }
        Ok(())
    }

    /// Lets all vCPUs go on.
    pub(super) fn resume(&self) {
        self.lock().paused = false;
        self.changed.notify_all();
    }

    /// Ends all vCPUs, those that wait too.
    pub(super) fn stop(&self) {
        let kicks = {
            let mut state = self.lock();
            state.stopped = true;
            state.kicks.clone()
        };
        self.changed.notify_all();
        kicks.iter().for_each(|kick| kick.kick());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

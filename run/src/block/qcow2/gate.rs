//! Keeps clusters where they are while data is on its way to them.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Who is inside.
#[derive(Debug, Default)]
pub(super) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    holds: usize,
    is_closed: bool,
}

/// The clusters stay while this lives.
#[derive(Debug)]
pub struct Hold(Arc<Gate>);

/// Nobody has a [`Hold`], nor gets one, while this lives.
#[derive(Debug)]
pub(super) struct Closed<'a>(&'a Gate);

impl Gate {
    /// A hold, unless somebody wants to be alone. Does not wait.
    pub(super) fn hold(self: &Arc<Self>) -> Option<Hold> {
        let mut state = self.state();
        if state.is_closed {
            return None;
        }
        state.holds += 1;
        Some(Hold(Arc::clone(self)))
    }

    /// Waits until all holds are gone, and keeps new ones away.
    pub(super) fn close(&self) -> Closed<'_> {
        let mut state = self.state();
        while state.is_closed {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.is_closed = true;
        while state.holds > 0 {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Closed(self)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.state().holds -= 1;
        self.0.changed.notify_all();
    }
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.0.state().is_closed = false;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn who_wants_to_be_alone_waits_for_all_and_keeps_new_ones_away() {
        let gate = Arc::new(Gate::default());
        let hold = gate.hold().unwrap();
        let (tell, told) = channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let closed = gate.close();
                tell.send(()).unwrap();
                drop(closed);
            });
            while gate.hold().is_some() {
                std::thread::yield_now();
            }
            told.try_recv().expect_err("one hold is left");
            drop(hold);
            told.recv().unwrap();
        });
        assert!(gate.hold().is_some());
    }
}

//! Input on its way to a program: a bounded queue between who receives it and who writes it.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use kiln_abi::{FRAME_BYTES, INPUT_WINDOW_BYTES};

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Feed {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    bytes: VecDeque<u8>,
    /// No more comes.
    ended: bool,
    /// Nobody takes any more.
    closed: bool,
}

/// More came than may be on its way.
#[derive(Debug)]
pub(crate) struct TooMuch;

impl Feed {
    /// Adds what came; nothing is the end.
    pub(crate) fn put(&self, bytes: &[u8]) -> Result<(), TooMuch> {
        let mut state = self.state();
        if state.closed || state.ended {
            return Ok(());
        }
        if state.bytes.len() + bytes.len() > INPUT_WINDOW_BYTES {
            return Err(TooMuch);
        }
        state.bytes.extend(bytes);
        state.ended = bytes.is_empty();
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// Waits for more, and takes at most a frame of it. `None` at the end.
    pub(crate) fn take(&self) -> Option<Vec<u8>> {
        let mut state = self.state();
        while state.bytes.is_empty() && !state.ended && !state.closed {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let len = state.bytes.len().min(FRAME_BYTES);
        let taken: Vec<u8> = state.bytes.drain(..len).collect();
        if taken.is_empty() || state.closed { None } else { Some(taken) }
    }

    /// Nobody takes any more.
    pub(crate) fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_the_window_is_refused() {
        let feed = Feed::default();
        feed.put(&vec![1; INPUT_WINDOW_BYTES]).unwrap();
        feed.put(&[1]).unwrap_err();
        assert_eq!(feed.take().map(|bytes| bytes.len()), Some(FRAME_BYTES));
        feed.put(&[1]).unwrap();
    }

    #[test]
    fn what_came_before_the_end_is_taken_and_nothing_after_it() {
        let feed = Feed::default();
        feed.put(b"ab").unwrap();
        feed.put(b"").unwrap();
        feed.put(b"late").unwrap();
        assert_eq!((feed.take(), feed.take()), (Some(b"ab".to_vec()), None));
    }

    #[test]
    fn who_waits_when_it_is_closed_waits_no_longer() {
        let feed = Feed::default();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| feed.take());
            feed.close();
            assert_eq!(waits.join().unwrap(), None);
        });
    }
}

//! The last of what the guest printed, for those who look on: who comes late begins with some of it, and who is slow
//! misses some. Nobody here holds the guest back.

use std::{
    collections::VecDeque,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// What is kept, in bytes: how far somebody may be behind before he misses something.
const KEPT_BYTES: usize = 256 * 1024;
/// What somebody who comes later is shown first, in bytes.
pub const SCROLLBACK_BYTES: usize = 64 * 1024;
/// Handed out at once, in bytes.
const CHUNK_BYTES: usize = 4096;

/// The end of the guest's output.
#[derive(Debug, Default)]
pub(super) struct History {
    kept: Mutex<Kept>,
    grown: Condvar,
}

#[derive(Debug, Default)]
struct Kept {
    bytes: VecDeque<u8>,
    /// Bytes printed so far: the place behind the last of `bytes`.
    end: u64,
    closed: bool,
}

impl Kept {
    /// The place of the first byte that is kept.
    fn start(&self) -> u64 {
        self.end.saturating_sub(self.bytes.len() as u64)
    }
}

impl History {
    /// More was printed.
    pub fn add(&self, printed: &[u8]) {
        let mut kept = self.kept();
        let surplus = (kept.bytes.len() + printed.len()).saturating_sub(KEPT_BYTES);
        let forgotten = surplus.min(kept.bytes.len());
        kept.bytes.drain(..forgotten);
        kept.bytes.extend(printed);
        kept.end += printed.len() as u64;
        drop(kept);
        self.grown.notify_all();
    }

    /// Nothing more will be printed: who looks on ends when he has seen all.
    pub fn close(&self) {
        self.kept().closed = true;
        self.grown.notify_all();
    }

    /// Where somebody begins who wants what was printed before, or only what comes.
    pub fn begin(&self, with_scrollback: bool) -> u64 {
        let kept = self.kept();
        let shown = if with_scrollback { SCROLLBACK_BYTES.min(kept.bytes.len()) } else { 0 };
        kept.end.saturating_sub(shown as u64)
    }

    /// Waits for what was printed from `place` on, and puts some of it into `chunk`. Returns how many bytes before it
    /// are missed, or `None` at the end, or when `gone` was set (see [`Self::wake`]).
    pub fn next(&self, place: &mut u64, gone: &AtomicBool, chunk: &mut Vec<u8>) -> Option<u64> {
        let mut kept = self.kept();
        while kept.end <= *place {
            if kept.closed || gone.load(Ordering::SeqCst) {
                return None;
            }
            kept = self.grown.wait(kept).unwrap_or_else(PoisonError::into_inner);
        }
        if gone.load(Ordering::SeqCst) {
            return None;
        }
        let missed = kept.start().saturating_sub(*place);
        *place += missed;
        let skipped = usize::try_from(*place - kept.start()).unwrap_or(usize::MAX);
        chunk.clear();
        chunk.extend(kept.bytes.iter().skip(skipped).take(CHUNK_BYTES));
        *place += chunk.len() as u64;
        Some(missed)
    }

    /// Lets all that wait look whether they are gone.
    pub fn wake(&self) {
        // Who is about to wait has not seen the flag yet, but then he holds the lock.
        drop(self.kept());
        self.grown.notify_all();
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that is shown from `place` on, and how much was missed.
    fn shown(history: &History, mut place: u64) -> (Vec<u8>, u64) {
        let (mut all, mut chunk, mut missed) = (vec![], vec![], 0);
        while let Some(more) = history.next(&mut place, &AtomicBool::new(false), &mut chunk) {
            missed += more;
            all.extend(&chunk);
        }
        (all, missed)
    }

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|n| u8::try_from(n % 251).unwrap()).collect()
    }

    #[test]
    fn who_is_slow_misses_what_is_not_kept_and_is_told() {
        let history = History::default();
        let place = history.begin(true);
        let all = bytes(KEPT_BYTES + 1000);
        all.chunks(777).for_each(|chunk| history.add(chunk));
        history.close();
        assert_eq!(shown(&history, place), (all[1000..].to_vec(), 1000));
    }

    #[test]
    fn who_comes_late_begins_with_the_scrollback() {
        let history = History::default();
        let all = bytes(SCROLLBACK_BYTES + 5);
        history.add(&all);
        let (with, without) = (history.begin(true), history.begin(false));
        history.add(b"now");
        history.close();
        assert_eq!(shown(&history, with), ([&all[5..], b"now"].concat(), 0));
        assert_eq!(shown(&history, without), (b"now".to_vec(), 0));
    }

    #[test]
    fn one_who_is_gone_waits_no_longer() {
        let history = History::default();
        let gone = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| history.next(&mut 0, &gone, &mut vec![]));
            gone.store(true, Ordering::SeqCst);
            history.wake();
            assert_eq!(waits.join().unwrap(), None);
        });
    }

    #[test]
    fn more_at_once_than_is_kept_leaves_the_end_of_it() {
        let history = History::default();
        let all = bytes(KEPT_BYTES + 9);
        history.add(&all);
        history.close();
        let (seen, missed) = shown(&history, 0);
        assert!(seen.ends_with(&all[all.len() - 100..]) && missed + seen.len() as u64 == all.len() as u64);
    }
}

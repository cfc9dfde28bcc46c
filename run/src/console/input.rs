//! What the user typed, on its way to the one device that is the console.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::event::Flag;

/// Input held for the guest, in bytes. While it is full, stdin is not read, so that a pipe into the machine waits.
const CAPACITY_BYTES: usize = 4096;

/// Typed bytes that wait for the guest. Cheap to clone: one clone fills it, one device takes from it.
#[derive(Debug, Clone)]
pub struct ConsoleInput {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    bytes: Mutex<VecDeque<u8>>,
    ready: Flag,
    room: Flag,
    /// Those who wait for room on threads of their own, or for the end.
    drained: Condvar,
    closed: AtomicBool,
}

impl ConsoleInput {
    /// An empty input.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            shared: Arc::new(Shared {
                bytes: Mutex::new(VecDeque::with_capacity(CAPACITY_BYTES)),
                ready: Flag::new()?,
                room: Flag::new()?,
                drained: Condvar::new(),
                closed: AtomicBool::new(false),
            }),
        })
    }

    /// Raised when bytes came. A device that takes fewer than there are calls [`Self::take`] again by itself once it
    /// has room, or raises this flag to be called by its event loop.
    #[must_use]
    pub fn ready(&self) -> &Flag {
        &self.shared.ready
    }

    /// Takes up to `limit` bytes, in the order they were typed.
    #[must_use]
    pub fn take(&self, limit: usize) -> Vec<u8> {
        let mut bytes = self.bytes();
        let len = bytes.len().min(limit);
        let taken = bytes.drain(..len).collect();
        if len > 0 {
            self.shared.room.raise();
            self.shared.drained.notify_all();
        }
        taken
    }

    /// How many bytes wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes().len()
    }

    /// Whether no bytes wait.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }

    /// Raised when bytes were taken.
    pub(super) fn room(&self) -> &Flag {
        &self.shared.room
    }

    /// How many bytes [`Self::put`] takes now.
    pub(super) fn room_bytes(&self) -> usize {
        CAPACITY_BYTES.saturating_sub(self.bytes().len())
    }

    /// Adds all of `typed`, and waits where there is no room for it. False when the console ends before.
    pub(super) fn put_all(&self, typed: &[u8]) -> bool {
        let mut left = typed;
        let mut bytes = self.bytes();
        loop {
            let room = CAPACITY_BYTES.saturating_sub(bytes.len());
            let (put, rest) = left.split_at(room.min(left.len()));
            if !put.is_empty() {
                bytes.extend(put);
                self.shared.ready.raise();
            }
            left = rest;
            if left.is_empty() {
                return true;
            }
            if self.shared.closed.load(Ordering::SeqCst) {
                return false;
            }
            bytes = self.shared.drained.wait(bytes).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The console ends: nobody waits for room any longer.
    pub(super) fn close(&self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        // Who is about to wait holds the lock, and has not seen it.
        drop(self.bytes());
        self.shared.drained.notify_all();
    }

    /// Adds `typed`, at most [`Self::room_bytes`] of it.
    pub(super) fn put(&self, typed: &[u8]) {
        let mut bytes = self.bytes();
        let room = CAPACITY_BYTES.saturating_sub(bytes.len());
        bytes.extend(typed.iter().take(room));
        drop(bytes);
        self.shared.ready.raise();
    }

    fn bytes(&self) -> MutexGuard<'_, VecDeque<u8>> {
        self.shared.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

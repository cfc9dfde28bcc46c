//! The thread that serves queues of an active device.

use std::{
    io,
    sync::Arc,
    thread::{Builder, JoinHandle},
};

use super::{Misuse, Ring, Signal};
use crate::event::{EventHandler, Flag, Interest, serve};

/// A thread of a device. Dropping it ends the thread before it returns.
pub(super) struct DeviceThread {
    stop: Flag,
    thread: Option<JoinHandle<()>>,
}

impl DeviceThread {
    /// Serves `worker` on a thread of this name, of which the system shows 15 bytes. The driver is told if nothing can be
    /// served.
    pub(super) fn start(
        name: String,
        mut worker: impl EventHandler + 'static,
        signal: Arc<dyn Signal>,
    ) -> io::Result<Self> {
        let stop = Flag::new()?;
        let stopped = stop.try_clone()?;
        let thread = Builder::new().name(name).spawn(move || {
            if serve(&mut worker, &stopped).is_err() {
                signal.needs_reset();
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Ends several, which wait for each other's disks and peers at the same time.
    pub(super) fn end_all(threads: Vec<Self>) {
        threads.iter().for_each(|thread| thread.stop.raise());
        drop(threads);
    }
}

/// What follows a turn at `ring`: another one soon if it stopped before all was served, and none if the driver misused it.
pub(super) fn after_turn(turn: Result<bool, Misuse>, ring: &Ring, signal: &dyn Signal, interest: &mut Interest<'_>) {
    match turn {
        Ok(false) => {}
        Ok(true) => ring.ring_again(),
        Err(_) => stop(signal, interest),
    }
}

/// Serves nothing more until the driver has reset the device.
pub(super) fn stop(signal: &dyn Signal, interest: &mut Interest<'_>) {
    interest.clear();
    signal.needs_reset();
}

impl Drop for DeviceThread {
    fn drop(&mut self) {
        self.stop.raise();
        // A panic of the thread is our own mistake; the panic hook has told of it.
        let _panicked = self.thread.take().map(JoinHandle::join);
    }
}

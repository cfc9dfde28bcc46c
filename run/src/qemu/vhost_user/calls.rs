//! How a device reaches its driver through QEMU.

use std::fs::File;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

use crate::virtio::Signal;

/// The events that QEMU turns into interrupts, one for each queue. QEMU takes one away while it hides the interrupt.
#[derive(Debug)]
pub(super) struct Calls(Vec<Mutex<Option<File>>>);

impl Calls {
    pub(super) fn new(queues: usize) -> Self {
        Self((0..queues).map(|_| Mutex::new(None)).collect())
    }

    /// From now on `call` is the event of a queue. False if there is no such queue.
    pub(super) fn set(&self, queue: usize, call: Option<File>) -> bool {
        let Some(slot) = self.0.get(queue) else { return false };
        *slot.lock().unwrap_or_else(PoisonError::into_inner) = call;
        true
    }
}

impl Signal for Calls {
    fn queue_used(&self, queue: u16) {
        let Some(slot) = self.0.get(usize::from(queue)) else { return };
        if let Some(mut call) = slot.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            // The one failure is a full counter, and then QEMU has not seen the one before.
            let _full = call.write(&1_u64.to_ne_bytes());
        }
    }

    /// QEMU asks for the configuration when it starts, and has no reason to ask again.
    fn config_changed(&self) {}

    /// QEMU has no word for it: the driver waits until it is loaded anew.
    fn needs_reset(&self) {}
}

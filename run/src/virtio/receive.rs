//! A queue of buffers for the device to fill: chains are taken ahead, and given back when there is something in them.

use std::sync::Arc;

use super::{Chain, Misuse, Ring, Signal};
use crate::mem::GuestMemory;

/// The queue. A driver that breaks the rules gives no more chains; [`finish`](Self::finish) tells how.
pub(super) struct ReceiveQueue {
    memory: GuestMemory,
    ring: Ring,
    signal: Arc<dyn Signal>,
    /// For the next chains, so that their memory is used again.
    empty: Vec<Chain>,
    /// Something was given back that the driver was not told of.
    has_given: bool,
    misuse: Option<Misuse>,
}

impl ReceiveQueue {
    pub(super) fn new(memory: GuestMemory, ring: Ring, signal: Arc<dyn Signal>) -> Self {
        Self { memory, ring, signal, empty: Vec::new(), has_given: false, misuse: None }
    }

    pub(super) fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    pub(super) fn ring(&self) -> &Ring {
        &self.ring
    }

    /// The next chain. `None` when there is none now; then the doorbell rings for more.
    pub(super) fn take(&mut self) -> Option<Chain> {
        if self.misuse.is_some() {
            return None;
        }
        let mut chain = self.empty.pop().unwrap_or_default();
        match self.pop(&mut chain) {
            Ok(true) => return Some(chain),
            Ok(false) => self.empty.push(chain),
            Err(misuse) => self.misuse = Some(misuse),
        }
        None
    }

    fn pop(&mut self, chain: &mut Chain) -> Result<bool, Misuse> {
        if self.ring.pop(&self.memory, chain)? {
            return Ok(true);
        }
        // The doorbell is wanted only while there is no room.
        Ok(self.ring.enable_doorbell(&self.memory)? && self.ring.pop(&self.memory, chain)?)
    }

    /// Gives a chain back with its first `written` bytes filled.
    pub(super) fn give(&mut self, chain: Chain, written: u64) {
        let written = u32::try_from(written).unwrap_or(u32::MAX);
        if let Err(misuse) = self.ring.push(&self.memory, chain.head(), written) {
            self.misuse = Some(misuse);
        }
        self.has_given = true;
        self.empty.push(chain);
    }

    /// Tells the driver what was given back, if it wants to know; true if it did.
    ///
    /// # Errors
    /// How the driver broke the rules since the last call.
    pub(super) fn finish(&mut self) -> Result<bool, Misuse> {
        if let Some(misuse) = self.misuse.take() {
            return Err(misuse);
        }
        if std::mem::take(&mut self.has_given) { self.ring.tell(&self.memory, &*self.signal) } else { Ok(false) }
    }
}

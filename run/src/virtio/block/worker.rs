//! The thread of an active disk: chains in, completions out.

use std::{io, sync::Arc};

use super::request::{Id, Served};
use crate::{
    block::BlockBackend,
    event::{EventHandler, Interest},
    mem::GuestMemory,
    virtio::{Chain, Misuse, Ring, Signal},
};

/// Requests after which the driver is told even if more are waiting: it can work on those meanwhile.
const COMPLETIONS_PER_SIGNAL: u32 = 16;
/// Requests after which the thread looks at its other events, above all the one that ends it.
const REQUESTS_PER_TURN: u32 = 256;

/// An active disk.
pub(super) struct Worker {
    pub backend: Box<dyn BlockBackend>,
    pub memory: GuestMemory,
    pub ring: Ring,
    pub signal: Arc<dyn Signal>,
    pub id: Id,
    pub features: u64,
    pub chain: Chain,
}

impl Worker {
    /// Serves what is waiting. True if it stopped before all was served.
    fn turn(&mut self) -> Result<bool, Misuse> {
        let mut served = 0;
        loop {
            self.ring.disable_doorbell(&self.memory)?;
            while served < REQUESTS_PER_TURN && self.ring.pop(&self.memory, &mut self.chain)? {
                self.serve()?;
                served += 1;
                if served.is_multiple_of(COMPLETIONS_PER_SIGNAL) {
                    self.tell()?;
                }
            }
            self.tell()?;
            if served == REQUESTS_PER_TURN {
                return Ok(true);
            }
            if !self.ring.enable_doorbell(&self.memory)? {
                return Ok(false);
            }
        }
    }

    fn serve(&mut self) -> Result<(), Misuse> {
        let mut served =
            Served { backend: self.backend.as_mut(), memory: &self.memory, id: &self.id, features: self.features };
        let done = served.serve(&self.chain).map_err(|_| self.ring.malformed(&self.chain))?;
        self.ring.push(&self.memory, self.chain.head(), done.written)
    }

    fn tell(&mut self) -> Result<(), Misuse> {
        if self.ring.wants_signal(&self.memory)? {
            self.signal.queue_used(self.ring.number());
        }
        Ok(())
    }
}

impl EventHandler for Worker {
    fn start(&mut self, interest: &mut Interest<'_>) -> io::Result<()> {
        interest.watch(self.ring.doorbell(), 0)
    }

    fn ready(&mut self, _token: u32, interest: &mut Interest<'_>) {
        // Takes the doorbell down; it fails when it is down already.
        let _ = self.ring.doorbell().read();
        match self.turn() {
            Ok(false) => {}
            Ok(true) => self.ring.ring_again(),
            Err(_) => {
                interest.ignore(self.ring.doorbell());
                self.signal.needs_reset();
            }
        }
    }
}

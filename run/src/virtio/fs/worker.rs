//! The thread of an active queue: requests in, answers out.

use std::{io, sync::Arc};

use super::exchange::ChainExchange;
use crate::{
    event::{EventHandler, Interest},
    mem::GuestMemory,
    share::Session,
    virtio::{Chain, Misuse, Ring, Signal, thread::after_turn},
};

/// Requests after which the thread looks at its other events, above all the one that ends it.
const REQUESTS_PER_TURN: u32 = 64;

/// An active queue.
pub(super) struct Worker {
    pub session: Arc<Session>,
    pub memory: GuestMemory,
    pub ring: Ring,
    pub signal: Arc<dyn Signal>,
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
                // Whoever asked waits for the answer.
                self.ring.tell(&self.memory, &*self.signal)?;
            }
            if served == REQUESTS_PER_TURN {
                return Ok(true);
            }
            if !self.ring.enable_doorbell(&self.memory)? {
                return Ok(false);
            }
        }
    }

    fn serve(&mut self) -> Result<(), Misuse> {
        let exchange = ChainExchange { memory: &self.memory, chain: &self.chain };
        let written = self.session.serve(&exchange).ok_or_else(|| self.ring.malformed(&self.chain))?;
        self.ring.push(&self.memory, self.chain.head(), written)
    }
}

impl EventHandler for Worker {
    fn start(&mut self, interest: &mut Interest<'_>) -> io::Result<()> {
        interest.watch(self.ring.doorbell(), 0)
    }

    fn ready(&mut self, _token: u32, interest: &mut Interest<'_>) {
        // Takes the doorbell down; it fails when it is down already.
        let _ = self.ring.doorbell().read();
        let turn = self.turn();
        after_turn(turn, &self.ring, &*self.signal, interest);
    }
}

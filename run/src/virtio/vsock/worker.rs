//! An active device: its queues, and the sockets.

use std::{io, sync::Arc};

use super::{
    inbox::{ChainPayload, QueueInbox},
    spec::{TRANSPORT_RESET, feature},
};
use crate::{
    event::{EventHandler, Interest},
    lent::Taken,
    mem::{GuestMemory, transfer::copy_to_guest},
    virtio::{Chain, Misuse, Ring, Signal, thread::stop},
    vsock::Muxer,
};

const RECEIVE: u32 = 0;
const TRANSMIT: u32 = 1;
const EVENTS: u32 = 2;
const SOCKETS: u32 = 3;

/// Packets after which sockets have their turn.
const PACKETS_PER_TURN: u32 = 256;

/// An active device.
pub(super) struct Worker {
    muxer: Taken<Muxer>,
    memory: GuestMemory,
    signal: Arc<dyn Signal>,
    inbox: QueueInbox,
    transmit: Ring,
    events: Option<Ring>,
    /// The driver does not know yet that its connections are gone.
    owes_event: bool,
    chain: Chain,
}

impl Worker {
    pub(super) fn new(
        mut muxer: Taken<Muxer>,
        (memory, signal): (GuestMemory, Arc<dyn Signal>),
        (receive, transmit, events): (Ring, Ring, Option<Ring>),
        features: u64,
    ) -> Self {
        let has_lost = muxer.start(features & feature::SEQPACKET != 0);
        let owes_event = has_lost && events.is_some();
        if has_lost && !owes_event {
            muxer.reset_lost();
        }
        let inbox = QueueInbox::new(memory.clone(), receive, Arc::clone(&signal));
        Self { muxer, memory, signal, inbox, transmit, events, owes_event, chain: Chain::default() }
    }

    fn turn(&mut self, token: u32) -> Result<(), Misuse> {
        match token {
            RECEIVE => drop(self.inbox.ring().doorbell().read()),
            TRANSMIT => drop(self.transmit.doorbell().read()),
            EVENTS => drop(self.events.as_ref().map(|events| events.doorbell().read())),
            _ => {}
        }
        self.send_event()?;
        // A host that cannot say what happened to its sockets has lost them: the guest waits, and gives up.
        let has_seen_all = self.muxer.look().unwrap_or(true);
        let has_packets = self.transmit()?;
        let was_full = self.muxer.is_full();
        let has_more = self.muxer.to_guest(&mut self.inbox);
        self.inbox.finish()?;
        self.transmit.tell(&self.memory, &*self.signal)?;
        let has_room = was_full && !self.muxer.is_full();
        if has_packets || has_room || has_more || !has_seen_all {
            self.transmit.ring_again();
        }
        Ok(())
    }

    /// Takes the packets that wait. True if it stopped before all were taken.
    fn transmit(&mut self) -> Result<bool, Misuse> {
        let mut taken = 0;
        loop {
            self.transmit.disable_doorbell(&self.memory)?;
            while taken < PACKETS_PER_TURN
                && !self.muxer.is_full()
                && self.transmit.pop(&self.memory, &mut self.chain)?
            {
                taken += 1;
                if let Some((header, payload)) = ChainPayload::read(&self.memory, self.chain.readable()) {
                    self.muxer.from_guest(&header, &payload);
                }
                self.transmit.push(&self.memory, self.chain.head(), 0)?;
            }
            if self.muxer.is_full() {
                return Ok(false);
            }
            if taken == PACKETS_PER_TURN {
                return Ok(true);
            }
            if !self.transmit.enable_doorbell(&self.memory)? {
                return Ok(false);
            }
        }
    }

    /// Says that all connections are gone, as soon as the driver has a buffer for it.
    fn send_event(&mut self) -> Result<(), Misuse> {
        let Some(events) = self.events.as_mut().filter(|_| self.owes_event) else { return Ok(()) };
        let has_buffer = events.pop(&self.memory, &mut self.chain)?
            || events.enable_doorbell(&self.memory)? && events.pop(&self.memory, &mut self.chain)?;
        if has_buffer {
            let written = copy_to_guest(&self.memory, self.chain.writable(), &TRANSPORT_RESET.to_le_bytes());
            events.push(&self.memory, self.chain.head(), u32::try_from(written).unwrap_or(0))?;
            events.tell(&self.memory, &*self.signal)?;
            self.owes_event = false;
            self.muxer.forget_lost();
        }
        Ok(())
    }
}

impl EventHandler for Worker {
    fn start(&mut self, interest: &mut Interest<'_>) -> io::Result<()> {
        interest.watch(self.inbox.ring().doorbell(), RECEIVE)?;
        interest.watch(self.transmit.doorbell(), TRANSMIT)?;
        if let Some(events) = &self.events {
            interest.watch(events.doorbell(), EVENTS)?;
        }
        interest.watch(&self.muxer.fd(), SOCKETS)?;
        // Who came while no driver was there.
        self.transmit.ring_again();
        Ok(())
    }

    fn ready(&mut self, token: u32, interest: &mut Interest<'_>) {
        if self.turn(token).is_err() {
            stop(&*self.signal, interest);
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.muxer.end();
    }
}

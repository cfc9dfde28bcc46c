//! An active card: both queues, the cable's other end, and its clock.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use kiln_net::Millis;

use super::{control::ControlQueue, frame::ChainFrame, port::QueuePort, untold::Untold};
use crate::{
    cable::Taken,
    event::{EventHandler, Interest, Timer},
    mem::{GuestMemory, transfer::total_len},
    virtio::{Chain, Misuse, Ring, Signal, thread::stop},
};

const RECEIVE: u32 = 0;
const TRANSMIT: u32 = 1;
const SOCKETS: u32 = 2;
const TIMER: u32 = 3;
const CONTROL: u32 = 4;

/// Frames after which sockets have their turn.
const FRAMES_PER_TURN: u32 = 256;

/// The queues of a card. A driver need not have one for commands.
pub(super) struct Rings {
    pub(super) receive: Ring,
    pub(super) transmit: Ring,
    pub(super) control: Option<Ring>,
}

/// An active card.
pub(super) struct Worker {
    link: Taken,
    /// What the driver reads of it.
    is_up: Arc<AtomicBool>,
    memory: GuestMemory,
    signal: Arc<dyn Signal>,
    port: QueuePort,
    transmit: Ring,
    control: Option<ControlQueue>,
    chain: Chain,
    untold: Untold,
    timer: Timer,
    start: Instant,
    /// When the timer fires.
    armed: Option<Millis>,
}

impl Worker {
    pub(super) fn new(
        (link, is_up): (Taken, Arc<AtomicBool>),
        start: Instant,
        (memory, signal): (GuestMemory, Arc<dyn Signal>),
        Rings { receive, transmit, control }: Rings,
        features: u64,
    ) -> io::Result<Self> {
        let timer = Timer::new()?;
        let port = QueuePort::new(memory.clone(), receive, Arc::clone(&signal), features);
        let control = control.map(|ring| ControlQueue::new(ring, features));
        let (chain, untold) = (Chain::default(), Untold::default());
        Ok(Self { link, is_up, memory, signal, port, transmit, control, chain, untold, timer, start, armed: None })
    }

    fn now(&self) -> Millis {
        Millis::try_from(self.start.elapsed().as_millis()).unwrap_or(Millis::MAX)
    }

    /// Takes the frames that wait. True if it stopped before all were taken.
    fn transmit(&mut self) -> Result<bool, Misuse> {
        let now = self.now();
        let mut taken = 0;
        loop {
            self.transmit.disable_doorbell(&self.memory)?;
            while taken < FRAMES_PER_TURN && !self.link.is_full() && self.transmit.pop(&self.memory, &mut self.chain)? {
                taken += 1;
                self.untold.took(total_len(self.chain.readable()), now);
                if let Some(frame) = ChainFrame::new(&self.memory, self.chain.readable()) {
                    self.link.from_guest(&frame, &mut self.port, now);
                }
                self.transmit.push(&self.memory, self.chain.head(), 0)?;
            }
            if self.link.is_full() {
                return Ok(false);
            }
            if taken == FRAMES_PER_TURN {
                return Ok(true);
            }
            if !self.transmit.enable_doorbell(&self.memory)? {
                return Ok(false);
            }
        }
    }

    /// Does what the driver asks for.
    fn obey(&mut self) -> Result<(), Misuse> {
        let Some(control) = &mut self.control else { return Ok(()) };
        let _ = control.ring().doorbell().read();
        control.serve(&self.memory, &*self.signal, |offloads| self.port.set_offloads(offloads))
    }

    fn turn(&mut self, token: u32) -> Result<(), Misuse> {
        match token {
            CONTROL => self.obey()?,
            RECEIVE => drop(self.port.ring().doorbell().read()),
            TRANSMIT => drop(self.transmit.doorbell().read()),
            TIMER => _ = self.timer.take(),
            _ => {}
        }
        let has_frames = self.transmit()?;
        let was_full = self.link.is_full();
        let now = self.now();
        // A host that cannot say what happened to its sockets has lost them: the guest's connections time out.
        let turned = match token {
            SOCKETS => self.link.turn(&mut self.port, now),
            _ => self.link.settle(&mut self.port, now),
        };
        let has_more = turned.unwrap_or(false);
        if self.port.finish()? {
            self.untold.interrupted(now);
        }
        self.look_at_link();
        if self.untold.is_due(now) {
            self.transmit.tell(&self.memory, &*self.signal)?;
        }
        // What lacks room in the guest goes on when the receive queue's doorbell rings.
        let has_room = was_full && !self.link.is_full();
        if has_frames || has_room || has_more && kiln_net::port::GuestPort::room(&mut self.port, 0) > 0 {
            self.transmit.ring_again();
        }
        self.arm(now);
        Ok(())
    }

    /// Tells the driver when the other end of the cable was lost, or is there again.
    fn look_at_link(&self) {
        let is_up = self.link.is_up();
        if self.is_up.swap(is_up, Ordering::SeqCst) != is_up {
            self.signal.config_changed();
        }
    }

    fn arm(&mut self, now: Millis) {
        let deadline = [self.link.deadline(), self.untold.deadline()].into_iter().flatten().min();
        // A timer that fires too early costs less than one that is set again for each frame.
        let is_early = self.armed.is_some_and(|armed| armed > now && deadline.is_none_or(|deadline| armed <= deadline));
        if is_early || deadline.is_none() && self.armed.is_none() {
            return;
        }
        match deadline {
            Some(deadline) => self.timer.set(Duration::from_millis(deadline.saturating_sub(now).max(1))),
            None => self.timer.clear(),
        }
        self.armed = deadline;
    }
}

impl EventHandler for Worker {
    fn start(&mut self, interest: &mut Interest<'_>) -> io::Result<()> {
        interest.watch(self.port.ring().doorbell(), RECEIVE)?;
        interest.watch(self.transmit.doorbell(), TRANSMIT)?;
        if let Some(control) = &self.control {
            interest.watch(control.ring().doorbell(), CONTROL)?;
        }
        interest.watch(&self.link.fd(), SOCKETS)?;
        interest.watch(&self.timer, TIMER)?;
        // What came while no driver was there.
        self.transmit.ring_again();
        Ok(())
    }

    fn ready(&mut self, token: u32, interest: &mut Interest<'_>) {
        if self.turn(token).is_err() {
            stop(&*self.signal, interest);
        }
    }
}

//! The entropy device (section 5.4): fills buffers from the host's random number generator.

use std::{io, sync::Arc};

use rustix::rand::{GetRandomFlags, getrandom};

use super::{Activation, Chain, Misuse, Ring, Signal, VirtioDevice, spec::DeviceType, thread::after_turn};
use crate::{
    event::{EventHandler, Events, HandlerId, Interest},
    mem::{GuestMemory, transfer::copy_to_guest},
};

/// Requests that may wait, in descriptors.
const QUEUE_SIZE: u16 = 64;
/// Most bytes given to one request, whatever its size: a guest cannot keep the thread busy with one buffer.
const BYTES_PER_REQUEST: usize = 1024;
/// Requests after which the thread serves other devices.
const REQUESTS_PER_TURN: u32 = 16;

/// An entropy source, served by a thread that it shares.
#[derive(Debug)]
pub struct VirtioRng {
    events: Events,
    handler: Option<HandlerId>,
}

impl VirtioRng {
    /// A source whose requests are served on the thread of `events`.
    #[must_use]
    pub fn new(events: Events) -> Self {
        Self { events, handler: None }
    }
}

impl VirtioDevice for VirtioRng {
    fn device_type(&self) -> DeviceType {
        DeviceType::Entropy
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    /// There is none.
    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        let Some(ring) = activation.rings.into_iter().next().flatten() else { return Ok(()) };
        let (memory, signal) = (activation.memory, activation.signal);
        self.handler = Some(self.events.add(Box::new(Worker { memory, ring, signal, chain: Chain::default() }))?);
        Ok(())
    }

    fn reset(&mut self) {
        if let Some(handler) = self.handler.take() {
            self.events.remove(handler);
        }
    }
}

struct Worker {
    memory: GuestMemory,
    ring: Ring,
    signal: Arc<dyn Signal>,
    chain: Chain,
}

impl Worker {
    /// Serves what is waiting. True if it stopped before all was served.
    fn turn(&mut self) -> Result<bool, Misuse> {
        for _ in 0..REQUESTS_PER_TURN {
            if !self.ring.pop(&self.memory, &mut self.chain)? {
                return self.ring.enable_doorbell(&self.memory);
            }
            let mut bytes = [0; BYTES_PER_REQUEST];
            // Up to 256 bytes come whole; more may be cut short by a signal, and then the rest is not given.
            let random = getrandom(&mut bytes, GetRandomFlags::empty()).unwrap_or(0);
            let filled = copy_to_guest(&self.memory, self.chain.writable(), bytes.get(..random).unwrap_or_default());
            self.ring.push(&self.memory, self.chain.head(), u32::try_from(filled).unwrap_or(0))?;
            self.ring.tell(&self.memory, &*self.signal)?;
        }
        Ok(true)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::EventThread,
        virtio::mock::{Buffer, Driver, NEXT},
    };

    fn setup() -> (Driver, EventThread) {
        let thread = EventThread::start("test").unwrap();
        let mut driver = Driver::find(Box::new(VirtioRng::new(thread.events())));
        driver.start();
        (driver, thread)
    }

    #[test]
    fn a_broken_chain_stops_it_and_a_reset_brings_it_back() {
        let (mut driver, _thread) = setup();
        let (table, ..) = Driver::ring_addresses(0);
        driver.describe(table, 0, 0x9_0000, 16, NEXT, 0);
        driver.offer(0, 0);
        driver.notify(0);
        driver.wait_for_break_down();
        driver.reset();
        driver.start();
        assert_eq!(driver.request(0, &[Buffer::In(8)]).written, 8);
    }

    #[test]
    fn a_request_is_filled_up_to_its_limit() {
        let (mut driver, _thread) = setup();
        for (len, written) in [(1, 1), (64, 64), (1024, 1024), (100_000, 1024)] {
            assert_eq!(driver.request(0, &[Buffer::In(len)]).written, written);
        }
        assert_eq!(driver.request(0, &[Buffer::Out(vec![1; 10])]).written, 0);
    }

    #[test]
    fn no_two_answers_are_alike() {
        let (mut driver, _thread) = setup();
        let first = driver.request(0, &[Buffer::In(20), Buffer::In(12)]).filled;
        let second = driver.request(0, &[Buffer::In(32)]).filled;
        assert!(first != second && first != [0; 32] && second != [0; 32]);
    }

    #[test]
    fn more_requests_than_a_turn_serves_are_all_served() {
        let (mut driver, _thread) = setup();
        for _ in 0..16 {
            driver.put(0, &[Buffer::In(1)]);
        }
        driver.notify(0);
        for _ in 0..16 {
            assert_eq!(driver.finished(0).written, 1);
        }
        driver.request(0, &[Buffer::In(1)]);
    }
}

//! The device as its driver configures it.

use std::io;

use super::handle::BalloonHandle;
use super::spec::{config, feature, queue};
use super::worker::Worker;
use crate::event::{Events, Served};
use crate::virtio::{Activation, VirtioDevice, read_at, spec::DeviceType};

/// Size of each queue, in descriptors: Linux reports 32 free ranges at once, and refuses a smaller queue.
const QUEUE_SIZE: u16 = 64;
const QUEUES: [u16; 5] = [QUEUE_SIZE; 5];

/// A balloon, served by a thread that it shares.
#[derive(Debug)]
pub struct VirtioBalloon {
    handle: BalloonHandle,
    events: Events,
    served: Option<Served>,
}

impl VirtioBalloon {
    /// The balloon that `handle` reaches; its requests are served on the thread of `events`.
    #[must_use]
    pub fn new(handle: BalloonHandle, events: Events) -> Self {
        Self { handle, events, served: None }
    }
}

impl VirtioDevice for VirtioBalloon {
    fn device_type(&self) -> DeviceType {
        DeviceType::Balloon
    }

    fn features(&self) -> u64 {
        feature::STATS_VQ | feature::DEFLATE_ON_OOM | feature::REPORTING
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let (target, actual) = self.handle.pages();
        let mut bytes = [0; config::BYTES];
        for (to, from) in bytes.iter_mut().zip(target.to_le_bytes().into_iter().chain(actual.to_le_bytes())) {
            *to = from;
        }
        read_at(&bytes, offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        if let (config::ACTUAL, Ok(pages)) = (offset, data.try_into()) {
            self.handle.set_actual(u32::from_le_bytes(pages));
        }
    }

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        let Activation { memory, mut rings, signal, features } = activation;
        let mut ring = |number: u16| rings.get_mut(usize::from(number)).and_then(Option::take);
        let has = |bit: u64| features & bit != 0;
        let mut handing = Vec::new();
        for number in [queue::INFLATE, queue::DEFLATE] {
            handing.extend(ring(number));
        }
        let stats = ring(queue::STATS).filter(|_| has(feature::STATS_VQ));
        let mut reporting = Vec::new();
        for number in [queue::REPORTING_WITHOUT_HOLE, queue::REPORTING] {
            reporting.extend(ring(number).filter(|_| has(feature::REPORTING)));
        }
        self.handle.set_signal(Some(signal.clone()));
        let worker = Worker::new(memory, signal, self.handle.clone(), handing, stats, reporting);
        self.served = Some(Served::new(&self.events, Box::new(worker))?);
        Ok(())
    }

    fn reset(&mut self) {
        self.served = None;
        self.handle.set_signal(None);
    }
}

//! A queue while the driver sets it up.

use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use crate::{
    mem::GuestMemory,
    virtio::{Layout, Ring},
};

/// Registers of one queue, as the driver wrote them. Nothing is checked before [`QueueSetup::ring`].
#[derive(Debug)]
pub(super) struct QueueSetup {
    pub max_size: u16,
    pub size: u16,
    pub enabled: bool,
    pub descriptors: u64,
    pub driver_area: u64,
    pub device_area: u64,
    /// Signalled by a write to the queue's doorbell.
    pub doorbell: Arc<EventFd>,
}

impl QueueSetup {
    pub fn new(max_size: u16, doorbell: EventFd) -> Self {
        Self {
            max_size,
            size: max_size,
            enabled: false,
            descriptors: 0,
            driver_area: 0,
            device_area: 0,
            doorbell: Arc::new(doorbell),
        }
    }

    pub fn reset(&mut self) {
        (self.size, self.enabled) = (self.max_size, false);
        (self.descriptors, self.driver_area, self.device_area) = (0, 0, 0);
        // Takes the counter down; fails when it is down.
        let _ = self.doorbell.read();
    }

    /// The queue ready for use, or `None` if its size, its addresses or their alignment break the rules (2.7).
    pub fn ring(&self, number: u16, features: u64, memory: &GuestMemory) -> Option<Ring> {
        let Self { max_size, size, descriptors, driver_area, device_area, .. } = *self;
        let layout = Layout { size, descriptors, driver_area, device_area, done: 0 };
        layout.ring(number, max_size, features, memory, Arc::clone(&self.doorbell))
    }
}

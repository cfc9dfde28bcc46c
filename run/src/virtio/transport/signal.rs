//! How a device reaches its driver over PCI: MSI-X, the ISR register and the status byte.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU8, AtomicU16, Ordering},
};

use crate::{pci::Msix, virtio::Signal};

/// A vector number that means no vector (4.1.5.1.2).
pub(super) const NO_VECTOR: u16 = 0xffff;
/// ISR bits (4.1.4.5).
const ISR_QUEUE: u8 = 1;
const ISR_CONFIG: u8 = 2;

/// What the device's threads and the registers share. Nothing here waits.
#[derive(Debug)]
pub(super) struct PciSignal {
    msix: Arc<Msix>,
    config_vector: AtomicU16,
    queue_vectors: Vec<AtomicU16>,
    isr: AtomicU8,
    generation: AtomicU8,
    needs_reset: AtomicBool,
    live: AtomicBool,
}

impl PciSignal {
    pub fn new(msix: Arc<Msix>, queues: usize) -> Self {
        Self {
            msix,
            config_vector: AtomicU16::new(NO_VECTOR),
            queue_vectors: (0..queues).map(|_| AtomicU16::new(NO_VECTOR)).collect(),
            isr: AtomicU8::new(0),
            generation: AtomicU8::new(0),
            needs_reset: AtomicBool::new(false),
            live: AtomicBool::new(false),
        }
    }

    /// All as after power-on. The generation goes on counting.
    pub fn reset(&self) {
        self.live.store(false, Ordering::SeqCst);
        for vector in self.queue_vectors.iter().chain([&self.config_vector]) {
            vector.store(NO_VECTOR, Ordering::SeqCst);
        }
        self.isr.store(0, Ordering::SeqCst);
        self.needs_reset.store(false, Ordering::SeqCst);
    }

    /// The driver has set `DRIVER_OK`: only from now on may it be told of anything (3.1.1).
    pub fn set_live(&self) {
        self.live.store(true, Ordering::SeqCst);
    }

    pub fn wants_reset(&self) -> bool {
        self.needs_reset.load(Ordering::SeqCst)
    }

    pub fn generation(&self) -> u8 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Reads the ISR, which clears it.
    pub fn take_isr(&self) -> u8 {
        self.isr.swap(0, Ordering::SeqCst)
    }

    pub fn config_vector(&self) -> u16 {
        self.config_vector.load(Ordering::SeqCst)
    }

    pub fn set_config_vector(&self, vector: u16) {
        self.config_vector.store(self.existing(vector), Ordering::SeqCst);
    }

    pub fn queue_vector(&self, queue: u16) -> u16 {
        self.queue_vectors.get(usize::from(queue)).map_or(NO_VECTOR, |vector| vector.load(Ordering::SeqCst))
    }

    pub fn set_queue_vector(&self, queue: u16, vector: u16) {
        if let Some(slot) = self.queue_vectors.get(usize::from(queue)) {
            slot.store(self.existing(vector), Ordering::SeqCst);
        }
    }

    /// A driver that names a vector that is not there reads back that it has none (4.1.5.1.2.1).
    fn existing(&self, vector: u16) -> u16 {
        if vector < self.msix.count() { vector } else { NO_VECTOR }
    }

    fn fire(&self, vector: u16, isr: u8) {
        if self.live.load(Ordering::SeqCst) {
            self.isr.fetch_or(isr, Ordering::SeqCst);
            if vector != NO_VECTOR {
                self.msix.fire(vector);
            }
        }
    }
}

impl Signal for PciSignal {
    fn queue_used(&self, queue: u16) {
        self.fire(self.queue_vector(queue), ISR_QUEUE);
    }

    fn config_changed(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.fire(self.config_vector(), ISR_CONFIG);
    }

    fn needs_reset(&self) {
        self.needs_reset.store(true, Ordering::SeqCst);
        self.fire(self.config_vector(), ISR_CONFIG);
    }
}

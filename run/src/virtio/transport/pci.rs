//! One virtio device as a PCI function: status, features, queues and doorbells (4.1, 3.1).

use std::{io, sync::Arc};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::{
    capabilities::{
        BAR, CAPABILITY_BAR, CAPABILITY_EXTRA, CAPABILITY_LENGTH, CAPABILITY_OFFSET, COMMON, DEVICE, ISR, MAX_QUEUES,
        MSIX_PENDING, MSIX_TABLE, NOTIFY, NOTIFY_MULTIPLIER, PAGE, Places, config_space,
    },
    queue_setup::QueueSetup,
    registers::{Field, Snapshot, Write, decode},
    signal::PciSignal,
};
use crate::{
    hv::{Doorbells, MsiLines},
    mem::GuestMemory,
    pci::{ConfigSpace, Msix, PciFunction},
    virtio::{
        Activation, Signal, VirtioDevice,
        spec::{feature, status},
    },
};

/// Features that the transport and the rings add to those of every device.
const RING_FEATURES: u64 = feature::VERSION_1 | feature::EVENT_IDX | feature::INDIRECT_DESC;
/// Offset of message control in the MSI-X capability.
const MSIX_CONTROL: usize = 2;

/// What a virtio function needs of the machine.
#[derive(Clone)]
pub struct Resources {
    /// Guest memory, for the device once it is active.
    pub memory: GuestMemory,
    /// Interrupts.
    pub lines: Arc<dyn MsiLines>,
    /// Doorbells without an exit to this process.
    pub doorbells: Arc<dyn Doorbells>,
}

/// A virtio device on the PCI bus.
pub struct VirtioPci {
    config: ConfigSpace,
    places: Places,
    msix: Arc<Msix>,
    signal: Arc<PciSignal>,
    memory: GuestMemory,
    doorbells: Arc<dyn Doorbells>,
    device: Box<dyn VirtioDevice>,
    queues: Vec<QueueSetup>,
    /// The device owns its queues.
    active: bool,
    /// Where the BAR is, while it decodes.
    address: Option<u64>,
    /// Where the doorbells of the enabled queues are attached.
    attached: Option<u64>,
    status: u8,
    device_feature_select: u32,
    driver_feature_select: u32,
    driver_features: u64,
    queue_select: u16,
}

impl VirtioPci {
    /// Puts `device` behind PCI registers. Fails if the host has no more events or interrupt lines.
    pub fn new(device: Box<dyn VirtioDevice>, resources: Resources) -> io::Result<Self> {
        let doorbell = |size: &u16| Ok(QueueSetup::new(*size, EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?));
        let queues: Vec<_> = device.queue_sizes().iter().take(MAX_QUEUES).map(doorbell).collect::<io::Result<_>>()?;
        // One vector for each queue and one for configuration changes.
        let vectors = u16::try_from(queues.len() + 1).unwrap_or(u16::MAX);
        let msix = Arc::new(Msix::new(resources.lines, vectors)?);
        let (config, places) = config_space(device.device_type(), &msix);
        Ok(Self {
            config,
            places,
            signal: Arc::new(PciSignal::new(Arc::clone(&msix), queues.len())),
            msix,
            memory: resources.memory,
            doorbells: resources.doorbells,
            device,
            queues,
            active: false,
            address: None,
            attached: None,
            status: 0,
            device_feature_select: 0,
            driver_feature_select: 0,
            driver_features: 0,
            queue_select: 0,
        })
    }

    fn offered(&self) -> u64 {
        self.device.features() | RING_FEATURES
    }

    /// The status byte as the driver sees it.
    fn shown_status(&self) -> u8 {
        let broken = if self.signal.wants_reset() { status::DEVICE_NEEDS_RESET } else { 0 };
        self.status | broken
    }

    fn read_common(&self, offset: u64, data: &mut [u8]) {
        let queue = self.queues.get(usize::from(self.queue_select));
        let snapshot = Snapshot {
            device_feature_select: self.device_feature_select,
            device_feature: half(self.offered(), self.device_feature_select),
            driver_feature_select: self.driver_feature_select,
            driver_feature: half(self.driver_features, self.driver_feature_select),
            config_vector: self.signal.config_vector(),
            queues: u16::try_from(self.queues.len()).unwrap_or(u16::MAX),
            status: self.shown_status(),
            generation: self.signal.generation(),
            queue_select: self.queue_select,
            queue_size: queue.map_or(0, |queue| queue.size),
            queue_vector: self.signal.queue_vector(self.queue_select),
            queue_enable: queue.map_or(0, |queue| u16::from(queue.enabled)),
            queue_notify_off: queue.map_or(0, |_| self.queue_select),
            descriptors: queue.map_or(0, |queue| queue.descriptors),
            driver_area: queue.map_or(0, |queue| queue.driver_area),
            device_area: queue.map_or(0, |queue| queue.device_area),
        };
        let bytes = snapshot.bytes();
        let rest = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)).unwrap_or_default();
        copy_or_zero(data, rest);
    }

    fn write_common(&mut self, Write { field, value, mask }: Write) {
        let [low, high, ..] = value.to_le_bytes();
        let word = u16::from_le_bytes([low, high]);
        let double = half(value, 0);
        match field {
            Field::DeviceFeatureSelect => self.device_feature_select = double,
            Field::DriverFeatureSelect => self.driver_feature_select = double,
            Field::DriverFeature => self.set_driver_feature(double),
            Field::ConfigVector => self.signal.set_config_vector(word),
            Field::Status => self.set_status(low),
            Field::QueueSelect => self.queue_select = word,
            Field::QueueVector => self.signal.set_queue_vector(self.queue_select, word),
            Field::QueueSize | Field::QueueEnable | Field::Descriptors | Field::DriverArea | Field::DeviceArea => {
                let Some(queue) = self.queues.get_mut(usize::from(self.queue_select)) else { return };
                // A queue does not change once it is enabled (4.1.4.3.2).
                if queue.enabled || self.active {
                    return;
                }
                match field {
                    Field::QueueSize => queue.size = word,
                    Field::QueueEnable => queue.enabled = word == 1,
                    Field::Descriptors => queue.descriptors = queue.descriptors & !mask | value,
                    Field::DriverArea => queue.driver_area = queue.driver_area & !mask | value,
                    _ => queue.device_area = queue.device_area & !mask | value,
                }
            }
        }
    }

    fn set_driver_feature(&mut self, value: u32) {
        // Features are settled with FEATURES_OK (3.1.1).
        if self.status & status::FEATURES_OK != 0 {
            return;
        }
        let value = u64::from(value);
        match self.driver_feature_select {
            0 => self.driver_features = self.driver_features & !0xffff_ffff | value,
            1 => self.driver_features = self.driver_features & 0xffff_ffff | value << 32,
            // Nothing is offered up there. To accept it anyway is a mistake that FEATURES_OK will not pass.
            _ if value != 0 => self.driver_features |= 1 << 63,
            _ => {}
        }
    }

    fn set_status(&mut self, written: u8) {
        if written == 0 {
            return self.reset();
        }
        // Bits are only ever added; a driver that takes one away has to reset (2.1.1).
        let new = written & !self.status & !status::DEVICE_NEEDS_RESET;
        self.status |= new & !(status::FEATURES_OK | status::DRIVER_OK);
        if new & status::FEATURES_OK != 0 && self.features_are_good() {
            self.status |= status::FEATURES_OK;
        }
        if new & status::DRIVER_OK != 0 {
            self.status |= status::DRIVER_OK;
            self.signal.set_live();
            if self.signal.wants_reset() || !self.activate() {
                self.signal.needs_reset();
            }
        }
    }

    fn features_are_good(&self) -> bool {
        self.driver_features & !self.offered() == 0 && self.driver_features & feature::VERSION_1 != 0
    }

    /// Hands the queues to the device; false if the driver broke the rules or the device cannot start.
    fn activate(&mut self) -> bool {
        let steps = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK;
        if self.status & steps != steps {
            return false;
        }
        let mut rings = Vec::with_capacity(self.queues.len());
        for (number, queue) in (0..).zip(&self.queues) {
            let ring = queue.enabled.then(|| queue.ring(number, self.driver_features, &self.memory));
            match ring {
                Some(None) => return false,
                Some(Some(ring)) => rings.push(Some(ring)),
                None => rings.push(None),
            }
        }
        self.active = true;
        self.move_doorbells();
        let activated = self.device.activate(Activation {
            memory: self.memory.clone(),
            rings,
            signal: Arc::clone(&self.signal) as Arc<dyn Signal>,
            features: self.driver_features,
        });
        activated.is_ok()
    }

    fn reset(&mut self) {
        self.device.reset();
        self.active = false;
        self.move_doorbells();
        self.queues.iter_mut().for_each(QueueSetup::reset);
        self.signal.reset();
        self.status = 0;
        (self.device_feature_select, self.driver_feature_select, self.queue_select) = (0, 0, 0);
        self.driver_features = 0;
    }

    /// Attaches the doorbells where the BAR is now, if the device is active. Where the host refuses, the write exits to
    /// [`PciFunction::write_bar`] and rings there.
    fn move_doorbells(&mut self) {
        let wanted = self.address.filter(|_| self.active);
        if wanted == self.attached {
            return;
        }
        for (queue, setup) in (0..).zip(&self.queues).filter(|(_, setup)| setup.enabled) {
            let doorbell = |bar: u64| bar + NOTIFY + NOTIFY_MULTIPLIER * queue;
            if let Some(bar) = self.attached {
                let _ = self.doorbells.detach(doorbell(bar), &setup.doorbell);
            }
            if let Some(bar) = wanted {
                let _ = self.doorbells.attach(doorbell(bar), &setup.doorbell);
            }
        }
        self.attached = wanted;
    }

    fn ring_doorbell(&self, offset: u64) {
        let queue = usize::try_from(offset / NOTIFY_MULTIPLIER).ok();
        if let Some(setup) = queue.and_then(|queue| self.queues.get(queue)).filter(|_| self.active) {
            // The one failure is a full counter, and then the doorbell rings already.
            let _ = setup.doorbell.write(1);
        }
    }

    /// The part of the BAR that the access capability selects (4.1.4.9): offset and width.
    fn window(&self) -> Option<(u64, usize)> {
        let start = self.places.pci_cfg;
        let offset = u64::from(self.config.u32_at(start + CAPABILITY_OFFSET));
        let width = usize::try_from(self.config.u32_at(start + CAPABILITY_LENGTH)).ok()?;
        let is_bar = usize::from(self.config.u8_at(start + CAPABILITY_BAR)) == BAR.index;
        let fits = matches!(width, 1 | 2 | 4) && offset.checked_add(width as u64)? <= BAR.len;
        (is_bar && fits && offset.is_multiple_of(width as u64)).then_some((offset, width))
    }

    /// Whether a configuration access is to the access capability's data.
    fn is_window_data(&self, offset: u16, len: usize) -> bool {
        let data = self.places.pci_cfg + CAPABILITY_EXTRA;
        let offset = usize::from(offset);
        offset < data + 4 && data < offset + len
    }
}

impl PciFunction for VirtioPci {
    fn config(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn read_config(&mut self, offset: u16, data: &mut [u8]) {
        if self.is_window_data(offset, data.len())
            && let Some((at, width)) = self.window()
        {
            let mut bytes = [0xff; 4];
            if let Some(bytes) = bytes.get_mut(..width) {
                self.read_bar(BAR.index, at, bytes);
            }
            self.config.set(self.places.pci_cfg + CAPABILITY_EXTRA, &bytes);
        }
        self.config.read(offset, data);
    }

    fn write_config(&mut self, offset: u16, data: &[u8]) {
        self.config.write(offset, data);
        self.msix.set_control(self.config.u16_at(self.places.msix + MSIX_CONTROL));
        if self.is_window_data(offset, data.len())
            && let Some((at, width)) = self.window()
            && let Some(bytes) = data.get(..width)
        {
            self.write_bar(BAR.index, at, bytes);
        }
    }

    fn read_bar(&mut self, _bar: usize, offset: u64, data: &mut [u8]) {
        data.fill(0);
        match offset & !(PAGE - 1) {
            COMMON => self.read_common(offset, data),
            ISR if offset == ISR => copy_or_zero(data, &[self.signal.take_isr()]),
            DEVICE => self.device.read_config(offset - DEVICE, data),
            MSIX_TABLE => self.msix.read_table(offset - MSIX_TABLE, data),
            MSIX_PENDING => self.msix.read_pending(offset - MSIX_PENDING, data),
            _ => {}
        }
    }

    fn write_bar(&mut self, _bar: usize, offset: u64, data: &[u8]) {
        match offset & !(PAGE - 1) {
            COMMON => {
                if let Some(write) = decode(offset, data) {
                    self.write_common(write);
                }
            }
            DEVICE => self.device.write_config(offset - DEVICE, data),
            NOTIFY => self.ring_doorbell(offset - NOTIFY),
            MSIX_TABLE => self.msix.write_table(offset - MSIX_TABLE, data),
            _ => {}
        }
    }

    fn place_bar(&mut self, _bar: usize, address: Option<u64>) {
        self.address = address;
        self.move_doorbells();
    }
}

impl Drop for VirtioPci {
    /// No thread of the device outlives it.
    fn drop(&mut self) {
        self.reset();
    }
}

/// Bits 0 to 31 or 32 to 63 of a set of features; nothing is above.
fn half(bits: u64, select: u32) -> u32 {
    let [a, b, c, d, e, f, g, h] = bits.to_le_bytes();
    match select {
        0 => u32::from_le_bytes([a, b, c, d]),
        1 => u32::from_le_bytes([e, f, g, h]),
        _ => 0,
    }
}

fn copy_or_zero(data: &mut [u8], from: &[u8]) {
    for (to, from) in data.iter_mut().zip(from.iter().chain(std::iter::repeat(&0))) {
        *to = *from;
    }
}

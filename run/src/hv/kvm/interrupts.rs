//! Interrupts into the guest (irqfd and the GSI routing table) and doorbells out of it (ioeventfd).

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE,
    KvmIrqRouting, kvm_irq_routing_entry, kvm_irq_routing_irqchip, kvm_irq_routing_msi,
};
use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use vmm_sys_util::eventfd::EventFd;

use super::super::{Doorbells, Level, MsiLine, MsiLines, MsiMessage, Pins};
use crate::layout::FIRST_MSI_LINE;

/// Pins of each of the two old controllers.
const PIC_PINS: u32 = 8;
/// Entries that the kernel's routing table can have (`KVM_MAX_IRQ_ROUTES`); old interrupt pins take 40 of them.
const MAX_MSI_LINES: u32 = 4096 - 40;

pub(super) struct Interrupts {
    vm: Arc<VmFd>,
    lines: Mutex<Lines>,
}

#[derive(Default)]
struct Lines {
    allocated: u32,
    /// Message of each connected line.
    connected: BTreeMap<u32, MsiMessage>,
}

impl Interrupts {
    pub(super) fn new(vm: Arc<VmFd>) -> Self {
        Self { vm, lines: Mutex::default() }
    }

    /// Hands the kernel a whole new table: the fixed pins, then every connected line.
    fn route(&self, connected: &BTreeMap<u32, MsiMessage>) -> io::Result<()> {
        let mut entries: Vec<_> = fixed_routes().collect();
        entries.extend(connected.iter().map(|(gsi, message)| msi_route(*gsi, *message)));
        let table = KvmIrqRouting::from_entries(&entries).map_err(|_too_many| io::ErrorKind::QuotaExceeded)?;
        self.vm.set_gsi_routing(&table).map_err(os_error)
    }
}

impl MsiLines for Interrupts {
    fn allocate(&self) -> io::Result<MsiLine> {
        let event = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.allocated == MAX_MSI_LINES {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let number = FIRST_MSI_LINE + lines.allocated;
        lines.allocated += 1;
        Ok(MsiLine { number, event })
    }

    fn connect(&self, changes: &[(&MsiLine, Option<MsiMessage>)]) -> io::Result<()> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let mut wanted = lines.connected.clone();
        for (line, message) in changes {
            match message {
                Some(message) => wanted.insert(line.number, *message),
                None => wanted.remove(&line.number),
            };
        }
        if wanted == lines.connected {
            return Ok(());
        }
        for (line, message) in changes {
            if message.is_none() && lines.connected.contains_key(&line.number) {
                self.vm.unregister_irqfd(&line.event, line.number).map_err(os_error)?;
            }
        }
        self.route(&wanted)?;
        for (line, message) in changes {
            if message.is_some() && !lines.connected.contains_key(&line.number) {
                forget_earlier_events(&line.event);
                self.vm.register_irqfd(&line.event, line.number).map_err(os_error)?;
            }
        }
        lines.connected = wanted;
        Ok(())
    }
}

impl Doorbells for Interrupts {
    fn attach(&self, address: u64, event: &EventFd) -> io::Result<()> {
        self.vm.register_ioevent(event, &IoEventAddress::Mmio(address), NoDatamatch).map_err(os_error)
    }

    fn detach(&self, address: u64, event: &EventFd) -> io::Result<()> {
        self.vm.unregister_ioevent(event, &IoEventAddress::Mmio(address), NoDatamatch).map_err(os_error)
    }
}

impl Pins for Interrupts {
    fn edge(&self, pin: u32) -> io::Result<EventFd> {
        let event = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
        self.vm.register_irqfd(&event, pin).map_err(os_error)?;
        Ok(event)
    }

    fn set_level(&self, pin: u32, level: Level) -> io::Result<()> {
        self.vm.set_irq_line(pin, level == Level::Asserted).map_err(os_error)
    }
}

fn os_error(error: kvm_ioctls::Error) -> io::Error {
    io::Error::from_raw_os_error(error.errno())
}

/// The kernel would deliver an event that is already pending when it begins to listen.
fn forget_earlier_events(event: &EventFd) {
    // The descriptor does not block; that there was nothing to forget is fine.
    let _nothing_pending = event.read();
}

/// What KVM sets up by itself and a new table would take away: pins 0 to 15 at both old controllers, 0 to 23 at the
/// I/O APIC.
fn fixed_routes() -> impl Iterator<Item = kvm_irq_routing_entry> {
    let old = (0..2 * PIC_PINS).map(|gsi| match gsi.checked_sub(PIC_PINS) {
        None => pin_route(gsi, KVM_IRQCHIP_PIC_MASTER, gsi),
        Some(pin) => pin_route(gsi, KVM_IRQCHIP_PIC_SLAVE, pin),
    });
    old.chain((0..FIRST_MSI_LINE).map(|gsi| pin_route(gsi, KVM_IRQCHIP_IOAPIC, gsi)))
}

fn pin_route(gsi: u32, irqchip: u32, pin: u32) -> kvm_irq_routing_entry {
    let mut route = kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_IRQCHIP, ..Default::default() };
    route.u.irqchip = kvm_irq_routing_irqchip { irqchip, pin };
    route
}

fn msi_route(gsi: u32, message: MsiMessage) -> kvm_irq_routing_entry {
    let [a0, a1, a2, a3, a4, a5, a6, a7] = message.address.to_le_bytes();
    let address_lo = u32::from_le_bytes([a0, a1, a2, a3]);
    let address_hi = u32::from_le_bytes([a4, a5, a6, a7]);
    let msi = kvm_irq_routing_msi { address_lo, address_hi, data: message.data, ..Default::default() };
    let mut route = kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_MSI, ..Default::default() };
    route.u.msi = msi;
    route
}

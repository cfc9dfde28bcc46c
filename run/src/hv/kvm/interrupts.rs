//! Interrupts into the guest (irqfd and the GSI routing table) and doorbells out of it (ioeventfd).

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use kvm_bindings::{KVM_IRQ_ROUTING_MSI, KvmIrqRouting, kvm_irq_routing_entry, kvm_irq_routing_msi, kvm_msi};
use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use vmm_sys_util::eventfd::EventFd;

use super::super::{Doorbells, Messages, MsiLine, MsiLines, MsiMessage};
use crate::layout::FIRST_MSI_LINE;

/// Entries that the kernel's routing table can have (`KVM_MAX_IRQ_ROUTES`).
const MAX_MSI_LINES: u32 = 4096;

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

    /// Hands the kernel a whole new table: every connected line.
    fn route(&self, connected: &BTreeMap<u32, MsiMessage>) -> io::Result<()> {
        let entries: Vec<_> = connected.iter().map(|(gsi, message)| msi_route(*gsi, *message)).collect();
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

impl Messages for Interrupts {
    fn send(&self, message: MsiMessage) -> io::Result<()> {
        let (address_lo, address_hi) = halves(message.address);
        let message = kvm_msi { address_lo, address_hi, data: message.data, ..Default::default() };
        self.vm.signal_msi(message).map_err(os_error).map(|_delivered| ())
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

fn msi_route(gsi: u32, message: MsiMessage) -> kvm_irq_routing_entry {
    let (address_lo, address_hi) = halves(message.address);
    let msi = kvm_irq_routing_msi { address_lo, address_hi, data: message.data, ..Default::default() };
    let mut route = kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_MSI, ..Default::default() };
    route.u.msi = msi;
    route
}

fn halves(address: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = address.to_le_bytes();
    (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
}

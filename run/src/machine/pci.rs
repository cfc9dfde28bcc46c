//! The PCI bus of a machine: bridges, entropy, console, network cards, disks, shared folders.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use super::{Error, HostSide};
use crate::bus::Bus;
use crate::check::MAX_PLACES;
use crate::disks::OpenDisk;
use crate::hv::Entry;
use crate::layout::{
    CHIPSET_START, ECAM_START, FIRMWARE_LOW_RAM, FIRMWARE_WINDOW32_END, IOAPIC_START, PCI_WINDOW32_END,
    PCI_WINDOW32_START, PCI_WINDOW64_LEN, PM_PORT,
};
use crate::mem::Split;
use crate::pci::{HostBridge, LpcBridge, PciAddress, PciBus, Windows, memory_range};
use crate::virtio::VirtioDevice;
use crate::virtio::balloon::{BalloonHandle, VirtioBalloon};
use crate::virtio::block::{BlockOptions, MAX_QUEUES, VirtioBlock};
use crate::virtio::console::VirtioConsole;
use crate::virtio::fs::VirtioFs;
use crate::virtio::net::VirtioNet;
use crate::virtio::rng::VirtioRng;
use crate::virtio::transport::{Resources, VirtioPci};
use crate::virtio::vsock::VirtioVsock;

/// Device number of the entropy source.
const RNG_SLOT: u8 = 1;
/// Device number of the console.
const CONSOLE_SLOT: u8 = 2;
/// Device number of the first network card; the others follow, then the disks, then the shared folders.
const FIRST_SLOT: u8 = 3;
/// Device number of the balloon, behind them.
const BALLOON_SLOT: u8 = 29;
const END_SLOT: u8 = BALLOON_SLOT;
/// Device number of the socket device; the LPC bridge has the last one.
const VSOCK_SLOT: u8 = 30;
const _: () = assert!(FIRST_SLOT as usize + MAX_PLACES == END_SLOT as usize);

/// Which consoles a kernel's command line asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Consoles {
    /// The serial port alone; a virtio console would cost its enumeration for nothing.
    Serial,
    /// Both, and typed bytes go to the serial port.
    SerialTypedTo,
    /// Both, and typed bytes go to the virtio console.
    VirtioTypedTo,
}

impl Consoles {
    /// What `cmdline` says: the last `console=` is the kernel's own.
    pub(super) fn of(cmdline: &str) -> Self {
        let mut consoles = Self::Serial;
        for console in cmdline.split_ascii_whitespace().filter_map(|word| word.strip_prefix("console=")) {
            consoles = match (console.starts_with("hvc"), consoles) {
                (true, _) => Self::VirtioTypedTo,
                (false, Self::Serial) => Self::Serial,
                (false, _) => Self::SerialTypedTo,
            };
        }
        consoles
    }
}

/// What the devices need.
pub(super) struct Parts<'a> {
    pub(super) host: &'a HostSide,
    pub(super) cpus: u32,
    pub(super) disks: &'a [OpenDisk],
    pub(super) balloon: Option<&'a BalloonHandle>,
    /// Whether there is a virtio console, and who is typed to.
    pub(super) consoles: Consoles,
    pub(super) resources: Resources,
    pub(super) split: Split,
}

/// Where firmware may put BARs and ECAM below 4 GiB.
pub(super) fn firmware_window(split: Split) -> Range<u64> {
    split.low_bytes.max(FIRMWARE_LOW_RAM)..FIRMWARE_WINDOW32_END
}

/// Device numbers of the disks, in order.
pub(super) fn disk_slots(cards: usize, disks: usize) -> Vec<u8> {
    (FIRST_SLOT..END_SLOT).skip(cards).take(disks).collect()
}

/// Makes the bus with all its devices and puts it on `memory`. Where a kernel starts at once, BARs and ECAM have their places;
/// after a reset firmware gives them.
pub(super) fn attach(memory: &mut Bus, parts: Parts<'_>, entry: Entry) -> Result<Arc<Mutex<PciBus>>, Error> {
    let Parts { host, cpus, disks, balloon, consoles, resources, split } = parts;
    let cards = &host.opened.cards;
    let start64 = split.pci_window64_start();
    let (low, ecam) = match entry {
        Entry::Reset => (firmware_window(split), None),
        _ => (PCI_WINDOW32_START..PCI_WINDOW32_END, Some(ECAM_START)),
    };
    let high = start64..start64 + PCI_WINDOW64_LEN;
    let mut bus = PciBus::new(Windows { low: low.clone(), high: high.clone() });
    bus.add(PciAddress::HOST_BRIDGE, Box::new(HostBridge::new(ecam)))?;
    let lpc = LpcBridge::new(u16::try_from(PM_PORT).unwrap_or(0), u32::try_from(CHIPSET_START).unwrap_or(0));
    bus.add(PciAddress::LPC_BRIDGE, Box::new(lpc))?;
    let mut add = |slot: u8, device: Box<dyn VirtioDevice>| -> Result<(), Error> {
        let function = VirtioPci::new(device, resources.clone()).map_err(Error::Device)?;
        let address = PciAddress::new(slot, 0).ok_or(Error::Device(io::ErrorKind::QuotaExceeded.into()))?;
        Ok(bus.add(address, Box::new(function))?)
    };
    add(RNG_SLOT, Box::new(VirtioRng::new(host.events.clone())))?;
    if consoles != Consoles::Serial {
        let input = (consoles == Consoles::VirtioTypedTo).then(|| host.input.clone());
        let console = VirtioConsole::new(host.output.clone(), input, host.size.clone(), host.events.clone());
        add(CONSOLE_SLOT, Box::new(console))?;
    }
    if let Some(balloon) = balloon {
        add(BALLOON_SLOT, Box::new(VirtioBalloon::new(balloon.clone(), host.events.clone())))?;
    }
    let mut slots = FIRST_SLOT..END_SLOT;
    for (slot, card) in slots.by_ref().take(cards.len()).zip(cards) {
        add(slot, Box::new(VirtioNet::new(card.cable.clone(), card.mac, card.mtu)))?;
    }
    if let Some(vsock) = &host.opened.vsock {
        add(VSOCK_SLOT, Box::new(VirtioVsock::new(vsock.clone())))?;
    }
    for (index, (slot, disk)) in slots.by_ref().take(disks.len()).zip(disks).enumerate() {
        let name = format!("disk{index}");
        // A queue for each processor.
        let queues = u16::try_from(cpus).map_or(MAX_QUEUES, |cpus| cpus.min(MAX_QUEUES));
        let options =
            BlockOptions { serial: &name, thread_name: &name, queues, is_write_through: disk.is_write_through };
        add(slot, Box::new(VirtioBlock::new(Arc::clone(&disk.backend), options)))?;
    }
    for (slot, share) in slots.zip(&host.opened.shares) {
        add(slot, Box::new(VirtioFs::new(share.clone())))?;
    }
    if ecam.is_some() {
        bus.assign_bars()?;
    }
    let bus = Arc::new(Mutex::new(bus));
    // ECAM is below the I/O APIC, wherever firmware puts it.
    for range in [low.start..IOAPIC_START, high] {
        memory.insert(range.start, range.end - range.start, memory_range(&bus, range.start))?;
    }
    Ok(bus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consoles_are_those_that_the_command_line_names() {
        for (cmdline, expected) in [
            ("", Consoles::Serial),
            ("quiet console=ttyS0", Consoles::Serial),
            ("xconsole=hvc0", Consoles::Serial),
            ("console=hvc0 console=ttyS0", Consoles::SerialTypedTo),
            ("console=ttyS0 console=hvc0 quiet", Consoles::VirtioTypedTo),
        ] {
            assert_eq!(Consoles::of(cmdline), expected, "{cmdline}");
        }
    }
}

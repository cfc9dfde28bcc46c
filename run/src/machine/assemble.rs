//! Puts memory, kernel, tables and devices together. Order matters: devices own nothing of the guest before they are
//! activated, and the buses do not change once a vCPU runs.

use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

use super::gate::Gate;
use super::pci::{self, Consoles};
use super::{Error, Event, HostSide, Kept, firmware};
use crate::acpi::{self, Places};
use crate::boot;
use crate::bus::Bus;
use crate::check::CheckedMachine;
use crate::chipset::watchdog::{RunsDown, Watchdog};
use crate::chipset::{Awaited, Buses, Chipset, OnWish, PowerBlock, SerialPort, Wish};
use crate::config::{Boot, OnHang};
use crate::console::{ConsoleInput, LastWords};
use crate::event::{EventHandler, Interest, Served, Timer};
use crate::hv::{Entry, Vm};
use crate::smbios::{self, Bios, Uuid};
use crate::virtio::transport::Resources;

/// A machine ready to run.
pub(super) struct Assembled {
    /// I/O ports.
    pub(super) ports: Bus,
    /// Memory that is not RAM.
    pub(super) memory: Bus,
    /// Where the first vCPU starts.
    pub(super) entry: Entry,
    /// The power button's block.
    pub(super) power: Arc<Mutex<PowerBlock>>,
    /// The watchdog, to be paused.
    pub(super) watchdog: Arc<Mutex<Watchdog>>,
    /// What each vCPU passes.
    pub(super) gate: Arc<Gate>,
    /// Hears what the kernel says last.
    _last_words: Served,
    /// Waits for the watchdog's timer.
    _runs_down: Served,
    /// Waits for an operating system, if not for ever.
    _awaited: Option<Served>,
    /// Carries typed bytes to the serial port, if it gets them.
    _typed: Option<Served>,
}

/// Assembles the machine in memory that is all zeros.
pub(super) fn assemble<V: Vm>(
    vm: &V,
    machine: &CheckedMachine,
    host: &HostSide,
    kept: Kept<'_>,
    events: &Sender<Event>,
) -> Result<Assembled, Error> {
    let config = machine.config();
    let Kept { ram, disks, balloon } = kept;
    let entry = match &config.boot {
        Boot::Linux { kernel, initrd, cmdline } => {
            let places = Places { has_fw_cfg: firmware::has_fw_cfg(&config.told), ..Places::fixed(ram.split()) };
            let rsdp = acpi::write(ram.memory(), &places, config.cpus)?;
            let told = smbios::Tables::new(Bios::None, Uuid::of(&config.state_dir), &config.told.oem_strings);
            told.write(ram.memory()).map_err(Error::Smbios)?;
            let cache = host.kernels.as_ref();
            boot::load(ram, &boot::Request { kernel, initrd: initrd.as_deref(), cmdline, rsdp, cache })?
        }
        Boot::Firmware(_) => Entry::Reset,
    };
    let mut ports = Bus::default();
    let mut memory = Bus::default();
    let mut buses = Buses { ports: &mut ports, memory: &mut memory };
    let on_wish = wishes_to(events.clone(), config.on_hang);
    let timer = Timer::new().map_err(Error::Device)?;
    let chipset = Chipset::new(&mut buses, vm.messages(), host.output.clone(), host.input.clone(), timer, &on_wish)?;
    let runs_down = RunsDown(Arc::clone(&chipset.watchdog));
    let runs_down = Served::new(&host.events, Box::new(runs_down)).map_err(Error::Thread)?;
    let awaited = config.boot_timeout.map(|time| Awaited::new(time, &chipset, Arc::clone(&on_wish)));
    let awaited = awaited.transpose().map_err(Error::Device)?;
    let awaited = awaited.map(|awaited| Served::new(&host.events, Box::new(awaited)));
    let awaited = awaited.transpose().map_err(Error::Thread)?;
    let last_words = LastWords::new(host.output.clone(), move || on_wish(Wish::EndAfterPanic));
    let last_words = Box::new(last_words.map_err(Error::Device)?);
    let last_words = Served::new(&host.events, last_words).map_err(Error::Thread)?;
    let consoles = Consoles::of(config.boot.cmdline());
    let parts = pci::Parts {
        host,
        cpus: config.cpus,
        disks,
        balloon,
        consoles,
        resources: Resources { memory: ram.memory().clone(), lines: vm.msi_lines(), doorbells: vm.doorbells() },
        split: ram.split(),
    };
    let bus = pci::attach(&mut memory, parts, entry)?;
    let slots = pci::disk_slots(host.opened.cards.len(), disks.len());
    let parts = firmware::Parts { opened: host.opened.firmware.as_ref(), config, ram, bus, slots, roms: vm.roms() };
    firmware::attach(&mut Buses { ports: &mut ports, memory: &mut memory }, parts)?;
    let typed = TypedToSerial { input: host.input.clone(), serial: chipset.serial };
    let to_serial = consoles != Consoles::VirtioTypedTo;
    let typed = if to_serial { Some(Served::new(&host.events, Box::new(typed)).map_err(Error::Thread)?) } else { None };
    Ok(Assembled {
        ports,
        memory,
        entry,
        power: chipset.power,
        watchdog: chipset.watchdog,
        gate: Arc::default(),
        _last_words: last_words,
        _runs_down: runs_down,
        _awaited: awaited,
        _typed: typed,
    })
}

/// Turns the chipset's wishes into events of the run.
fn wishes_to(events: Sender<Event>, on_hang: OnHang) -> OnWish {
    Arc::new(move |wish| {
        if (wish, on_hang) == (Wish::EndAfterHang, OnHang::Ignore) {
            return;
        }
        // Nobody listens once the machine has been stopped for another reason.
        let _already_stopped = events.send(Event::Wish(wish));
    })
}

/// Carries typed bytes to the serial port.
struct TypedToSerial {
    input: ConsoleInput,
    serial: Arc<Mutex<SerialPort>>,
}

impl EventHandler for TypedToSerial {
    fn start(&mut self, interest: &mut Interest<'_>) -> std::io::Result<()> {
        interest.watch(self.input.ready(), 0)
    }

    fn ready(&mut self, _token: u32, _interest: &mut Interest<'_>) {
        let _was_raised = self.input.ready().take();
        self.serial.lock().unwrap_or_else(PoisonError::into_inner).receive();
    }
}

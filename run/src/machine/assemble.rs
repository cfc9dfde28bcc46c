//! Puts memory, kernel, tables and devices together. Order matters: devices own nothing of the guest before they are
//! activated, and the buses do not change once a vCPU runs.

use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Error, Event, HostSide};
use crate::bus::Bus;
use crate::check::CheckedMachine;
use crate::chipset::{Buses, Chipset, OnWish, PowerBlock, SerialPort};
use crate::config::Boot;
use crate::console::ConsoleInput;
use crate::event::{EventHandler, EventThread, Interest};
use crate::hv::{Entry, Vm};
use crate::mem::GuestRam;
use crate::{acpi, boot};

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
    /// Serves typed bytes; ends when the machine is dropped.
    _events: EventThread,
}

/// Assembles the machine in memory that is all zeros.
pub(super) fn assemble<V: Vm>(
    vm: &V,
    machine: &CheckedMachine,
    host: &HostSide,
    ram: &GuestRam,
    events: &Sender<Event>,
) -> Result<Assembled, Error> {
    let config = machine.config();
    let rsdp = acpi::write(ram.memory(), ram.split(), config.cpus)?;
    let Boot::Linux { kernel, initrd, cmdline } = &config.boot;
    let request = boot::Request { kernel, initrd: initrd.as_deref(), cmdline, rsdp, cache: host.kernels.as_ref() };
    let entry = boot::load(ram, &request)?;

    let mut ports = Bus::default();
    let mut memory = Bus::default();
    let mut buses = Buses { ports: &mut ports, memory: &mut memory };
    let on_wish = wishes_to(events.clone());
    let chipset = Chipset::new(&mut buses, vm.messages(), host.output.clone(), host.input.clone(), &on_wish)?;
    let thread = EventThread::start("devices").map_err(Error::Thread)?;
    let typed = TypedToSerial { input: host.input.clone(), serial: chipset.serial };
    thread.events().add(Box::new(typed)).map_err(Error::Thread)?;
    Ok(Assembled { ports, memory, entry, power: chipset.power, _events: thread })
}

/// Turns the chipset's wishes into events of the run.
fn wishes_to(events: Sender<Event>) -> OnWish {
    Arc::new(move |wish| {
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

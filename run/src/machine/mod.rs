//! The one place that assembles a machine, and the loop that runs it until the first reason to stop.

mod assemble;
mod control;
mod firmware;
mod gate;
mod pci;
mod vcpus;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};

pub use self::control::Control;
use crate::acpi;
use crate::boot::{self, KernelCache};
use crate::bus::Overlap;
use crate::check::CheckedMachine;
use crate::chipset::Wish;
use crate::config::{OnReset, end_of_run};
use crate::console::{ConsoleInput, ConsoleSink, TerminalSize};
use crate::disks::{self, DiskError, OpenDisk};
use crate::event::Events;
use crate::exit::ExitReason;
use crate::hv::{self, Hypervisor};
use crate::mem::{self, GuestRam};
use crate::opened::Opened;
use crate::pci::{AddError, NoRoom};
use crate::started::Started;
use crate::virtio::balloon::BalloonHandle;

/// The host's side of a machine.
#[derive(Debug, Clone)]
pub struct HostSide {
    /// What the guest prints.
    pub output: ConsoleSink,
    /// What the user types. It goes to the serial port, or to the virtio console if the kernel's last `console=` is
    /// `hvc0`; a machine whose command line names no `hvc` has no virtio console.
    pub input: ConsoleInput,
    /// The size of the user's terminal, if there is one.
    pub size: Option<TerminalSize>,
    /// Serves the devices that have little to do. Its thread must outlive the run.
    pub events: Events,
    /// Where unpacked kernels are kept.
    pub kernels: Option<KernelCache>,
    /// What the description asks of the host, opened.
    pub opened: Opened,
    /// Told when the machine runs.
    pub started: Started,
}

/// Why a machine could not run or had to be stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder for its state.
    #[error("cannot make state folder `{}`", path.display())]
    StateDir {
        /// The folder.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// Guest memory.
    #[error(transparent)]
    Memory(#[from] mem::Error),
    /// The hypervisor.
    #[error(transparent)]
    Hypervisor(#[from] hv::Error),
    /// Kernel, RAM disk or command line.
    #[error(transparent)]
    Boot(#[from] boot::Error),
    /// ACPI tables.
    #[error(transparent)]
    Acpi(#[from] acpi::Error),
    /// Two devices want the same addresses: a mistake of ours.
    #[error("devices collide")]
    Overlap(#[from] Overlap),
    /// The firmware's memory.
    #[error("cannot make memory for the firmware")]
    Firmware(#[source] io::Error),
    /// Files for the firmware to start.
    #[error("cannot read the kernel and its RAM disk for the firmware")]
    KernelFiles(#[source] io::Error),
    /// A file for the guest.
    #[error("cannot read `{}` for Ignition", path.display())]
    Ignition {
        /// The file.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// There is no memory for the tables.
    #[error("guest memory is too small for the SMBIOS tables")]
    Smbios(#[source] vm_memory::GuestMemoryError),
    /// A disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A device for which the host has no more descriptors, threads or interrupt lines.
    #[error("cannot set up a device of the machine")]
    Device(#[source] io::Error),
    /// Two PCI devices want the same place: a mistake of ours.
    #[error(transparent)]
    PciAddress(#[from] AddError),
    /// No room for a device's registers.
    #[error(transparent)]
    PciRoom(#[from] NoRoom),
    /// A thread or an event that the host would not give.
    #[error("cannot start a thread of the machine")]
    Thread(#[source] io::Error),
    /// A thread of the machine ended without a word: a mistake of ours, of which the panic hook has told.
    #[error("a vCPU's thread broke down")]
    BrokeDown,
}

/// What ends a run; the first one counts.
enum Event {
    Wish(Wish),
    TripleFault,
    Stop,
    Failed(hv::Error),
    ThreadEnded,
}

/// Runs the machine until it stops. Blocks; the guest's processors have threads of their own.
pub fn run<H: Hypervisor>(
    hypervisor: &H,
    machine: &CheckedMachine,
    host: &HostSide,
    control: &Control,
) -> Result<ExitReason, Error> {
    let config = machine.config();
    std::fs::create_dir_all(&config.state_dir)
        .map_err(|source| Error::StateDir { path: config.state_dir.clone(), source })?;
    let disks = disks::open_all(&config.disks, &config.state_dir)?;
    let mut ram = GuestRam::of(machine.split(), config.memory.pages)?;
    let balloon = config.memory.has_balloon().then(|| BalloonHandle::new(machine.memory_bytes()));
    let balloon = balloon.transpose().map_err(Error::Device)?;
    loop {
        let reason =
            run_once(hypervisor, machine, host, control, Kept { ram: &ram, disks: &disks, balloon: balloon.as_ref() })?;
        match end_of_run(reason, config.on_reset, config.on_hang) {
            Some(reason) => return Ok(reason),
            None => ram.clear(),
        }
    }
}

/// What lasts from one start of the machine to the next.
#[derive(Clone, Copy)]
struct Kept<'a> {
    ram: &'a GuestRam,
    disks: &'a [OpenDisk],
    balloon: Option<&'a BalloonHandle>,
}

/// From power-on to power-off or reset.
fn run_once<H: Hypervisor>(
    hypervisor: &H,
    machine: &CheckedMachine,
    host: &HostSide,
    control: &Control,
    kept: Kept<'_>,
) -> Result<ExitReason, Error> {
    let config = machine.config();
    let vm = hypervisor.create_vm(kept.ram.memory(), config.cpus)?;
    let (events, first_event) = mpsc::channel();
    let assembled = assemble::assemble(&vm, machine, host, kept, &events)?;
    let attached = control::Machine {
        events: events.clone(),
        power: Arc::clone(&assembled.power),
        watchdog: Arc::clone(&assembled.watchdog),
        gate: Arc::clone(&assembled.gate),
        memory: kept.ram.memory().clone(),
        balloon: kept.balloon.cloned(),
    };
    host.output.machine_starts();
    let _attached = control.attach(attached);
    host.started.tell();
    let event = vcpus::run_until_event(&vm, config.cpus, &assembled, &events, &first_event)?;
    match event {
        Event::Wish(Wish::PowerOff) => Ok(ExitReason::PowerOff),
        // A kernel that resets when it panics: the machine starts again, or ends for the better reason.
        Event::Wish(Wish::Reset) if config.on_reset == OnReset::Stop && host.output.panic().is_some() => {
            Ok(ExitReason::Panic)
        }
        Event::Wish(Wish::Reset) => Ok(ExitReason::Reset),
        Event::Wish(Wish::EndAfterPanic) => Ok(ExitReason::Panic),
        Event::Wish(Wish::EndAfterHang) => Ok(ExitReason::Hung),
        Event::Wish(Wish::EndNotBooted) => Ok(ExitReason::NotBooted),
        Event::TripleFault => Ok(ExitReason::TripleFault),
        Event::Stop => Ok(ExitReason::Stopped),
        Event::Failed(error) => Err(error.into()),
        Event::ThreadEnded => Err(Error::BrokeDown),
    }
}

#[cfg(test)]
mod tests;

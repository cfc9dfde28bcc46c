//! A checked machine on one of the two back ends: console, signals, and the run itself.

use std::path::PathBuf;
use std::time::Duration;

use kiln_run::boot::KernelCache;
use kiln_run::check::CheckedMachine;
use kiln_run::console::{AbandonOutput, Console};
use kiln_run::control::ControlSocket;
use kiln_run::event::{EventThread, Events};
use kiln_run::exit::ExitReason;
use kiln_run::hv;
use kiln_run::machine::{self, Control, HostSide};
use kiln_run::opened::Opened;
use kiln_run::qemu;

use super::signals::{self, Watch};
use crate::failure::Failure;
use crate::printer::Printer;
use crate::surroundings::{self, variable};

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// What the machine said.
    pub reason: ExitReason,
    /// It was stopped because the guest did not power off in time.
    pub overdue: bool,
    /// Why the guest's kernel panicked, if it printed that.
    pub panic: Option<String>,
    /// What the guest printed last.
    pub last_lines: Vec<String>,
}

/// So much of what a guest printed last is told when it failed.
const LAST_LINES: usize = 16;

/// What both back ends need beside the machine.
pub struct Surface<'a> {
    /// How long a guest may take to power off after a signal.
    pub patience: Duration,
    /// Says what the user should know meanwhile.
    pub printer: &'a Printer,
}

/// A machine, whichever back end has it, and its output, as signals and keys reach them.
#[derive(Clone)]
struct Reach<M> {
    machine: M,
    output: AbandonOutput,
}

impl signals::Machine for Reach<qemu::Remote> {
    fn power_button(&self) {
        self.machine.power_button();
    }

    fn stop(&self) {
        self.machine.stop();
    }

    fn abandon_output(&self) {
        self.output.abandon();
    }
}

impl signals::Machine for Reach<Control> {
    fn power_button(&self) {
        self.machine.press_power_button();
    }

    fn stop(&self) {
        self.machine.stop();
    }

    fn abandon_output(&self) {
        self.output.abandon();
    }
}

/// Runs the machine under QEMU.
pub fn under_qemu(
    machine: &CheckedMachine,
    opened: Opened,
    qemu: PathBuf,
    surface: &Surface<'_>,
) -> Result<End, Failure> {
    let programs = qemu::Programs { qemu, tied_by: std::env::current_exe().ok() };
    let (config, cards) = (machine.config(), opened.cards.clone());
    let machine = qemu::Machine::new(config.clone(), opened, programs);
    let _control = ControlSocket::open(&config.state_dir, cards, Box::new(machine.remote()))?;
    with_console(machine.remote(), surface, |console, events| {
        Ok(machine.run(&console.sink(), &console.input(), events)?)
    })
}

/// Runs the machine in this process, over KVM.
pub fn under_kvm(machine: &CheckedMachine, opened: Opened, surface: &Surface<'_>) -> Result<End, Failure> {
    let kvm = hv::kvm::probe()?;
    let control = Control::new();
    let state_dir = &machine.config().state_dir;
    let _control = ControlSocket::open(state_dir, opened.cards.clone(), Box::new(control.clone()))?;
    let kernels = surroundings::kept("kernels", &variable).map(KernelCache::new);
    with_console(control.clone(), surface, |console, events| {
        let host = HostSide {
            output: console.sink(),
            input: console.input(),
            size: console.size(),
            events: events.clone(),
            kernels,
            opened,
        };
        Ok(machine::run(&kvm, machine, &host, &control)?)
    })
}

/// Runs `work` with the console open and signals watched, and writes out what the guest printed, whatever the end.
fn with_console<M>(
    machine: M,
    surface: &Surface<'_>,
    work: impl FnOnce(&Console, &Events) -> Result<ExitReason, Failure>,
) -> Result<End, Failure>
where
    Reach<M>: signals::Machine + Clone + Sync + 'static,
{
    let mut console = Console::stdio()?;
    let thread = EventThread::start("devices")?;
    let reach = Reach { machine, output: console.abandon_handle() };
    let watch = signals::watch(reach.clone(), console.quit().try_clone()?, surface.patience, surface.printer.clone())?;
    let events = thread.events();
    console.start(&events)?;
    let reason = work(&console, &events);
    let sink = console.sink();
    let written = console.finish();
    let end = End {
        reason: reason?,
        overdue: Watch::was_overdue(&watch),
        panic: sink.panic(),
        last_lines: sink.last_lines(LAST_LINES),
    };
    // What was thrown away on purpose is no loss to tell of.
    if end.reason != ExitReason::Stopped {
        written?;
    }
    Ok(end)
}

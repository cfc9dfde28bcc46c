//! A checked machine on one of the two back ends: console, signals, and the run itself.

use std::path::PathBuf;
use std::time::Duration;

use kiln_run::Started;
use kiln_run::boot::KernelCache;
use kiln_run::cards::OpenCard;
use kiln_run::check::CheckedMachine;
use kiln_run::console::{AbandonOutput, Console, TTY_LINK};
use kiln_run::control::{ControlSocket, Desk};
use kiln_run::event::{EventThread, Events};
use kiln_run::exit::ExitReason;
use kiln_run::hands::Hands;
use kiln_run::hv;
use kiln_run::machine::{self, Control, HostSide};
use kiln_run::opened::Opened;
use kiln_run::qemu;

use super::presence::{Card, Presence, Waits};
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
    /// What others are told of the machine.
    pub card: Card<'a>,
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

/// Runs the machine under QEMU, to what its end means.
pub fn under_qemu(
    machine: &CheckedMachine,
    opened: Opened,
    qemu: PathBuf,
    surface: &Surface<'_>,
    meaning: impl Fn(End) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let programs = qemu::Programs { qemu, tied_by: std::env::current_exe().ok() };
    let machine = qemu::Machine::new(machine.config().clone(), opened.clone(), programs);
    let work =
        |run: Running<'_>| Ok(machine.run(&run.console.sink(), &run.console.input(), &run.events, &run.started)?);
    with_console(machine.remote(), (opened.cards, Box::new(machine.remote())), surface, work, meaning)
}

/// Runs the machine in this process, over KVM, to what its end means.
pub fn under_kvm(
    machine: &CheckedMachine,
    opened: Opened,
    surface: &Surface<'_>,
    meaning: impl Fn(End) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let kvm = hv::kvm::probe()?;
    let control = Control::new();
    let kernels = surroundings::kept("kernels", &variable).map(KernelCache::new);
    let work = |run: Running<'_>| {
        let host = HostSide {
            output: run.console.sink(),
            input: run.console.input(),
            size: Some(run.console.size()),
            events: run.events,
            kernels,
            opened: opened.clone(),
            started: run.started,
        };
        Ok(machine::run(&kvm, machine, &host, &control)?)
    };
    let reached: (_, Box<dyn Hands>) = (opened.cards.clone(), Box::new(control.clone()));
    with_console(control.clone(), reached, surface, work, meaning)
}

/// What a run gets.
struct Running<'a> {
    console: &'a Console,
    events: Events,
    started: Started,
}

/// Runs `work` with the console open, signals watched and the machine known to others, and writes out what the guest
/// printed, whatever the end.
fn with_console<M>(
    machine: M,
    reached: (Vec<OpenCard>, Box<dyn Hands>),
    surface: &Surface<'_>,
    work: impl FnOnce(Running<'_>) -> Result<ExitReason, Failure>,
    meaning: impl Fn(End) -> Result<(), Failure>,
) -> Result<(), Failure>
where
    Reach<M>: signals::Machine + Clone + Sync + 'static,
{
    let Surface { card, printer, patience } = surface;
    let state_dir = &card.config.state_dir;
    let mut console = Console::open(&card.flags.console, state_dir, card.waits == Waits::Process)?;
    let thread = EventThread::start("devices")?;
    let reach = Reach { machine, output: console.abandon_handle() };
    let quit = || console.quit().try_clone();
    let watch = signals::watch(reach.clone(), quit()?, *patience, (*printer).clone())?;
    let power_button = Box::new(move || signals::Machine::power_button(&reach));
    let (cards, hands) = reached;
    let desk = Desk { cards, hands, onlookers: console.onlookers(), power_button, quit: quit()? };
    let control = ControlSocket::open(state_dir, desk)?;
    let presence = Presence::announce(card, console.pty())?;
    if let Some(pty) = console.pty() {
        printer.note(&format!("the console is {}, as {}", pty.display(), state_dir.join(TTY_LINK).display()));
    }
    let (events, started) = (thread.events(), presence.started(printer)?);
    console.start(&events)?;
    let reason = work(Running { console: &console, events, started });
    let sink = console.sink();
    let written = console.finish();
    let meant = reason.and_then(|reason| {
        let (panic, last_lines) = (sink.panic(), sink.last_lines(LAST_LINES));
        meaning(End { reason, overdue: Watch::was_overdue(&watch), panic, last_lines })?;
        // Of a machine that was stopped it is no loss: what was not written was thrown away on purpose.
        Ok(written?)
    });
    match &meant {
        Ok(()) => presence.end("powered off", 0),
        Err(failure) => presence.end(&failure.error.to_string(), failure.status),
    }
    // After the record: who sees the name free sees the end.
    drop(control);
    meant
}

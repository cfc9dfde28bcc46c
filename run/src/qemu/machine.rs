//! One machine under QEMU, from its start to the reason of its end.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use super::child::{self, Running};
use super::command::DiskWords;
use super::pump;
use super::qmp::{self, Cause, Request, Told};
use super::remote::{Remote, Shared};
use super::vhost_user;
use crate::config::{Boot, MachineConfig, OnHang, OnReset, end_of_run};
use crate::console::{ConsoleInput, ConsoleSink, LastWords};
use crate::disks::{self, DiskError};
use crate::event::{Events, Flag, Served};
use crate::exit::ExitReason;
use crate::opened::Opened;
use crate::started::Started;

/// How long QEMU has to end after it was told to, or after it closed its control socket.
const QUIT_PATIENCE: Duration = Duration::from_secs(5);

/// The programs that a machine is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    /// `qemu-system-x86_64` or its like.
    pub qemu: PathBuf,
    /// A program that understands [`super::TIED_COMMAND`], so that QEMU dies when this process is killed.
    pub tied_by: Option<PathBuf>,
}

/// Why QEMU could not run the machine.
#[derive(Debug, thiserror::Error)]
pub enum QemuError {
    /// No sockets or pipes to talk over.
    #[error("cannot make sockets to talk to QEMU")]
    Sockets(#[source] io::Error),
    /// A disk that QEMU cannot be told of.
    #[error(transparent)]
    DiskWords(#[from] DiskWords),
    /// A disk that cannot be opened or made.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The program does not start.
    #[error("cannot start `{}`", program.to_string_lossy())]
    Start {
        /// The program.
        program: OsString,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It is not known how it ended.
    #[error("cannot wait for the end of QEMU")]
    Wait(#[source] io::Error),
    /// It ended, and the machine had no reason to.
    #[error("QEMU ended by itself ({status}){}", said_after_colon(said))]
    Died {
        /// How the process ended.
        status: ExitStatus,
        /// The last of what it said on its standard error.
        said: String,
    },
}

fn said_after_colon(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}

/// A machine that is about to be run.
#[derive(Debug)]
pub struct Machine {
    config: MachineConfig,
    programs: Programs,
    opened: Opened,
    events: Receiver<Event>,
    sender: Sender<Event>,
    shared: Arc<Shared>,
}

/// What happens while QEMU runs.
#[derive(Debug, Clone, Copy)]
pub(super) enum Event {
    /// Something is asked of QEMU.
    Ask(Request),
    Stop,
    Stopped(Cause),
    Closed,
}

impl Machine {
    /// A machine of this description, which has been checked, with what it has of the host. Disks that are missing are made
    /// when it runs.
    pub fn new(config: MachineConfig, opened: Opened, programs: Programs) -> Self {
        let (sender, events) = mpsc::channel();
        let shared = Arc::new(Shared::new(&config));
        Self { config, programs, opened, events, sender, shared }
    }

    /// What other threads reach the machine with.
    pub fn remote(&self) -> Remote {
        Remote::new(self.sender.clone(), Arc::clone(&self.shared))
    }

    /// Runs the machine to its end, on this thread: QEMU is killed when this thread ends before.
    pub fn run(
        &self,
        output: &ConsoleSink,
        input: &ConsoleInput,
        events: &Events,
        started: &Started,
    ) -> Result<ExitReason, QemuError> {
        // QEMU opens them itself: this makes those that are missing, and tells of the others in our words.
        let opened = disks::open_all(&self.config.disks, &self.config.state_dir)?;
        let overlays: Vec<_> = opened.into_iter().map(|disk| disk.overlay).collect();
        let said = self.sender.clone();
        let last_words = LastWords::new(output.clone(), move || _ = said.send(Event::Stopped(Cause::GuestPanic)));
        let last_words = Box::new(last_words.map_err(QemuError::Sockets)?);
        let _last_words = Served::new(events, last_words).map_err(QemuError::Sockets)?;
        loop {
            output.machine_starts();
            let mut reason = self.run_once((output, input), started, &overlays)?;
            self.shared.ended();
            // A kernel that resets when it panics: the machine starts again, or ends for the better reason.
            if (reason, self.config.on_reset) == (ExitReason::Reset, OnReset::Stop) && output.panic().is_some() {
                reason = ExitReason::Panic;
            }
            if let Some(reason) = end_of_run(reason, self.config.on_reset, self.config.on_hang) {
                return Ok(reason);
            }
        }
    }

    /// From start to the first end, which a reset is too.
    fn run_once(
        &self,
        (output, input): (&ConsoleSink, &ConsoleInput),
        started: &Started,
        overlays: &[Option<File>],
    ) -> Result<ExitReason, QemuError> {
        let stop_typing = Flag::new().map_err(QemuError::Sockets)?;
        let mut served = vhost_user::devices(&self.opened);
        let running = child::start(&self.config, &self.opened.cards, &served, overlays, &self.programs)?;
        let Running { mut process, qmp, serial, virtio_console, cables, devices, log } = running;
        self.shared.started(process.id());
        let stderr = process.stderr.take();
        let listener = qmp.try_clone();
        let typed_into =
            if types_into_virtio_console(&self.config.boot) { &virtio_console } else { &serial }.try_clone();
        let (Ok(listener), Ok(typed_into)) = (listener, typed_into) else {
            let _ = child::see_off(&mut process, Duration::ZERO);
            return Err(QemuError::Sockets(io::Error::last_os_error()));
        };
        let (sender, shared) = (self.sender.clone(), Arc::clone(&self.shared));
        thread::scope(|scope| {
            for (number, (card, cable)) in self.opened.cards.iter().zip(cables).enumerate() {
                let serving = thread::Builder::new().name("kiln-net".into());
                let links = self.sender.clone();
                // The receiver lives longer than this thread.
                let tell = move |is_up| _ = links.send(Event::Ask(Request::Link { card: number, is_up }));
                // Without a thread the guest has no network, as without a cable.
                let _no_thread = serving.spawn_scoped(scope, move || pump::carry_frames(&card.cable, cable, tell));
            }
            for (served, socket) in served.iter_mut().zip(devices) {
                let serving = thread::Builder::new().name("vhost-user".into());
                // Without a thread QEMU finds nobody at its socket, says so, and ends.
                let _no_thread = serving.spawn_scoped(scope, move || vhost_user::serve(served, socket));
            }
            scope.spawn(|| pump::print(serial, output));
            scope.spawn(|| pump::print(virtio_console, output));
            scope.spawn(|| pump::type_in(input, &typed_into, &stop_typing));
            let said = scope.spawn(|| stderr.map(pump::last_words).unwrap_or_default());
            let fault = scope.spawn(|| pump::saw_triple_fault(File::from(log)));
            scope.spawn(move || {
                // The receiver lives longer than this thread.
                qmp::listen(listener, |told| match told {
                    Told::Runs => started.tell(),
                    Told::Cause(cause) => _ = sender.send(Event::Stopped(cause)),
                    Told::Left(bytes) => shared.set_left(bytes),
                });
                _ = sender.send(Event::Closed);
            });
            let end = self.attend(&qmp);
            let patience = if end.overdue { Duration::ZERO } else { QUIT_PATIENCE };
            let status = child::see_off(&mut process, patience);
            if end.overdue {
                // The listener's last word belongs to this run.
                while !matches!(self.events.recv(), Ok(Event::Closed) | Err(_)) {}
            }
            stop_typing.raise();
            let triple_fault = fault.join().unwrap_or(false);
            let said = said.join().unwrap_or_default();
            let status = status.map_err(QemuError::Wait)?;
            end.reason(triple_fault).ok_or(QemuError::Died { status, said })
        })
    }

    /// Passes requests on until QEMU closes its control socket.
    fn attend(&self, qmp: &std::os::unix::net::UnixStream) -> End {
        let mut end = End { cause: None, stop_asked: false, overdue: false };
        let mut deadline: Option<Instant> = None;
        let mut booted_by = self.config.boot_timeout.and_then(|time| Instant::now().checked_add(time));
        // A write that fails means that QEMU is ending; the listener tells.
        let send = |request| drop(qmp::send(qmp, request));
        send(Request::Capabilities);
        loop {
            let event = match deadline.or(booted_by) {
                None => self.events.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(deadline) => self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())),
            };
            match event {
                Ok(Event::Ask(request)) => send(request),
                Ok(Event::Stop) => {
                    send(Request::Quit);
                    end.stop_asked = true;
                    deadline.get_or_insert_with(|| Instant::now() + QUIT_PATIENCE);
                }
                Ok(Event::Stopped(Cause::Hang)) if self.config.on_hang == OnHang::Ignore => {}
                Ok(Event::Stopped(cause)) => {
                    end.cause.get_or_insert(cause);
                    if matches!(cause, Cause::Hang | Cause::GuestPanic | Cause::NotBooted) {
                        // QEMU itself would let it run on.
                        send(Request::Quit);
                        deadline.get_or_insert_with(|| Instant::now() + QUIT_PATIENCE);
                    }
                }
                Ok(Event::Closed) => return end,
                Err(RecvTimeoutError::Timeout) if deadline.is_none() => {
                    booted_by = None;
                    send(Request::Pins);
                }
                Err(_) => {
                    end.overdue = true;
                    return end;
                }
            }
        }
    }
}

/// What is known when QEMU has ended.
#[derive(Debug, Clone, Copy)]
struct End {
    /// The first cause that it told.
    cause: Option<Cause>,
    /// It was told to end.
    stop_asked: bool,
    /// It was told to end and did not.
    overdue: bool,
}

impl End {
    fn reason(self, triple_fault: bool) -> Option<ExitReason> {
        match self.cause {
            Some(Cause::GuestShutdown) => Some(ExitReason::PowerOff),
            Some(Cause::GuestPanic) => Some(ExitReason::Panic),
            Some(Cause::Hang) => Some(ExitReason::Hung),
            Some(Cause::NotBooted) => Some(ExitReason::NotBooted),
            Some(Cause::GuestReset) if triple_fault => Some(ExitReason::TripleFault),
            Some(Cause::GuestReset) => Some(ExitReason::Reset),
            Some(Cause::Host) => Some(ExitReason::Stopped),
            None => self.stop_asked.then_some(ExitReason::Stopped),
        }
    }
}

/// The last `console=` of a kernel command line is the one that is read from.
fn types_into_virtio_console(boot: &Boot) -> bool {
    boot.cmdline()
        .split_ascii_whitespace()
        .rev()
        .find_map(|word| word.strip_prefix("console="))
        .is_some_and(|console| console.starts_with("hvc"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{MemoryOptions, Told};
    use crate::event::EventThread;

    #[test]
    fn an_end_without_a_cause_is_an_error_unless_it_was_asked_for() {
        let end = |cause, stop_asked| End { cause, stop_asked, overdue: false };
        assert_eq!(end(None, false).reason(false), None);
        assert_eq!(end(None, true).reason(false), Some(ExitReason::Stopped));
        assert_eq!(end(Some(Cause::GuestShutdown), true).reason(false), Some(ExitReason::PowerOff));
        assert_eq!(end(Some(Cause::GuestReset), false).reason(true), Some(ExitReason::TripleFault));
        assert_eq!(end(Some(Cause::GuestReset), false).reason(false), Some(ExitReason::Reset));
        assert_eq!(end(Some(Cause::GuestPanic), false).reason(false), Some(ExitReason::Panic));
    }

    #[test]
    fn the_last_console_of_the_command_line_is_typed_into() {
        let boot = |cmdline: &str| Boot::Linux { kernel: "k".into(), initrd: None, cmdline: cmdline.into() };
        for (cmdline, expected) in [
            ("", false),
            ("console=hvc0 console=ttyS0", false),
            ("console=ttyS0 console=hvc0 quiet", true),
            ("xconsole=hvc0", false),
        ] {
            assert_eq!(types_into_virtio_console(&boot(cmdline)), expected, "{cmdline}");
        }
    }

    #[test]
    fn a_program_that_is_not_qemu_is_told_of_with_what_it_said() {
        let config = MachineConfig {
            cpus: 1,
            memory_mib: 64,
            memory: MemoryOptions::default(),
            boot: Boot::Linux { kernel: "/nonexistent".into(), initrd: None, cmdline: String::new() },
            disks: vec![],
            cards: vec![],
            shares: vec![],
            vsock: None,
            told: Told::default(),
            on_reset: OnReset::Stop,
            on_hang: OnHang::default(),
            boot_timeout: None,
            state_dir: "s".into(),
        };
        let (output, sink) = crate::console::OutputThread::start(File::create("/dev/null").unwrap().into()).unwrap();
        let input = ConsoleInput::new().unwrap();
        let thread = EventThread::start("test").unwrap();
        let run = |qemu: &str| {
            let programs = Programs { qemu: qemu.into(), tied_by: None };
            Machine::new(config.clone(), Opened::default(), programs)
                .run(&sink, &input, &thread.events(), &Started::default())
                .unwrap_err()
        };
        assert!(matches!(run("/nonexistent/qemu"), QemuError::Start { .. }));
        let QemuError::Died { status, said } = run("/bin/ls") else { panic!("no death") };
        assert!(!status.success() && said.contains("ls:"), "{status} {said}");
        drop(sink);
        output.finish().unwrap();
    }
}

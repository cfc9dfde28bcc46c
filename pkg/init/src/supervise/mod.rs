//! PID 1's loop: waits for children, output, devices, buttons and time, and does what the machine's logic says.

mod backoff;
mod end;
mod machine;
mod plan;
mod process;
mod task;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use kiln_abi::{ONBOOT_LOG_DIR, ONSHUTDOWN_LOG_DIR, SERVICE_LOG_DIR, STATUS_FILE, Stage, Status};
use kiln_guest::power::Power;
use kiln_guest::signals::{Received, Signals};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, WaitOptions, WaitStatus};

pub use self::end::end;
use self::machine::{Command, Event, Machine};
use self::task::{Exit, Index, Kind};
use crate::boot::{Booted, Console};
use crate::bundle::{self, Bundle, Report};
use crate::cmdline::Verbosity;
use crate::output::{Drained, Log, Stream, Which};
use crate::since_boot;
use kiln_guest::buttons::{self, Button};

/// Ends of processes nobody asked for yet that are remembered while a container is being started.
const UNCLAIMED_LIMIT: usize = 1024;

/// Whose process it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Child {
    /// Starts the container of a task.
    Starter(Index),
    /// The task itself.
    Task(Index),
    /// Checks a service's readiness.
    Checker(Index),
    /// Takes down what was mounted for a task.
    Remover,
}

/// Everything that PID 1 watches.
pub struct Supervisor {
    booted: Booted,
    signals: Signals,
    machine: Machine,
    children: HashMap<u32, Child>,
    /// Ended before the one that starts them had told their number.
    unclaimed: HashMap<u32, Exit>,
    cgroups: HashMap<Index, PathBuf>,
    streams: Vec<Stream>,
    log: Log,
    buttons: Vec<Button>,
    ended: Option<Power>,
}

impl Supervisor {
    /// Plans what `/` asks for and begins with it.
    pub fn begin(mut booted: Booted, signals: Signals) -> Self {
        let (machine, problems) = plan::plan(Path::new("/"));
        for problem in problems {
            booted.console.trouble(&problem);
        }
        let _ = std::os::unix::fs::symlink(ONBOOT_LOG_DIR, Path::new(SERVICE_LOG_DIR).join("onboot"));
        let mut supervisor = Self {
            booted,
            signals,
            machine,
            children: HashMap::new(),
            unclaimed: HashMap::new(),
            cgroups: HashMap::new(),
            streams: Vec::new(),
            log: Log::default(),
            buttons: buttons::find(&[]),
            ended: None,
        };
        supervisor.happened(Event::Begin);
        supervisor
    }

    /// The machine's end, once everything has stopped.
    pub fn ended(&self) -> Option<Power> {
        self.ended
    }

    /// For the last words. Everything else is let go of: a log file that is open keeps the disk below it busy.
    pub fn into_console(self) -> Console {
        self.booted.console
    }

    /// Waits for something and does what follows from it.
    pub fn turn(&mut self) {
        let ready = self.wait();
        if ready.signals {
            self.take_signals();
        }
        if ready.uevents {
            self.take_uevents();
        }
        self.take_buttons();
        self.booted.console.flush();
        let now = since_boot();
        if !self.booted.console.is_full() {
            let (console, log) = (&mut self.booted.console, &mut self.log);
            self.streams.retain_mut(|stream| stream.drain(now, console, log) == Drained::Open);
        }
        for stream in self.streams.iter_mut().filter(|stream| stream.deadline().is_some_and(|time| time <= now)) {
            stream.flush(&mut self.booted.console);
        }
        if self.machine.deadline().is_some_and(|time| time <= now) {
            self.happened(Event::Tick);
        }
    }

    fn wait(&self) -> Ready {
        let readable = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let mut fds = vec![readable(self.signals.as_fd())];
        let uevents: Option<BorrowedFd> = self.booted.uevents.as_ref().map(AsFd::as_fd);
        fds.extend(uevents.map(readable));
        fds.extend(self.buttons.iter().map(|button| readable(button.as_fd())));
        if let Some(console) = self.booted.console.wants_write() {
            fds.push(PollFd::from_borrowed_fd(console, PollFlags::OUT));
        }
        if !self.booted.console.is_full() {
            fds.extend(self.streams.iter().map(|stream| readable(stream.as_fd())));
        }
        let deadlines = self.streams.iter().filter_map(Stream::deadline).chain(self.machine.deadline());
        let timeout = deadlines.min().map(|time| timespec(time.saturating_sub(since_boot())));
        // An error here is a signal or a lack of memory: everything is looked at, and the next turn waits again.
        let failed = poll(&mut fds, timeout.as_ref()).is_err();
        let is_ready = |at: usize| failed || fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
        Ready { signals: is_ready(0), uevents: uevents.is_some() && is_ready(1) }
    }

    fn take_signals(&mut self) {
        loop {
            match self.signals.receive() {
                Ok(Some(Received::Child)) => self.reap(),
                Ok(Some(Received::Terminate | Received::Interrupt)) => self.happened(Event::Stop(Power::Reboot)),
                Ok(Some(Received::User1)) => self.happened(Event::Stop(Power::Halt)),
                Ok(Some(Received::User2)) => self.happened(Event::Stop(Power::Off)),
                Ok(None) => return,
                Err(error) => return self.booted.console.trouble(&format!("cannot read signals: {error}")),
            }
        }
    }

    fn take_uevents(&mut self) {
        let mut wanted = Vec::new();
        let mut input = false;
        while let Some(Ok(Some(event))) = self.booted.uevents.as_mut().map(|uevents| uevents.receive()) {
            if event.action == "add" {
                input |= event.subsystem.as_deref() == Some("input");
                wanted.extend(event.modalias);
            }
        }
        if !wanted.is_empty() && self.booted.loader.has_modules() {
            let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
            if let Ok((_, failures)) = self.booted.loader.load(&wanted) {
                for failure in failures {
                    self.booted.console.say(Verbosity::Verbose, &crate::chain(&failure));
                }
            }
        }
        if input {
            let found = buttons::find(&self.buttons);
            self.buttons.extend(found);
        }
    }

    fn take_buttons(&mut self) {
        let mut pressed = false;
        self.buttons.retain(|button| match button.pressed() {
            Ok(now) => {
                pressed |= now;
                true
            }
            Err(_) => false,
        });
        if pressed {
            self.happened(Event::Stop(Power::Off));
        }
    }

    /// Reaps all children that ended, strangers too.
    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let Ok(pid) = u32::try_from(pid.as_raw_nonzero().get()) else { continue };
            let exit = exit(status);
            match self.children.remove(&pid) {
                Some(Child::Starter(index)) => self.starter_ended(index, exit),
                Some(Child::Task(index)) => self.task_ended(index, exit),
                Some(Child::Checker(index)) => self.checker_ended(index, exit),
                Some(Child::Remover) => {}
                None => {
                    let starting = self.children.values().any(|child| matches!(child, Child::Starter(_)));
                    if starting && self.unclaimed.len() < UNCLAIMED_LIMIT {
                        self.unclaimed.insert(pid, exit);
                    }
                }
            }
        }
    }

    fn starter_ended(&mut self, index: Index, exit: Exit) {
        let report = self.bundle(index).and_then(|bundle| Report::read(&bundle.state()));
        match report {
            Some(Report::Started(started)) => {
                if let Some(cgroup) = started.cgroup {
                    self.cgroups.insert(index, cgroup);
                }
                self.children.insert(started.pid, Child::Task(index));
                self.happened(Event::Started(index, started.pid));
                if let Some(exit) = self.unclaimed.remove(&started.pid) {
                    self.children.remove(&started.pid);
                    self.task_ended(index, exit);
                }
            }
            Some(Report::Failed(reason)) => self.happened(Event::NotStarted(index, reason)),
            None => {
                let reason = format!("the process that starts it ended without a word: {exit}");
                self.happened(Event::NotStarted(index, reason));
            }
        }
        if !self.children.values().any(|child| matches!(child, Child::Starter(_))) {
            self.unclaimed.clear();
        }
    }

    fn checker_ended(&mut self, index: Index, exit: Exit) {
        let missing = self.bundle(index).and_then(|bundle| bundle::take_missing(&bundle.state()));
        let outcome = match exit {
            Exit::Code(0) => Ok(()),
            _ => Err(missing.unwrap_or_else(|| format!("its check ended without a word: {exit}"))),
        };
        self.happened(Event::Checked(index, outcome));
    }

    fn task_ended(&mut self, index: Index, exit: Exit) {
        // What it printed last comes before the news of its end.
        let (now, console, log) = (since_boot(), &mut self.booted.console, &mut self.log);
        for stream in self.streams.iter_mut().filter(|stream| stream.task == index) {
            // Whether it is closed is seen in the next turn again.
            let _ = stream.drain(now, console, log);
            stream.flush(console);
        }
        self.happened(Event::Exited(index, exit));
    }

    fn bundle(&self, index: Index) -> Option<Bundle> {
        match &self.machine.task(index)?.kind {
            Kind::Container { folder, .. } => Some(Bundle::new(folder.clone())),
            _ => None,
        }
    }

    /// Tells the machine, and does all that follows.
    fn happened(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for command in self.machine.take(since_boot(), event) {
                events.extend(self.obey(command));
            }
        }
        self.write_status();
    }

    fn obey(&mut self, command: Command) -> Option<Event> {
        match command {
            Command::Start(index) => match self.start(index) {
                Ok((pid, Child::Task(_))) => return Some(Event::Started(index, pid)),
                Ok(_) => {}
                Err(error) => return Some(Event::NotStarted(index, error.to_string())),
            },
            Command::Abandon(index) => self.forget_child(Child::Starter(index)),
            Command::Check(index, limit) => {
                return self
                    .check(index, limit)
                    .err()
                    .map(|error| Event::Checked(index, Err(format!("its check cannot be started: {error}"))));
            }
            Command::EndCheck(index) => self.forget_child(Child::Checker(index)),
            Command::Terminate(index) => {
                let signal = self.machine.task(index).map_or(kiln_abi::Signal::TERM, |task| task.policy.stop_signal);
                self.with_pid(index, |pid, cgroup| process::terminate(pid, cgroup, signal));
            }
            Command::Kill(index) => self.with_pid(index, process::kill),
            Command::Remove(index) => self.remove(index),
            Command::Say(at, text) => self.booted.console.say(at, &text),
            Command::End(power) => self.ended = Some(power),
        }
        None
    }

    /// Ends a process whose outcome does not matter any more.
    fn forget_child(&mut self, which: Child) {
        let found = self.children.iter().find(|(_, child)| **child == which).map(|(pid, _)| *pid);
        if let Some(pid) = found {
            self.children.remove(&pid);
            process::signal(pid, Signal::KILL);
        }
    }

    fn check(&mut self, index: Index, limit: Duration) -> io::Result<()> {
        let (Some(bundle), Some(pid)) = (self.bundle(index), self.machine.task(index).and_then(task::Task::pid)) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let mut command = process::own(crate::BUNDLE_PROGRAM);
        command.arg("ready").arg(bundle.folder).args([pid.to_string(), limit.as_millis().to_string()]);
        // What a check prints, again and again, is nobody's log.
        let nowhere = fs::File::options().write(true).open("/dev/null")?;
        let pid = process::spawn(command, nowhere.try_clone()?.into(), nowhere.into())?;
        self.children.insert(pid, Child::Checker(index));
        Ok(())
    }

    fn with_pid(&self, index: Index, act: impl Fn(u32, Option<&Path>)) {
        if let Some(pid) = self.machine.task(index).and_then(task::Task::pid) {
            act(pid, self.cgroups.get(&index).map(PathBuf::as_path));
        }
    }

    fn start(&mut self, index: Index) -> io::Result<(u32, Child)> {
        let Some(task) = self.machine.task(index) else { return Err(io::ErrorKind::NotFound.into()) };
        let (name, kind) = (task.name.clone(), task.kind.clone());
        let mut command = process::own(crate::BUNDLE_PROGRAM);
        let child = match &kind {
            Kind::Container { folder, .. } => {
                Report::clear(&Bundle::new(folder.clone()).state());
                command.arg("start").arg(folder);
                Child::Starter(index)
            }
            Kind::Script(path) => {
                command.arg("script").arg(path);
                Child::Task(index)
            }
            Kind::Volumes => {
                command.arg("volumes");
                Child::Task(index)
            }
        };
        let file = |which| log_file(&kind, which);
        let (out, out_end) = Stream::open(index, name.clone(), file(Which::Out))?;
        let (error, error_end) = Stream::open(index, name, file(Which::Error))?;
        let pid = process::spawn(command, out_end, error_end)?;
        self.streams.extend([out, error]);
        self.children.insert(pid, child);
        Ok((pid, child))
    }

    fn remove(&mut self, index: Index) {
        let Some(bundle) = self.bundle(index) else { return };
        let Some(task) = self.machine.task(index) else { return };
        let name = task.name.clone();
        let mut command = process::own(crate::BUNDLE_PROGRAM);
        command.arg("remove").arg(&bundle.folder);
        let removed = Stream::open(index, name, None).and_then(|(stream, end)| {
            let other_end = end.try_clone()?;
            self.streams.push(stream);
            process::spawn(command, end, other_end)
        });
        match removed {
            Ok(pid) => drop(self.children.insert(pid, Child::Remover)),
            Err(error) => self.booted.console.trouble(&format!("cannot clean up after `{}`: {error}", bundle.id)),
        }
    }

    fn write_status(&self) {
        let status = Status { containers: self.machine.status() };
        let temporary = Path::new(STATUS_FILE).with_extension("new");
        let write = || -> io::Result<()> {
            fs::write(&temporary, serde_json::to_vec_pretty(&status)?)?;
            fs::rename(&temporary, STATUS_FILE)
        };
        // A full /run is said by whoever filled it; the next change tries again.
        let _ = write();
    }
}

struct Ready {
    signals: bool,
    uevents: bool,
}

fn timespec(time: Duration) -> Timespec {
    // Rounded up, so that the time has come when the wait is over.
    let time = time + Duration::from_millis(1);
    Timespec { tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX), tv_nsec: i64::from(time.subsec_nanos()) }
}

fn exit(status: WaitStatus) -> Exit {
    let signal = status.terminating_signal().map(Exit::Signal);
    signal.or_else(|| status.exit_status().map(Exit::Code)).unwrap_or(Exit::Code(255))
}

fn log_file(kind: &Kind, which: Which) -> Option<PathBuf> {
    let Kind::Container { stage, folder } = kind else { return None };
    let id = folder.file_name()?.to_string_lossy();
    let end = match which {
        Which::Out => "out.log",
        Which::Error => "log",
    };
    Some(match stage {
        Stage::Onboot => Path::new(ONBOOT_LOG_DIR).join(format!("onboot.{id}.{end}")),
        Stage::Service => Path::new(SERVICE_LOG_DIR).join(format!("{id}.{end}")),
        Stage::Onshutdown => Path::new(ONSHUTDOWN_LOG_DIR).join(format!("shutdown.{id}.{end}")),
    })
}

//! The machine's life as pure logic: events and the time go in, commands come out.
//!
//! Boot: the steps in order, then all services, each after those it names. Stop: the services, each before those it
//! names, then what runs once at the end.

mod services;
mod speech;

use std::time::Duration;

use kiln_abi::{ContainerStatus, RestartPolicy};
use kiln_guest::power::Power;

use self::speech::ms;
use super::task::{Exit, Index, Kind, Phase, Readiness, Task};
use crate::cmdline::Verbosity;

/// Mounting and creating a container takes milliseconds; a mount that hangs must not hold up the others for ever.
const START_LIMIT: Duration = Duration::from_secs(120);
/// What runs once when the machine stops may take this long.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(60);
/// A killed process that the kernel does not let go, as with a disk that never answers, is not waited for longer.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// One step of the boot or of the shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Run it to its end.
    Run(Index),
    /// Start all services.
    Services,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The machine can take its first step.
    Begin,
    /// A task's process runs.
    Started(Index, u32),
    /// A task could not be started.
    NotStarted(Index, String),
    /// A service's readiness check ended: well, or with what is missing.
    Checked(Index, Result<(), String>),
    /// A task's process ended.
    Exited(Index, Exit),
    /// The machine is to end.
    Stop(Power),
    /// Time went by.
    Tick,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Start a task.
    Start(Index),
    /// Give up a start that takes too long.
    Abandon(Index),
    /// Begin a service's readiness check, for this long.
    Check(Index, Duration),
    /// Its outcome does not matter any more.
    EndCheck(Index),
    /// Ask a task's process to end.
    Terminate(Index),
    /// End it.
    Kill(Index),
    /// Take down what was mounted for it.
    Remove(Index),
    /// Say something.
    Say(Verbosity, String),
    /// Everything has stopped.
    End(Power),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Boot { next: usize },
    Up,
    Stop { power: Power },
    Shutdown { next: usize, power: Power },
    Over,
}

/// All tasks and the order of their lives.
#[derive(Debug)]
pub struct Machine {
    tasks: Vec<Task>,
    boot: Vec<Step>,
    shutdown: Vec<Index>,
    mode: Mode,
    told_up: bool,
}

impl Machine {
    /// A machine that has not begun. `shutdown` runs in order when the services have stopped. No task is, by way of
    /// [`Task::after`], after itself.
    pub fn new(tasks: Vec<Task>, boot: Vec<Step>, shutdown: Vec<Index>) -> Self {
        Self { tasks, boot, shutdown, mode: Mode::Boot { next: 0 }, told_up: false }
    }

    /// The tasks by index.
    pub fn task(&self, index: Index) -> Option<&Task> {
        self.tasks.get(index)
    }

    /// What the status file says.
    pub fn status(&self) -> Vec<ContainerStatus> {
        self.tasks.iter().filter_map(Task::status).collect()
    }

    /// When [`Event::Tick`] is due.
    pub fn deadline(&self) -> Option<Duration> {
        self.tasks.iter().filter_map(Task::deadline).min()
    }

    /// Takes one event.
    pub fn take(&mut self, now: Duration, event: Event) -> Vec<Command> {
        let mut commands = Vec::new();
        match event {
            Event::Begin | Event::Tick => {}
            Event::Started(index, pid) => self.started(now, index, pid, &mut commands),
            Event::NotStarted(index, reason) => self.not_started(now, index, reason, &mut commands),
            Event::Checked(index, outcome) => self.checked(now, index, outcome, &mut commands),
            Event::Exited(index, exit) => self.exited(now, index, exit, &mut commands),
            Event::Stop(power) => self.stop(power, &mut commands),
        }
        self.expire(now, &mut commands);
        self.advance(now, &mut commands);
        commands
    }

    fn started(&mut self, now: Duration, index: Index, pid: u32, commands: &mut Vec<Command>) {
        let limited = matches!(self.mode, Mode::Shutdown { .. });
        let Some(task) = self.tasks.get_mut(index).filter(|task| matches!(task.phase, Phase::Starting { .. })) else {
            return;
        };
        task.phase = Phase::Running { pid, until: limited.then_some(now + SHUTDOWN_LIMIT) };
        task.running_since = Some(now);
        if task.is_service() {
            commands.push(Command::Say(speech::first_time(task), speech::since_start(task, "started", now)));
        }
        if let Readiness::Wanted { until: Some(until) } = task.readiness {
            commands.push(Command::Check(index, until.saturating_sub(now)));
        }
    }

    fn not_started(&mut self, now: Duration, index: Index, reason: String, commands: &mut Vec<Command>) {
        let Some(task) = self.tasks.get_mut(index).filter(|task| task.is_live()) else { return };
        task.error = Some(reason.clone());
        task.ended = Some(now);
        let title = task.title();
        let again = self.after_end(now, index, true, commands);
        commands.push(Command::Say(Verbosity::Quiet, format!("{title}: cannot start: {reason}{again}")));
    }

    fn exited(&mut self, now: Duration, index: Index, exit: Exit, commands: &mut Vec<Command>) {
        let Some(task) = self.tasks.get_mut(index).filter(|task| task.is_live()) else { return };
        Self::end_check(index, task, commands);
        let asked = matches!(task.phase, Phase::Stopping { .. });
        task.exit = Some(exit);
        task.error = None;
        task.ended = Some(now);
        let again = self.after_end(now, index, exit != Exit::Code(0), commands);
        if let Some(task) = self.tasks.get(index) {
            let (at, text) = speech::ended(task, now, exit, asked, &again);
            commands.push(Command::Say(at, text));
        }
    }

    /// Decides on the next phase of a task that ended, and returns what is to be said about it.
    fn after_end(&mut self, now: Duration, index: Index, failed: bool, commands: &mut Vec<Command>) -> String {
        let going_on = matches!(self.mode, Mode::Boot { .. } | Mode::Up);
        let Some(task) = self.tasks.get_mut(index) else { return String::new() };
        let again = match task.policy.restart {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => failed,
            RestartPolicy::Never => false,
        };
        let supervised = task.is_service() && going_on;
        if supervised && again {
            let (ran, policy) = (task.ran(now), task.policy);
            if let Some(wait) = task.backoff.after(ran, &policy) {
                task.phase = Phase::Waiting { until: now + wait };
                return format!(", again in {}", ms(wait));
            }
        }
        task.phase = Phase::Done;
        if matches!(task.kind, Kind::Container { .. }) && going_on {
            commands.push(Command::Remove(index));
        }
        if supervised && (failed || again) { ", stays down".to_owned() } else { String::new() }
    }

    fn stop(&mut self, power: Power, commands: &mut Vec<Command>) {
        if matches!(self.mode, Mode::Boot { .. } | Mode::Up) {
            commands.push(Command::Say(Verbosity::Normal, format!("{}: stopping", power.as_str())));
            self.mode = Mode::Stop { power };
        }
    }

    /// Whatever is due.
    fn expire(&mut self, now: Duration, commands: &mut Vec<Command>) {
        for index in 0..self.tasks.len() {
            let Some(task) = self.tasks.get_mut(index) else { continue };
            let is_due = |time: Option<Duration>| time.is_some_and(|time| time <= now);
            if is_due(task.ready_deadline()) {
                self.checked(now, index, Err("no check succeeded".to_owned()), commands);
            }
            let Some(task) = self.tasks.get_mut(index).filter(|task| is_due(task.phase_deadline())) else { continue };
            match task.phase {
                Phase::Starting { .. } => {
                    commands.push(Command::Abandon(index));
                    self.not_started(now, index, format!("no answer within {} s", START_LIMIT.as_secs()), commands);
                }
                Phase::Waiting { .. } => self.start_in_order(now, index, commands),
                Phase::Running { pid, .. } | Phase::Stopping { pid, killed: false, .. } => {
                    task.phase = Phase::Stopping { pid, until: now + KILL_LIMIT, killed: true };
                    let text = format!("{}: takes too long to end, killed", task.title());
                    commands.push(Command::Say(Verbosity::Quiet, text));
                    commands.push(Command::Kill(index));
                }
                Phase::Stopping { killed: true, .. } => {
                    task.phase = Phase::Done;
                    let text = format!("{}: does not end although killed, given up", task.title());
                    commands.push(Command::Say(Verbosity::Quiet, text));
                }
                Phase::Idle | Phase::Held | Phase::Done => {}
            }
        }
    }

    fn start(&mut self, now: Duration, index: Index, commands: &mut Vec<Command>) {
        let Some(task) = self.tasks.get_mut(index) else { return };
        task.phase = Phase::Starting { until: now + START_LIMIT };
        if matches!(task.readiness, Readiness::Ready | Readiness::Wanted { until: None }) {
            task.readiness = Readiness::Wanted { until: Some(now + task.ready_timeout) };
        }
        task.started = now;
        task.running_since = None;
        task.starts = task.starts.saturating_add(1);
        commands.push(Command::Start(index));
    }

    fn is_live(&self, index: Index) -> bool {
        self.tasks.get(index).is_some_and(Task::is_live)
    }

    /// Goes on with the sequence of the mode as far as nothing has to be waited for.
    fn advance(&mut self, now: Duration, commands: &mut Vec<Command>) {
        loop {
            match self.mode {
                Mode::Boot { next } => {
                    let before = next.checked_sub(1).and_then(|last| self.boot.get(last)).copied();
                    if matches!(before, Some(Step::Run(index)) if self.is_live(index)) {
                        return self.release(now, commands);
                    }
                    match self.boot.get(next).copied() {
                        None => self.mode = Mode::Up,
                        Some(step) => {
                            self.mode = Mode::Boot { next: next + 1 };
                            self.begin(now, step, commands);
                        }
                    }
                }
                Mode::Up => {
                    self.release(now, commands);
                    return self.say_up(now, commands);
                }
                Mode::Over => return,
                Mode::Stop { power } => {
                    self.stop_tasks(now, commands);
                    if self.tasks.iter().any(Task::is_live) {
                        return;
                    }
                    self.mode = Mode::Shutdown { next: 0, power };
                }
                Mode::Shutdown { next, power } => {
                    let before = next.checked_sub(1).and_then(|last| self.shutdown.get(last)).copied();
                    if before.is_some_and(|index| self.is_live(index)) {
                        return;
                    }
                    match self.shutdown.get(next).copied() {
                        Some(index) => {
                            self.mode = Mode::Shutdown { next: next + 1, power };
                            self.start(now, index, commands);
                        }
                        None => {
                            self.mode = Mode::Over;
                            commands.push(Command::End(power));
                        }
                    }
                }
            }
        }
    }

    fn begin(&mut self, now: Duration, step: Step, commands: &mut Vec<Command>) {
        match step {
            Step::Run(index) => self.start(now, index, commands),
            Step::Services => self.start_services(now, commands),
        }
    }

    /// Once, when every service was started or has failed.
    fn say_up(&mut self, now: Duration, commands: &mut Vec<Command>) {
        let coming = |task: &Task| matches!(task.phase, Phase::Starting { .. } | Phase::Held);
        if self.told_up || self.tasks.iter().any(coming) {
            return;
        }
        self.told_up = true;
        let containers = self.tasks.iter().filter(|task| matches!(task.kind, Kind::Container { .. })).count();
        let (at, text) = if containers == 0 {
            let text = format!("nothing to run: `{}` has no onboot and no services", kiln_abi::CONTAINERS_DIR);
            (Verbosity::Quiet, text)
        } else {
            (Verbosity::Normal, format!("up after {}", ms(now)))
        };
        commands.push(Command::Say(at, text));
    }
}

#[cfg(test)]
mod tests;

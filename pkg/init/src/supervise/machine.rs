//! The machine's life as pure logic: events and the time go in, commands come out.

use std::time::Duration;

use kiln_abi::{ContainerStatus, RestartPolicy};
use kiln_guest::power::Power;

use super::task::{Kind, Phase, Task};
use crate::cmdline::Verbosity;

/// Mounting and creating a container takes milliseconds; a mount that hangs must not hold up the others for ever.
const START_LIMIT: Duration = Duration::from_secs(120);
/// What runs once when the machine stops may take this long.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(60);

/// Place of a task in the machine's list.
pub type Index = usize;

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
    /// The machine is ready for its first step.
    Ready,
    /// A task's process runs.
    Started(Index, u32),
    /// A task could not be started.
    NotStarted(Index, String),
    /// A task's process ended: exit code, or 128 + signal.
    Exited(Index, i32),
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
    Shutdown { next: usize, power: Power },
    Stop { power: Power },
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
    /// A machine that has not begun. `shutdown` runs in order before the services are stopped.
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
            Event::Ready | Event::Tick => {}
            Event::Started(index, pid) => self.started(now, index, pid, &mut commands),
            Event::NotStarted(index, reason) => self.not_started(now, index, reason, &mut commands),
            Event::Exited(index, code) => self.exited(now, index, code, &mut commands),
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
        if task.is_service() {
            let (title, took) = (task.title(), ms(now - task.started));
            let at = if task.starts == 1 { Verbosity::Normal } else { Verbosity::Verbose };
            commands.push(Command::Say(at, format!("{title}: started ({took})")));
        }
    }

    fn not_started(&mut self, now: Duration, index: Index, reason: String, commands: &mut Vec<Command>) {
        let Some(task) = self.tasks.get_mut(index).filter(|task| task.is_live()) else { return };
        task.error = Some(reason.clone());
        task.ended = Some(now);
        let title = task.title();
        let wait = self.after_end(now, index, true, commands);
        commands.push(Command::Say(Verbosity::Quiet, format!("{title}: cannot start: {reason}{wait}")));
    }

    fn exited(&mut self, now: Duration, index: Index, code: i32, commands: &mut Vec<Command>) {
        let Some(task) = self.tasks.get_mut(index).filter(|task| task.is_live()) else { return };
        let asked = matches!(task.phase, Phase::Stopping { .. });
        task.exit_code = Some(code);
        task.error = None;
        task.ended = Some(now);
        let took = ms(now.saturating_sub(task.started));
        let (title, service) = (task.title(), task.is_service());
        let wait = self.after_end(now, index, code != 0, commands);
        let (at, text) = match (asked, code) {
            (true, _) => (Verbosity::Verbose, format!("{title}: stopped, {}", outcome(code))),
            (false, 0) if service => (Verbosity::Normal, format!("{title}: ended ({took}){wait}")),
            (false, 0) => (Verbosity::Normal, format!("{title}: ok ({took})")),
            _ => (Verbosity::Quiet, format!("{title}: failed: {} ({took}){wait}", outcome(code))),
        };
        commands.push(Command::Say(at, text));
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
        if task.is_service() && again && going_on {
            let wait = task.backoff.after(now.saturating_sub(task.started));
            task.phase = Phase::Waiting { until: now + wait };
            return format!(", again in {}", ms(wait));
        }
        task.phase = Phase::Done;
        if matches!(task.kind, Kind::Container { .. }) && going_on {
            commands.push(Command::Remove(index));
        }
        String::new()
    }

    fn stop(&mut self, power: Power, commands: &mut Vec<Command>) {
        if matches!(self.mode, Mode::Boot { .. } | Mode::Up) {
            commands.push(Command::Say(Verbosity::Normal, format!("{}: stopping", power.as_str())));
            self.mode = Mode::Shutdown { next: 0, power };
        }
    }

    /// Whatever is due.
    fn expire(&mut self, now: Duration, commands: &mut Vec<Command>) {
        for index in 0..self.tasks.len() {
            let Some(task) = self.tasks.get_mut(index).filter(|task| task.deadline().is_some_and(|time| time <= now))
            else {
                continue;
            };
            match task.phase {
                Phase::Starting { .. } => {
                    commands.push(Command::Abandon(index));
                    self.not_started(now, index, format!("no answer within {} s", START_LIMIT.as_secs()), commands);
                }
                Phase::Waiting { .. } => self.start(now, index, commands),
                Phase::Running { pid, .. } | Phase::Stopping { pid, .. } => {
                    task.phase = Phase::Stopping { pid, kill_at: None };
                    let text = format!("{}: takes too long to end, killed", task.title());
                    commands.push(Command::Say(Verbosity::Quiet, text));
                    commands.push(Command::Kill(index));
                }
                Phase::Idle | Phase::Done => {}
            }
        }
    }

    fn start(&mut self, now: Duration, index: Index, commands: &mut Vec<Command>) {
        let Some(task) = self.tasks.get_mut(index) else { return };
        task.phase = Phase::Starting { until: now + START_LIMIT };
        task.started = now;
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
                        return;
                    }
                    match self.boot.get(next).copied() {
                        None => self.mode = Mode::Up,
                        Some(step) => {
                            self.mode = Mode::Boot { next: next + 1 };
                            self.begin(now, step, commands);
                        }
                    }
                }
                Mode::Up => return self.say_up(now, commands),
                Mode::Over => return,
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
                        None => self.mode = Mode::Stop { power },
                    }
                }
                Mode::Stop { power } => {
                    self.stop_tasks(now, commands);
                    if self.tasks.iter().any(Task::is_live) {
                        return;
                    }
                    self.mode = Mode::Over;
                    commands.push(Command::End(power));
                }
            }
        }
    }

    fn begin(&mut self, now: Duration, step: Step, commands: &mut Vec<Command>) {
        match step {
            Step::Run(index) => self.start(now, index, commands),
            Step::Services => {
                let services: Vec<Index> =
                    self.tasks.iter().enumerate().filter(|(_, task)| task.is_service()).map(|(i, _)| i).collect();
                for index in services {
                    self.start(now, index, commands);
                }
            }
        }
    }

    /// Asks everything that still runs to end, the last started first. What is being started is asked once it runs.
    fn stop_tasks(&mut self, now: Duration, commands: &mut Vec<Command>) {
        for (index, task) in self.tasks.iter_mut().enumerate().rev() {
            match task.phase {
                Phase::Waiting { .. } => task.phase = Phase::Done,
                Phase::Running { pid, .. } => {
                    task.phase = Phase::Stopping { pid, kill_at: Some(now + task.policy.stop_timeout) };
                    commands.push(Command::Terminate(index));
                }
                _ => {}
            }
        }
    }

    /// Once, when every service was started or has failed.
    fn say_up(&mut self, now: Duration, commands: &mut Vec<Command>) {
        if self.told_up || self.tasks.iter().any(|task| matches!(task.phase, Phase::Starting { .. })) {
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

fn ms(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}

fn outcome(code: i32) -> String {
    match code {
        129.. => format!("killed by signal {}", code - 128),
        _ => format!("exit code {code}"),
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;

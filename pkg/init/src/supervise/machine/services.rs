//! The order among services: who waits for whom at the start, and at the end.

use std::time::Duration;

use super::{Command, Machine, speech};
use crate::cmdline::Verbosity;
use crate::supervise::task::{Index, Phase, Readiness, Task};

impl Machine {
    /// Starts every service, or has it wait for those that it comes after.
    pub(super) fn start_services(&mut self, now: Duration, commands: &mut Vec<Command>) {
        let services: Vec<Index> = self.indices(Task::is_service);
        for index in &services {
            // So that none of them looks as if it had ended already.
            if let Some(task) = self.tasks.get_mut(*index) {
                task.phase = Phase::Held;
            }
        }
        for index in services {
            self.start_in_order(now, index, commands);
        }
    }

    /// Starts a service now, or when all that it comes after are there.
    pub(super) fn start_in_order(&mut self, now: Duration, index: Index, commands: &mut Vec<Command>) {
        let missing = self.missing(index);
        let Some(task) = self.tasks.get_mut(index) else { return };
        if missing.is_empty() {
            return self.start(now, index, commands);
        }
        task.phase = Phase::Held;
        commands.push(Command::Say(Verbosity::Normal, format!("{}: waits for {}", task.title(), missing.join(", "))));
    }

    /// Starts what was waiting and need not any more.
    pub(super) fn release(&mut self, now: Duration, commands: &mut Vec<Command>) {
        for index in self.indices(|task| task.phase == Phase::Held) {
            if self.missing(index).is_empty() {
                self.start(now, index, commands);
            }
        }
    }

    /// Those that a service has to wait for, by name.
    fn missing(&self, index: Index) -> Vec<String> {
        let after = self.tasks.get(index).map(|task| task.after.as_slice()).unwrap_or_default();
        let before = after.iter().filter_map(|before| self.tasks.get(*before));
        before.filter(|task| !task.is_there()).map(|task| format!("`{}`", task.name)).collect()
    }

    /// A readiness check ended, or its time is over.
    pub(super) fn checked(
        &mut self,
        now: Duration,
        index: Index,
        outcome: Result<(), String>,
        commands: &mut Vec<Command>,
    ) {
        let Some(task) = self.tasks.get_mut(index) else { return };
        if !matches!(task.readiness, Readiness::Wanted { .. }) {
            return;
        }
        match outcome {
            Ok(()) => {
                task.readiness = Readiness::Ready;
                commands.push(Command::Say(speech::first_time(task), speech::since_start(task, "ready", now)));
            }
            Err(missing) => {
                Self::end_check(index, task, commands);
                task.readiness = Readiness::Overdue;
                let text = speech::since_start(task, "not ready", now);
                let text = format!("{text}: {missing}; what comes after it waits no longer");
                commands.push(Command::Say(Verbosity::Quiet, text));
            }
        }
    }

    /// Ends the check that goes on while a service runs and is not ready.
    pub(super) fn end_check(index: Index, task: &Task, commands: &mut Vec<Command>) {
        if matches!((task.phase, task.readiness), (Phase::Running { .. }, Readiness::Wanted { .. })) {
            commands.push(Command::EndCheck(index));
        }
    }

    /// Asks everything that still runs to end, the last started first, a service once all that come after it have
    /// ended. What is being started is asked once it runs.
    pub(super) fn stop_tasks(&mut self, now: Duration, commands: &mut Vec<Command>) {
        for task in &mut self.tasks {
            if matches!(task.phase, Phase::Waiting { .. } | Phase::Held) {
                task.phase = Phase::Done;
            }
        }
        let mut running = self.indices(|task| matches!(task.phase, Phase::Running { .. }));
        running.sort_by_key(|index| std::cmp::Reverse(self.tasks.get(*index).map(|task| (task.started, *index))));
        for index in running {
            if self.tasks.iter().any(|task| task.is_live() && task.after.contains(&index)) {
                continue;
            }
            let Some(task) = self.tasks.get_mut(index) else { continue };
            let Phase::Running { pid, .. } = task.phase else { continue };
            Self::end_check(index, task, commands);
            task.phase = Phase::Stopping { pid, until: now + task.policy.stop_timeout, killed: false };
            commands.push(Command::Terminate(index));
        }
    }

    fn indices(&self, which: impl Fn(&Task) -> bool) -> Vec<Index> {
        self.tasks.iter().enumerate().filter(|(_, task)| which(task)).map(|(index, _)| index).collect()
    }
}

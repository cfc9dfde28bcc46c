//! What the console says of a task: one line an event.

use std::time::Duration;

use crate::cmdline::Verbosity;
use crate::supervise::task::{Exit, Task};

/// Something that follows a service's start, and how long after it.
pub fn since_start(task: &Task, what: &str, now: Duration) -> String {
    format!("{}: {what} ({})", task.title(), ms(now.saturating_sub(task.started)))
}

/// What goes well is news once; after restarts it is not.
pub fn first_time(task: &Task) -> Verbosity {
    if task.starts == 1 { Verbosity::Normal } else { Verbosity::Verbose }
}

/// The end of a task, asked for or not; `again` is what follows.
pub fn ended(task: &Task, now: Duration, exit: Exit, asked: bool, again: &str) -> (Verbosity, String) {
    let (title, took) = (task.title(), ms(now.saturating_sub(task.started)));
    match exit {
        _ if asked => (Verbosity::Verbose, format!("{title}: stopped: {exit}")),
        Exit::Code(0) if task.is_service() => (Verbosity::Normal, format!("{title}: ended ({took}){again}")),
        Exit::Code(0) => (Verbosity::Normal, format!("{title}: ok ({took})")),
        _ => (Verbosity::Quiet, format!("{title}: failed: {exit} ({took}){again}")),
    }
}

/// A time as it is said.
pub fn ms(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}

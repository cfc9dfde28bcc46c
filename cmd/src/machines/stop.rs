//! `kiln stop` and `kiln kill`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use kiln_run::control::Request;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::args;
use crate::failure::Failure;
use crate::printer::Printer;

/// How long a machine that is ended may take to write out what it printed. Then its process is killed.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// One machine that is to end.
struct Ending {
    name: PathBuf,
    process: OwnedFd,
}

/// Presses the power buttons, waits, and ends by force what does not power off in time.
pub fn stop(asked: &args::Stop, printer: &Printer) -> Result<(), Failure> {
    let endings = ask_all(&asked.names, &Request::PowerButton {})?;
    let deadline = Instant::now() + asked.timeout;
    let slow: Vec<Ending> = endings.into_iter().filter(|ending| !ending.ends_until(deadline)).collect();
    for ending in &slow {
        let seconds = asked.timeout.as_secs();
        printer.note(&format!("{} did not power off in {seconds} seconds: ended by force", ending.name.display()));
    }
    force(slow)
}

/// Ends machines at once.
pub fn kill(asked: &args::Kill) -> Result<(), Failure> {
    let endings = ask_all(&asked.names, &Request::Kill {})?;
    wait_or_kill(&endings)
}

/// Asks all, and only then tells of those that cannot be.
fn ask_all(names: &[PathBuf], request: &Request) -> Result<Vec<Ending>, Failure> {
    let machines = names.iter().map(|name| Ok((name, super::connect(name)?))).collect::<Result<Vec<_>, Failure>>()?;
    let mut endings = vec![];
    for (name, mut machine) in machines {
        let process = pidfd_open(machine.pid()?, PidfdFlags::empty())?;
        if let Err(error) = machine.ask(request) {
            // It may have ended by itself just now, or it hangs: then its process is what is left.
            let gone = has_ended(&process, Duration::ZERO);
            if !gone && !matches!(request, Request::Kill {}) {
                return Err(Failure::new(error).hint("`kiln kill` ends also a machine that does not answer"));
            }
        }
        endings.push(Ending { name: name.clone(), process });
    }
    Ok(endings)
}

fn force(endings: Vec<Ending>) -> Result<(), Failure> {
    for ending in &endings {
        if let Ok(mut machine) = super::connect(&ending.name) {
            // If it does not answer, its process is killed below.
            let _hangs = machine.ask(&Request::Kill {});
        }
    }
    wait_or_kill(&endings)
}

fn wait_or_kill(endings: &[Ending]) -> Result<(), Failure> {
    let deadline = Instant::now() + KILL_PATIENCE;
    for ending in endings {
        if !ending.ends_until(deadline) {
            pidfd_send_signal(&ending.process, Signal::KILL)?;
            ending.ends_until(Instant::now() + KILL_PATIENCE);
        }
    }
    Ok(())
}

impl Ending {
    fn ends_until(&self, deadline: Instant) -> bool {
        has_ended(&self.process, deadline.saturating_duration_since(Instant::now()))
    }
}

/// Waits for the end of a process.
fn has_ended(process: &OwnedFd, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).ok();
        match poll(&mut [PollFd::new(process, PollFlags::IN)], left.as_ref()) {
            Err(rustix::io::Errno::INTR) => {}
            ready => return ready.is_ok_and(|count| count > 0),
        }
    }
}

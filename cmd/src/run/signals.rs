//! SIGTERM, SIGINT and SIGHUP: the first presses the guest's power button, the second, or patience at its end, stops it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use kiln_run::event::Flag;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use crate::printer::Printer;

/// What a signal does to the machine.
pub trait Machine: Send {
    /// Asks the guest to power off.
    fn power_button(&self);
    /// Ends the machine.
    fn stop(&self);
    /// Throws away output that nobody reads, which may be what the end of the machine waits for.
    fn abandon_output(&self);
}

/// How long the output of a machine that is being stopped may take to be read.
const LINGER: Duration = Duration::from_secs(2);

/// Signals and the quit key are watched while this lives.
pub struct Watch {
    handle: Handle,
    done: Flag,
    overdue: Arc<AtomicBool>,
}

impl Watch {
    /// The machine was stopped because the guest took too long, not because of a second signal.
    pub fn was_overdue(&self) -> bool {
        self.overdue.load(Ordering::Relaxed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.handle.close();
        self.done.raise();
    }
}

/// Watches from now on; from the first signal on the guest has `patience`. A raised `quit` stops the machine at once.
pub fn watch(
    machine: impl Machine + Clone + 'static,
    quit: Flag,
    patience: Duration,
    printer: Printer,
) -> io::Result<Watch> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    let handle = signals.handle();
    let overdue = Arc::new(AtomicBool::new(false));
    let (sender, came) = mpsc::channel();
    thread::Builder::new().name("signals".into()).spawn(move || {
        for _ in signals.forever() {
            // Nobody listens once the machine was stopped.
            let _ = sender.send(());
        }
    })?;
    let done = Flag::new()?;
    let (quits, ended) = (machine.clone(), done.try_clone()?);
    thread::Builder::new().name("quit-key".into()).spawn(move || {
        if first_raised(&quit, &ended) {
            quits.stop();
            if !raised_within(&ended, LINGER) {
                quits.abandon_output();
            }
        }
    })?;
    let told = Arc::clone(&overdue);
    thread::Builder::new().name("power-button".into()).spawn(move || {
        if let Some(too_long) = attend(&came, &machine, patience, |text| printer.note(text)) {
            told.store(too_long, Ordering::Relaxed);
            machine.stop();
            // A signal more, or no end in time: nobody reads.
            if !matches!(came.recv_timeout(LINGER), Err(RecvTimeoutError::Disconnected)) {
                machine.abandon_output();
            }
        }
    })?;
    Ok(Watch { handle, done, overdue })
}

/// Waits for either flag; true when it was the first.
fn first_raised(first: &Flag, second: &Flag) -> bool {
    loop {
        let mut waits = [PollFd::new(first, PollFlags::IN), PollFd::new(second, PollFlags::IN)];
        match poll(&mut waits, None) {
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
            Ok(_) => return first.take(),
        }
    }
}

fn raised_within(flag: &Flag, time: Duration) -> bool {
    let timeout = Timespec::try_from(time).ok();
    poll(&mut [PollFd::new(flag, PollFlags::IN)], timeout.as_ref()).is_ok_and(|ready| ready > 0)
}

/// Returns when the machine is to be stopped: `true` when patience ended. `None` when nobody watches any more.
fn attend(came: &Receiver<()>, machine: &impl Machine, patience: Duration, say: impl Fn(&str)) -> Option<bool> {
    came.recv().ok()?;
    let deadline = Instant::now() + patience;
    say(&format!("asked the guest to power off; again stops it at once, as do {} seconds", patience.as_secs()));
    machine.power_button();
    match came.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        Ok(()) => Some(false),
        Err(RecvTimeoutError::Timeout) => Some(true),
        Err(RecvTimeoutError::Disconnected) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[derive(Default)]
    struct Presses(AtomicU32);

    impl Machine for Presses {
        fn power_button(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }

        fn stop(&self) {}

        fn abandon_output(&self) {}
    }

    fn attended(signals: u32, patience: Duration) -> (Option<bool>, u32) {
        let (sender, came) = mpsc::channel();
        (0..signals).for_each(|_| sender.send(()).unwrap());
        let kept = (patience == Duration::ZERO).then(|| sender.clone());
        drop(sender);
        let machine = Presses::default();
        let end = attend(&came, &machine, patience, |_| ());
        drop(kept);
        (end, machine.0.into_inner())
    }

    #[test]
    fn the_quit_key_is_told_from_the_end() {
        let (quit, done) = (Flag::new().unwrap(), Flag::new().unwrap());
        done.raise();
        assert!(!first_raised(&quit, &done));
        quit.raise();
        assert!(first_raised(&quit, &done));
    }

    #[test]
    fn the_first_signal_presses_and_the_second_stops() {
        let long = Duration::from_secs(3600);
        assert_eq!(attended(0, long), (None, 0));
        assert_eq!(attended(1, long), (None, 1));
        assert_eq!(attended(2, long), (Some(false), 1));
        assert_eq!(attended(1, Duration::ZERO), (Some(true), 1));
    }
}

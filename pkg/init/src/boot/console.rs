//! The machine's console: whole lines, never a wait.
//!
//! A serial line is slow and its reader may be gone. So writing never blocks PID 1: what the console does not take is
//! kept, and while there is much of it the containers' output is not read, which slows them down instead of losing it.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};

use crate::cmdline::Verbosity;

/// From here on containers wait.
const FULL_BYTES: usize = 64 << 10;
/// PID 1's own lines are dropped beyond this.
const LIMIT_BYTES: usize = 1 << 20;

/// `/dev/console`.
#[derive(Debug)]
pub struct Console {
    descriptor: Option<OwnedFd>,
    pending: VecDeque<u8>,
    verbosity: Verbosity,
}

impl Console {
    /// Opens the console; without one everything is silent.
    pub fn open(verbosity: Verbosity) -> Self {
        let flags = OFlags::WRONLY | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let descriptor = rustix::fs::open("/dev/console", flags, Mode::empty()).ok();
        Self { descriptor, pending: VecDeque::new(), verbosity }
    }

    /// Says something that is worth it from `at` on.
    pub fn say(&mut self, at: Verbosity, text: &str) {
        if self.verbosity >= at {
            self.line("kiln", text.as_bytes());
        }
    }

    /// Says that something is wrong.
    pub fn trouble(&mut self, text: &str) {
        self.say(Verbosity::Quiet, text);
    }

    /// Writes one line of a container, with its name in front.
    pub fn line(&mut self, name: &str, text: &[u8]) {
        if self.descriptor.is_none() || self.pending.len() > LIMIT_BYTES {
            return;
        }
        let mut line = Vec::with_capacity(name.len() + text.len() + 4);
        for part in [name.as_bytes(), b": ", text, b"\n"] {
            line.extend_from_slice(part);
        }
        self.pending.extend(line);
        self.flush();
    }

    /// Whether containers should wait.
    pub fn is_full(&self) -> bool {
        self.pending.len() > FULL_BYTES
    }

    /// The descriptor, while something waits to be written to it.
    pub fn wants_write(&self) -> Option<BorrowedFd<'_>> {
        self.descriptor.as_ref().filter(|_| !self.pending.is_empty()).map(AsFd::as_fd)
    }

    /// Writes what the console takes now.
    pub fn flush(&mut self) {
        let Some(descriptor) = &self.descriptor else { return };
        while !self.pending.is_empty() {
            let (front, _) = self.pending.as_slices();
            match rustix::io::write(descriptor, front) {
                Ok(len) if len > 0 => drop(self.pending.drain(..len)),
                Err(rustix::io::Errno::INTR) => {}
                Ok(_) | Err(rustix::io::Errno::AGAIN) => return,
                Err(_) => {
                    // A console that fails takes no more; the logs still have everything.
                    self.pending.clear();
                    return;
                }
            }
        }
    }

    /// Waits until all is written, but not longer than `limit`; nothing is written afterwards.
    pub fn finish(&mut self, limit: Duration) {
        let end = Instant::now() + limit;
        while let Some(descriptor) = self.wants_write() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let wait = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
            // Whatever poll says: the next write tells, and the end of time comes.
            let _ = poll(&mut [PollFd::from_borrowed_fd(descriptor, PollFlags::OUT)], Some(&wait));
            self.flush();
        }
        let Some(descriptor) = self.descriptor.take() else { return };
        // The line itself is slow too; a thread, because waiting for it knows no limit.
        let (done, wait) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let _ = rustix::termios::tcdrain(descriptor);
            let _ = done.send(());
        });
        let _ = wait.recv_timeout(end.saturating_duration_since(Instant::now()));
    }
}

/// Where a panic goes: straight to the console, whatever state the program is in.
pub fn last_words(text: &str) -> io::Result<()> {
    let mut console = std::fs::OpenOptions::new().write(true).open("/dev/console")?;
    console.write_all(format!("kiln: {text}\n").as_bytes())
}

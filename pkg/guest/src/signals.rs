//! Signals as a descriptor: blocked for the process and read from an event loop.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// The signals that a supervisor listens to. What it starts inherits the block: see [`unblock_all`].
#[derive(Debug)]
pub struct Signals {
    descriptor: SignalFd,
}

/// One signal that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// A child ended.
    Child,
    /// SIGTERM.
    Terminate,
    /// SIGINT; the kernel sends it for Ctrl-Alt-Del.
    Interrupt,
    /// SIGUSR1.
    User1,
    /// SIGUSR2.
    User2,
}

impl Signals {
    /// Blocks the signals of [`Received`] for this thread, and for all that it starts.
    ///
    /// # Errors
    /// The kernel's, when it has no descriptor left.
    pub fn listen() -> io::Result<Self> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR1, Signal::SIGUSR2] {
            set.add(signal);
        }
        set.thread_block()?;
        let descriptor = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { descriptor })
    }

    /// The next signal, if one is waiting.
    ///
    /// # Errors
    /// The kernel's.
    pub fn receive(&mut self) -> io::Result<Option<Received>> {
        while let Some(info) = self.descriptor.read_signal()? {
            let signal = i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok());
            match signal {
                Some(Signal::SIGCHLD) => return Ok(Some(Received::Child)),
                Some(Signal::SIGTERM) => return Ok(Some(Received::Terminate)),
                Some(Signal::SIGINT) => return Ok(Some(Received::Interrupt)),
                Some(Signal::SIGUSR1) => return Ok(Some(Received::User1)),
                Some(Signal::SIGUSR2) => return Ok(Some(Received::User2)),
                _ => {}
            }
        }
        Ok(None)
    }
}

/// Lets all signals through again, for a program that was started by a supervisor.
///
/// # Errors
/// The kernel's.
pub fn unblock_all() -> io::Result<()> {
    Ok(SigSet::all().thread_unblock()?)
}

/// Sends the signal of this number, 1 to 64, to a process.
///
/// # Errors
/// The kernel's: there is no such process, or no such signal.
#[expect(unsafe_code, reason = "the safe functions know no real-time signals, and systemd ends with SIGRTMIN+3")]
pub fn send(pid: u32, signal: u8) -> io::Result<()> {
    let pid = i32::try_from(pid).ok().filter(|pid| *pid > 0).ok_or(io::ErrorKind::InvalidInput)?;
    // SAFETY: kill(2) takes two numbers and touches no memory of ours.
    match unsafe { libc::kill(pid, i32::from(signal)) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

//! Power off, halt and reboot: asked of PID 1 by signal, or done at once.

use std::io;

use rustix::process::{Pid, Signal};
use rustix::system::RebootCommand;

/// How a machine ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// Power goes off.
    Off,
    /// The processor stops; power stays.
    Halt,
    /// The machine starts again.
    Reboot,
}

impl Power {
    /// The word for it, which is also the name of the program that asks for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "poweroff",
            Self::Halt => "halt",
            Self::Reboot => "reboot",
        }
    }

    /// The signal by which PID 1 is asked; the same that busybox' init understands.
    #[must_use]
    pub fn signal(self) -> Signal {
        match self {
            Self::Off => Signal::USR2,
            Self::Halt => Signal::USR1,
            Self::Reboot => Signal::TERM,
        }
    }
}

/// Asks PID 1 for an orderly end.
///
/// # Errors
/// The kernel's: the caller lacks CAP_KILL and is not of PID 1's user.
pub fn request(power: Power) -> io::Result<()> {
    Ok(rustix::process::kill_process(Pid::INIT, power.signal())?)
}

/// Ends the machine now: nothing is stopped, synced or unmounted. Returns only on failure.
///
/// # Errors
/// The kernel's: the caller lacks CAP_SYS_BOOT.
pub fn now(power: Power) -> io::Result<()> {
    let command = match power {
        Power::Off => RebootCommand::PowerOff,
        Power::Halt => RebootCommand::Halt,
        Power::Reboot => RebootCommand::Restart,
    };
    Ok(rustix::system::reboot(command)?)
}

/// Makes Ctrl-Alt-Del a SIGINT to PID 1 instead of an immediate reboot.
///
/// # Errors
/// The kernel's: the caller lacks CAP_SYS_BOOT.
pub fn deliver_ctrl_alt_del() -> io::Result<()> {
    Ok(rustix::system::reboot(RebootCommand::CadOff)?)
}

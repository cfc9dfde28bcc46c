//! The last steps: nobody runs, nothing is mounted, power.

use std::time::{Duration, Instant};

use kiln_guest::power::{self, Power};
use rustix::process::{Pid, Signal, WaitOptions};

use crate::boot::{Console, unmount_all};

/// Processes outside of containers have this long between SIGTERM and SIGKILL.
const STRAY_LIMIT: Duration = Duration::from_secs(2);
/// What the console has not taken by then is lost.
const CONSOLE_LIMIT: Duration = Duration::from_secs(5);
/// Between two looks at processes that are about to end; there is no event to wait for by then.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Ends what still runs, writes all to the disks, unmounts them and goes. Returns only if the kernel refuses.
pub fn end(console: &mut Console, power: Power) -> std::io::Error {
    for signal in [Signal::TERM, Signal::KILL] {
        if !reaped_all(Duration::ZERO) {
            // To group 1 means to everybody but PID 1. The only failure is that nobody is left.
            let _ = rustix::process::kill_process_group(Pid::INIT, signal);
            reaped_all(STRAY_LIMIT);
        }
    }
    rustix::fs::sync();
    for forced in unmount_all() {
        console.trouble(&forced);
    }
    rustix::fs::sync();
    console.trouble(match power {
        Power::Off => "power off",
        Power::Halt => "halt",
        Power::Reboot => "reboot",
    });
    console.finish(CONSOLE_LIMIT);
    match power::now(power) {
        Ok(()) => std::io::ErrorKind::Unsupported.into(),
        Err(error) => error,
    }
}

/// Reaps children until none is left, for at most `limit`; false if some are.
fn reaped_all(limit: Duration) -> bool {
    let until = Instant::now() + limit;
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) if Instant::now() >= until => return false,
            Ok(None) => std::thread::sleep(LOOK_AGAIN),
            Err(_) => return true,
        }
    }
}

//! `/poweroff [SECONDS]`: waits, then asks PID 1 to power the machine off.

use std::process::ExitCode;
use std::time::Duration;

use kiln_guest::power::{Power, request};

#[expect(clippy::print_stderr, reason = "a program's own voice")]
fn main() -> ExitCode {
    let seconds = match std::env::args().nth(1).map(|word| word.parse::<u32>()) {
        None => 0,
        Some(Ok(seconds)) => seconds,
        Some(Err(_)) => {
            eprintln!("usage: poweroff [SECONDS]");
            return ExitCode::from(2);
        }
    };
    std::thread::sleep(Duration::from_secs(u64::from(seconds)));
    match request(Power::Off) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("poweroff: cannot ask PID 1: {error}\nhint: the container needs `pid: host` and CAP_KILL");
            ExitCode::FAILURE
        }
    }
}

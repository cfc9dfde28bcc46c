//! PID 1 of a kiln machine, and under other names what belongs to it.
//!
//! | called as | does |
//! | --- | --- |
//! | `init`, as PID 1 | boots, runs the containers, ends the machine |
//! | `poweroff`, `reboot`, `halt` | asks PID 1 for it |
//! | `modprobe` | loads modules for the kernel |
//! | `kiln-bundle` | starts or removes one container for PID 1 |

mod boot;
mod bundle;
mod cmdline;
mod modprobe;
mod output;
mod supervise;
mod worker;

use std::error::Error;
use std::os::fd::{AsFd, AsRawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use kiln_guest::power::{self, Power};
use kiln_guest::signals::Signals;

/// Name under which PID 1 starts itself for one container.
const BUNDLE_PROGRAM: &str = "kiln-bundle";
/// So many panics are not bad luck any more: the machine starts again.
const PANIC_LIMIT: u32 = 16;

fn main() -> ExitCode {
    let mut arguments = std::env::args();
    let called = arguments.next().unwrap_or_default();
    let called = called.rsplit('/').next().unwrap_or_default();
    match called {
        "poweroff" | "shutdown" => ask(Power::Off),
        "reboot" => ask(Power::Reboot),
        "halt" => ask(Power::Halt),
        "modprobe" => modprobe::main(arguments),
        BUNDLE_PROGRAM => worker::main(arguments),
        _ if std::process::id() == 1 => init(),
        _ => fail("this is the init of a machine: it runs as PID 1, or as poweroff, reboot, halt or modprobe"),
    }
}

fn ask(power: Power) -> ExitCode {
    match power::request(power) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("cannot ask PID 1 to {}: {error}", power.as_str())),
    }
}

/// Says why a program under one of the other names failed.
#[expect(clippy::print_stderr, reason = "these are programs of their own, and this is their voice")]
fn fail(text: &str) -> ExitCode {
    eprintln!("kiln: {text}");
    ExitCode::FAILURE
}

/// Never returns while the kernel can still do what is asked.
fn init() -> ExitCode {
    std::panic::set_hook(Box::new(|panic| {
        // Without a console nobody hears it.
        let _ = boot::last_words(&format!("this is a defect of PID 1: {panic}"));
    }));
    let begun = catch_unwind(|| {
        let mut booted = boot::boot();
        match Signals::listen() {
            Ok(signals) => Some(supervise::Supervisor::begin(booted, signals)),
            Err(error) => {
                booted.console.trouble(&format!("cannot listen for signals: {error}"));
                None
            }
        }
    });
    let Ok(Some(mut supervisor)) = begun else { give_up() };
    let mut panics = 0;
    while supervisor.ended().is_none() {
        if catch_unwind(AssertUnwindSafe(|| supervisor.turn())).is_err() {
            panics += 1;
            if panics > PANIC_LIMIT {
                give_up();
            }
        }
    }
    let power = supervisor.ended().unwrap_or(Power::Off);
    let mut console = supervisor.into_console();
    let refused = catch_unwind(AssertUnwindSafe(|| supervise::end(&mut console, power)));
    let _ = boot::last_words(&format!("the kernel does not {}: {refused:?}", power.as_str()));
    give_up()
}

/// The machine cannot go on: it starts again, or stands still if the kernel refuses even that.
fn give_up() -> ! {
    let _ = boot::last_words("PID 1 cannot go on, the machine starts again");
    rustix::fs::sync();
    let _ = power::now(Power::Reboot);
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// Time since the machine booted.
fn since_boot() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// An error with all its causes in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        // Some libraries repeat the cause in their own text.
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

/// A path that leads to what is open.
fn descriptor_path(descriptor: &impl AsFd) -> PathBuf {
    Path::new("/proc/self/fd").join(descriptor.as_fd().as_raw_fd().to_string())
}

//! From the kernel's hand-over to a machine in which containers can run. Every step goes on after a failure and says so.

mod console;
mod host;
mod keep;
mod mounts;
mod root;
mod unmount;

use kiln_guest::netlink::Uevents;

pub use self::console::{Console, last_words};
pub use self::unmount::unmount_all;
use crate::cmdline::{Cmdline, Verbosity};
use kiln_guest::modules::{self, Loader};

/// Modules that nothing asks for by an alias: overlay roots, the events of the power button, and the host's clock.
const ALWAYS_WANTED: [&str; 4] = ["overlay", "button", "evdev", "ptp_kvm"];

/// What the machine's life after the boot needs of it.
pub struct Booted {
    /// Where everything is said.
    pub console: Console,

    /// For devices that come later.
    pub loader: Loader,
    /// News of those.
    pub uevents: Option<Uevents>,
}

/// Makes the machine ready.
pub fn boot() -> Booted {
    let left_initial_root = root::leave_initial();
    let mut problems = mounts::first();
    let cmdline = Cmdline::of_kernel();
    let mut console = Console::open(Verbosity::of(&cmdline));
    if let Err(error) = left_initial_root {
        console.trouble(&format!("cannot leave the initial root, containers may not start: {}", crate::chain(&error)));
    }
    problems.extend(mounts::rest(&cmdline));
    for problem in problems {
        console.trouble(&problem);
    }
    for problem in host::set_up() {
        console.trouble(&problem);
    }

    let uevents = Uevents::listen();
    let mut loader = Loader::new(&host::kernel_release(), &cmdline);
    let mut uevents = match uevents {
        Ok(uevents) => Some(uevents),
        Err(error) => {
            console.trouble(&format!("cannot listen for devices: {error}"));
            None
        }
    };
    if loader.has_modules() {
        let before = crate::since_boot();
        match modules::coldplug(&mut loader, uevents.as_mut(), &ALWAYS_WANTED) {
            Ok((added, failures)) => {
                let ms = (crate::since_boot() - before).as_millis();
                console.say(Verbosity::Verbose, &format!("modules: {added} loaded ({ms} ms)"));
                for failure in failures {
                    console.say(Verbosity::Verbose, &crate::chain(&failure));
                }
            }
            Err(error) => console.trouble(&crate::chain(&error)),
        }
    }
    if let Err(error) = host::loopback_up() {
        console.trouble(&crate::chain(&error));
    }
    host::set_name();
    Booted { console, loader, uevents }
}

//! `/init` of a boot initrd: loads drivers, waits for the root that the kernel's command line names, has it checked by
//! dm-verity if there is a root hash, mounts it and becomes its init.
//!
//! Nothing here outlives that: what was mounted is unmounted or handed over, what was unpacked is removed. When it cannot go
//! on it says what it looked for and what it found, and ends, which is a panic of the kernel.

mod modules;
mod switch;
mod verity;
mod wanted;

use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use kiln_guest::block::{Device, Devices, superblock};
use kiln_guest::cmdline::Cmdline;
use kiln_guest::netlink::Uevents;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use modules::Module;
use wanted::Wanted;

/// So often it is said what is waited for.
const MESSAGE_EVERY: Duration = Duration::from_secs(5);
/// So long nobody looks when no device appears; a CD that is being read makes none.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Why there is no root.
#[derive(Debug, thiserror::Error)]
enum RootError {
    #[error("root `{root}` did not appear within {seconds} s; there are: {there}")]
    Missing { root: String, seconds: u64, there: String },
    #[error("`{}` holds no file system that is known here; there are: {there}", device.display())]
    Unknown { device: PathBuf, there: String },
    #[error("cannot read `{}`", device.display())]
    Read {
        device: PathBuf,
        #[source]
        source: io::Error,
    },
}

fn main() -> ExitCode {
    if std::process::id() != 1 {
        say("this is the first program of a boot initrd: it runs as PID 1");
        return ExitCode::FAILURE;
    }
    let Err(error) = run();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    say(&text);
    ExitCode::FAILURE
}

/// Returns only when it failed.
fn run() -> Result<std::convert::Infallible, Box<dyn Error>> {
    switch::mount_first()?;
    let cmdline = Cmdline::of_kernel();
    let wanted = Wanted::read(&cmdline)?;
    let uevents = Uevents::listen()?;
    std::thread::sleep(wanted.delay);
    let devices = Devices::of_machine();
    let found = load_and_find(&wanted, &cmdline, &devices);
    let device = match found {
        Some(device) => device,
        None => wait(&wanted, &devices, &uevents)?,
    };
    let Device { path, file } = &device;
    let read = superblock::read(file).map_err(|source| RootError::Read { device: path.clone(), source })?;
    let there = || devices.described();
    let kind = wanted.file_system.clone().or_else(|| read.as_ref().map(|read| read.kind.to_owned()));
    let kind = kind.ok_or_else(|| RootError::Unknown { device: path.clone(), there: there() })?;
    let trusted = match &wanted.roothash {
        None => path.clone(),
        Some(roothash) => {
            let read = read.ok_or_else(|| RootError::Unknown { device: path.clone(), there: there() })?;
            verity::checked((path, file), &read, roothash, wanted.on_damage)?
        }
    };
    drop(device);
    switch::mount_root(&trusted, &kind, &wanted)?;
    Err(switch::into_root(wanted.init.as_deref()).into())
}

/// Loads modules in their order. Those that are there for disks alone are loaded until the root is found.
fn load_and_find(wanted: &Wanted, cmdline: &Cmdline, devices: &Devices) -> Option<Device> {
    let list = fs::read_to_string(kiln_abi::ROOT_MODULES).unwrap_or_default();
    let mut seen = Vec::new();
    let mut look = || {
        let names = devices.names();
        if names == seen {
            return None;
        }
        seen = names;
        devices.find(&wanted.root)
    };
    let mut found = None;
    for module in modules::parse(&list).iter().filter(|module| !modules::is_blacklisted(module, cmdline)) {
        if module.until_root {
            found = found.or_else(&mut look);
            if found.is_some() {
                break;
            }
        }
        load(module, cmdline, wanted.verbose);
    }
    found.or_else(look)
}

fn load(module: &Module, cmdline: &Cmdline, verbose: bool) {
    if let Err(error) = modules::load(module, cmdline)
        && verbose
    {
        // Most often a driver for what this machine does not have.
        say(&format!("module `{}` is not loaded: {error}", module.path));
    }
}

/// Waits until the root appears.
fn wait(wanted: &Wanted, devices: &Devices, uevents: &Uevents) -> Result<Device, RootError> {
    let begin = Instant::now();
    let mut said = begin;
    loop {
        if let Some(device) = devices.find(&wanted.root) {
            return Ok(device);
        }
        let waited = begin.elapsed();
        if wanted.patience.is_some_and(|patience| waited >= patience) {
            let (root, seconds) = (wanted.root.to_string(), waited.as_secs());
            return Err(RootError::Missing { root, seconds, there: devices.described() });
        }
        if said.elapsed() >= MESSAGE_EVERY {
            said = Instant::now();
            let there = devices.described();
            say(&format!("waiting for root `{}` ({} s); there are: {there}", wanted.root, waited.as_secs()));
        }
        pause(uevents);
    }
}

/// Until the kernel tells of a device, but not long.
fn pause(uevents: &Uevents) {
    let limit = Timespec { tv_sec: 0, tv_nsec: i64::from(LOOK_EVERY.subsec_nanos()) };
    // Whatever it says: the next look tells.
    let _ = poll(&mut [PollFd::new(uevents, PollFlags::IN)], Some(&limit));
}

/// To the console, which is what the kernel has opened.
fn say(text: &str) {
    // Without a console nobody hears it.
    let _ = io::stderr().write_all(format!("kiln: {text}\n").as_bytes());
}

//! `kiln run`: a name and flags to a machine, its run, and what its end means.

pub mod artifacts;
mod media;
pub mod names;
pub mod networking;
mod presence;
mod pulled;
pub mod roots;
mod signals;
mod start;
pub mod state;

use std::fs::File;
use std::path::{Path, PathBuf};

use kiln_run::check::{self, CheckedMachine};
use kiln_run::config::{Boot, Disk, DiskFormat, Firmware, Kernel, MachineConfig, OnReset, Told};
use kiln_run::detach::{self, Detached};
use kiln_run::exit::ExitReason;
use kiln_run::firmware::MovedAside;
use kiln_run::host::{self, Accel, Backend, Facts};
use kiln_run::opened::Opened;

use self::presence::{Card, Waits};
use self::start::{End, Surface};
use self::state::StateError;
use crate::args;
use crate::failure::Failure;
use crate::metadata;
use crate::printer::Printer;
use crate::surroundings;

/// Runs a machine to its end.
pub fn run(asked: &args::Run, global: &args::Global, printer: &Printer) -> Result<(), Failure> {
    if asked.console.detach && !global.detached_child {
        return leave_behind(printer);
    }
    let (accel, name) = words(asked)?;
    let by_flag = args::Run { kernel: None, ..asked.clone() };
    let is_no_file = asked.kernel.as_deref() == Some(Path::new(args::NO_FILE));
    let asked = if is_no_file || prefix_by_flag(asked).is_some() { &by_flag } else { asked };
    let notes = asked.linuxkit.notes(surroundings::own_architecture()).map_err(|refused| {
        let instead = refused.instead;
        Failure::usage(refused).hint(instead)
    })?;
    notes.iter().for_each(|text| printer.note(text));
    let elsewhere = name.and_then(Path::to_str).filter(|name| pulled::is_meant(name));
    // Held until the machine ends: its files are in its store.
    let found = elsewhere.map(|text| pulled::machine(text, asked, global, printer)).transpose()?;
    // Held as well: files that have no name.
    let (config, prefix, _kept) = match &found {
        Some(pulled::Pulled { machine, prefix, .. }) => {
            let asked = args::Run {
                kernel: asked.kernel.clone().or(Some(machine.kernel.clone())),
                initrd: asked.initrd.clone().or(machine.initrd.clone()),
                cmdline: asked.cmdline.clone().or(Some(machine.cmdline.clone())),
                state: asked.state.clone().or_else(|| Some(names::with_suffix(prefix, "-state"))),
                ..asked.clone()
            };
            (machine_config(&asked, None)?.0, prefix.clone(), vec![])
        }
        None => machine_config(asked, name)?,
    };
    presence::wanted(&asked.console, &prefix)?;
    let machine = checked(&config)?;
    for doubt in machine.doubts() {
        printer.note(&doubt.to_string());
    }
    let facts = Facts::read();
    let choice = host::choose(accel, &facts).map_err(|refusal| {
        let hints = refusal.hints();
        Failure::new(refusal).hints(hints)
    })?;
    let _state = state::take(&machine.config().state_dir).map_err(|error| match error {
        StateError::InUse { .. } => Failure::new(error).hint("`-state DIR` gives this machine a folder of its own"),
        StateError::Unusable { .. } => Failure::new(error),
    })?;
    if let Some(trouble) = &choice.fell_back {
        printer.note(&format!("{trouble}; running on QEMU's software CPU, which is slower"));
    }
    let opened = Opened::open(machine.config())?;
    if let Some(MovedAside { to, why }) = opened.firmware.as_ref().and_then(|firmware| firmware.moved_aside.as_ref()) {
        printer.note(&format!(
            "the machine's EFI variables were damaged ({why}): they are new, and the old ones are `{}`",
            to.display()
        ));
    }
    networking::tell(&asked.networking, &machine.config().cards, &opened.cards, printer);
    let card = Card {
        config: machine.config(),
        from: &prefix,
        flags: &asked.console,
        backend: if choice.backend == Backend::Qemu { "qemu" } else { "kvm" },
        waits: if global.detached_child { Waits::Process } else { Waits::User },
    };
    let surface = Surface { patience: asked.power.stop_timeout, printer, card };
    match (choice.backend, facts.qemu) {
        (Backend::Qemu, Some(found)) => {
            printer.detail(&format!("QEMU {} at {}", found.version, found.path.display()));
            start::under_qemu(&machine, opened, found.path, &surface, |end| meaning(end, asked))
        }
        _ => start::under_kvm(&machine, opened, &surface, |end| meaning(end, asked)),
    }
}

/// Checks the machine as a whole. Several faults make one failure that lists them.
fn checked(config: &MachineConfig) -> Result<CheckedMachine, Failure> {
    check::check(config).map_err(|faults| match faults.iter().count() {
        0 | 1 => Failure::new(faults),
        count => {
            let lines = faults.to_string().replace('\n', "\n  - ");
            Failure::new(format!("this machine has {count} faults:\n  - {lines}"))
        }
    })
}

/// A run that nobody waits for, once it runs.
fn leave_behind(printer: &Printer) -> Result<(), Failure> {
    match detach::start_again("--detached-child")? {
        Detached::Runs(name) => Ok(printer.data(format!("{name}\n").as_bytes())?),
        Detached::Ended(status) if status.success() => Ok(()),
        Detached::Ended(status) => {
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            Err(Failure::told(code.unwrap_or(crate::failure::FAILED)))
        }
    }
}

/// The back end and the name out of `[BACKEND] NAME`. A machine called `qemu` is told from the back end by standing alone.
fn words(asked: &args::Run) -> Result<(Accel, Option<&Path>), Failure> {
    let flag = match asked.accel {
        args::Accel::Auto => Accel::Auto,
        args::Accel::Kvm => Accel::Kvm,
        args::Accel::Qemu => Accel::Qemu,
    };
    let (backend, name) = match (asked.words.as_slice(), prefix_by_flag(asked)) {
        ([], Some(prefix)) => return Ok((flag, Some(prefix))),
        ([], None) => return Ok((flag, None)),
        ([backend], Some(prefix)) => (backend.as_os_str(), prefix),
        ([name], None) => return Ok((flag, Some(Path::new(name)))),
        ([backend, name, ..], _) => (backend.as_os_str(), Path::new(name)),
    };
    let Some(word) = backend.to_str().and_then(of_linuxkit) else {
        let text = format!("no back end is called `{}`; there are `kvm` and `qemu`", backend.display());
        return Err(Failure::usage(text).hint("one NAME at a time; flags may stand before or after it"));
    };
    if flag != Accel::Auto && word != Accel::Auto && flag != word {
        return Err(Failure::usage(format!("`-accel` and the word `{}` contradict each other", backend.display())));
    }
    Ok((if flag == Accel::Auto { word } else { flag }, Some(name)))
}

/// What a back end's name means. LinuxKit's of other systems mean what they mean there: the usual one.
fn of_linuxkit(backend: &str) -> Option<Accel> {
    match backend {
        "kvm" => Some(Accel::Kvm),
        "qemu" => Some(Accel::Qemu),
        "virtualization.framework" | "virtualization" | "hyperkit" => Some(Accel::Auto),
        _ => None,
    }
}

/// LinuxKit's `-kernel` takes no file: `-kernel NAME` says that NAME-kernel is there.
fn prefix_by_flag(asked: &args::Run) -> Option<&Path> {
    let prefix = asked.kernel.as_deref().filter(|file| !file.exists())?;
    names::with_suffix(prefix, "-kernel").exists().then_some(prefix)
}

/// How a machine starts.
struct Start {
    boot: Boot,
    /// Its first disk, if it boots from that or has its root there.
    disk: Option<Disk>,
    /// The prefix of its files.
    prefix: PathBuf,
    state_dir: PathBuf,
    /// Files without a name that it starts from.
    kept: Vec<File>,
}

fn from_medium(asked: &args::Run, medium: media::Medium) -> Result<Start, Failure> {
    let first = asked.disks.disk.iter().find_map(|disk| disk.file.as_deref());
    let prefix = medium.prefix.or(first.map(|path| path.with_extension(""))).unwrap_or("machine".into());
    let state_dir = asked.state.clone().unwrap_or_else(|| names::with_suffix(&prefix, "-state"));
    let (boot, kept) = match medium.unified {
        Some(unified) => media::directly(asked, unified),
        None => (Boot::Firmware(media::firmware(&asked.firmware, &state_dir)?), vec![]),
    };
    Ok(Start { boot, disk: medium.disk, prefix, state_dir, kept })
}

fn with_kernel(asked: &args::Run, name: Option<&Path>) -> Result<Start, Failure> {
    let artifacts::Found { kernel, initrd, cmdline, root } = artifacts::find(&artifacts::Asked {
        name: name.map(Path::to_path_buf),
        kernel: asked.kernel.clone(),
        initrd: asked.initrd.clone(),
        cmdline: asked.cmdline.clone(),
        root: asked.root.form(),
    })?;
    let built = name.and_then(roots::of_file).filter(|_| root.is_some()).map(|(built, _)| built);
    let prefix = built.as_deref().or(name).or(asked.kernel.as_deref()).unwrap_or(Path::new("machine")).to_path_buf();
    let state_dir = asked.state.clone().unwrap_or_else(|| names::with_suffix(&prefix, "-state"));
    let disk = root.map(|path| Disk { format: Some(DiskFormat::Raw), read_only: true, ..Disk::of(path) });
    let boot = if asked.firmware.is_wanted() {
        let kernel = Some(Kernel { image: kernel, initrd, cmdline });
        Boot::Firmware(Firmware { kernel, ..media::firmware(&asked.firmware, &state_dir)? })
    } else {
        Boot::Linux { kernel, initrd, cmdline }
    };
    Ok(Start { boot, disk, prefix, state_dir, kept: vec![] })
}

/// The machine, the prefix of its files, and those of them that have no name: they are there for as long as they are held.
fn machine_config(asked: &args::Run, name: Option<&Path>) -> Result<(MachineConfig, PathBuf, Vec<File>), Failure> {
    let medium = media::find(asked, name)?;
    if asked.root.form().is_some() && name.is_none() {
        let failure = Failure::usage("`-squashfs`, `-erofs` and `-iso` need a NAME, whose root they choose");
        return Err(failure.hint("`-disk FILE,readonly -cmdline \"root=/dev/vda ro\"` takes any file as root"));
    }
    let Start { boot, disk: root, prefix, state_dir, kept } = match medium {
        Some(medium) => from_medium(asked, medium)?,
        None => with_kernel(asked, name)?,
    };
    let root = root.map(|disk| Disk { ephemeral: asked.disks.ephemeral && !disk.read_only, ..disk });
    let disks = asked
        .disks
        .disk
        .iter()
        .enumerate()
        .map(|(at, spec)| Disk { ephemeral: asked.disks.ephemeral, ..disk(at, spec, &state_dir) });
    let own_name = prefix.file_name().unwrap_or_default().to_string_lossy();
    let networks = surroundings::networks(&surroundings::variable);
    let cards = networking::cards(&asked.networking, &own_name, networks.as_deref())?;
    let cd = metadata::cd(&asked.data, &state_dir)?;
    let disks = root.into_iter().chain(disks).chain(cd).collect();
    let config = MachineConfig {
        cpus: asked.cpus,
        memory_mib: asked.memory.mem,
        memory: asked.memory.options(),
        boot,
        disks,
        cards,
        shares: asked.virtiofs.iter().enumerate().map(|(index, spec)| spec.share(index)).collect(),
        vsock: Some(asked.vsock.machine().map_err(Failure::usage)?),
        told: Told { oem_strings: asked.data.oem_string.clone(), ignition: asked.data.ignition.clone() },
        on_reset: if asked.power.no_reboot { OnReset::Stop } else { OnReset::Reboot },
        on_hang: asked.power.on_hang.into(),
        boot_timeout: asked.power.boot_timeout,
        state_dir,
    };
    Ok((config, prefix, kept))
}

/// A disk without a file is `disk.img`, `disk1.img`, … in the state folder, or `disk.qcow2`, ….
fn disk(at: usize, spec: &args::DiskSpec, state_dir: &Path) -> Disk {
    let number = if at == 0 { String::new() } else { at.to_string() };
    let ending = if spec.format == Some(DiskFormat::Qcow2) { "qcow2" } else { "img" };
    let path = spec.file.clone().unwrap_or_else(|| state_dir.join(format!("disk{number}.{ending}")));
    Disk {
        path,
        size_bytes: spec.size_bytes,
        format: spec.format,
        read_only: spec.read_only,
        cache: spec.cache,
        backing: spec.backing.clone(),
        ..Disk::default()
    }
}

/// Whether a run that ended so did what it should.
fn meaning(end: End, asked: &args::Run) -> Result<(), Failure> {
    match end.reason {
        ExitReason::PowerOff | ExitReason::Reset => Ok(()),
        ExitReason::Panic => {
            let why = end.panic.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            Err(told(&format!("the guest's kernel panicked{why}"), &end))
        }
        ExitReason::TripleFault => {
            Err(told("the guest triple-faulted: a processor met a fault that it could not report", &end))
        }
        ExitReason::Hung => {
            let failure = told("the guest hung: it stopped feeding its watchdog", &end);
            Err(failure.hint("`-on-hang` says what happens then"))
        }
        ExitReason::NotBooted => {
            let seconds = asked.power.boot_timeout.unwrap_or_default().as_secs();
            let failure = told(&format!("no operating system started within {seconds} seconds"), &end);
            Err(failure.hint("`-boot-timeout SECONDS` gives it more time"))
        }
        ExitReason::Stopped if end.overdue => {
            let seconds = asked.power.stop_timeout.as_secs();
            Err(Failure::new(format!("stopped: the guest did not power off within {seconds} seconds"))
                .hint("`-stop-timeout SECONDS` gives it more time"))
        }
        ExitReason::Stopped => Err(Failure::new("stopped by request, before the guest powered off")),
    }
}

/// A failure with what the guest printed last.
fn told(what: &str, end: &End) -> Failure {
    if end.last_lines.is_empty() {
        return Failure::new(what);
    }
    Failure::new(format!("{what}; the last lines on its console:\n  {}", end.last_lines.join("\n  ")))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn asked(words: &[&str], accel: args::Accel) -> args::Run {
        args::Run {
            words: words.iter().map(Into::into).collect(),
            cpus: 1,
            memory: args::Memory { mem: 1024, hugepages: false, no_balloon: false },
            disks: args::Disks::default(),
            data: args::Data::default(),
            virtiofs: vec![],
            networking: args::Networking::default(),
            vsock: args::Vsock::default(),
            console: args::ConsoleFlags::default(),
            linuxkit: args::LinuxkitRun::default(),
            pull: false,
            kernel: None,
            initrd: None,
            cmdline: None,
            root: args::RootFlags::default(),
            firmware: args::FirmwareFlags::default(),
            state: None,
            accel,
            power: args::Power { stop_timeout: Duration::from_secs(30), ..args::Power::default() },
        }
    }

    #[test]
    fn a_first_word_that_is_no_back_end_is_wrong_usage() {
        for (typed, accel) in
            [(["vbox", "vm"], args::Accel::Auto), (["qemu", "vm"], args::Accel::Kvm), (["a", "b"], args::Accel::Qemu)]
        {
            assert_eq!(words(&asked(&typed, accel)).unwrap_err().status, 2, "{typed:?}");
        }
    }

    #[test]
    fn a_back_end_may_stand_before_the_name_and_a_machine_may_be_called_like_one() {
        let cases: [(&[&str], args::Accel, Accel, &str); 8] = [
            (&["hyperkit", "vm"], args::Accel::Auto, Accel::Auto, "vm"),
            (&["virtualization", "vm"], args::Accel::Kvm, Accel::Kvm, "vm"),
            (&["virtualization.framework", "vm"], args::Accel::Qemu, Accel::Qemu, "vm"),
            (&["hyperkit"], args::Accel::Auto, Accel::Auto, "hyperkit"),
            (&["vm"], args::Accel::Auto, Accel::Auto, "vm"),
            (&["qemu", "vm"], args::Accel::Auto, Accel::Qemu, "vm"),
            (&["kvm", "vm"], args::Accel::Kvm, Accel::Kvm, "vm"),
            (&["qemu"], args::Accel::Auto, Accel::Auto, "qemu"),
        ];
        for (typed, flag, accel, name) in cases {
            let asked = asked(typed, flag);
            let (got_accel, got_name) = words(&asked).unwrap();
            assert_eq!((got_accel, got_name), (accel, Some(Path::new(name))), "{typed:?}");
        }
    }

    #[test]
    fn linuxkits_flag_for_a_kernel_names_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let (prefix, kernel) = (folder.path().join("vm"), folder.path().join("vm-kernel"));
        let asked = |words: &[&str], kernel: &Path| args::Run {
            kernel: Some(kernel.into()),
            ..asked(words, args::Accel::Auto)
        };
        // Without such a kernel it is a file that is missing.
        assert_eq!(words(&asked(&[], &prefix)).unwrap().1, None);
        std::fs::write(&kernel, "k").unwrap();
        assert_eq!(words(&asked(&[], &prefix)).unwrap(), (Accel::Auto, Some(prefix.as_path())));
        assert_eq!(words(&asked(&["qemu"], &prefix)).unwrap(), (Accel::Qemu, Some(prefix.as_path())));
        assert_eq!(words(&asked(&["qemu"], &kernel)).unwrap(), (Accel::Auto, Some(Path::new("qemu"))));
    }

    #[test]
    fn disks_without_a_file_live_in_the_state_folder() {
        let spec = |text: &str| text.parse::<args::DiskSpec>().unwrap();
        let path = |at, text| disk(at, &spec(text), Path::new("vm-state")).path;
        assert_eq!(path(0, "size=1G"), Path::new("vm-state/disk.img"));
        assert_eq!(path(1, "size=1G"), Path::new("vm-state/disk1.img"));
        assert_eq!(path(2, "size=1G,format=qcow2"), Path::new("vm-state/disk2.qcow2"));
        assert_eq!(path(3, "data.img,size=1G"), Path::new("data.img"));
    }

    #[test]
    fn a_panic_is_told_with_its_reason_and_what_was_printed_last() {
        let end = |panic: Option<&str>, lines: &[&str]| End {
            reason: ExitReason::Panic,
            overdue: false,
            panic: panic.map(str::to_owned),
            last_lines: lines.iter().map(|line| (*line).to_owned()).collect(),
        };
        let said = |end| meaning(end, &asked(&["vm"], args::Accel::Auto)).unwrap_err().error.to_string();
        assert_eq!(said(end(None, &[])), "the guest's kernel panicked");
        assert_eq!(
            said(end(Some("no init"), &["a", "b"])),
            "the guest's kernel panicked: no init; the last lines on its console:\n  a\n  b"
        );
    }

    #[test]
    fn only_an_end_that_the_guest_chose_is_success() {
        let asked = asked(&["vm"], args::Accel::Auto);
        for (reason, good) in [
            (ExitReason::PowerOff, true),
            (ExitReason::Reset, true),
            (ExitReason::Panic, false),
            (ExitReason::TripleFault, false),
            (ExitReason::Hung, false),
            (ExitReason::NotBooted, false),
            (ExitReason::Stopped, false),
        ] {
            let end = End { reason, overdue: false, panic: None, last_lines: vec![] };
            assert_eq!(meaning(end, &asked).is_ok(), good, "{reason:?}");
        }
    }
}

//! A machine with plain firmware and nothing of kiln: QEMU's software CPU under SeaBIOS or EDK II. It boots an artifact
//! the way somebody would who got it without a word, and so judges the whole of it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use super::kiln::Running;

/// What starts the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// QEMU's own for x86.
    SeaBios,
    /// EDK II for x86_64, with fresh variables: no boot entry is known, so removable media decide.
    Ovmf,
    /// EDK II for arm64.
    Aavmf,
}

/// The board.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Board {
    /// PCI Express, AHCI.
    Q35,
    /// PCI, IDE.
    Pc,
    /// arm64's.
    Virt,
}

/// How the artifact is plugged in. It is never changed: what the guest writes is thrown away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plug {
    /// The CD drive of the board: IDE or AHCI.
    Cd,
    /// A disk at the board's IDE or AHCI.
    Disk,
    /// A disk as clouds have them.
    VirtioDisk,
    /// A CD drive as clouds have them.
    ScsiCd,
    /// A memory stick.
    UsbStick,
}

/// A machine that boots one artifact.
#[derive(Debug, Clone)]
pub struct Machine {
    /// What starts it.
    pub firmware: Firmware,
    /// What it is.
    pub board: Board,
    /// How the artifact is plugged in.
    pub plug: Plug,
    /// QEMU's name of the artifact's container: `raw`, `qcow2`, `vpc`, `vmdk`.
    pub container: &'static str,
    /// Memory.
    pub memory_mib: u32,
}

/// A machine on the software CPU keeps a core busy; more at once only make each miss its time limit.
const AT_ONCE: u32 = 2;

/// From power to power off. A boot takes 10 to 25 s on an idle core.
const LIMIT: Duration = Duration::from_secs(300);

static RUNNING: (Mutex<u32>, Condvar) = (Mutex::new(0), Condvar::new());

/// A place among the machines that run at once.
struct Turn;

impl Turn {
    fn wait() -> Self {
        let (running, ended) = &RUNNING;
        let mut running = running.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        while *running >= AT_ONCE {
            running = ended.wait(running).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        *running += 1;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let (running, ended) = &RUNNING;
        *running.lock().unwrap_or_else(std::sync::PoisonError::into_inner) -= 1;
        ended.notify_one();
    }
}

impl Machine {
    /// A PC with 512 MiB.
    pub fn new(firmware: Firmware, board: Board, plug: Plug) -> Self {
        Self { firmware, board, plug, container: "raw", memory_mib: 512 }
    }

    /// Its artifact is in such a container.
    pub fn container(mut self, container: &'static str) -> Self {
        self.container = container;
        self
    }

    /// Boots `artifact` until the machine powers itself off; gives its console. Panics with that if it does not, or if a line of
    /// `wanted` is missing.
    #[track_caller]
    pub fn boot(&self, artifact: &Path, wanted: &[&str]) -> String {
        let command = |scratch: &Path| {
            let mut command = self.command(Some(artifact), scratch);
            command.args(["-serial", "stdio"]);
            command
        };
        self.run(command, &artifact.display().to_string(), wanted)
    }

    /// Boots a kernel that QEMU itself loads, until the machine powers itself off.
    #[track_caller]
    pub fn boot_kernel(
        &self,
        kernel: &Path,
        initrd: Option<&Path>,
        cmdline: &str,
        disk: Option<&Path>,
        wanted: &[&str],
    ) -> String {
        let command = |scratch: &Path| {
            let mut command = self.command(disk, scratch);
            command.args(["-serial", "stdio", "-append", cmdline, "-kernel"]).arg(kernel);
            if let Some(initrd) = initrd {
                command.arg("-initrd").arg(initrd);
            }
            command
        };
        self.run(command, &format!("{} ({cmdline})", kernel.display()), wanted)
    }

    #[track_caller]
    fn run(&self, command: impl FnOnce(&Path) -> Command, artifact: &str, wanted: &[&str]) -> String {
        let _turn = Turn::wait();
        let scratch = tempfile::Builder::new().prefix("kiln-firmware-").tempdir().expect("a temp folder can be made");
        let machine = Running::start(&mut command(scratch.path()));
        let what = || format!("{self:?} with {artifact}");
        let console = match machine.end(LIMIT, &["Kernel panic", "Attempted to kill init"]) {
            Ok((status, console)) if status.success() => console,
            Ok((status, console)) => panic!("{}: {status:?}\n{}", what(), readable(&console)),
            Err(console) => panic!("{} did not power off:\n{}", what(), readable(&console)),
        };
        let console = readable(&console);
        for line in wanted {
            assert!(console.contains(line), "{}: no `{line}` in:\n{console}", what());
        }
        console
    }

    fn command(&self, artifact: Option<&Path>, scratch: &Path) -> Command {
        // The machine ends with the thread that watches it, however that ends.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        match self.board {
            Board::Q35 => command.args(["qemu-system-x86_64", "-M", "q35", "-cpu", "max"]),
            Board::Pc => command.args(["qemu-system-x86_64", "-M", "pc", "-cpu", "qemu64"]),
            Board::Virt => command.args(["qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a57"]),
        };
        command.args(["-accel", "tcg", "-m", &self.memory_mib.to_string(), "-display", "none", "-no-reboot"]);
        command.args(["-nodefaults", "-net", "none", "-device", "virtio-rng-pci"]);
        if self.board != Board::Virt {
            // Firmware and boot loaders of PCs talk to a screen too.
            command.args(["-vga", "std"]);
        }
        for (index, flash) in self.flash(scratch).iter().enumerate() {
            let readonly = if index == 0 { "on" } else { "off" };
            command.arg("-drive");
            command.arg(format!("if=pflash,format=raw,unit={index},readonly={readonly},file={}", flash.display()));
        }
        if let Some(artifact) = artifact {
            self.plug_in(artifact, &mut command);
        }
        command
    }

    fn plug_in(&self, artifact: &Path, command: &mut Command) {
        let media = if matches!(self.plug, Plug::Cd | Plug::ScsiCd) { "cdrom,readonly=on" } else { "disk,snapshot=on" };
        let drive = format!("if=none,id=it,format={},media={media},file={}", self.container, artifact.display());
        // Place 0 is that of a kernel that QEMU loads.
        let devices: &[&str] = match self.plug {
            Plug::Cd => &["ide-cd,drive=it,bootindex=1"],
            Plug::Disk => &["ide-hd,drive=it,bootindex=1"],
            Plug::VirtioDisk => &["virtio-blk-pci,drive=it,bootindex=1"],
            Plug::ScsiCd => &["virtio-scsi-pci", "scsi-cd,drive=it,bootindex=1"],
            Plug::UsbStick => &["qemu-xhci", "usb-storage,drive=it,bootindex=1,removable=on"],
        };
        command.args(["-drive", &drive]);
        for device in devices {
            command.args(["-device", device]);
        }
    }

    /// The firmware's two flash chips: its code, and a copy of its variables.
    fn flash(&self, scratch: &Path) -> Vec<PathBuf> {
        let (code, variables, package) = match self.firmware {
            Firmware::SeaBios => return vec![],
            Firmware::Ovmf => ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd", "ovmf"),
            Firmware::Aavmf => ("/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd", "qemu-efi-aarch64"),
        };
        let copy = scratch.join("variables.fd");
        std::fs::copy(variables, &copy).unwrap_or_else(|error| panic!("{variables}: {error}; install {package}"));
        vec![code.into(), copy]
    }
}

/// The console without what moves the cursor and paints.
fn readable(console: &str) -> String {
    let mut text = String::with_capacity(console.len());
    let mut chars = console.chars();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' => drop(chars.by_ref().find(|c| c.is_ascii_alphabetic())),
            '\n' => text.push('\n'),
            c if c.is_control() => {}
            c => text.push(c),
        }
    }
    text
}

/// A word that this QEMU does not know would show only when a machine of that kind is started.
#[test]
fn qemu_knows_every_machine_that_can_be_asked_for() {
    let scratch = tempfile::tempdir().expect("a temp folder can be made");
    let artifact = scratch.path().join("disk.raw");
    std::fs::write(&artifact, vec![0; 1 << 20]).expect("the temp folder is writable");
    for (firmware, board) in
        [(Firmware::SeaBios, Board::Pc), (Firmware::Ovmf, Board::Q35), (Firmware::Aavmf, Board::Virt)]
    {
        for plug in [Plug::Cd, Plug::Disk, Plug::VirtioDisk, Plug::ScsiCd, Plug::UsbStick] {
            if board == Board::Virt && matches!(plug, Plug::Cd | Plug::Disk) {
                continue;
            }
            let mut command = Machine::new(firmware, board, plug).command(Some(&artifact), scratch.path());
            command.args(["-S", "-qmp", "stdio", "-serial", "null"]);
            let mut machine = Running::start(&mut command);
            machine.type_in("{\"execute\": \"qmp_capabilities\"}{\"execute\": \"quit\"}\n");
            let end = machine.end(Duration::from_secs(60), &[]);
            assert!(end.as_ref().is_ok_and(|(status, _)| status.success()), "{firmware:?} {board:?} {plug:?}: {end:?}");
        }
    }
}

//! Checks a machine's description as a whole, before anything is made or opened for use. Every fault is found in one go.

mod card;
mod disk;
mod share;
mod told;
mod vsock;

use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

pub use self::card::CardFault;
pub use self::disk::DiskFault;
pub use self::share::ShareFault;
pub use self::told::ToldFault;
pub use self::vsock::VsockFault;
use crate::boot::{self, inspect, unpacked_bytes};
use crate::config::{Boot, Card, Disk, Firmware, Kernel, MAX_SHARES, MachineConfig, Pages};
use crate::firmware::{self, FirmwareError};
use crate::layout::{COMMAND_LINE_MAX, LOW_RAM_LIMIT, MIB};
use crate::mem::{HUGE_PAGE_BYTES, Split};

/// Most vCPUs: a local APIC's number has 8 bits, and the last one means "all".
pub const MAX_CPUS: u32 = 254;
/// Least memory that is worth trying, in MiB; the kernel's own size asks for more.
pub const MIN_MEMORY_MIB: u64 = 16;
/// Most memory, in MiB: processors with the fewest address lines (39) must still reach the PCI window above it.
pub const MAX_MEMORY_MIB: u64 = 480 * 1024;
/// Most disks, network cards and shared folders together: the places that are left on the PCI bus.
pub const MAX_PLACES: usize = 26;
/// Most network cards: each has a thread.
pub const MAX_CARDS: usize = 8;
/// What a kernel needs beside itself and its packed RAM disk before it runs the first program, in MiB.
const WORKING_MIB: u64 = 16;

/// A description without faults. Holds what was asked for, nothing is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedMachine {
    config: MachineConfig,
    doubts: Vec<Doubt>,
}

impl CheckedMachine {
    /// The description.
    pub fn config(&self) -> &MachineConfig {
        &self.config
    }

    /// What may go wrong all the same.
    pub fn doubts(&self) -> &[Doubt] {
        &self.doubts
    }

    /// Guest memory in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.config.memory_mib * MIB
    }

    /// Where that lies in the guest.
    pub fn split(&self) -> Split {
        match self.config.boot {
            Boot::Linux { .. } => Split::new(self.memory_bytes()),
            Boot::Firmware(_) => Split::with_firmware(self.memory_bytes()),
        }
    }
}

/// Something that goes wrong with most guests, but not with all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// A root in memory may fill half of it, and this one unpacks to more.
    #[error(
        "the initrd unpacks to {unpacked_mib} MiB, and most kernels give a root in RAM half of the memory: `-mem {needed_mib}` is enough; `kiln build -format kernel+squashfs` leaves the root on a disk"
    )]
    HalfOfMemory {
        /// What it unpacks to.
        unpacked_mib: u64,
        /// Memory that is surely enough.
        needed_mib: u64,
    },
    /// A socket that most programs cannot name.
    #[error(
        "`{}` is longer than the {} bytes that a socket's name may have: programs reach it from inside its folder, or give `-state` a shorter one",
        path.display(),
        vsock::NAME_BYTES
    )]
    LongSocketName {
        /// The socket.
        path: PathBuf,
    },
}

/// All that is wrong with a description, at least one thing.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.lines())]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// Each fault, in the order of the description.
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.0.iter()
    }

    fn lines(&self) -> String {
        let lines: Vec<String> = self.0.iter().map(whole_text).collect();
        lines.join("\n")
    }
}

/// A fault with its causes, on one line.
fn whole_text(fault: &Fault) -> String {
    let mut text = fault.to_string();
    let mut cause = std::error::Error::source(fault);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// One thing that is wrong with a description.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// No or too many vCPUs.
    #[error("a machine has 1 to {MAX_CPUS} CPUs, not {cpus}")]
    Cpus {
        /// Asked for.
        cpus: u32,
    },
    /// Too little or too much memory for any kernel.
    #[error("a machine has {MIN_MEMORY_MIB} to {MAX_MEMORY_MIB} MiB of memory, not {mib}")]
    Memory {
        /// Asked for.
        mib: u64,
    },
    /// Memory that huge pages do not divide.
    #[error("huge pages have {} MiB: {mib} MiB of memory are no multiple of that", HUGE_PAGE_BYTES as u64 / MIB)]
    HugePages {
        /// Asked for.
        mib: u64,
    },
    /// Too little memory for this kernel and RAM disk.
    #[error("{mib} MiB of memory are too few for this kernel and initrd: give at least `-mem {needed_mib}`")]
    MemoryForBoot {
        /// Asked for.
        mib: u64,
        /// Needed at least.
        needed_mib: u64,
    },
    /// Too little memory for what the RAM disk unpacks to.
    #[error(
        "{mib} MiB of memory are too few: the initrd unpacks to {unpacked_mib} MiB; give at least `-mem {needed_mib}`, or leave the root on a disk: `kiln build -format kernel+squashfs`"
    )]
    MemoryForRoot {
        /// Asked for.
        mib: u64,
        /// What the RAM disk unpacks to.
        unpacked_mib: u64,
        /// Surely enough.
        needed_mib: u64,
    },
    /// Too little memory for firmware.
    #[error("EFI firmware needs at least {} MiB of memory, not {mib}", firmware::MIN_MEMORY_MIB)]
    MemoryForFirmware {
        /// Asked for.
        mib: u64,
    },
    /// A kernel that only this program can start.
    #[error("kernel `{}` is no EFI program, which firmware starts: leave out `-uefi`, or use its bzImage", path.display())]
    NoProgram {
        /// The file.
        path: PathBuf,
    },
    /// Firmware that cannot be used.
    #[error(transparent)]
    Firmware(FirmwareError),
    /// A kernel that no amount of memory makes room for.
    #[error("kernel `{}` wants to end at {end:#x}; there is room below 3 GiB only", path.display())]
    KernelTooLarge {
        /// The file.
        path: PathBuf,
        /// First address past it.
        end: u64,
    },
    /// A RAM disk that no amount of memory makes room for.
    #[error("initrd `{}` of {} MiB does not fit below 3 GiB, where a kernel looks for it", path.display(), bytes.div_ceil(MIB))]
    Initrd {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// The kernel cannot be read or is none.
    #[error(transparent)]
    Kernel(boot::Error),
    /// A file of the description cannot be used.
    #[error("cannot use {role} `{}`", path.display())]
    File {
        /// What it is for.
        role: &'static str,
        /// The file.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// A file that is something else.
    #[error("{role} `{}` is not {wanted}", path.display())]
    FileType {
        /// What it is for.
        role: &'static str,
        /// The file.
        path: PathBuf,
        /// What it should be.
        wanted: &'static str,
    },
    /// The command line is too long or has a zero byte in it.
    #[error("the kernel command line has {bytes} bytes or a zero byte in it; a kernel takes at most {}", COMMAND_LINE_MAX - 1)]
    CommandLine {
        /// Its length.
        bytes: usize,
    },
    /// A disk.
    #[error(transparent)]
    Disk(#[from] DiskFault),
    /// A network card.
    #[error(transparent)]
    Card(#[from] CardFault),
    /// A shared folder.
    #[error(transparent)]
    Share(#[from] ShareFault),
    /// What the guest is told by tables.
    #[error(transparent)]
    Told(#[from] ToldFault),
    /// The sockets between host and guest.
    #[error(transparent)]
    Vsock(#[from] VsockFault),
}

/// Checks everything. Reads files' attributes, and the first bytes of the kernel and of disks; changes nothing.
pub fn check(config: &MachineConfig) -> Result<CheckedMachine, Faults> {
    let mut faults = Vec::new();
    if !(1..=MAX_CPUS).contains(&config.cpus) {
        faults.push(Fault::Cpus { cpus: config.cpus });
    }
    let has_memory = (MIN_MEMORY_MIB..=MAX_MEMORY_MIB).contains(&config.memory_mib);
    if !has_memory {
        faults.push(Fault::Memory { mib: config.memory_mib });
    }
    if config.memory.pages == Pages::Reserved && !config.memory_mib.is_multiple_of(HUGE_PAGE_BYTES as u64 / MIB) {
        faults.push(Fault::HugePages { mib: config.memory_mib });
    }
    let mut doubts = Vec::new();
    match &config.boot {
        Boot::Linux { .. } => check_linux(config, has_memory, &mut faults, &mut doubts),
        Boot::Firmware(firmware) => check_firmware(config, firmware, &mut faults),
    }
    let most_disks = MAX_PLACES - config.cards.len().min(MAX_CARDS) - config.shares.len().min(MAX_SHARES);
    disk::check(&config.disks, most_disks, &config.state_dir, &mut faults);
    card::check(&config.cards, &mut faults);
    share::check(&config.shares, &mut faults);
    told::check(&config.told, &mut faults);
    vsock::check(config.vsock.as_ref(), &mut faults);
    doubts.extend(vsock::doubt(config.vsock.as_ref(), &config.state_dir));
    check_state_dir(&config.state_dir, &mut faults);
    if faults.is_empty() { Ok(CheckedMachine { config: config.clone(), doubts }) } else { Err(Faults(faults)) }
}

fn check_linux(config: &MachineConfig, has_memory: bool, faults: &mut Vec<Fault>, doubts: &mut Vec<Doubt>) {
    let Boot::Linux { kernel, initrd, cmdline } = &config.boot else { return };
    check_command_line(cmdline, faults);
    let kernel_end = check_kernel(kernel, faults);
    let initrd_bytes = initrd.as_deref().map_or(Some(0), |path| check_initrd(path, faults));
    if let (true, Some(kernel_end), Some(initrd_bytes)) = (has_memory, kernel_end, initrd_bytes) {
        let before = faults.len();
        check_room(config, kernel_end, initrd_bytes, faults);
        if faults.len() == before {
            check_root_room(config, kernel_end, initrd_bytes, faults, doubts);
        }
    }
}

fn check_firmware(config: &MachineConfig, firmware: &Firmware, faults: &mut Vec<Fault>) {
    if config.memory_mib < firmware::MIN_MEMORY_MIB {
        faults.push(Fault::MemoryForFirmware { mib: config.memory_mib });
    }
    if let Err(error) = firmware::Image::read(firmware) {
        faults.push(Fault::Firmware(error));
    }
    let Some(Kernel { image, initrd, cmdline }) = &firmware.kernel else { return };
    check_command_line(cmdline, faults);
    let is_program = |path: &Path| fs::File::open(path).and_then(|file| firmware::is_program(&file));
    // One that cannot be read is told of by itself.
    if check_regular("kernel", image, faults).is_some() && !is_program(image).unwrap_or(true) {
        faults.push(Fault::NoProgram { path: image.clone() });
    }
    let _bytes = initrd.as_deref().map(|path| check_initrd(path, faults));
}

fn check_command_line(cmdline: &str, faults: &mut Vec<Fault>) {
    if cmdline.len() >= COMMAND_LINE_MAX || cmdline.contains('\0') {
        faults.push(Fault::CommandLine { bytes: cmdline.len() });
    }
}

/// Checks disks that no machine has yet.
///
/// # Errors
/// All that is wrong with them.
pub fn check_disks(disks: &[Disk]) -> Result<(), Faults> {
    let mut faults = Vec::new();
    disk::check(disks, MAX_PLACES, Path::new(""), &mut faults);
    if faults.is_empty() { Ok(()) } else { Err(Faults(faults)) }
}

/// Checks network cards that no machine here has.
///
/// # Errors
/// All that is wrong with them.
pub fn check_cards(cards: &[Card]) -> Result<(), Faults> {
    let mut faults = Vec::new();
    card::check(cards, &mut faults);
    if faults.is_empty() { Ok(()) } else { Err(Faults(faults)) }
}

/// Whether kernel and RAM disk fit into memory, below the hole for devices.
fn check_room(config: &MachineConfig, kernel_end: u64, initrd_bytes: u64, faults: &mut Vec<Fault>) {
    let Boot::Linux { kernel, initrd, .. } = &config.boot else { return };
    let mib_up_to = |end: u64| end.div_ceil(MIB).saturating_add(WORKING_MIB);
    let needed_mib = mib_up_to(kernel_end.saturating_add(initrd_bytes));
    if mib_up_to(kernel_end) > LOW_RAM_LIMIT / MIB {
        faults.push(Fault::KernelTooLarge { path: kernel.clone(), end: kernel_end });
    } else if needed_mib > LOW_RAM_LIMIT / MIB {
        faults.push(Fault::Initrd { path: initrd.clone().unwrap_or_default(), bytes: initrd_bytes });
    } else if config.memory_mib < needed_mib {
        faults.push(Fault::MemoryForBoot { mib: config.memory_mib, needed_mib });
    }
}

/// Whether there is room for what the RAM disk unpacks to, beside itself: it is freed only afterwards.
fn check_root_room(
    config: &MachineConfig,
    kernel_end: u64,
    initrd_bytes: u64,
    faults: &mut Vec<Fault>,
    doubts: &mut Vec<Doubt>,
) {
    let Boot::Linux { initrd: Some(initrd), cmdline, .. } = &config.boot else { return };
    let unpacked = match unpacked_bytes(initrd) {
        Ok(unpacked) => unpacked,
        Err(source) => return faults.push(Fault::File { role: "initrd", path: initrd.clone(), source }),
    };
    let mib_of = |bytes: u64| bytes.div_ceil(MIB).saturating_add(WORKING_MIB);
    let (mib, unpacked_mib) = (config.memory_mib, unpacked.div_ceil(MIB));
    let without_root = kernel_end.saturating_add(initrd_bytes);
    let least_mib = mib_of(without_root.saturating_add(unpacked));
    // The kernel's list of pages takes a sixty-fourth of all memory.
    let whole = without_root.saturating_add(unpacked.saturating_mul(2));
    let enough_mib = mib_of(whole.saturating_add(whole / 48)).next_multiple_of(16);
    // With one of these words the root has no limit of its own.
    let has_no_limit =
        cmdline.split_ascii_whitespace().any(|word| word.starts_with("root=") || word == "rootfstype=ramfs");
    if mib < least_mib {
        faults.push(Fault::MemoryForRoot { mib, unpacked_mib, needed_mib: enough_mib });
    } else if mib < enough_mib && !has_no_limit {
        doubts.push(Doubt::HalfOfMemory { unpacked_mib, needed_mib: enough_mib });
    }
}

/// First address behind the kernel, if it is one.
fn check_kernel(path: &Path, faults: &mut Vec<Fault>) -> Option<u64> {
    check_regular("kernel", path, faults)?;
    match inspect(path) {
        Ok(image) => Some(image.end),
        Err(error) => {
            faults.push(Fault::Kernel(error));
            None
        }
    }
}

fn check_initrd(path: &Path, faults: &mut Vec<Fault>) -> Option<u64> {
    check_regular("initrd", path, faults).map(|file| file.len())
}

/// A readable regular file.
fn check_regular(role: &'static str, path: &Path, faults: &mut Vec<Fault>) -> Option<Metadata> {
    let file = attributes(role, path, Access::READ_OK, faults)?;
    if file.is_file() {
        return Some(file);
    }
    faults.push(Fault::FileType { role, path: path.into(), wanted: "a file" });
    None
}

fn attributes(role: &'static str, path: &Path, wanted: Access, faults: &mut Vec<Fault>) -> Option<Metadata> {
    let attributes = fs::metadata(path).and_then(|file| {
        access(path, wanted)?;
        Ok(file)
    });
    attributes.map_err(|source| faults.push(Fault::File { role, path: path.into(), source })).ok()
}

/// It is a folder, or can be made in the nearest one above it that exists.
fn check_state_dir(path: &Path, faults: &mut Vec<Fault>) {
    let above = |path: &&Path| !path.as_os_str().is_empty() && path.exists();
    let existing = path.ancestors().find(above).unwrap_or(Path::new("."));
    if !existing.is_dir() {
        faults.push(Fault::FileType { role: "state folder", path: path.into(), wanted: "a folder" });
    } else if let Err(errno) = access(existing, Access::WRITE_OK | Access::EXEC_OK) {
        faults.push(Fault::File { role: "state folder", path: path.into(), source: errno.into() });
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::boot::tests::elf_kernel;
    use crate::config::{MemoryOptions, OnHang, OnReset, Told};

    fn machine(folder: &TempDir) -> MachineConfig {
        let kernel = folder.path().join("vmlinux");
        fs::write(&kernel, elf_kernel(&[0xF4; 8])).unwrap();
        MachineConfig {
            cpus: 1,
            memory_mib: 64,
            memory: MemoryOptions::default(),
            boot: Boot::Linux { kernel, initrd: None, cmdline: "quiet".into() },
            disks: vec![],
            cards: vec![],
            shares: vec![],
            vsock: None,
            told: Told::default(),
            on_reset: OnReset::Stop,
            on_hang: OnHang::default(),
            boot_timeout: None,
            state_dir: folder.path().join("state"),
        }
    }

    fn faults(config: &MachineConfig) -> Vec<String> {
        check(config).unwrap_err().iter().map(whole_text).collect()
    }

    #[test]
    fn every_fault_is_listed_at_once_and_nothing_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = machine(&folder);
        config.cpus = 0;
        config.memory_mib = 1;
        config.boot = Boot::Linux {
            kernel: "/nowhere/kernel".into(),
            initrd: Some("/nowhere/initrd".into()),
            cmdline: "x".repeat(COMMAND_LINE_MAX),
        };
        config.disks = vec![Disk::of("/nowhere/disk".into())];
        let faults = faults(&config);
        assert_eq!(
            faults,
            [
                "a machine has 1 to 254 CPUs, not 0",
                "a machine has 16 to 491520 MiB of memory, not 1",
                "the kernel command line has 2048 bytes or a zero byte in it; a kernel takes at most 2047",
                "cannot use kernel `/nowhere/kernel`: No such file or directory (os error 2)",
                "cannot use initrd `/nowhere/initrd`: No such file or directory (os error 2)",
                "disk `/nowhere/disk` does not exist; give a size to create it, such as `-disk /nowhere/disk,size=1G`",
            ]
        );
        assert!(!config.state_dir.exists());
    }

    #[test]
    fn a_kernel_that_is_none_is_named_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let config = machine(&folder);
        let Boot::Linux { kernel, .. } = &config.boot else { panic!("another boot") };
        fs::write(kernel, "#!/bin/sh\n").unwrap();
        let text = format!("`{}` cannot be booted: it is neither a bzImage nor an ELF file", kernel.display());
        assert_eq!(faults(&config), [text]);
    }

    #[test]
    fn an_initrd_larger_than_memory_tells_how_much_is_needed() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = machine(&folder);
        let initrd = folder.path().join("initrd");
        fs::File::create(&initrd).unwrap().set_len(100 * MIB).unwrap();
        let Boot::Linux { initrd: asked, .. } = &mut config.boot else { panic!("another boot") };
        *asked = Some(initrd);
        assert_eq!(
            faults(&config),
            ["64 MiB of memory are too few for this kernel and initrd: give at least `-mem 118`"]
        );
        // It is no packed one: what it holds is there twice until it is unpacked.
        config.memory_mib = 118;
        let faults = check(&config).unwrap_err();
        let [Fault::MemoryForRoot { unpacked_mib: 100, needed_mib, .. }] = faults.0[..] else { panic!("{faults}") };
        config.memory_mib = needed_mib;
        assert!(check(&config).is_ok());
    }

    #[test]
    fn a_kernel_or_initrd_that_never_fits_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = machine(&folder);
        let initrd = folder.path().join("initrd");
        fs::File::create(&initrd).unwrap().set_len(4 << 30).unwrap();
        let Boot::Linux { initrd: asked, kernel, .. } = &mut config.boot else { panic!("another boot") };
        *asked = Some(initrd.clone());
        let kernel = kernel.clone();
        let text =
            format!("initrd `{}` of 4096 MiB does not fit below 3 GiB, where a kernel looks for it", initrd.display());
        assert_eq!(faults(&config), [text]);
        let mut elf = elf_kernel(&[0xF4; 8]);
        // The loaded segment's size in memory.
        elf[64 + 56 + 40..64 + 56 + 48].copy_from_slice(&(1u64 << 62).to_le_bytes());
        fs::write(&kernel, elf).unwrap();
        let text =
            format!("kernel `{}` wants to end at 0x4000000000100000; there is room below 3 GiB only", kernel.display());
        assert_eq!(faults(&config), [text]);
    }

    #[test]
    fn a_state_folder_below_a_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = machine(&folder);
        let Boot::Linux { kernel, .. } = &config.boot else { panic!("another boot") };
        config.state_dir = kernel.join("a/state");
        let text = format!("state folder `{}` is not a folder", config.state_dir.display());
        assert_eq!(faults(&config), [text]);
    }

    #[test]
    fn memory_for_what_an_initrd_unpacks_to_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let initrd = folder.path().join("initrd");
        let mut packer = flate2::write::GzEncoder::new(fs::File::create(&initrd).unwrap(), flate2::Compression::fast());
        io::Write::write_all(&mut packer, &vec![0; 60 << 20]).unwrap();
        packer.finish().unwrap();
        let mut config = machine(&folder);
        let Boot::Linux { initrd: asked, .. } = &mut config.boot else { panic!("another boot") };
        *asked = Some(initrd);
        config.memory_mib = 64;
        let faults = faults(&config);
        assert!(faults[0].contains("unpacks to 60 MiB") && faults[0].contains("kernel+squashfs"), "{faults:?}");
        config.memory_mib = 110;
        let checked = check(&config).unwrap();
        let [Doubt::HalfOfMemory { unpacked_mib: 60, needed_mib }] = checked.doubts() else { panic!("no doubt") };
        assert!((120..200).contains(needed_mib), "{needed_mib}");
        config.memory_mib = *needed_mib;
        assert!(check(&config).unwrap().doubts().is_empty());
        config.memory_mib = 110;
        let Boot::Linux { cmdline, .. } = &mut config.boot else { panic!("another boot") };
        *cmdline = "rootfstype=ramfs".into();
        assert!(check(&config).unwrap().doubts().is_empty());
    }
}

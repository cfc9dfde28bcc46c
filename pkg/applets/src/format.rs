//! `format`: gives the first empty disk, or those that are named, a partition table with one partition, and that a file system.
//! What holds anything is left alone, unless `-force` says otherwise.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use kiln_guest::block::control::reread_partitions;
use kiln_guest::block::{Devices, superblock};
use rustix::fs::{Mode, OFlags, ioctl_blksszget};

use crate::arguments::{Flags, Given, WrongUse};
use crate::disk::{self, Table, TableError};
use crate::{Failure, Voice};

/// What it takes.
pub const USAGE: &str = "[-type ext4|btrfs|xfs] [-label LABEL] [-partition dos|gpt] [-force] [-verbose] [DISK…]";

const FLAGS: Flags = Flags { valued: &["type", "label", "partition"], alone: &["force", "verbose"] };
/// How long the kernel may take to show a new partition, and to let go of a disk that somebody looks at.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Why a disk is not formatted.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// Nobody could mount what is made.
    #[error("this machine's kernel has no {kind}: add `{kind}` to the `modules` of its package, or take ext4")]
    Kernel {
        /// The file system.
        kind: String,
    },
    /// There is none.
    #[error("no disk to format; there are: {0}")]
    NoDisk(String),
    /// None is empty, and none is formatted.
    #[error("no disk is empty; `-force` overwrites one; there are: {0}")]
    NoneEmpty(String),
    /// One that is named and not there.
    #[error("`{name}` is no disk that can be written; there are: {there}")]
    Unknown {
        /// As it was named.
        name: String,
        /// What there is.
        there: String,
    },
    /// It holds something.
    #[error("`{}` is not empty, and left as it is; `-force` overwrites it", disk.display())]
    NotEmpty {
        /// Which disk.
        disk: PathBuf,
    },
    /// It cannot be opened.
    #[error("cannot open `{}`", disk.display())]
    Open {
        /// Which disk.
        disk: PathBuf,
        /// Why; a disk that is mounted is busy.
        #[source]
        source: io::Error,
    },
    /// Its table.
    #[error("cannot partition `{}`", disk.display())]
    Table {
        /// Which disk.
        disk: PathBuf,
        /// Why.
        #[source]
        source: TableError,
    },
    /// The kernel shows no partition.
    #[error("the partition of `{}` does not appear", disk.display())]
    NoPartition {
        /// Which disk.
        disk: PathBuf,
    },
    /// mkfs is missing.
    #[error("cannot start `{program}`")]
    NoProgram {
        /// Its name.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// mkfs failed.
    #[error("`{program}` failed: {said}")]
    Program {
        /// Its name.
        program: String,
        /// What it said.
        said: String,
    },
}

/// What is asked for.
#[derive(Debug)]
struct Wish {
    kind: String,
    label: Option<String>,
    table: Table,
    force: bool,
    verbose: bool,
}

/// What a disk holds.
#[derive(Debug, PartialEq, Eq)]
enum Holds {
    Nothing,
    /// A partition of ours, whose file system was never made: the machine was switched off.
    Unfinished(String),
    /// A partition with a file system.
    FileSystem(String),
    Anything,
}

/// Runs the program.
///
/// # Errors
/// [`FormatError`].
pub fn run(arguments: &[String], say: Voice<'_>) -> Result<(), Failure> {
    let given = FLAGS.read(arguments)?;
    let wish = wish(&given)?;
    if !kiln_guest::mount::is_known(driver(&wish.kind)) {
        return Err(Failure::of(FormatError::Kernel { kind: wish.kind }));
    }
    let devices = Devices::of_machine();
    let done = match given.words.as_slice() {
        [] => first(&devices, &wish, say),
        disks => disks.iter().try_for_each(|name| named(&devices, name, &wish, say)),
    };
    done.map_err(Failure::of)
}

/// Which of the kernel's file systems mounts it.
fn driver(kind: &str) -> &str {
    if kind.starts_with("ext") { "ext4" } else { kind }
}

fn wish(given: &Given) -> Result<Wish, WrongUse> {
    let kind = given.value("type").unwrap_or("ext4");
    if !["ext4", "ext3", "ext2", "btrfs", "xfs"].contains(&kind) {
        return Err(WrongUse::Bad { value: kind.to_owned(), what: "file system that can be made: ext4, btrfs, xfs" });
    }
    let table = match given.value("partition") {
        None | Some("dos") => Table::Dos,
        Some("gpt") => Table::Gpt,
        Some(other) => return Err(WrongUse::Bad { value: other.to_owned(), what: "partition table: dos, gpt" }),
    };
    let label = given.value("label").filter(|label| !label.is_empty()).map(str::to_owned);
    Ok(Wish { kind: kind.to_owned(), label, table, force: given.has("force"), verbose: given.has("verbose") })
}

/// The first disk that is empty; with `-force` the first one. A machine that starts again has none: that is fine.
fn first(devices: &Devices, wish: &Wish, say: Voice<'_>) -> Result<(), FormatError> {
    let disks = devices.disks();
    if disks.is_empty() {
        return Err(FormatError::NoDisk(devices.described()));
    }
    let mut formatted = None;
    for disk in &disks {
        let holds = if wish.force { Holds::Nothing } else { holds(devices, disk)? };
        match holds {
            Holds::Nothing => return all(devices, disk, wish, say),
            Holds::Unfinished(partition) => return file_system(&devices.path(&partition), wish, say),
            Holds::FileSystem(partition) => formatted = formatted.or(Some(partition)),
            Holds::Anything => {}
        }
    }
    let partition = formatted.ok_or_else(|| FormatError::NoneEmpty(devices.described()))?;
    say(&format!("no disk is empty; {} is formatted already", devices.path(&partition).display()));
    Ok(())
}

fn named(devices: &Devices, name: &str, wish: &Wish, say: Voice<'_>) -> Result<(), FormatError> {
    let disk = name.strip_prefix("/dev/").unwrap_or(name).replace('/', "!");
    if !devices.disks().contains(&disk) {
        return Err(FormatError::Unknown { name: name.to_owned(), there: devices.described() });
    }
    let holds = if wish.force { Holds::Nothing } else { holds(devices, &disk)? };
    match holds {
        Holds::Nothing => all(devices, &disk, wish, say),
        Holds::Unfinished(partition) => file_system(&devices.path(&partition), wish, say),
        Holds::FileSystem(partition) => {
            say(&format!("{} is formatted already", devices.path(&partition).display()));
            Ok(())
        }
        Holds::Anything => Err(FormatError::NotEmpty { disk: devices.path(&disk) }),
    }
}

fn holds(devices: &Devices, disk: &str) -> Result<Holds, FormatError> {
    let failed = |source| FormatError::Open { disk: devices.path(disk), source };
    let empty = |name: &str| {
        let device = devices.open(name).ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        disk::is_empty(&device.file, devices.sectors(name) * 512).map_err(failed).map(|empty| (empty, device))
    };
    match devices.partitions(disk).as_slice() {
        [] if empty(disk)?.0 => Ok(Holds::Nothing),
        [] => Ok(Holds::Anything),
        [one] => match empty(one)? {
            (true, _) => Ok(Holds::Unfinished(one.clone())),
            (false, device) => match superblock::read(&device.file).map_err(failed)? {
                Some(_) => Ok(Holds::FileSystem(one.clone())),
                None => Ok(Holds::Anything),
            },
        },
        several => {
            let known = several.iter().find(|name| {
                devices.open(name).is_some_and(|device| matches!(superblock::read(&device.file), Ok(Some(_))))
            });
            Ok(known.map_or(Holds::Anything, |name| Holds::FileSystem(name.clone())))
        }
    }
}

/// Table, partition, file system.
fn all(devices: &Devices, name: &str, wish: &Wish, say: Voice<'_>) -> Result<(), FormatError> {
    let disk = devices.path(name);
    let len_bytes = devices.sectors(name) * 512;
    let failed = |source: TableError| FormatError::Table { disk: disk.clone(), source };
    let file = open_alone(&disk)?;
    let sector_bytes = ioctl_blksszget(&file).map_err(|errno| failed(io::Error::from(errno).into()))?;
    if wish.force {
        disk::clear(&file, len_bytes).map_err(|error| failed(error.into()))?;
    }
    say(&format!("{}: a {} partition for {}", disk.display(), table_name(wish.table), wish.kind));
    // Not by itself: the crate for GPT opens the disk a second time, which is what EXCL is about.
    drop(file);
    let file = open(&disk, OFlags::empty())?;
    disk::write(&disk, &file, len_bytes, sector_bytes, wish.table).map_err(failed)?;
    until(|| reread_partitions(&file)).map_err(|error| failed(error.into()))?;
    drop(file);
    let began = Instant::now();
    let partition = loop {
        if let Some(partition) = devices.partitions(name).first().filter(|name| devices.open(name).is_some()) {
            break devices.path(partition);
        }
        if began.elapsed() > PATIENCE {
            return Err(FormatError::NoPartition { disk });
        }
        std::thread::sleep(LOOK_EVERY);
    };
    if wish.force {
        let file = open_alone(&partition)?;
        let len_bytes = devices.sectors(&partition.file_name().unwrap_or_default().to_string_lossy()) * 512;
        disk::clear(&file, len_bytes).map_err(|source| FormatError::Open { disk: partition.clone(), source })?;
    }
    file_system(&partition, wish, say)
}

fn table_name(table: Table) -> &'static str {
    match table {
        Table::Dos => "dos",
        Table::Gpt => "gpt",
    }
}

/// Fails if it, or a part of it, is mounted.
fn open_alone(disk: &Path) -> Result<File, FormatError> {
    open(disk, OFlags::EXCL)
}

fn open(disk: &Path, more: OFlags) -> Result<File, FormatError> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | more;
    rustix::fs::open(disk, flags, Mode::empty())
        .map(File::from)
        .map_err(|errno| FormatError::Open { disk: disk.to_owned(), source: errno.into() })
}

/// Tries until nobody holds it any more.
pub(crate) fn until(mut try_it: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let began = Instant::now();
    loop {
        match try_it() {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && began.elapsed() < PATIENCE => {
                std::thread::sleep(LOOK_EVERY);
            }
            done => return done,
        }
    }
}

fn file_system(partition: &Path, wish: &Wish, say: Voice<'_>) -> Result<(), FormatError> {
    let program = format!("mkfs.{}", wish.kind);
    let output = Command::new(&program).args(mkfs_arguments(wish)).arg(partition).output();
    let output = output.map_err(|source| FormatError::NoProgram { program: program.clone(), source })?;
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
    let said = said.join("\n").trim().to_owned();
    if wish.verbose && !said.is_empty() {
        say(&said);
    }
    if !output.status.success() {
        return Err(FormatError::Program { program, said });
    }
    say(&format!("{}: {} is made", partition.display(), wish.kind));
    Ok(())
}

fn mkfs_arguments(wish: &Wish) -> Vec<&str> {
    let mut words = match wish.kind.as_str() {
        "btrfs" | "xfs" => vec!["-f"],
        _ => vec!["-F"],
    };
    if let Some(label) = &wish.label {
        words.extend(["-L", label]);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<Wish, WrongUse> {
        wish(&FLAGS.read(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())?)
    }

    #[test]
    fn what_cannot_be_made_is_refused_before_a_disk_is_touched() {
        for words in [["-type", "ntfs"], ["-partition", "bsd"], ["-type", "../sh"]] {
            assert!(matches!(read(&words), Err(WrongUse::Bad { .. })), "{words:?}");
        }
    }

    #[test]
    fn mkfs_is_told_kind_and_label() {
        let plain = read(&[]).unwrap();
        assert_eq!((plain.kind.as_str(), plain.table, mkfs_arguments(&plain)), ("ext4", Table::Dos, vec!["-F"]));
        let wish = read(&["-type", "xfs", "-label", "data", "-partition", "gpt", "-force"]).unwrap();
        assert_eq!((wish.table, mkfs_arguments(&wish)), (Table::Gpt, vec!["-f", "-L", "data"]));
        assert!(wish.force && !wish.verbose);
    }
}

//! `extend`: after a disk has grown, makes its last partition and the file system on it as long as the disk.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use kiln_guest::block::control::{Growing, grow, reread_partitions};
use kiln_guest::block::{Devices, superblock};
use kiln_guest::mount::{MountError, Options};
use rustix::fs::ioctl_blksszget;

use crate::arguments::Flags;
use crate::disk::{self, TableError};
use crate::format::until;
use crate::{Failure, Voice};

/// What it takes.
pub const USAGE: &str = "[-type ext4|btrfs|xfs] [DISK…]";

const FLAGS: Flags = Flags { valued: &["type"], alone: &[] };
/// Where the file system is mounted meanwhile, in this container alone.
const FOLDER: &str = "/mnt";

/// Why a disk stays as it is.
#[derive(Debug, thiserror::Error)]
enum ExtendError {
    #[error("`{name}` is no disk with a partition; there are: {there}")]
    Unknown { name: String, there: String },
    #[error("`{}` holds no file system that can grow: those are ext4, xfs and btrfs", partition.display())]
    Kind { partition: PathBuf },
    #[error("`{}` holds {found}, and `-type` says {wanted}", partition.display())]
    OtherKind { partition: PathBuf, found: &'static str, wanted: String },
    #[error("cannot change the partition table of `{}`", disk.display())]
    Table {
        disk: PathBuf,
        #[source]
        source: TableError,
    },
    #[error("cannot have the partitions of `{}` read again; it must not be mounted yet", disk.display())]
    Reread {
        disk: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot open `{}`", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot mount `{}`", partition.display())]
    Mount {
        partition: PathBuf,
        #[source]
        source: MountError,
    },
    #[error("the {kind} on `{}` does not grow", partition.display())]
    Grow {
        kind: &'static str,
        partition: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Runs the program: for the disks that are named, or for all that have partitions.
///
/// # Errors
/// The first disk that cannot be done; without names those with a file system of another kind are passed over.
pub fn run(arguments: &[String], say: Voice<'_>) -> Result<(), Failure> {
    let given = FLAGS.read(arguments)?;
    let wanted = given.value("type");
    let devices = Devices::of_machine();
    if !given.words.is_empty() {
        for name in &given.words {
            let disk = name.strip_prefix("/dev/").unwrap_or(name).replace('/', "!");
            extend(&devices, &disk, wanted, say).map_err(Failure::of)?;
        }
        return Ok(());
    }
    for disk in devices.disks().iter().filter(|disk| !devices.partitions(disk).is_empty()) {
        match extend(&devices, disk, wanted, say) {
            Err(error @ (ExtendError::Kind { .. } | ExtendError::OtherKind { .. })) => {
                say(&format!("passed over: {error}"));
            }
            done => done.map_err(Failure::of)?,
        }
    }
    Ok(())
}

fn extend(devices: &Devices, name: &str, wanted: Option<&str>, say: Voice<'_>) -> Result<(), ExtendError> {
    let unknown = || ExtendError::Unknown { name: name.to_owned(), there: devices.described() };
    let last = devices.partitions(name).pop().ok_or_else(unknown)?;
    let (disk, partition) = (devices.path(name), devices.path(&last));
    let kind = {
        let device = devices.open(&last).ok_or_else(unknown)?;
        let read = superblock::read(&device.file);
        read.map_err(|source| ExtendError::Open { path: partition.clone(), source })?
    };
    let kind = kind.ok_or_else(|| ExtendError::Kind { partition: partition.clone() })?.kind;
    let growing = Growing::of(kind).ok_or_else(|| ExtendError::Kind { partition: partition.clone() })?;
    // ext4's driver has ext2 and ext3 too.
    if let Some(wanted) = wanted.filter(|wanted| *wanted != kind && !(kind == "ext4" && wanted.starts_with("ext"))) {
        let wanted = wanted.to_owned();
        return Err(ExtendError::OtherKind { partition, found: kind, wanted });
    }
    let before = devices.sectors(&last);
    let grown = grow_partition(&disk, devices.sectors(name) * 512)?;
    let after = devices.sectors(&last);
    grow_file_system(growing, kind, &partition, after * 512)?;
    let text = match grown {
        true => format!("{}: from {} to {} MiB", partition.display(), before / 2048, after / 2048),
        false => format!("{}: already as long as its disk, {} MiB", partition.display(), after / 2048),
    };
    say(&text);
    Ok(())
}

fn grow_partition(disk: &Path, len_bytes: u64) -> Result<bool, ExtendError> {
    let file = File::options().read(true).write(true).open(disk);
    let file = file.map_err(|source| ExtendError::Open { path: disk.to_owned(), source })?;
    let failed = |source: TableError| ExtendError::Table { disk: disk.to_owned(), source };
    let sector_bytes = ioctl_blksszget(&file).map_err(|errno| failed(io::Error::from(errno).into()))?;
    if !disk::grow_last(disk, &file, len_bytes, sector_bytes).map_err(failed)? {
        return Ok(false);
    }
    until(|| reread_partitions(&file)).map_err(|source| ExtendError::Reread { disk: disk.to_owned(), source })?;
    Ok(true)
}

/// The kernel itself does it, on a file system that is mounted.
fn grow_file_system(growing: Growing, kind: &'static str, partition: &Path, len_bytes: u64) -> Result<(), ExtendError> {
    let (folder, source) = (Path::new(FOLDER), partition.to_string_lossy());
    let open = |path: &Path| File::open(path).map_err(|source| ExtendError::Open { path: path.to_owned(), source });
    kiln_guest::mount::mount(kind, &source, folder, &Options::parse(["rw"]))
        .map_err(|source| ExtendError::Mount { partition: partition.to_owned(), source })?;
    let grown = open(folder).and_then(|root| {
        let device = open(partition)?;
        grow(growing, &root, &device, len_bytes).map_err(|source| ExtendError::Grow {
            kind,
            partition: partition.to_owned(),
            source,
        })
    });
    // In this container alone: it goes with it, whatever happens here.
    let _ = kiln_guest::mount::unmount(folder);
    grown
}

//! `mount [DEVICE] MOUNTPOINT`: mounts a file system by its device, label or UUID, or else the first one that is not mounted.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use kiln_guest::block::superblock::{self, FileSystem};
use kiln_guest::block::{Device, DeviceName, Devices};
use kiln_guest::mount::table::{self, Mounted};
use kiln_guest::mount::{MountError, Options};

use crate::arguments::{Flags, Given, WrongUse};
use crate::{Failure, Voice};

/// What it takes.
pub const USAGE: &str =
    "[-device DEVICE | -label LABEL | -uuid UUID] [-timeout SECONDS] MOUNTPOINT, or DEVICE MOUNTPOINT";

const FLAGS: Flags = Flags { valued: &["device", "label", "uuid", "timeout"], alone: &[] };
/// How long a device that is named may take to appear.
const PATIENCE_SECONDS: u64 = 10;
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// File systems that the program looks for when it is told nothing: those that are written.
const WRITABLE: [&str; 3] = ["ext4", "xfs", "btrfs"];

/// Why nothing is mounted.
#[derive(Debug, thiserror::Error)]
enum Unmounted {
    #[error("`{wanted}` did not appear within {seconds} s; there are: {there}")]
    Missing { wanted: String, seconds: u64, there: String },
    #[error("no file system that is not mounted; there are: {there}")]
    None { there: String },
    #[error("`{}` holds no file system that is known here", device.display())]
    Unknown { device: PathBuf },
    #[error("cannot read `{}`", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot make the folder `{}`", path.display())]
    Folder {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the kernel has no file system {kind}, or cannot mount `{}`", device.display())]
    Mount {
        kind: &'static str,
        device: PathBuf,
        #[source]
        source: MountError,
    },
}

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Wish {
    /// `None`: the first one.
    device: Option<DeviceName>,
    folder: PathBuf,
    patience: Duration,
}

/// Runs the program.
///
/// # Errors
/// There is no such file system, or it cannot be mounted.
pub fn run(arguments: &[String], say: Voice<'_>) -> Result<(), Failure> {
    let wish = wish(&FLAGS.read(arguments)?)?;
    let devices = Devices::of_machine();
    let (device, found) = find(&devices, &wish).map_err(Failure::of)?;
    fs::create_dir_all(&wish.folder)
        .map_err(|source| Failure::of(Unmounted::Folder { path: wish.folder.clone(), source }))?;
    let read_only = matches!(found.kind, "iso9660" | "squashfs" | "erofs");
    let options = Options::parse([if read_only { "ro" } else { "rw" }]);
    let path = device.path.to_string_lossy().into_owned();
    drop(device.file);
    kiln_guest::mount::mount(found.kind, &path, &wish.folder, &options)
        .map_err(|source| Failure::of(Unmounted::Mount { kind: found.kind, device: device.path.clone(), source }))?;
    say(&format!("{path} ({}) is mounted on {}", found.kind, wish.folder.display()));
    Ok(())
}

fn wish(given: &Given) -> Result<Wish, WrongUse> {
    let (device, folder) = match given.words.as_slice() {
        [] => return Err(WrongUse::Missing("the folder to mount on")),
        [folder] => (given.value("device"), folder),
        [device, folder] => (Some(device.as_str()), folder),
        [_, _, more, ..] => return Err(WrongUse::TooMuch(more.clone())),
    };
    let label = given.value("label").filter(|label| !label.is_empty());
    let uuid = given.value("uuid").filter(|uuid| !uuid.is_empty());
    let device = match (device.filter(|device| !device.is_empty()), label, uuid) {
        (Some(device), _, _) => Some(DeviceName::Name(device.strip_prefix("/dev/").unwrap_or(device).to_owned())),
        (None, Some(label), _) => Some(DeviceName::Label(label.to_owned())),
        (None, None, Some(uuid)) => Some(DeviceName::Uuid(uuid.to_ascii_lowercase())),
        (None, None, None) => None,
    };
    let patience = Duration::from_secs(given.number("timeout", PATIENCE_SECONDS)?);
    Ok(Wish { device, folder: folder.into(), patience })
}

fn find(devices: &Devices, wish: &Wish) -> Result<(Device, FileSystem), Unmounted> {
    let Some(wanted) = &wish.device else {
        return first(devices)?.ok_or_else(|| Unmounted::None { there: devices.described() });
    };
    let began = Instant::now();
    let device = loop {
        if let Some(device) = devices.find(wanted) {
            break device;
        }
        if began.elapsed() >= wish.patience {
            let (wanted, seconds) = (wanted.to_string(), wish.patience.as_secs());
            return Err(Unmounted::Missing { wanted, seconds, there: devices.described() });
        }
        std::thread::sleep(LOOK_EVERY);
    };
    let failed = |source| Unmounted::Read { path: device.path.clone(), source };
    let found = superblock::read(&device.file).map_err(failed)?;
    let found = found.ok_or_else(|| Unmounted::Unknown { device: device.path.clone() })?;
    Ok((device, found))
}

/// Partitions before whole disks, each in the order of their names.
fn first(devices: &Devices) -> Result<Option<(Device, FileSystem)>, Unmounted> {
    let mounts = table::read().map_err(|source| Unmounted::Read { path: table::PATH.into(), source })?;
    let disks = devices.disks();
    let partitions = disks.iter().flat_map(|disk| devices.partitions(disk));
    let names: Vec<String> = partitions.chain(disks.iter().cloned()).collect();
    Ok(names.into_iter().find_map(|name| {
        let number = devices.number(&name)?;
        let device = devices.open(&name).filter(|_| !is_mounted(&mounts, &number))?;
        let found = superblock::read(&device.file).ok().flatten()?;
        WRITABLE.contains(&found.kind).then_some((device, found))
    }))
}

/// Whether a device (`MAJOR:MINOR`) is mounted anywhere.
fn is_mounted(mounts: &[Mounted], number: &str) -> bool {
    mounts.iter().any(|mounted| mounted.number == number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<Wish, WrongUse> {
        wish(&FLAGS.read(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())?)
    }

    #[test]
    fn a_folder_is_needed_and_one_is_enough() {
        assert_eq!(read(&[]), Err(WrongUse::Missing("the folder to mount on")));
        assert_eq!(read(&["/dev/vda", "/a", "/b"]), Err(WrongUse::TooMuch("/b".into())));
        assert!(matches!(read(&["-timeout", "soon", "/a"]), Err(WrongUse::Bad { .. })));
    }

    #[test]
    fn a_device_is_named_by_its_node_its_label_or_its_uuid() {
        for (words, device) in [
            (&["/var/lib"][..], None),
            (&["/dev/vda1", "/var/lib"], Some(DeviceName::Name("vda1".into()))),
            (&["-device", "/dev/vdb", "-label", "x", "/var/lib"], Some(DeviceName::Name("vdb".into()))),
            (&["--label=my disk", "/var/lib"], Some(DeviceName::Label("my disk".into()))),
            (&["-label", "", "-uuid", "AB-CD", "/var/lib"], Some(DeviceName::Uuid("ab-cd".into()))),
        ] {
            let wish = read(words).unwrap();
            assert_eq!((wish.device, wish.folder), (device, "/var/lib".into()), "{words:?}");
        }
    }

    #[test]
    fn what_is_mounted_is_told_by_its_number() {
        let mounts = table::parse(b"22 1 254:1 / /var rw - ext4 /dev/vda1 rw\n23 1 0:5 / /dev rw - devtmpfs none rw\n");
        assert!(is_mounted(&mounts, "254:1"));
        assert!(!is_mounted(&mounts, "254:11") && !is_mounted(&mounts, "4:1") && !is_mounted(&[], "254:1"));
    }
}

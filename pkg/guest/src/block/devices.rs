//! Block devices: which there are, and which of them a name means.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::partition;
use super::superblock::{self, FileSystem};

/// Devices that nobody looks for, and that there are many of.
const PASSED_OVER: [&str; 5] = ["loop", "ram", "zram", "nbd", "dm-"];
/// Drives for media that are not part of the machine.
const NO_DISKS: [&str; 2] = ["sr", "fd"];
/// So many devices are named in a message.
const SHOWN: usize = 12;

/// Which block device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceName {
    /// By its name below `/dev`.
    Name(String),
    /// By its numbers.
    Number(u32, u32),
    /// By the label of its file system.
    Label(String),
    /// By the UUID of its file system.
    Uuid(String),
    /// By the label of its partition.
    PartLabel(String),
    /// By the UUID of its partition.
    PartUuid(String),
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "/dev/{name}"),
            Self::Number(major, minor) => write!(f, "{major}:{minor}"),
            Self::Label(text) => write!(f, "LABEL={text}"),
            Self::Uuid(text) => write!(f, "UUID={text}"),
            Self::PartLabel(text) => write!(f, "PARTLABEL={text}"),
            Self::PartUuid(text) => write!(f, "PARTUUID={text}"),
        }
    }
}

/// Where the kernel tells of devices.
#[derive(Debug, Clone)]
pub struct Devices {
    sys: PathBuf,
    dev: PathBuf,
}

/// A device that can be read.
#[derive(Debug)]
pub struct Device {
    /// Its node.
    pub path: PathBuf,
    /// Open for reading.
    pub file: File,
}

impl Devices {
    /// Those of this machine.
    #[must_use]
    pub fn of_machine() -> Self {
        Self { sys: "/sys".into(), dev: "/dev".into() }
    }

    /// Their names in sysfs, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.sys.join("class/block")).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> =
            names.filter(|name| !PASSED_OVER.iter().any(|start| name.starts_with(start))).collect();
        names.sort();
        names
    }

    /// The device that `wanted` means, if it is there and can be read. Of several the first.
    #[must_use]
    pub fn find(&self, wanted: &DeviceName) -> Option<Device> {
        let name = match wanted {
            DeviceName::Name(name) => name.replace('/', "!"),
            DeviceName::Number(major, minor) => {
                let link = fs::read_link(self.sys.join(format!("dev/block/{major}:{minor}"))).ok()?;
                link.file_name()?.to_string_lossy().into_owned()
            }
            _ => self.names().into_iter().find(|name| self.is(name, wanted))?,
        };
        self.open(&name)
    }

    /// The devices for a message, with what is known of them.
    #[must_use]
    pub fn described(&self) -> String {
        let names = self.names();
        if names.is_empty() {
            return "no block device at all".into();
        }
        let mut text: Vec<String> = names.iter().take(SHOWN).map(|name| self.describe(name)).collect();
        if names.len() > SHOWN {
            text.push(format!("{} more", names.len() - SHOWN));
        }
        text.join(", ")
    }

    fn describe(&self, name: &str) -> String {
        let Some(device) = self.open(name) else { return format!("{name} (cannot be read, or is empty)") };
        let mut facts = vec![format!("{} MiB", self.sectors(name).div_ceil(2048))];
        match superblock::read(&device.file) {
            Ok(Some(FileSystem { kind, label, uuid, .. })) => {
                facts.push(kind.into());
                facts.extend(label.map(|label| format!("LABEL={label}")));
                facts.extend(uuid.map(|uuid| format!("UUID={uuid}")));
            }
            Ok(None) => {}
            Err(error) => facts.push(error.to_string()),
        }
        facts.extend(self.part_label(name).map(|label| format!("PARTLABEL={label}")));
        facts.extend(self.part_uuid(name).map(|uuid| format!("PARTUUID={uuid}")));
        format!("{name} ({})", facts.join(", "))
    }

    fn is(&self, name: &str, asked: &DeviceName) -> bool {
        let file_system = || self.open(name).and_then(|device| superblock::read(&device.file).ok().flatten());
        let (found, wanted) = match asked {
            DeviceName::Label(label) => (file_system().and_then(|found| found.label), label),
            DeviceName::Uuid(uuid) => (file_system().and_then(|found| found.uuid), uuid),
            DeviceName::PartLabel(label) => (self.part_label(name), label),
            DeviceName::PartUuid(uuid) => (self.part_uuid(name), uuid),
            DeviceName::Name(wanted) => (Some(name.replace('!', "/")), wanted),
            DeviceName::Number(..) => return false,
        };
        found.as_ref() == Some(wanted)
    }

    /// What the kernel read out of a GPT.
    fn part_label(&self, name: &str) -> Option<String> {
        let text = fs::read_to_string(self.folder(name).join("uevent")).ok()?;
        text.lines().find_map(|line| line.strip_prefix("PARTNAME=")).map(str::to_owned)
    }

    fn part_uuid(&self, name: &str) -> Option<String> {
        let folder = self.folder(name);
        let number = fs::read_to_string(folder.join("partition")).ok()?.trim().parse().ok()?;
        let disk = fs::canonicalize(folder).ok()?.parent()?.file_name()?.to_string_lossy().into_owned();
        partition::uuid(&self.open(&disk)?.file, number).ok().flatten()
    }

    /// Whole disks that can be written, sorted: neither partitions nor CD or floppy drives.
    #[must_use]
    pub fn disks(&self) -> Vec<String> {
        let mut names = self.names();
        names.retain(|name| {
            let drive = NO_DISKS.iter().any(|start| name.starts_with(start));
            !drive && self.sectors(name) > 0 && !self.has(name, "partition") && !self.is_read_only(name)
        });
        names
    }

    /// Names of the partitions of a disk, by their numbers.
    #[must_use]
    pub fn partitions(&self, disk: &str) -> Vec<String> {
        let entries = fs::read_dir(self.folder(disk)).into_iter().flatten().flatten();
        let mut found: Vec<(u32, String)> = entries
            .filter_map(|entry| {
                let number = fs::read_to_string(entry.path().join("partition")).ok()?.trim().parse().ok()?;
                Some((number, entry.file_name().to_string_lossy().into_owned()))
            })
            .collect();
        found.sort();
        found.into_iter().map(|(_, name)| name).collect()
    }

    /// The node of a device.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dev.join(Path::new(&name.replace('!', "/")))
    }

    /// The device's length in sectors of 512 bytes; zero if there is none.
    #[must_use]
    pub fn sectors(&self, name: &str) -> u64 {
        fs::read_to_string(self.folder(name).join("size")).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }

    /// Major and minor number, as `/proc/self/mountinfo` has them.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.folder(name).join("dev")).ok().map(|text| text.trim().to_owned())
    }

    fn is_read_only(&self, name: &str) -> bool {
        fs::read_to_string(self.folder(name).join("ro")).is_ok_and(|text| text.trim() == "1")
    }

    fn has(&self, name: &str, file: &str) -> bool {
        self.folder(name).join(file).exists()
    }

    /// Opens a device for reading. A CD drive without a CD cannot be opened; a card reader without a card has no sectors.
    #[must_use]
    pub fn open(&self, name: &str) -> Option<Device> {
        let path = self.path(name);
        let file = File::open(&path).ok()?;
        (self.sectors(name) > 0).then_some(Device { path, file })
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.sys.join("class/block").join(name)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, symlink};

    use super::*;

    /// A machine with the disk `vda`, its second partition `vda2`, an empty CD drive, and a loop device.
    fn machine() -> (tempfile::TempDir, Devices) {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        for name in ["sys/class/block", "sys/dev/block", "dev", "sys/devices/vda/vda2", "sys/devices/sr0"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        for (name, size) in [("vda", 128), ("vda/vda2", 64), ("sr0", 0)] {
            fs::write(at(&format!("sys/devices/{name}/size")), format!("{size}\n")).unwrap();
            let name = name.rsplit('/').next().unwrap();
            let disk = File::create(at(&format!("dev/{name}"))).unwrap();
            disk.set_len(size * 512).unwrap();
        }
        for (link, target) in [("vda", "vda"), ("vda2", "vda/vda2"), ("sr0", "sr0"), ("loop0", "vda")] {
            symlink(at(&format!("sys/devices/{target}")), at(&format!("sys/class/block/{link}"))).unwrap();
        }
        symlink("../../devices/vda/vda2", at("sys/dev/block/254:2")).unwrap();
        fs::write(at("sys/devices/vda/vda2/partition"), "2\n").unwrap();
        fs::write(at("sys/devices/vda/vda2/uevent"), "DEVNAME=vda2\nPARTN=2\nPARTNAME=the root\n").unwrap();
        let disk = File::options().write(true).open(at("dev/vda")).unwrap();
        disk.write_all_at(&0x1234_abcd_u32.to_le_bytes(), 440).unwrap();
        disk.write_all_at(&[0x55, 0xaa], 510).unwrap();
        let partition = File::options().write(true).open(at("dev/vda2")).unwrap();
        partition.write_all_at(&[0x53, 0xef], 1080).unwrap();
        partition.write_all_at(b"data", 1144).unwrap();
        let devices = Devices { sys: at("sys"), dev: at("dev") };
        (folder, devices)
    }

    #[test]
    fn what_is_not_there_is_not_found_and_what_is_there_is_told() {
        let (_folder, devices) = machine();
        for root in [
            DeviceName::Name("sr0".into()),
            DeviceName::Name("vdb".into()),
            DeviceName::Number(254, 3),
            DeviceName::Label("dat".into()),
            DeviceName::PartUuid("1234abcd-01".into()),
        ] {
            assert!(devices.find(&root).is_none(), "{root}");
        }
        let text = "sr0 (cannot be read, or is empty), vda (1 MiB), \
                    vda2 (1 MiB, ext4, LABEL=data, PARTLABEL=the root, PARTUUID=1234abcd-02)";
        assert_eq!(devices.described(), text);
        let nothing = Devices { sys: "/nowhere".into(), dev: "/nowhere".into() };
        assert_eq!(nothing.described(), "no block device at all");
    }

    #[test]
    fn a_device_is_found_by_all_of_its_names() {
        let (_folder, devices) = machine();
        for root in [
            DeviceName::Name("vda2".into()),
            DeviceName::Number(254, 2),
            DeviceName::Label("data".into()),
            DeviceName::PartLabel("the root".into()),
            DeviceName::PartUuid("1234abcd-02".into()),
        ] {
            assert_eq!(devices.find(&root).unwrap().path.file_name().unwrap(), "vda2", "{root}");
        }
    }
}

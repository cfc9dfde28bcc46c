//! Checks the disks of a machine's description. Opens nothing for use.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::Access;

use super::{Fault, attributes};
use crate::block::{Qcow2Header, SECTOR_BYTES};
use crate::config::{Disk, DiskFormat};
use crate::disks::{ChainError, chain};

/// What is wrong with a disk.
#[derive(Debug, thiserror::Error)]
pub enum DiskFault {
    /// A disk that neither exists nor may be created.
    #[error("disk `{}` does not exist; give a size to create it, such as `-disk {},size=1G`", path.display(), path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A size that disks cannot have.
    #[error("disk `{}` has {bytes} bytes; a disk has a multiple of {SECTOR_BYTES}, at least one and less than 8 EiB", path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// Its size, or the size to create it with.
        bytes: u64,
    },
    /// More disks than places for them.
    #[error("a machine has at most {most} disks beside its network cards and shared folders, not {disks}")]
    TooMany {
        /// Asked for.
        disks: usize,
        /// Places that network cards and shared folders leave.
        most: usize,
    },
    /// Two disks are the same file.
    #[error("disk `{}` is given twice", path.display())]
    Twice {
        /// The file.
        path: PathBuf,
    },
    /// It looks like an image, and nobody said what it is. Whoever has it as a raw disk could have made it so.
    #[error(
        "disk `{}` begins like a {looks} image; say what it is: `format=qcow2`, or `format=raw` if its bytes are the disk's", path.display()
    )]
    Looks {
        /// The file.
        path: PathBuf,
        /// What it looks like.
        looks: &'static str,
    },
    /// It is an image that kiln cannot read.
    #[error(
        "disk `{}` is a {looks} image, which is not read: `qemu-img convert -O qcow2 {} NEW.qcow2` makes one that is; `format=raw` takes its bytes as they are",
        path.display(), path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it looks like.
        looks: &'static str,
    },
    /// It is to grow and not to change.
    #[error("disk `{}` of {bytes} bytes is read-only and cannot grow; leave `size=` or `readonly` out", path.display())]
    ReadOnlyGrows {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// Something was said of files below a disk that has none.
    #[error("disk `{}` is raw: only an image is an overlay; leave `backing=` out, or say `format=qcow2`", path.display())]
    RawOverlay {
        /// The file.
        path: PathBuf,
    },
    /// An image, or what is below it.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

/// Images that are not read, by what they begin with.
const FOREIGN: [(&[u8], &str); 5] = [
    (b"KDMV", "VMDK"),
    (b"# Disk DescriptorFile", "VMDK"),
    (b"conectix", "VHD"),
    (b"vhdxfile", "VHDX"),
    (b"<<< ", "VDI"),
];

pub(super) fn check(disks: &[Disk], most: usize, state_dir: &Path, faults: &mut Vec<Fault>) {
    if disks.len() > most {
        faults.push(DiskFault::TooMany { disks: disks.len(), most }.into());
    }
    let mut seen = BTreeSet::new();
    for disk in disks {
        if !seen.insert(identity(&disk.path)) {
            faults.push(DiskFault::Twice { path: disk.path.clone() }.into());
        }
        if disk.layout() == DiskFormat::Raw && !disk.backing.is_empty() {
            faults.push(DiskFault::RawOverlay { path: disk.path.clone() }.into());
        }
        if let Some(bytes) = disk.size_bytes {
            check_size(disk, bytes, faults);
        }
        match fs::symlink_metadata(&disk.path) {
            _ if disk.contents.is_some() => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => check_new(disk, state_dir, faults),
            _ => check_existing(disk, faults),
        }
    }
}

/// What tells one disk from another: the file itself if it exists, else where it will be.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Identity {
    File(u64, u64),
    Name(PathBuf),
}

fn identity(path: &Path) -> Identity {
    if let Ok(file) = fs::metadata(path) {
        return Identity::File(file.dev(), file.ino());
    }
    match fs::canonicalize(folder_of(path)) {
        Ok(folder) => Identity::Name(folder.join(path.file_name().unwrap_or_default())),
        Err(_folder_is_missing_too) => Identity::Name(path.into()),
    }
}

/// The folder that holds `path`; a bare name is in the current one.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn check_new(disk: &Disk, state_dir: &Path, faults: &mut Vec<Fault>) {
    if disk.size_bytes.is_none() {
        return faults.push(DiskFault::Missing { path: disk.path.clone() }.into());
    }
    let folder = folder_of(&disk.path);
    // The state folder is made with the machine.
    if folder != state_dir || folder.exists() {
        attributes("the folder of a new disk", folder, Access::WRITE_OK | Access::EXEC_OK, faults);
    }
}

fn check_existing(disk: &Disk, faults: &mut Vec<Fault>) {
    let wanted = if disk.keeps_file() { Access::READ_OK } else { Access::READ_OK | Access::WRITE_OK };
    let Some(file) = attributes("disk", &disk.path, wanted, faults) else { return };
    let is_device = file.file_type().is_block_device();
    if !file.is_file() && !is_device {
        let fault = Fault::FileType { role: "disk", path: disk.path.clone(), wanted: "a file or a block device" };
        return faults.push(fault);
    }
    if let Err(fault) = check_looks(disk) {
        return faults.push(fault.into());
    }
    let bytes = match disk.layout() {
        DiskFormat::Raw if is_device => return,
        DiskFormat::Raw => file.len(),
        DiskFormat::Qcow2 => match chain::of(disk) {
            Ok((bytes, _)) => bytes,
            Err(error) => return faults.push(DiskFault::Chain(error).into()),
        },
    };
    check_size(disk, bytes, faults);
    if disk.read_only && disk.size_bytes.is_some_and(|wanted| wanted > bytes) {
        faults.push(DiskFault::ReadOnlyGrows { path: disk.path.clone(), bytes }.into());
    }
}

/// A raw disk must not look like an image, unless its user says that it is raw.
fn check_looks(disk: &Disk) -> Result<(), DiskFault> {
    if disk.format.is_some() || disk.layout() != DiskFormat::Raw {
        return Ok(());
    }
    let mut start = [0; 32];
    // What cannot be read is told of when it is opened.
    let read = File::open(&disk.path).and_then(|file| file.read_at(&mut start, 0)).unwrap_or(0);
    let start = start.get(..read).unwrap_or_default();
    let path = disk.path.clone();
    if Qcow2Header::is_announced_by(start) {
        return Err(DiskFault::Looks { path, looks: "qcow2" });
    }
    let by_start = FOREIGN.iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, looks)| *looks);
    let ending = disk.path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
    // A VHD of fixed size has its mark at its end.
    let looks = by_start.or_else(|| ending.filter(|ending| ending == "vhd").map(|_| "VHD"));
    looks.map_or(Ok(()), |looks| Err(DiskFault::Foreign { path, looks }))
}

fn check_size(disk: &Disk, bytes: u64, faults: &mut Vec<Fault>) {
    if bytes == 0 || !bytes.is_multiple_of(SECTOR_BYTES) || i64::try_from(bytes).is_err() {
        faults.push(DiskFault::Size { path: disk.path.clone(), bytes }.into());
    }
}

#[cfg(test)]
mod tests {
    use super::super::whole_text;
    use super::*;

    fn faults(disks: &[Disk], state_dir: &Path) -> Vec<String> {
        let mut faults = vec![];
        check(disks, 20, state_dir, &mut faults);
        faults.iter().map(whole_text).collect()
    }

    fn disk(path: PathBuf, size_bytes: Option<u64>) -> Disk {
        Disk { size_bytes, ..Disk::of(path) }
    }

    #[track_caller]
    fn check_faults(disks: &[Disk], expected: &[&str]) {
        let faults = faults(disks, Path::new("/nowhere/state"));
        assert_eq!(faults.len(), expected.len(), "{faults:#?}");
        for (fault, expected) in faults.iter().zip(expected) {
            assert!(fault.contains(expected), "{fault} / {expected}");
        }
    }

    #[test]
    fn bad_disks_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("odd"), [0; 513]).unwrap();
        fs::write(path("empty"), []).unwrap();
        fs::write(path("good"), [0; 512]).unwrap();
        std::os::unix::fs::symlink(path("good"), path("link")).unwrap();
        let disks = [
            disk(path("odd"), None),
            disk(path("empty"), None),
            disk(path("good"), None),
            disk(path("link"), None),
            disk(path("new"), Some(100)),
            disk(path("new"), Some(512)),
            disk(path("nowhere/new"), Some(512)),
            disk(folder.path().into(), None),
            Disk { read_only: true, ..disk(path("good"), Some(1024)) },
        ];
        check_faults(
            &disks,
            &[
                "odd` has 513 bytes",
                "empty` has 0 bytes",
                "link` is given twice",
                "new` has 100 bytes",
                "new` is given twice",
                "nowhere`: No such file",
                "is not a file or a block device",
                "good` is given twice",
                "good` of 512 bytes is read-only",
            ],
        );
    }

    #[test]
    fn a_disk_that_looks_like_an_image_needs_a_word() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let mut start = b"QFI\xfb\0\0\0\x09".to_vec();
        start.resize(512, 0);
        fs::write(path("a.img"), &start).unwrap();
        for (name, magic) in [("b", &b"KDMV"[..]), ("c", b"conectix"), ("d", b"vhdxfile")] {
            fs::write(path(name), [magic, &[0; 508][..512 - magic.len().max(4)]].concat()).unwrap();
        }
        fs::write(path("e.vhd"), [0; 512]).unwrap();
        fs::write(path("f.qcow2"), [0; 512]).unwrap();
        let of = |name: &str| Disk::of(path(name));
        check_faults(
            &[of("a.img"), of("b"), of("c"), of("d"), of("e.vhd"), of("f.qcow2")],
            &[
                "a.img` begins like a qcow2 image",
                "is a VMDK image",
                "is a VHD image",
                "is a VHDX image",
                "e.vhd` is a VHD image",
                "f.qcow2`: it is no qcow2 image",
            ],
        );
        let said = |name: &str, format| Disk { format: Some(format), ..of(name) };
        check_faults(&[said("a.img", DiskFormat::Raw), said("f.qcow2", DiskFormat::Raw)], &[]);
        check_faults(&[said("a.img", DiskFormat::Qcow2)], &["it is qcow2 of version 9"]);
        check_faults(&[Disk { backing: vec!["x".into()], ..said("a.img", DiskFormat::Raw) }], &["is raw"]);
    }

    #[test]
    fn a_new_disk_may_lie_in_the_state_folder_that_is_not_there_yet() {
        let folder = tempfile::tempdir().unwrap();
        let state_dir = folder.path().join("state");
        assert_eq!(faults(&[disk(state_dir.join("disk.img"), Some(1 << 20))], &state_dir), [""; 0]);
        assert_eq!(faults(&[disk(folder.path().join("other/disk.img"), Some(1 << 20))], &state_dir).len(), 1);
    }
}

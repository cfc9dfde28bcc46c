//! A disk, as its user asked for it.

use std::path::PathBuf;
use std::sync::Arc;

/// One disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Disk {
    /// The file (or block device) behind it.
    pub path: PathBuf,
    /// Size in bytes: what a missing file is made with, and what a smaller disk grows to. A larger one keeps its size.
    pub size_bytes: Option<u64>,
    /// How the file is laid out. `None` is what its name says, see [`Disk::layout`]; then its first bytes must agree.
    pub format: Option<DiskFormat>,
    /// The guest may not write.
    pub read_only: bool,
    /// When what the guest writes is on the disk.
    pub cache: DiskCache,
    /// Files that an image may name as what it is an overlay of. All others are refused: a name in an image is nothing
    /// that its user has said.
    pub backing: Vec<PathBuf>,
    /// What the guest writes goes away with the machine; the file is only read, and several machines may do so at once.
    pub ephemeral: bool,
    /// What the file is to hold: it is written anew at each start.
    pub contents: Option<Arc<[u8]>>,
}

impl Disk {
    /// A disk over this file, of which nothing else was said.
    #[must_use]
    pub fn of(path: PathBuf) -> Self {
        Self { path, ..Self::default() }
    }

    /// How the file is laid out: what was said, else qcow2 if its name ends so, else the bytes as they are. What is in the
    /// file does not count: a guest that has it as a raw disk could make it look like something else.
    #[must_use]
    pub fn layout(&self) -> DiskFormat {
        let is_qcow2 = || self.path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("qcow2"));
        self.format.unwrap_or_else(|| if is_qcow2() { DiskFormat::Qcow2 } else { DiskFormat::Raw })
    }

    /// Whether the file itself is never written.
    #[must_use]
    pub fn keeps_file(&self) -> bool {
        self.read_only || self.ephemeral
    }
}

/// Layout of a disk's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFormat {
    /// The disk's bytes as they are.
    Raw,
    /// QEMU's image, version 2 or 3.
    Qcow2,
}

impl DiskFormat {
    /// Its name, as QEMU and `format=` have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

/// When what the guest writes is on the disk. The words are QEMU's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DiskCache {
    /// When the guest asks for it (a flush); until then it is in the host's memory.
    #[default]
    Writeback,
    /// The same, past the host's page cache (`O_DIRECT`) where the guest's requests allow it.
    None,
    /// With each write.
    Writethrough,
    /// When the host likes: flushes do nothing. For what can be made again.
    Unsafe,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_name_or_a_word_makes_a_disk_qcow2() {
        let layout = |name: &str| Disk::of(name.into()).layout();
        assert_eq!(["a.img", "qcow2", "a.qcow2.img"].map(layout), [DiskFormat::Raw; 3]);
        assert_eq!(["a.qcow2", "b/.x.QCOW2"].map(layout), [DiskFormat::Qcow2; 2]);
        let said = Disk { format: Some(DiskFormat::Raw), ..Disk::of("a.qcow2".into()) };
        assert_eq!(said.layout(), DiskFormat::Raw);
    }
}

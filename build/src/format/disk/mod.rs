//! Disk images that boot by themselves: kernel and the whole root, in RAM, on a partition that the firmware or our boot
//! code reads, in the container that a hypervisor or a cloud takes.
//!
//! | firmware | table | what is on the disk |
//! | --- | --- | --- |
//! | EFI | GPT | an EFI system partition with one program that holds kernel, initrd and command line |
//! | BIOS | MBR | a FAT partition with `kernel`, `initrd.img` and `cmdline`, and our loader in front of it |
//! | either | GPT | as for EFI; the loader takes kernel and initrd out of the same program |
//!
//! All is laid out as [`Extents`] before a byte is copied. Numbers that must be unique come from the contents.

mod gcp;
pub(super) mod gpt;
mod layout;
pub(super) mod mbr;
mod qcow2;
mod vhd;
mod vmdk;

use std::ops::Range;

use super::fingerprint::Fingerprint;
use super::{Extents, FormatError, Material, Sink, Watch};

const SECTOR_LEN: usize = 512;
const SECTOR_BYTES: u64 = SECTOR_LEN as u64;

/// Lengths of disks are multiples of this: partitions are aligned to it, and Azure takes no others.
const UNIT_BYTES: u64 = 1 << 20;

/// A disk image that a build can write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DiskFormat {
    /// `NAME-efi.img`: for EFI firmware, as small as can be.
    RawEfi,
    /// `NAME-bios.img`: for BIOS firmware, as small as can be.
    RawBios,
    /// `NAME-efi.qcow2`: for EFI firmware, QEMU's image.
    Qcow2Efi,
    /// `NAME.qcow2`: for BIOS firmware, QEMU's image.
    Qcow2Bios,
    /// `NAME.raw`: for Amazon's import.
    Aws,
    /// `NAME.img.tar.gz`: for Google's import.
    Gcp,
    /// `NAME.vhd`: fixed, for Azure and Hyper-V.
    Vhd,
    /// `NAME.vhd`: one that grows, for Hyper-V and Virtual PC.
    DynamicVhd,
    /// `NAME.vmdk`: for VMware.
    Vmdk,
}

/// Why there is no such disk.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// It was to have a size that is too small.
    #[error(
        "a disk of {} MiB is too small: kernel and root need {needed_mib} MiB; build with `--size {needed_mib}M` or more",
        disk_bytes >> 20
    )]
    TooSmall {
        /// What it needs, in MiB.
        needed_mib: u64,
        /// What `--size` gives.
        disk_bytes: u64,
    },
    /// It was to have a size that is too large.
    #[error(
        "a disk of {} GiB is too large: {} GiB are the most; build with a smaller `--size`",
        disk_bytes >> 30, limit_bytes >> 30
    )]
    TooLarge {
        /// What `--size` gives.
        disk_bytes: u64,
        /// What the container or the partition table can tell.
        limit_bytes: u64,
    },
}

/// Who starts a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Firmware {
    Efi,
    Bios,
    /// EFI or BIOS, where the architecture knows both.
    Either,
}

impl DiskFormat {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::RawEfi,
        Self::RawBios,
        Self::Qcow2Efi,
        Self::Qcow2Bios,
        Self::Aws,
        Self::Gcp,
        Self::Vhd,
        Self::DynamicVhd,
        Self::Vmdk,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::RawEfi => "raw-efi",
            Self::RawBios => "raw-bios",
            Self::Qcow2Efi => "qcow2-efi",
            Self::Qcow2Bios => "qcow2-bios",
            Self::Aws => "aws",
            Self::Gcp => "gcp",
            Self::Vhd => "vhd",
            Self::DynamicVhd => "dynamic-vhd",
            Self::Vmdk => "vmdk",
        }
    }

    /// The name of its file in a build called `name`.
    pub fn file_name(self, name: &str) -> String {
        match self {
            Self::RawEfi => format!("{name}-efi.img"),
            Self::RawBios => format!("{name}-bios.img"),
            Self::Qcow2Efi => format!("{name}-efi.qcow2"),
            Self::Qcow2Bios => format!("{name}.qcow2"),
            Self::Aws => format!("{name}.raw"),
            Self::Gcp => format!("{name}.img.tar.gz"),
            Self::Vhd | Self::DynamicVhd => format!("{name}.vhd"),
            Self::Vmdk => format!("{name}.vmdk"),
        }
    }

    /// Writes it.
    pub(super) fn write(
        self,
        material: &Material<'_>,
        sink: &mut dyn Sink,
        watch: Watch<'_>,
    ) -> Result<(), FormatError> {
        let disk = layout::disk(self.firmware(), self.disk_bytes(material)?, material, watch)?;
        let time_s = material.tree.implied_mtime_s();
        match self {
            Self::RawEfi | Self::RawBios | Self::Aws => disk.extents.write(sink, watch),
            Self::Qcow2Efi | Self::Qcow2Bios => qcow2::image(&disk.extents).write(sink, watch),
            Self::Gcp => gcp::write(&disk.extents, time_s, material.packing, sink, watch),
            Self::Vhd => vhd::fixed(&disk, time_s).write(sink, watch),
            Self::DynamicVhd => vhd::dynamic(&disk, time_s).write(sink, watch),
            Self::Vmdk => vmdk::write(&disk, material.packing.threads, sink, watch),
        }
    }

    /// Whether it has a GUID partition table, with room for more partitions.
    pub fn is_gpt(self) -> bool {
        self.firmware() != Firmware::Bios
    }

    fn firmware(self) -> Firmware {
        match self {
            Self::RawEfi | Self::Qcow2Efi => Firmware::Efi,
            Self::RawBios | Self::Qcow2Bios => Firmware::Bios,
            Self::Aws | Self::Gcp | Self::Vhd | Self::DynamicVhd | Self::Vmdk => Firmware::Either,
        }
    }

    /// The disk's length, or `None` for as small as can be.
    fn disk_bytes(self, material: &Material<'_>) -> Result<Option<u64>, DiskError> {
        let (unit_bytes, limit_bytes) = match self {
            Self::RawEfi | Self::RawBios => return Ok(None),
            Self::Gcp => (1 << 30, layout::LIMIT_BYTES),
            Self::Vhd | Self::DynamicVhd => (UNIT_BYTES, vhd::LIMIT_BYTES.min(layout::LIMIT_BYTES)),
            _ => (UNIT_BYTES, layout::LIMIT_BYTES),
        };
        let disk_bytes = material.options.disk_bytes;
        match disk_bytes.checked_next_multiple_of(unit_bytes).filter(|&bytes| bytes <= limit_bytes) {
            Some(bytes) => Ok(Some(bytes)),
            None => Err(DiskError::TooLarge { disk_bytes, limit_bytes }),
        }
    }
}

/// A disk before it is in a container.
#[derive(Debug)]
struct Disk {
    /// What is on it, as long as it is.
    extents: Extents,
    fingerprint: Fingerprint,
}

/// The units of so many bytes that hold something, joined where they follow each other.
fn units(extents: &Extents, unit_bytes: u64) -> Vec<Range<u64>> {
    let mut all: Vec<Range<u64>> = Vec::new();
    for (at, body) in extents.bodies() {
        let (first, end) = (at / unit_bytes, (at + body.len()).div_ceil(unit_bytes));
        match all.last_mut() {
            Some(last) if first <= last.end => last.end = last.end.max(end),
            _ => all.push(first..end),
        }
    }
    all
}

#[cfg(test)]
mod tests;

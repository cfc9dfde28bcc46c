//! What stands where on a disk.

use super::gpt::{self, EFI_SYSTEM, Partition};
use super::{Disk, DiskError, Firmware, SECTOR_BYTES, UNIT_BYTES};
use crate::format::boot::{Uki, uki};
use crate::format::fat::{self, FatFiles, FatVolume};
use crate::format::fingerprint::Fingerprint;
use crate::format::{Extents, FormatError, Material, Watch, file};
use crate::tree::{Body, CMDLINE_PATH};

/// Where the first partition begins: 1 MiB, as everywhere.
const PARTITION_SECTOR: u64 = 2048;
const PARTITION_OFFSET: u64 = PARTITION_SECTOR * SECTOR_BYTES;

/// Behind the partition of a GPT disk: room for the copy of the table, as much as keeps all of it aligned.
const GPT_TAIL_BYTES: u64 = UNIT_BYTES;

/// Longest disk: sector numbers of FAT and MBR have 32 bits.
pub(super) const LIMIT_BYTES: u64 = 2 << 40;

/// Longest command line that is read; what kernels take is less.
const CMDLINE_LIMIT_BYTES: u64 = 64 << 10;

/// The disk for `firmware`, of so many bytes or as small as can be.
pub(super) fn disk(
    firmware: Firmware,
    disk_bytes: Option<u64>,
    material: &Material<'_>,
    watch: Watch<'_>,
) -> Result<Disk, FormatError> {
    let parts = Parts::of(material, watch)?;
    match firmware {
        Firmware::Efi | Firmware::Either => efi_disk(&parts, disk_bytes, material, watch),
    }
}

/// What is to boot.
struct Parts {
    initrd: Body,
    cmdline: Vec<u8>,
}

impl Parts {
    fn of(material: &Material<'_>, watch: Watch<'_>) -> Result<Self, FormatError> {
        let cmdline = file(material.tree, CMDLINE_PATH).map(|body| body.read_up_to(CMDLINE_LIMIT_BYTES)).transpose()?;
        let cmdline = cmdline.flatten().unwrap_or_default();
        Ok(Self { initrd: material.initrd(watch)?, cmdline })
    }
}

fn efi_disk(
    parts: &Parts,
    disk_bytes: Option<u64>,
    material: &Material<'_>,
    watch: Watch<'_>,
) -> Result<Disk, FormatError> {
    let program = uki(&Uki::of(material, Some(parts.initrd.clone()), &parts.cmdline)?, watch)?;
    let path = match material.options.architecture.as_str() {
        "arm64" => "EFI/BOOT/BOOTAA64.EFI",
        _ => "EFI/BOOT/BOOTX64.EFI",
    };
    let around_bytes = PARTITION_OFFSET + GPT_TAIL_BYTES;
    let files = vec![(path.to_owned(), program.clone())];
    let (volume, fingerprint) =
        volume("EFI", files, disk_bytes.map(|bytes| bytes.saturating_sub(around_bytes)), material)?;
    let disk_bytes = fitting(volume.extents.len_bytes() + around_bytes, disk_bytes)?;
    let esp = Partition {
        kind: EFI_SYSTEM,
        guid: fingerprint.uuid("EFI system partition"),
        sectors: (PARTITION_SECTOR, (disk_bytes - GPT_TAIL_BYTES) / SECTOR_BYTES - 1),
        name: "EFI System",
    };
    let partitions = [esp];
    let mut extents = Extents::default();
    let boot_code = [0; 440];
    let tables = gpt::tables(disk_bytes / SECTOR_BYTES, fingerprint.uuid("GPT"), &partitions, boot_code)?;
    extents.put_bytes(0, tables.head);
    extents.put_extents(PARTITION_OFFSET, &volume.extents);
    extents.put_bytes(disk_bytes - tables.tail.len() as u64, tables.tail);
    Ok(Disk { extents, fingerprint })
}

fn volume(
    label: &'static str,
    files: Vec<(String, Extents)>,
    min_bytes: Option<u64>,
    material: &Material<'_>,
) -> Result<(FatVolume, Fingerprint), FormatError> {
    let fingerprint = Fingerprint::of(&files)?;
    let volume = fat::volume(&FatFiles {
        label,
        files,
        time_s: material.tree.implied_mtime_s(),
        min_bytes: min_bytes.unwrap_or(0),
        start_sector: sector(PARTITION_OFFSET),
    })?;
    Ok((volume, fingerprint))
}

/// The disk's length, if what it needs fits into what it is to have.
fn fitting(needed_bytes: u64, disk_bytes: Option<u64>) -> Result<u64, DiskError> {
    match disk_bytes {
        Some(disk_bytes) if disk_bytes < needed_bytes => {
            Err(DiskError::TooSmall { needed_mib: needed_bytes.div_ceil(1 << 20), disk_bytes })
        }
        Some(disk_bytes) => Ok(disk_bytes),
        None => Ok(needed_bytes),
    }
}

/// Number of the sector at an offset below [`LIMIT_BYTES`].
fn sector(offset: u64) -> u32 {
    u32::try_from(offset / SECTOR_BYTES).unwrap_or(u32::MAX)
}

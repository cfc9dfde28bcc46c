//! What stands where on a disk.

use uuid::Uuid;

use super::gpt::{self, BIOS_BOOT, EFI_SYSTEM, Partition, ROOT_AMD64, ROOT_ARM64};
use super::{Disk, DiskError, Firmware, SECTOR_BYTES, UNIT_BYTES, mbr};
use crate::format::boot::{Uki, bios, removable_path, uki};
use crate::format::fat::{self, FatFiles, FatVolume};
use crate::format::fingerprint::Fingerprint;
use crate::format::root::{self, RootOn, RootWords};
use crate::format::{Extents, FormatError, Material, Watch};
use crate::tree::Body;

/// Where the first partition begins: 1 MiB, as everywhere.
const PARTITION_SECTOR: u64 = 2048;
const PARTITION_OFFSET: u64 = PARTITION_SECTOR * SECTOR_BYTES;

/// Behind the partition of a GPT disk: room for the copy of the table, as much as keeps all of it aligned.
const GPT_TAIL_BYTES: u64 = UNIT_BYTES;

/// Where the loader is on a disk with an MBR: behind the boot record.
const LOADER_SECTOR: u64 = 1;

/// Longest disk: sector numbers of FAT and MBR have 32 bits.
pub(super) const LIMIT_BYTES: u64 = 2 << 40;

/// The disk for `firmware`, of so many bytes or as small as can be.
pub(super) fn disk(
    firmware: Firmware,
    disk_bytes: Option<u64>,
    material: &Material<'_>,
    watch: Watch<'_>,
) -> Result<Disk, FormatError> {
    let parts = match material.options.disk_root.filter(|_| firmware != Firmware::Bios) {
        Some(on) => Parts::with_root(on, material, watch)?,
        None => Parts::of(material, watch)?,
    };
    let is_x86 = material.options.architecture == "amd64";
    match firmware {
        Firmware::Bios => bios_disk(&parts, disk_bytes, material),
        Firmware::Efi => efi_disk(&parts, disk_bytes, material, Loader::None, watch),
        Firmware::Either if is_x86 => efi_disk(&parts, disk_bytes, material, Loader::Bios, watch),
        Firmware::Either => efi_disk(&parts, disk_bytes, material, Loader::None, watch),
    }
}

/// What is to boot.
struct Parts {
    kernel: Body,
    initrd: Option<Body>,
    cmdline: Vec<u8>,
    /// On a partition of its own.
    root: Option<Root>,
}

/// A root on a partition of its own.
struct Root {
    extents: Extents,
    guid: [u8; 16],
}

impl Parts {
    fn of(material: &Material<'_>, watch: Watch<'_>) -> Result<Self, FormatError> {
        Ok(Self {
            kernel: material.kernel()?.clone(),
            cmdline: material.cmdline()?,
            initrd: Some(material.initrd(watch)?),
            root: None,
        })
    }

    /// The root stays on the disk; the initrd only finds it. With dm-verity its hash is in the command line, so whoever
    /// signs the program that holds it vouches for every byte of the root.
    fn with_root(on: RootOn, material: &Material<'_>, watch: Watch<'_>) -> Result<Self, FormatError> {
        let image = material.root(on, watch)?;
        let device = format!("PARTUUID={}", Uuid::from_bytes(image.uuid));
        let words = RootWords { device: &device, roothash: image.roothash.as_deref() };
        Ok(Self {
            kernel: material.kernel()?.clone(),
            initrd: root::boot_initrd(material, on, watch)?,
            cmdline: root::cmdline(material, on, words)?,
            root: Some(Root { extents: image.extents.clone(), guid: image.uuid }),
        })
    }
}

/// Whether a disk for EFI has our loader too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loader {
    None,
    Bios,
}

fn efi_disk(
    parts: &Parts,
    disk_bytes: Option<u64>,
    material: &Material<'_>,
    loader: Loader,
    watch: Watch<'_>,
) -> Result<Disk, FormatError> {
    let program = uki(&Uki::of(material, parts.initrd.clone(), &parts.cmdline)?, watch)?;
    let path = removable_path(&material.options.architecture);
    let root_bytes = parts.root.as_ref().map_or(0, |root| root.extents.len_bytes().next_multiple_of(UNIT_BYTES));
    let around_bytes = PARTITION_OFFSET + root_bytes + GPT_TAIL_BYTES;
    let files = vec![(path.to_owned(), program.extents)];
    // Beside a root, what is left of the disk is left to the user.
    let esp_bytes = disk_bytes.filter(|_| parts.root.is_none()).map(|bytes| bytes.saturating_sub(around_bytes));
    let (volume, fingerprint) = volume("EFI", files, esp_bytes, material)?;
    let disk_bytes = fitting(volume.extents.len_bytes() + around_bytes, disk_bytes)?;
    let esp_end = match parts.root {
        Some(_) => PARTITION_OFFSET + volume.extents.len_bytes(),
        None => disk_bytes - GPT_TAIL_BYTES,
    };
    let esp = Partition {
        kind: EFI_SYSTEM,
        guid: fingerprint.uuid("EFI system partition"),
        sectors: (PARTITION_SECTOR, esp_end / SECTOR_BYTES - 1),
        name: "EFI System",
    };
    let mut partitions = vec![esp];
    let mut extents = Extents::default();
    if let Some(root) = &parts.root {
        extents.put_extents(esp_end, &root.extents);
        partitions.push(Partition {
            kind: if material.options.architecture == "arm64" { ROOT_ARM64 } else { ROOT_AMD64 },
            guid: root.guid,
            sectors: (esp_end / SECTOR_BYTES, (esp_end + root_bytes) / SECTOR_BYTES - 1),
            name: "root",
        });
    }
    let mut boot_code = [0; 440];
    if loader == Loader::Bios {
        let program_at = PARTITION_OFFSET + volume.offset_of(path).unwrap_or_default();
        let loader = bios::Loader::at(
            sector(gpt::HEAD_SECTORS * SECTOR_BYTES),
            &bios::BiosFiles {
                kernel: parts.kernel.clone(),
                kernel_lba: sector(program_at + program.kernel_at),
                initrd: program.initrd.map(|(at, len)| (sector(program_at + at), len)),
                cmdline: &parts.cmdline,
            },
        )?;
        boot_code = loader.boot_record();
        extents.put_bytes(gpt::HEAD_SECTORS * SECTOR_BYTES, loader.body());
        partitions.push(Partition {
            kind: BIOS_BOOT,
            guid: fingerprint.uuid("BIOS boot partition"),
            sectors: (gpt::HEAD_SECTORS, PARTITION_SECTOR - 1),
            name: "BIOS boot",
        });
    }
    let tables = gpt::tables(disk_bytes / SECTOR_BYTES, fingerprint.uuid("GPT"), &partitions, boot_code)?;
    extents.put_bytes(0, tables.head);
    extents.put_extents(PARTITION_OFFSET, &volume.extents);
    extents.put_bytes(disk_bytes - tables.tail.len() as u64, tables.tail);
    Ok(Disk { extents, fingerprint })
}

fn bios_disk(parts: &Parts, disk_bytes: Option<u64>, material: &Material<'_>) -> Result<Disk, FormatError> {
    let [kernel_path, initrd_path, cmdline_path] = ["kernel", "initrd.img", "cmdline"];
    let mut files = vec![(kernel_path.to_owned(), parts.kernel.clone().into())];
    files.extend(parts.initrd.clone().map(|initrd| (initrd_path.to_owned(), initrd.into())));
    if !parts.cmdline.is_empty() {
        // For whoever reads the disk: the loader has it in itself.
        files.push((cmdline_path.to_owned(), Body::Inline(parts.cmdline.as_slice().into()).into()));
    }
    let partition_bytes = disk_bytes.map(|bytes| bytes.saturating_sub(PARTITION_OFFSET));
    let (volume, fingerprint) = volume("BOOT", files, partition_bytes, material)?;
    let disk_bytes = fitting(volume.extents.len_bytes() + PARTITION_OFFSET, disk_bytes)?;
    let place = |path| sector(PARTITION_OFFSET + volume.offset_of(path).unwrap_or_default());
    let loader = bios::Loader::at(
        sector(LOADER_SECTOR * SECTOR_BYTES),
        &bios::BiosFiles {
            kernel: parts.kernel.clone(),
            kernel_lba: place(kernel_path),
            initrd: parts.initrd.as_ref().map(|initrd| (place(initrd_path), initrd.len())),
            cmdline: &parts.cmdline,
        },
    )?;
    let kind = if volume.is_fat32() { mbr::Kind::Fat32 } else { mbr::Kind::Fat16 };
    let partition = mbr::active(kind, sector(PARTITION_OFFSET), sector(disk_bytes - PARTITION_OFFSET));
    let mut extents = Extents::default();
    extents.put_bytes(0, mbr::record(&loader.boot_record(), fingerprint.number("MBR"), &partition));
    extents.put_bytes(LOADER_SECTOR * SECTOR_BYTES, loader.body());
    extents.put_extents(PARTITION_OFFSET, &volume.extents);
    extents.extend_to(disk_bytes);
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

//! `iso-efi` and `iso-efi-initrd`: an EFI program on a FAT volume, which a CD's catalog and a stick's partition table point to.

use std::ops::Range;

use super::kernel_iso::LABEL;
use super::own_root::{own_root, path};
use super::{BootImage, BootPlatform, IsoOptions, SECTOR_BYTES, SYSTEM_AREA_BYTES, Volume, uuid};
use crate::format::boot::{Program, Uki, removable_path, uki};
use crate::format::disk::gpt::{self, BASIC_DATA, EFI_SYSTEM, Partition, TAIL_SECTORS};
use crate::format::fat::{self, FatFiles};
use crate::format::fingerprint::Fingerprint;
use crate::format::{Extents, FormatError, Material, Watch};
use crate::tree::{Attributes, Body, KERNEL_PATH, Kind, Tree};

/// `iso-efi`: the root is the volume; the kernel is in an EFI program, which the volume shows as `boot/kernel`.
pub(super) fn efi(material: &Material<'_>, watch: Watch<'_>) -> Result<Extents, FormatError> {
    let (initrd, cmdline) = own_root(material, watch)?;
    let program = uki(&Uki::of(material, initrd, &cmdline)?, watch)?;
    let inside = [(KERNEL_PATH, program.kernel_at)];
    with_program(material, material.tree, program, &inside)
}

/// `iso-efi-initrd`: kernel and the whole root as an initrd are in an EFI program, which the volume shows as files.
pub(super) fn efi_initrd(material: &Material<'_>, watch: Watch<'_>) -> Result<Extents, FormatError> {
    let initrd = material.initrd(watch)?;
    let cmdline = material.cmdline()?;
    let program = uki(&Uki::of(material, Some(initrd.clone()), &cmdline)?, watch)?;
    let mut tree = Tree::new(material.tree.implied_mtime_s());
    let kernel = material.kernel()?.clone();
    for (name, body) in [("kernel", kernel), ("initrd.img", initrd), ("cmdline", Body::Inline(cmdline.into()))] {
        let attributes = Attributes::of_root(0o644, tree.implied_mtime_s());
        let put = tree.put(&path(name), attributes, Kind::File(body));
        put.map_err(|source| FormatError::Tree { path: name, source })?;
    }
    let mut inside = vec![("kernel", program.kernel_at)];
    inside.extend(program.initrd.map(|(at, _)| ("initrd.img", at)));
    with_program(material, &tree, program, &inside)
}

/// A volume of `tree` with an EFI system partition behind it. The files of the tree that are `inside` the program, at these
/// offsets in it, are told to be there.
fn with_program(
    material: &Material<'_>,
    tree: &Tree,
    program: Program,
    inside: &[(&str, u64)],
) -> Result<Extents, FormatError> {
    let name = removable_path(&material.options.architecture);
    let partition = fat::volume(&FatFiles {
        label: "EFI",
        files: vec![(name.into(), program.extents.clone())],
        time_s: tree.implied_mtime_s(),
        ..FatFiles::default()
    })?;
    let at = partition.offset_of(name).unwrap_or_default();
    let inside = inside.iter().map(|(name, offset)| (path(name), at + offset));
    let inside = inside.filter(|(_, offset)| offset.is_multiple_of(SECTOR_BYTES));
    let (elsewhere, sectors): (Vec<_>, Vec<_>) = inside.map(|(path, offset)| (path, offset / SECTOR_BYTES)).unzip();
    let mut volume = Volume::lay_out(tree, &IsoOptions { label: LABEL, is_bootable: true, elsewhere: &elsewhere })?;
    let sector = volume.append(&partition.extents)?;
    for (path, inside) in elsewhere.iter().zip(sectors) {
        volume.point(path, sector + u32::try_from(inside).unwrap_or(0));
    }
    let len_bytes = partition.extents.len_bytes();
    let volume_end = u64::from(sector) * SECTOR_BYTES + len_bytes;
    volume.boot(BootImage { platform: BootPlatform::Efi, sector, len_bytes });
    let fingerprint = Fingerprint::of(&[(uuid(tree), program.extents)])?;
    make_hybrid(&mut volume, u64::from(sector) * SECTOR_BYTES..volume_end, fingerprint)?;
    Ok(volume.finish()?)
}

/// Makes it a disk, too: with a partition table in front of the volume, which leaves room for one, and a copy of it at the
/// very end. The partitions are the same bytes as the volume and as what is started.
fn make_hybrid(volume: &mut Volume<'_>, efi: Range<u64>, fingerprint: Fingerprint) -> Result<(), FormatError> {
    const BLOCK_BYTES: u64 = 512;
    const TAIL_BYTES: u64 = (TAIL_SECTORS * BLOCK_BYTES).next_multiple_of(SECTOR_BYTES);
    let blocks = |bytes: Range<u64>| (bytes.start / BLOCK_BYTES, bytes.end / BLOCK_BYTES - 1);
    let partitions = [
        // As others name theirs.
        Partition {
            kind: BASIC_DATA,
            guid: fingerprint.uuid("ISO 9660"),
            sectors: blocks(SYSTEM_AREA_BYTES..efi.start),
            name: "ISO9660",
        },
        Partition {
            kind: EFI_SYSTEM,
            guid: fingerprint.uuid("EFI system partition"),
            sectors: blocks(efi),
            name: "EFI System",
        },
    ];
    let disk_blocks = (volume.len_bytes() + TAIL_BYTES) / BLOCK_BYTES;
    let tables = gpt::tables(disk_blocks, fingerprint.uuid("GPT"), &partitions, [0; 440])?;
    volume.put_system_area(&tables.head);
    let mut tail = Extents::default();
    tail.put_bytes(TAIL_BYTES - tables.tail.len() as u64, tables.tail);
    volume.append(&tail)?;
    Ok(())
}

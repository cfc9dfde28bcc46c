//! `iso-bios`: a loader, which a CD's catalog and a stick's boot record point to.

use super::kernel_iso::LABEL;
use super::own_root::{own_root, path};
use super::{BootImage, BootPlatform, IsoOptions, Volume, uuid};
use crate::format::boot::BootError;
use crate::format::boot::bios::{BiosFiles, Loader};
use crate::format::disk::mbr;
use crate::format::fingerprint::Fingerprint;
use crate::format::{Extents, FormatError, Material, Watch};
use crate::tree::{Body, KERNEL_PATH};

/// Blocks of disks, in which boot records count.
const BLOCK_BYTES: u64 = 512;

/// `iso-bios`: the root is the volume. El Torito for a CD, a boot record for a stick.
pub(super) fn bios(material: &Material<'_>, watch: Watch<'_>) -> Result<Extents, FormatError> {
    let architecture = &material.options.architecture;
    if architecture != "amd64" {
        let instead = "`iso-efi` is possible";
        let firmware = "a BIOS";
        return Err(BootError::Architecture { firmware, architecture: architecture.clone(), instead }.into());
    }
    let tree = material.tree;
    let kernel = material.kernel()?;
    let (initrd, cmdline) = own_root(material, watch)?;
    let mut volume = Volume::lay_out(tree, &IsoOptions { label: LABEL, is_bootable: true, elsewhere: &[] })?;
    let initrd = match initrd {
        Some(initrd) => {
            let sector = volume.append(&Extents::from(initrd.clone()))?;
            Some((blocks(sector), initrd.len()))
        }
        None => None,
    };
    let kernel_lba = volume.sector_of(&path(KERNEL_PATH)).map(blocks).ok_or(BootError::NoKernel)?;
    let sector = volume.append(&Extents::default())?;
    let files = BiosFiles { kernel: kernel.clone(), kernel_lba, initrd, cmdline: &cmdline };
    let loader = Loader::at(blocks(sector), &files)?;
    volume.append(&Extents::from(Body::Inline(loader.body().into())))?;
    let len_bytes = u64::from(Loader::CATALOG_BLOCKS) * BLOCK_BYTES;
    volume.boot(BootImage { platform: BootPlatform::Bios, sector, len_bytes });
    let number = Fingerprint::of(&[(uuid(tree), Extents::default())])?.number("ISO for BIOS");
    let record = mbr::record(&loader.boot_record(), number, &whole_disk(volume.len_bytes()));
    volume.put_system_area(&record);
    Ok(volume.finish()?)
}

/// The entry of an active partition that is the whole disk, from its first block on, as `isohybrid` makes them.
fn whole_disk(len_bytes: u64) -> [u8; 16] {
    const ACTIVE: u8 = 0x80;
    const HIDDEN: u8 = 0x17;
    let blocks = u32::try_from(len_bytes / BLOCK_BYTES).unwrap_or(u32::MAX);
    let mut entry = [0; 16];
    // From cylinder 0, head 0, sector 1 to the last that can be told so.
    entry[..8].copy_from_slice(&[ACTIVE, 0, 1, 0, HIDDEN, 0xfe, 0xff, 0xff]);
    entry[12..].copy_from_slice(&blocks.to_le_bytes());
    entry
}

/// Disks count in smaller ones.
fn blocks(sector: u32) -> u32 {
    sector.saturating_mul(4)
}

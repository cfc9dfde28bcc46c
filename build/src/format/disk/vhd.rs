//! Microsoft's *Virtual Hard Disk Image Format Specification* of 2006, fixed and dynamic.

use super::{Disk, SECTOR_BYTES, units};
use crate::format::Extents;

/// Contents of a block of a dynamic disk.
const BLOCK_BYTES: u64 = 2 << 20;

/// In front of them: a bit for each sector.
const BITMAP_BYTES: u64 = BITMAP.len() as u64;
const BITMAP: [u8; 512] = [0xff; 512];
const _: () = assert!(BITMAP_BYTES == BLOCK_BYTES / SECTOR_BYTES / 8);

/// Blocks stand so that their contents begin at a multiple of it.
const ALIGN_BYTES: u64 = 4096;

/// Where the table of blocks is: behind the copy of the footer and the header.
const TABLE_OFFSET: u64 = 512 + 1024;

/// Seconds from 1970 to 2000, where this format's time begins.
const EPOCH_S: i64 = 946_684_800;

/// No offset.
const NONE: u64 = u64::MAX;

/// Longest disk: 2040 GiB.
pub(super) const LIMIT_BYTES: u64 = 2040 << 30;

/// The disk as it is, and a footer.
pub(super) fn fixed(disk: &Disk, time_s: i64) -> Extents {
    let mut image = disk.extents.clone();
    image.put_bytes(disk.extents.len_bytes(), footer(disk, time_s, Kind::Fixed));
    image
}

/// Only blocks that hold something.
pub(super) fn dynamic(disk: &Disk, time_s: i64) -> Extents {
    let disk_bytes = disk.extents.len_bytes();
    let blocks = disk_bytes.div_ceil(BLOCK_BYTES);
    let mut table = vec![0xff; usize::try_from((blocks * 4).next_multiple_of(SECTOR_BYTES)).unwrap_or(usize::MAX)];
    let footer = footer(disk, time_s, Kind::Dynamic);
    let mut image = Extents::default();
    let mut end = TABLE_OFFSET + table.len() as u64;
    for block in units(&disk.extents, BLOCK_BYTES).into_iter().flatten() {
        let contents = (end + BITMAP_BYTES).next_multiple_of(ALIGN_BYTES);
        let bitmap = contents - BITMAP_BYTES;
        let entry = usize::try_from(block * 4).unwrap_or(usize::MAX);
        table[entry..entry + 4].copy_from_slice(&short(bitmap / SECTOR_BYTES));
        image.put_bytes(bitmap, BITMAP);
        let from = block * BLOCK_BYTES;
        image.put_range(contents, &disk.extents, from..(from + BLOCK_BYTES).min(disk_bytes));
        end = contents + BLOCK_BYTES;
    }
    image.put_bytes(0, footer);
    image.put_bytes(512, header(blocks));
    image.put_bytes(TABLE_OFFSET, table);
    image.put_bytes(end, footer);
    image
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Fixed = 2,
    Dynamic = 3,
}

fn footer(disk: &Disk, time_s: i64, kind: Kind) -> [u8; 512] {
    let len = disk.extents.len_bytes().to_be_bytes();
    let header_at = if kind == Kind::Fixed { NONE } else { 512 };
    let (cylinders, heads, sectors) = geometry(disk.extents.len_bytes() / SECTOR_BYTES);
    let fields = [
        &b"conectix"[..],
        // No features, and a bit that is always set; version 1.
        &2_u32.to_be_bytes(),
        &0x0001_0000_u32.to_be_bytes(),
        &header_at.to_be_bytes(),
        &u32::try_from(time_s - EPOCH_S).unwrap_or(0).to_be_bytes(),
        // As Hyper-V makes them: others take the size from the geometry, which is rounded.
        b"win ",
        &0x0001_0000_u32.to_be_bytes(),
        b"Wi2k",
        &len,
        &len,
        &cylinders.to_be_bytes(),
        &[heads, sectors],
        &(kind as u32).to_be_bytes(),
        // The checksum.
        &[0; 4],
        &disk.fingerprint.uuid("VHD"),
    ];
    let mut footer = [0; 512];
    for (to, from) in footer.iter_mut().zip(fields.concat()) {
        *to = from;
    }
    let sum = checksum(&footer);
    footer[64..68].copy_from_slice(&sum);
    footer
}

/// The header of a dynamic disk.
fn header(blocks: u64) -> [u8; 1024] {
    let fields = [
        &b"cxsparse"[..],
        &NONE.to_be_bytes(),
        &TABLE_OFFSET.to_be_bytes(),
        &0x0001_0000_u32.to_be_bytes(),
        &short(blocks),
        &short(BLOCK_BYTES),
    ];
    let mut header = [0; 1024];
    for (to, from) in header.iter_mut().zip(fields.concat()) {
        *to = from;
    }
    let sum = checksum(&header);
    header[36..40].copy_from_slice(&sum);
    header
}

/// Of bytes in which the checksum is still zero.
fn checksum(bytes: &[u8]) -> [u8; 4] {
    (!bytes.iter().fold(0_u32, |sum, byte| sum.wrapping_add((*byte).into()))).to_be_bytes()
}

fn short(number: u64) -> [u8; 4] {
    u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes()
}

/// Cylinders, heads, sectors of a track, as the specification's appendix computes them.
fn geometry(sectors: u64) -> (u16, u8, u8) {
    let sectors = sectors.min(65_535 * 16 * 255);
    let small = |cylinder_heads: u64, heads: u64, track: u64| {
        let byte = |number: u64| u8::try_from(number).unwrap_or(u8::MAX);
        (u16::try_from(cylinder_heads / heads).unwrap_or(u16::MAX), byte(heads), byte(track))
    };
    if sectors >= 65_535 * 16 * 63 {
        return small(sectors / 255, 16, 255);
    }
    let heads = (sectors / 17).div_ceil(1024).max(4);
    if heads <= 16 && sectors / 17 < heads * 1024 {
        return small(sectors / 17, heads, 17);
    }
    match sectors / 31 {
        cylinder_heads if cylinder_heads < 16 * 1024 => small(cylinder_heads, 16, 31),
        _ => small(sectors / 63, 16, 63),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn geometries_are_those_of_the_specification() {
        // As `qemu-img create -f vpc` tells them.
        for (mib, expected) in
            [(1, (30, 4, 17)), (64, (963, 8, 17)), (1024, (2080, 16, 63)), (127 << 10, (65_278, 16, 255))]
        {
            assert_eq!(geometry(mib << 11), expected, "{mib} MiB");
        }
        assert_eq!(geometry(u64::MAX), (65_535, 16, 255));
    }
}

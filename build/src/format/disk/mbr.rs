//! The boot record of a disk that a BIOS starts: code, and a table with one partition.

use super::SECTOR_BYTES;

/// Heads and sectors of a track that BIOSes tell of any disk that is not small.
const HEADS: u64 = 255;
const TRACK_SECTORS: u64 = 63;

/// What a partition is for, as one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// FAT12 or FAT16, found by sector numbers.
    Fat16 = 0x0e,
    /// FAT32, found by sector numbers.
    Fat32 = 0x0c,
}

/// The record of a disk with one partition: code, the disk's number and the partition's entry.
pub(in crate::format) fn record(code: &[u8; 440], number: [u8; 4], partition: &[u8; 16]) -> [u8; 512] {
    const _: () = assert!(SECTOR_BYTES == 512);
    let mut record = [0; 512];
    record[..440].copy_from_slice(code);
    record[440..444].copy_from_slice(&number);
    record[446..462].copy_from_slice(partition);
    record[510..].copy_from_slice(&[0x55, 0xaa]);
    record
}

/// The entry of an active partition.
pub(super) fn active(kind: Kind, first: u32, sectors: u32) -> [u8; 16] {
    let last = u64::from(first) + u64::from(sectors) - 1;
    let mut entry = [0; 16];
    entry[0] = 0x80;
    entry[1..4].copy_from_slice(&cylinder_head_sector(first.into()));
    entry[4] = kind as u8;
    entry[5..8].copy_from_slice(&cylinder_head_sector(last));
    entry[8..12].copy_from_slice(&first.to_le_bytes());
    entry[12..].copy_from_slice(&sectors.to_le_bytes());
    entry
}

/// As three bytes; the last place that can be told for what is behind it.
fn cylinder_head_sector(sector: u64) -> [u8; 3] {
    let (cylinder, rest) = (sector / (HEADS * TRACK_SECTORS), sector % (HEADS * TRACK_SECTORS));
    let (cylinder, head, sector) = match cylinder {
        0..=1023 => (cylinder, rest / TRACK_SECTORS, rest % TRACK_SECTORS + 1),
        _ => (1023, HEADS - 1, TRACK_SECTORS),
    };
    let byte = |number: u64| number.to_le_bytes()[0];
    [byte(head), byte(sector) | byte(cylinder >> 8) << 6, byte(cylinder)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_as_far_as_they_can_be() {
        for (sector, bytes) in [
            (0, [0, 1, 0]),
            (2048, [32, 33, 0]),
            (63 * 255, [0, 1, 1]),
            (1023 * 63 * 255 + 62, [0, 63 | 0xc0, 0xff]),
            (1024 * 63 * 255, [254, 63 | 0xc0, 0xff]),
            (u64::from(u32::MAX), [254, 63 | 0xc0, 0xff]),
        ] {
            assert_eq!(cylinder_head_sector(sector), bytes, "{sector}");
        }
    }
}

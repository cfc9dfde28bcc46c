//! UUIDs of partitions, out of the table of the disk that they are on: GPT (UEFI 2.10, 5.3) and MBR (5.2).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::superblock::{dashed, u32_at, u64_at};

/// Bytes of a sector, as nearly all disks have them, and as the others do.
const SECTORS: [u64; 2] = [512, 4096];
const ENTRY_BYTES_LIMIT: u32 = 4096;

/// The UUID of partition `number`, counted from 1, in lower case.
///
/// # Errors
/// The device's.
pub fn uuid(disk: &File, number: u32) -> io::Result<Option<String>> {
    let mut boot_record = [0; 512];
    disk.read_exact_at(&mut boot_record, 0)?;
    for sector_bytes in SECTORS {
        if let Some(uuid) = gpt(disk, number, sector_bytes)? {
            return Ok(Some(uuid));
        }
    }
    let signature = u32_at(&boot_record, 440);
    let has_table = boot_record.ends_with(&[0x55, 0xaa]) && signature != 0;
    Ok(has_table.then(|| format!("{signature:08x}-{number:02x}")))
}

fn gpt(disk: &File, number: u32, sector_bytes: u64) -> io::Result<Option<String>> {
    let mut header = [0; 92];
    match disk.read_exact_at(&mut header, sector_bytes) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let (entries_at, count, entry_bytes) = (u64_at(&header, 72), u32_at(&header, 80), u32_at(&header, 84));
    let Some(index) = number.checked_sub(1).filter(|index| *index < count) else { return Ok(None) };
    if header[..8] != *b"EFI PART" || !(128..=ENTRY_BYTES_LIMIT).contains(&entry_bytes) {
        return Ok(None);
    }
    let offset = entries_at.checked_mul(sector_bytes);
    let offset = offset.and_then(|start| start.checked_add(u64::from(index) * u64::from(entry_bytes)));
    let Some(offset) = offset.filter(|offset| i64::try_from(*offset).is_ok()) else { return Ok(None) };
    let mut entry = [0; 128];
    disk.read_exact_at(&mut entry, offset)?;
    // The first three fields of a GUID are little-endian.
    let mut uuid: [u8; 16] = entry[16..32].try_into().unwrap_or_default();
    uuid[..4].reverse();
    uuid[4..6].reverse();
    uuid[6..8].reverse();
    Ok(Some(dashed(&uuid)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(pieces: &[(u64, &[u8])]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 16).unwrap();
        for (at, piece) in pieces {
            file.write_all_at(piece, *at).unwrap();
        }
        file
    }

    fn header(entries_at: u64, count: u32, entry_bytes: u32) -> Vec<u8> {
        let mut header = vec![0; 92];
        header[..8].copy_from_slice(b"EFI PART");
        header[72..80].copy_from_slice(&entries_at.to_le_bytes());
        header[80..84].copy_from_slice(&count.to_le_bytes());
        header[84..88].copy_from_slice(&entry_bytes.to_le_bytes());
        header
    }

    #[test]
    fn tables_that_lie_lead_nowhere() {
        for table in [header(2, 4, 1), header(2, 4, u32::MAX), header(2, 0, 128), header(u64::MAX, 4, 128)] {
            assert_eq!(uuid(&disk(&[(512, &table)]), 1).unwrap(), None);
        }
        assert!(uuid(&disk(&[(512, &header(1 << 40, 4, 128))]), 1).is_err());
        assert_eq!(uuid(&disk(&[(512, &header(2, 4, 128))]), 0).unwrap(), None);
    }

    #[test]
    fn partitions_of_both_tables_are_named() {
        let id: Vec<u8> = (0..16).collect();
        for sector in SECTORS {
            let gpt = disk(&[(sector, &header(2, 4, 128)), (2 * sector + 128 + 16, &id)]);
            assert_eq!(uuid(&gpt, 2).unwrap().as_deref(), Some("03020100-0504-0706-0809-0a0b0c0d0e0f"));
        }
        let mbr = disk(&[(440, &0x1234_abcd_u32.to_le_bytes()), (510, &[0x55, 0xaa])]);
        assert_eq!(uuid(&mbr, 3).unwrap().as_deref(), Some("1234abcd-03"));
    }
}

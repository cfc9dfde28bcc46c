//! The GUID partition table (UEFI specification 2.10, section 5.3) of a disk that is not there yet: its first and its last
//! sectors, made by the crate `gpt` on a device that holds no others.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Write};

use ::gpt::partition_types::Type;
use ::gpt::{GptConfig, mbr, partition};
use uuid::Uuid;

use super::SECTOR_BYTES;

pub(in crate::format) use ::gpt::partition_types::{
    BASIC as BASIC_DATA, BIOS as BIOS_BOOT, EFI as EFI_SYSTEM, LINUX_ROOT_ARM_64 as ROOT_ARM64,
    LINUX_ROOT_X64 as ROOT_AMD64,
};

/// Boot record, header and table of 128 entries.
pub(super) const HEAD_SECTORS: u64 = 34;

/// The copy of table and header at the end.
pub(in crate::format) const TAIL_SECTORS: u64 = 33;

/// One entry of the table.
#[derive(Debug, Clone)]
pub(in crate::format) struct Partition {
    /// What it is for.
    pub(in crate::format) kind: Type,
    /// Its own number.
    pub(in crate::format) guid: [u8; 16],
    /// First and last sector.
    pub(in crate::format) sectors: (u64, u64),
    /// At most 36 letters.
    pub(in crate::format) name: &'static str,
}

/// Both ends of the disk.
#[derive(Debug)]
pub(in crate::format) struct Tables {
    /// From the first sector on.
    pub(in crate::format) head: Vec<u8>,
    /// Up to the end.
    pub(in crate::format) tail: Vec<u8>,
}

/// The tables of a disk of `disk_sectors`, with a protective boot record that holds `boot_code`.
///
/// # Errors
/// The disk is too short, or what the crate says.
pub(in crate::format) fn tables(
    disk_sectors: u64,
    guid: [u8; 16],
    partitions: &[Partition],
    boot_code: [u8; 440],
) -> io::Result<Tables> {
    let mut ends = Ends {
        head: vec![0; bytes(HEAD_SECTORS)],
        tail: vec![0; bytes(TAIL_SECTORS)],
        len_bytes: disk_sectors * SECTOR_BYTES,
        at: 0,
    };
    let covered = u32::try_from(disk_sectors - 1).unwrap_or(u32::MAX);
    let mut record = mbr::ProtectiveMBR::with_lb_size(covered);
    record.set_bootcode(boot_code);
    record.overwrite_lba0(&mut ends).map_err(io::Error::other)?;
    let config = GptConfig::new().writable(true);
    let mut disk = config.create_from_device(ends, Some(Uuid::from_bytes(guid))).map_err(io::Error::other)?;
    let entry = |partition: &Partition| partition::Partition {
        part_type_guid: partition.kind.clone(),
        part_guid: Uuid::from_bytes(partition.guid),
        first_lba: partition.sectors.0,
        last_lba: partition.sectors.1,
        flags: 0,
        name: partition.name.into(),
    };
    let entries: BTreeMap<u32, _> = (1..).zip(partitions.iter().map(entry)).collect();
    disk.update_partitions(entries).map_err(io::Error::other)?;
    let Ends { head, tail, .. } = disk.write().map_err(io::Error::other)?;
    Ok(Tables { head, tail })
}

fn bytes(sectors: u64) -> usize {
    usize::try_from(sectors * SECTOR_BYTES).unwrap_or(usize::MAX)
}

/// A device of which only both ends are there.
#[derive(Debug)]
struct Ends {
    head: Vec<u8>,
    tail: Vec<u8>,
    len_bytes: u64,
    at: u64,
}

impl Ends {
    /// What is there of the next `len` bytes.
    fn next(&mut self, len: usize) -> io::Result<&mut [u8]> {
        let tail_at = self.len_bytes - self.tail.len() as u64;
        let (part, offset) =
            if self.at >= tail_at { (&mut self.tail, self.at - tail_at) } else { (&mut self.head, self.at) };
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = offset.saturating_add(len).min(part.len());
        let found = part.get_mut(offset..end).ok_or(io::ErrorKind::UnexpectedEof)?;
        self.at += found.len() as u64;
        Ok(found)
    }
}

impl Read for Ends {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let found = self.next(buffer.len())?;
        let len = found.len();
        buffer[..len].copy_from_slice(found);
        Ok(len)
    }
}

impl Write for Ends {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let found = self.next(buffer.len())?;
        let len = found.len();
        found.copy_from_slice(&buffer[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Ends {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.len_bytes.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

//! A disk's partition table: whether it has one, a new one with one partition on all of the disk, and a last partition that
//! becomes longer. MBR (UEFI 2.10, 5.2) is written here, GPT (5.3) by the crate `gpt`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use gpt::GptConfig;
use gpt::disk::LogicalBlockSize;
use gpt::mbr::ProtectiveMBR;
use gpt::partition_types::LINUX_FS;

/// Where partitions begin and end is a multiple of this, so that it fits every disk's own blocks.
const ALIGN_BYTES: u64 = 1 << 20;
/// What is looked at of a disk's start and end to find it empty: file systems, tables and RAID sets leave their marks there.
const MARKS_BYTES: u64 = 1 << 20;
/// Where the four entries of an MBR are, and the length of one.
const MBR_ENTRIES: usize = 446;
const MBR_ENTRY_BYTES: usize = 16;
const MBR_LINUX: u8 = 0x83;
/// The type of the one entry that says that there is a GPT.
const MBR_PROTECTIVE: u8 = 0xee;
const MBR_SIGNATURE: [u8; 2] = [0x55, 0xaa];

/// Which table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// MBR, for disks of up to 2 TiB.
    Dos,
    /// GPT.
    Gpt,
}

/// A table that cannot be made, read or changed.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The disk's own.
    #[error("cannot read or write the disk")]
    Disk(#[from] io::Error),
    /// No room for a table and a partition.
    #[error("the disk is too small for a partition")]
    Small,
    /// A table that contradicts itself.
    #[error("the partition table is damaged")]
    Damaged,
    /// GPT's library.
    #[error("the partition table cannot be read or written")]
    Gpt(#[from] gpt::GptError),
    /// GPT's library, of what stands in front.
    #[error("the table in front of the partition table cannot be written")]
    Mbr(#[from] gpt::mbr::MBRError),
}

/// Whether nothing is where file systems, tables and RAID sets have their marks: the first and the last MiB.
///
/// # Errors
/// The device's.
pub fn is_empty(device: &File, len_bytes: u64) -> io::Result<bool> {
    let span = MARKS_BYTES.min(len_bytes);
    for start in [0, len_bytes - span] {
        let mut bytes = vec![0; usize::try_from(span).unwrap_or_default()];
        device.read_exact_at(&mut bytes, start)?;
        if bytes.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Overwrites these places with zeros.
///
/// # Errors
/// The device's.
pub fn clear(device: &File, len_bytes: u64) -> io::Result<()> {
    let span = MARKS_BYTES.min(len_bytes);
    let zeros = vec![0; usize::try_from(span).unwrap_or_default()];
    device.write_all_at(&zeros, 0)?;
    device.write_all_at(&zeros, len_bytes - span)?;
    device.sync_all()
}

/// Writes a table with one Linux partition on all of the disk, whose old table is gone then.
///
/// # Errors
/// [`TableError`].
pub fn write(path: &Path, disk: &File, len_bytes: u64, sector_bytes: u32, table: Table) -> Result<(), TableError> {
    let sector = u64::from(sector_bytes);
    match table {
        Table::Dos => {
            let first = ALIGN_BYTES / sector;
            // An MBR counts in 32 bits.
            let sectors = (len_bytes / sector).min(u64::from(u32::MAX)).checked_sub(first).ok_or(TableError::Small)?;
            let mut block = vec![0; usize::try_from(sector_bytes).unwrap_or(512)];
            let id: [u8; 4] = random()?;
            block[440..444].copy_from_slice(&id);
            let entry = Entry { kind: MBR_LINUX, first: narrow(first)?, sectors: narrow(sectors)? };
            if entry.sectors == 0 {
                return Err(TableError::Small);
            }
            entry.put(&mut block[MBR_ENTRIES..MBR_ENTRIES + MBR_ENTRY_BYTES]);
            block[510..512].copy_from_slice(&MBR_SIGNATURE);
            disk.write_all_at(&block, 0)?;
            disk.sync_all()?;
        }
        Table::Gpt => {
            let first = ALIGN_BYTES / sector;
            let last = gpt_end(len_bytes, sector).filter(|last| *last > first).ok_or(TableError::Small)?;
            protect(disk, len_bytes / sector)?;
            let mut gpt = GptConfig::new().writable(true).logical_block_size(block_size(sector_bytes)?).create(path)?;
            gpt.add_partition_at("", 1, first, last - first + 1, LINUX_FS, 0)?;
            gpt.write()?;
        }
    }
    Ok(())
}

/// Makes the last partition of a disk as long as the disk allows. `false` if it is already, or if less than 1 MiB is behind it.
///
/// # Errors
/// [`TableError`]; [`TableError::Damaged`] also if there is no table.
pub fn grow_last(path: &Path, disk: &File, len_bytes: u64, sector_bytes: u32) -> Result<bool, TableError> {
    let sector = u64::from(sector_bytes);
    let mut block = vec![0; usize::try_from(sector_bytes).unwrap_or(512)];
    disk.read_exact_at(&mut block, 0)?;
    if block[510..512] != MBR_SIGNATURE {
        return Err(TableError::Damaged);
    }
    let entries = || (0..4).map(|n| MBR_ENTRIES + n * MBR_ENTRY_BYTES);
    let mut found: Vec<(usize, Entry)> =
        entries().map(|at| (at, Entry::read(&block[at..at + MBR_ENTRY_BYTES]))).collect();
    found.retain(|(_, entry)| entry.kind != 0 && entry.sectors != 0);
    if found.iter().any(|(_, entry)| entry.kind == MBR_PROTECTIVE) {
        return grow_last_gpt(path, disk, len_bytes, sector_bytes);
    }
    let (at, mut entry) = found.into_iter().max_by_key(|(_, entry)| entry.first).ok_or(TableError::Damaged)?;
    let all = (len_bytes / sector).min(u64::from(u32::MAX));
    let sectors = all.checked_sub(u64::from(entry.first)).ok_or(TableError::Damaged)?;
    if sectors < u64::from(entry.sectors) + ALIGN_BYTES / sector {
        return Ok(false);
    }
    entry.sectors = narrow(sectors)?;
    entry.put(&mut block[at..at + MBR_ENTRY_BYTES]);
    disk.write_all_at(&block, 0)?;
    disk.sync_all()?;
    Ok(true)
}

fn grow_last_gpt(path: &Path, disk: &File, len_bytes: u64, sector_bytes: u32) -> Result<bool, TableError> {
    let sector = u64::from(sector_bytes);
    let mut gpt = GptConfig::new().writable(true).logical_block_size(block_size(sector_bytes)?).open(path)?;
    let mut partitions = gpt.take_partitions();
    let last = partitions.values_mut().filter(|one| one.is_used()).max_by_key(|one| one.first_lba);
    let last = last.ok_or(TableError::Damaged)?;
    let end = gpt_end(len_bytes, sector).filter(|end| *end > last.first_lba).ok_or(TableError::Damaged)?;
    if end < last.last_lba.saturating_add(ALIGN_BYTES / sector) {
        return Ok(false);
    }
    last.last_lba = end;
    gpt.update_partitions(partitions)?;
    gpt.write()?;
    protect(disk, len_bytes / sector)?;
    Ok(true)
}

/// The last sector of a partition: whole MiB, and room behind it for the second copy of the table.
fn gpt_end(len_bytes: u64, sector: u64) -> Option<u64> {
    let room = len_bytes.checked_sub(ALIGN_BYTES)? / ALIGN_BYTES * ALIGN_BYTES;
    (room / sector).checked_sub(1)
}

/// Tells programs that know MBRs only that the disk is taken.
fn protect(disk: &File, sectors: u64) -> Result<(), TableError> {
    let len = u32::try_from(sectors.saturating_sub(1)).unwrap_or(u32::MAX);
    ProtectiveMBR::with_lb_size(len).overwrite_lba0(&mut &*disk)?;
    Ok(())
}

fn block_size(sector_bytes: u32) -> Result<LogicalBlockSize, TableError> {
    match sector_bytes {
        512 => Ok(LogicalBlockSize::Lb512),
        4096 => Ok(LogicalBlockSize::Lb4096),
        _ => Err(TableError::Damaged),
    }
}

fn narrow(sectors: u64) -> Result<u32, TableError> {
    u32::try_from(sectors).map_err(|_| TableError::Damaged)
}

/// Bytes that nobody else has.
///
/// # Errors
/// The kernel's.
pub fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(bytes)
}

/// An entry of an MBR.
#[derive(Debug, Clone, Copy)]
struct Entry {
    kind: u8,
    first: u32,
    sectors: u32,
}

impl Entry {
    fn read(bytes: &[u8]) -> Self {
        let number =
            |at: usize| bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_le_bytes);
        Self { kind: bytes.get(4).copied().unwrap_or_default(), first: number(8), sectors: number(12) }
    }

    /// Cylinders and heads are told as beyond their range, as everybody does.
    fn put(self, bytes: &mut [u8]) {
        const BEYOND: [u8; 3] = [0xfe, 0xff, 0xff];
        bytes[1..4].copy_from_slice(&BEYOND);
        bytes[4] = self.kind;
        bytes[5..8].copy_from_slice(&BEYOND);
        bytes[8..12].copy_from_slice(&self.first.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.sectors.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn disk(mib: u64) -> (tempfile::NamedTempFile, File) {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(mib * MIB).unwrap();
        let open = File::options().read(true).write(true).open(file.path()).unwrap();
        (file, open)
    }

    /// What sfdisk reads of it: kind, and start and size of the partitions, in sectors.
    fn sfdisk(path: &Path) -> (String, Vec<(u64, u64)>) {
        let output = Command::new("/sbin/sfdisk").arg("--json").arg(path).output().expect("sfdisk is installed");
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let table = &json["partitiontable"];
        let partitions = table["partitions"].as_array().unwrap().iter();
        let spans = partitions.map(|one| (one["start"].as_u64().unwrap(), one["size"].as_u64().unwrap()));
        (table["label"].as_str().unwrap().to_owned(), spans.collect())
    }

    #[test]
    fn a_disk_without_room_or_with_a_damaged_table_is_refused() {
        for table in [Table::Dos, Table::Gpt] {
            let (path, small) = disk(1);
            assert!(matches!(write(path.path(), &small, MIB, 512, table), Err(TableError::Small)), "{table:?}");
            assert!(is_empty(&small, MIB).unwrap(), "{table:?}");
        }
        let (path, none) = disk(4);
        assert!(matches!(grow_last(path.path(), &none, 4 * MIB, 512), Err(TableError::Damaged)));
        // A partition that begins behind the end of the disk, and a GPT that is not there.
        for (kind, first) in [(MBR_LINUX, u32::MAX), (MBR_PROTECTIVE, 1)] {
            let mut block = [0; 512];
            Entry { kind, first, sectors: 8 }.put(&mut block[MBR_ENTRIES..MBR_ENTRIES + 16]);
            block[510..].copy_from_slice(&MBR_SIGNATURE);
            none.write_all_at(&block, 0).unwrap();
            assert!(grow_last(path.path(), &none, 4 * MIB, 512).is_err(), "{kind}");
        }
    }

    #[test]
    fn only_a_disk_of_zeros_is_empty() {
        let (_path, file) = disk(8);
        assert!(is_empty(&file, 8 * MIB).unwrap());
        for at in [0, 510, MIB - 1, 7 * MIB, 8 * MIB - 1] {
            file.write_all_at(&[1], at).unwrap();
            assert!(!is_empty(&file, 8 * MIB).unwrap(), "{at}");
            clear(&file, 8 * MIB).unwrap();
            assert!(is_empty(&file, 8 * MIB).unwrap(), "{at}");
        }
    }

    #[test]
    fn tables_are_whole_and_their_partition_grows_with_the_disk() {
        for (table, label, sizes) in [(Table::Dos, "dos", [63, 255]), (Table::Gpt, "gpt", [62, 254])] {
            let (path, file) = disk(64);
            write(path.path(), &file, 64 * MIB, 512, table).unwrap();
            assert_eq!(sfdisk(path.path()), (label.into(), vec![(2048, sizes[0] * 2048)]));
            assert!(!grow_last(path.path(), &file, 64 * MIB, 512).unwrap(), "{label}");
            file.set_len(256 * MIB).unwrap();
            assert!(grow_last(path.path(), &file, 256 * MIB, 512).unwrap(), "{label}");
            assert_eq!(sfdisk(path.path()), (label.into(), vec![(2048, sizes[1] * 2048)]));
            assert!(!grow_last(path.path(), &file, 256 * MIB, 512).unwrap(), "{label}");
        }
    }
}

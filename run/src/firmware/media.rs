//! What a disk or an ISO boots by, told from its first blocks. Firmware looks closer; this says beforehand what it could only
//! answer with a machine that does nothing.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What a medium boots by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootsBy {
    /// EFI firmware finds something on it, or may.
    Efi,
    /// A BIOS alone.
    Bios,
    /// Nothing that is known.
    Nothing,
}

const SECTOR: usize = 512;
/// Where an ISO's boot record is (El Torito 1.0, section 2), and what it begins with.
const ISO_BOOT_RECORD: u64 = 17 * ISO_BLOCK;
const ISO_BLOCK: u64 = 2048;
const EL_TORITO: &[u8] = b"\0CD001\x01EL TORITO SPECIFICATION";
/// Where the boot record has the block of the catalog.
const ISO_CATALOG: usize = 0x47;
/// Bytes of an entry of the catalog; the first of a section begins with one of the headers, and its second byte is the
/// platform.
const ENTRY: usize = 32;
/// Bytes of the catalog that are looked at: a block.
const CATALOG: usize = 2048;
const VALIDATION: u8 = 0x01;
const SECTION_HEADERS: [u8; 2] = [0x90, 0x91];
const PLATFORM_EFI: u8 = 0xEF;
const BOOTABLE: u8 = 0x88;

/// Where the partitions of an MBR are, and bytes of each.
const MBR_PARTITIONS: usize = 446;
const MBR_PARTITION: usize = 16;
const MBR_SIGNATURE: [u8; 2] = [0x55, 0xAA];
/// Kinds of partitions: an EFI system partition, the one that stands for a GPT, and FAT.
const MBR_EFI: u8 = 0xEF;
const MBR_GPT: u8 = 0xEE;
const MBR_FAT: [u8; 6] = [0x01, 0x04, 0x06, 0x0B, 0x0C, 0x0E];
const MBR_ACTIVE: u8 = 0x80;
/// Names of a file system without partitions, and where they are.
const FAT_NAMES: [(usize, &[u8]); 2] = [(54, b"FAT"), (82, b"FAT32")];

const GPT: &[u8] = b"EFI PART";
/// Kinds of partitions in a GPT: the EFI system partition, and Microsoft's, which may hold a FAT.
const GPT_EFI: [u8; 16] =
    [0x28, 0x73, 0x2A, 0xC1, 0x1F, 0xF8, 0xD2, 0x11, 0xBA, 0x4B, 0x00, 0xA0, 0xC9, 0x3E, 0xC9, 0x3B];
const GPT_DATA: [u8; 16] =
    [0xA2, 0xA0, 0xD0, 0xEB, 0xE5, 0xB9, 0x33, 0x44, 0x87, 0xC0, 0x68, 0xB6, 0xB7, 0x26, 0x99, 0xC7];
/// More entries than any GPT has that is not damaged.
const GPT_ENTRIES: u64 = 1024;

/// Looks at the file `path`, whose bytes are those of the medium.
///
/// # Errors
/// It cannot be read.
pub fn boots_by(path: &Path) -> io::Result<BootsBy> {
    let file = File::open(path)?;
    let start = read(&file, 0, 2 * SECTOR)?;
    let by_partitions = partitions(&file, &start)?;
    let catalog = el_torito(&file)?;
    Ok(match (by_partitions, catalog) {
        (BootsBy::Efi, _) | (_, Some(BootsBy::Efi)) => BootsBy::Efi,
        (_, Some(found)) => found,
        (found, None) => found,
    })
}

/// The catalog of an ISO that boots.
fn catalog(file: &File) -> io::Result<Option<Vec<u8>>> {
    let record = read(file, ISO_BOOT_RECORD, SECTOR)?;
    let block = record.get(ISO_CATALOG..).and_then(<[u8]>::first_chunk).filter(|_| record.starts_with(EL_TORITO));
    let read_at = |block: &[u8; 4]| read(file, u64::from(u32::from_le_bytes(*block)) * ISO_BLOCK, CATALOG);
    block.map(read_at).transpose()
}

/// Where an ISO's images for EFI begin: the entries that follow a header with this platform.
fn el_torito_volumes(file: &File) -> io::Result<Vec<u64>> {
    let catalog = catalog(file)?.unwrap_or_default();
    let mut found = vec![];
    let mut for_efi = false;
    for (at, entry) in catalog.chunks(ENTRY).enumerate() {
        match entry {
            [header, platform, ..] if at == 0 || SECTION_HEADERS.contains(header) => {
                for_efi = *platform == PLATFORM_EFI
            }
            [BOOTABLE, ..] if for_efi => {
                let block = entry.get(8..).and_then(<[u8]>::first_chunk).map_or(0, |block| u32::from_le_bytes(*block));
                found.push(u64::from(block) * ISO_BLOCK);
            }
            _ => {}
        }
    }
    Ok(found)
}

/// `None` if it is no ISO that boots.
fn el_torito(file: &File) -> io::Result<Option<BootsBy>> {
    let Some(catalog) = catalog(file)? else { return Ok(None) };
    let for_efi = catalog.chunks(ENTRY).enumerate().any(|(at, entry)| match entry {
        [VALIDATION, platform, ..] if at == 0 => *platform == PLATFORM_EFI,
        [header, platform, ..] => SECTION_HEADERS.contains(header) && *platform == PLATFORM_EFI,
        _ => false,
    });
    Ok(Some(if for_efi { BootsBy::Efi } else { BootsBy::Bios }))
}

fn partitions(file: &File, start: &[u8]) -> io::Result<BootsBy> {
    if start.get(SECTOR - 2..SECTOR) != Some(&MBR_SIGNATURE) {
        return Ok(BootsBy::Nothing);
    }
    if FAT_NAMES.iter().any(|(at, name)| start.get(*at..).is_some_and(|rest| rest.starts_with(name))) {
        return Ok(BootsBy::Efi);
    }
    let table = start.get(MBR_PARTITIONS..SECTOR - 2).unwrap_or_default();
    let kinds = || table.chunks(MBR_PARTITION).filter_map(|entry| Some((*entry.first()?, *entry.get(4)?)));
    if kinds().any(|(_, kind)| kind == MBR_GPT) && start.get(SECTOR..).is_some_and(|gpt| gpt.starts_with(GPT)) {
        return gpt(file, start.get(SECTOR..).unwrap_or_default());
    }
    let efi = kinds().any(|(active, kind)| kind == MBR_EFI || MBR_FAT.contains(&kind) && active != MBR_ACTIVE);
    let runs_code = start.first() != Some(&0);
    Ok(if efi {
        BootsBy::Efi
    } else if runs_code {
        BootsBy::Bios
    } else {
        BootsBy::Nothing
    })
}

/// A header that tells nonsense is as one without partitions.
fn gpt_entries(file: &File, header: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    let number = |at: usize| header.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |n| u32::from_le_bytes(*n));
    let (first, count, bytes) = (u64::from(number(72)), u64::from(number(80)), u64::from(number(84)));
    let len = usize::try_from(count.min(GPT_ENTRIES) * bytes.min(4096)).unwrap_or(0);
    let entries = read(file, first * SECTOR as u64, len)?;
    let size = usize::try_from(bytes).ok().filter(|size| *size >= 128);
    Ok(size.map(|size| entries.chunks(size).map(<[u8]>::to_vec).collect()).unwrap_or_default())
}

fn gpt(file: &File, header: &[u8]) -> io::Result<BootsBy> {
    let entries = gpt_entries(file, header)?;
    let efi = entries.iter().any(|entry| entry.starts_with(&GPT_EFI) || entry.starts_with(&GPT_DATA));
    Ok(match entries.is_empty() {
        true => BootsBy::Nothing,
        false if efi => BootsBy::Efi,
        false => BootsBy::Bios,
    })
}

/// Where file systems with EFI programs may begin, in bytes: partitions of that kind, what an ISO has for EFI, the whole.
pub(super) fn volumes(file: &File) -> io::Result<Vec<u64>> {
    let start = read(file, 0, 2 * SECTOR)?;
    let mut found = el_torito_volumes(file)?;
    let gpt = start.get(SECTOR..).filter(|header| header.starts_with(GPT));
    for entry in gpt.map(|header| gpt_entries(file, header)).transpose()?.unwrap_or_default() {
        if let Some(block) = entry.get(32..).and_then(<[u8]>::first_chunk).filter(|_| entry.starts_with(&GPT_EFI)) {
            found.push(u64::from_le_bytes(*block).saturating_mul(SECTOR as u64));
        }
    }
    for entry in start.get(MBR_PARTITIONS..SECTOR - 2).unwrap_or_default().chunks(MBR_PARTITION) {
        let block = entry.get(8..).and_then(<[u8]>::first_chunk).map_or(0, |block| u32::from_le_bytes(*block));
        if entry.get(4).is_some_and(|kind| *kind == MBR_EFI || MBR_FAT.contains(kind)) {
            found.push(u64::from(block) * SECTOR as u64);
        }
    }
    found.push(0);
    Ok(found)
}

/// `len` bytes at `offset`, or as many as there are.
fn read(file: &File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset.saturating_add(done as u64)) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(done);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(bytes: &[u8]) -> BootsBy {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        boots_by(file.path()).unwrap()
    }

    /// A disk with one partition of this kind in its MBR.
    fn mbr(active: u8, kind: u8) -> Vec<u8> {
        let mut bytes = vec![0; 64 * SECTOR];
        bytes[0] = 0xEB;
        bytes[MBR_PARTITIONS] = active;
        bytes[MBR_PARTITIONS + 4] = kind;
        bytes[510..512].copy_from_slice(&MBR_SIGNATURE);
        bytes
    }

    fn gpt_disk(kind: &[u8]) -> Vec<u8> {
        let mut bytes = mbr(0, MBR_GPT);
        bytes[512..520].copy_from_slice(GPT);
        for (at, value) in [(72, 2_u32), (80, 128), (84, 128)] {
            bytes[512 + at..516 + at].copy_from_slice(&value.to_le_bytes());
        }
        bytes[1024 + 128..1024 + 128 + kind.len()].copy_from_slice(kind);
        bytes
    }

    fn iso(catalog: &[(usize, [u8; 2])]) -> Vec<u8> {
        let mut bytes = vec![0; 20 * 2048];
        bytes[17 * 2048..][..EL_TORITO.len()].copy_from_slice(EL_TORITO);
        bytes[17 * 2048 + ISO_CATALOG] = 19;
        for (entry, start) in catalog {
            bytes[19 * 2048 + entry * ENTRY..][..2].copy_from_slice(start);
        }
        bytes
    }

    #[test]
    fn what_boots_nothing_or_by_a_bios_alone_is_told_apart() {
        for bytes in [vec![], b"text".to_vec(), vec![0; 100_000], mbr(0, 0)[1..].to_vec()] {
            assert_eq!(told(&bytes), BootsBy::Nothing);
        }
        for bytes in [mbr(MBR_ACTIVE, 0x0C), mbr(0, 0x83), gpt_disk(&[7; 16]), iso(&[(0, [1, 0])])] {
            assert_eq!(told(&bytes), BootsBy::Bios);
        }
    }

    #[test]
    fn what_efi_firmware_can_boot_is_known() {
        let mut fat = mbr(0, 0);
        fat[82..87].copy_from_slice(b"FAT32");
        let hybrid = [mbr(0, MBR_EFI)[..1024].to_vec(), iso(&[(0, [1, 0])])[1024..].to_vec()].concat();
        let both = iso(&[(0, [1, 0]), (2, [0x91, PLATFORM_EFI])]);
        for bytes in
            [mbr(0, MBR_EFI), mbr(0, 0x0C), gpt_disk(&GPT_EFI), iso(&[(0, [1, PLATFORM_EFI])]), both, fat, hybrid]
        {
            assert_eq!(told(&bytes), BootsBy::Efi);
        }
    }

    #[test]
    fn a_header_of_any_nonsense_is_harmless() {
        let mut disk = gpt_disk(&GPT_EFI);
        for value in [0_u32, 1, 127, u32::MAX] {
            for at in [72, 80, 84] {
                disk[512 + at..516 + at].copy_from_slice(&value.to_le_bytes());
                told(&disk);
            }
        }
        let mut bytes = iso(&[]);
        bytes[17 * 2048 + ISO_CATALOG..][..4].fill(0xFF);
        assert_eq!(told(&bytes), BootsBy::Bios);
    }
}

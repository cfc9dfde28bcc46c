//! The files in the root of an ISO 9660 image (ECMA-119), with the names that Rock Ridge (IEEE P1282) or Joliet give them.

use std::io;
use std::os::unix::fs::FileExt;

use super::DATA_LIMIT_BYTES;
use super::files::Files;

const SECTOR_BYTES: u64 = 2048;
/// Volume descriptors begin here (8.1), and there are never many.
const FIRST_DESCRIPTOR: u64 = 16;
const DESCRIPTOR_LIMIT: u64 = 32;
/// Longest root folder that is read: some thousand files.
const FOLDER_LIMIT_BYTES: u32 = 1 << 20;
/// What is in front of a record's name (9.1), and the bits of its flags.
const RECORD_BYTES: usize = 33;
const IS_FOLDER: u8 = 2;
const HAS_MORE_EXTENTS: u8 = 128;
/// Escape sequences of Joliet's three levels, in a supplementary descriptor.
const JOLIET: [&[u8]; 3] = [b"%/@", b"%/C", b"%/E"];

/// One file of a folder.
#[derive(Debug, PartialEq, Eq)]
struct Record {
    name: String,
    sector: u32,
    len_bytes: u32,
}

/// Reads the files that count.
///
/// # Errors
/// The device's, or a structure that leads outside.
pub(super) fn read(device: &impl FileExt) -> io::Result<Files> {
    let mut files = Files::default();
    for number in FIRST_DESCRIPTOR..FIRST_DESCRIPTOR + DESCRIPTOR_LIMIT {
        let mut block = [0; 2048];
        device.read_exact_at(&mut block, number * SECTOR_BYTES)?;
        let joliet = block[0] == 2 && JOLIET.contains(&&block[88..91]);
        if block[1..6] != *b"CD001" || block[0] == 255 {
            break;
        }
        if block[0] != 1 && !joliet {
            continue;
        }
        for record in folder(device, &block[156..190], joliet)? {
            if let Some(slot) = plain_name(&record.name).and_then(|name| files.slot(name)).filter(|slot| slot.is_none())
            {
                *slot = Some(contents(device, &record)?);
            }
        }
    }
    Ok(files)
}

/// The name that counts behind what an image without Rock Ridge or Joliet makes of it: `USER_DAT.;1`.
fn plain_name(name: &str) -> Option<&'static str> {
    let folded = name.to_ascii_lowercase().replace('_', "-");
    ["user-data", "meta-data", "config"]
        .into_iter()
        .find(|known| folded == *known || known.get(..8) == Some(folded.as_str()))
}

fn contents(device: &impl FileExt, record: &Record) -> io::Result<Vec<u8>> {
    if u64::from(record.len_bytes) > DATA_LIMIT_BYTES {
        let text = format!("`{}` is longer than {DATA_LIMIT_BYTES} bytes", record.name);
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    span(device, record.sector, record.len_bytes)
}

fn span(device: &impl FileExt, sector: u32, len_bytes: u32) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(len_bytes).unwrap_or_default()];
    device.read_exact_at(&mut bytes, u64::from(sector) * SECTOR_BYTES)?;
    Ok(bytes)
}

/// The plain files of the folder that `record` stands for.
fn folder(device: &impl FileExt, record: &[u8], joliet: bool) -> io::Result<Vec<Record>> {
    let (sector, len_bytes) = (u32_at(record, 2), u32_at(record, 10));
    let bytes = span(device, sector, len_bytes.min(FOLDER_LIMIT_BYTES))?;
    let mut records = vec![];
    // A record does not go from one sector to the next (6.8.1.1).
    for sector in bytes.chunks(2048) {
        let mut rest = sector;
        while let Some(len) = rest.first().copied().map(usize::from).filter(|len| *len > RECORD_BYTES) {
            let Some((record, behind)) = rest.split_at_checked(len) else { break };
            records.extend(file(record, joliet));
            rest = behind;
        }
    }
    Ok(records)
}

fn file(record: &[u8], joliet: bool) -> Option<Record> {
    let (flags, name_len) = (*record.get(25)?, usize::from(*record.get(32)?));
    let (name, rest) = record.get(RECORD_BYTES..)?.split_at_checked(name_len)?;
    if flags & (IS_FOLDER | HAS_MORE_EXTENTS) != 0 {
        return None;
    }
    let name = if joliet {
        let units: Vec<u16> = name.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
        String::from_utf16_lossy(&units)
    } else {
        // The name is padded to an even place.
        let system_use = rest.get(usize::from(name_len % 2 == 0)..).unwrap_or_default();
        rock_ridge(system_use).unwrap_or_else(|| String::from_utf8_lossy(name).into_owned())
    };
    let name = name.split_once(';').map_or(name.as_str(), |(name, _version)| name).trim_end_matches('.').to_owned();
    Some(Record { name, sector: u32_at(record, 2), len_bytes: u32_at(record, 10) })
}

/// Rock Ridge's name: the `NM` entries, each of which is `NM`, length, version, flags, text.
fn rock_ridge(mut entries: &[u8]) -> Option<String> {
    let mut name = Vec::new();
    while let [a, b, len, ..] = *entries {
        let Some((entry, rest)) = entries.split_at_checked(usize::from(len)).filter(|_| len >= 4) else { break };
        if [a, b] == *b"NM" {
            name.extend_from_slice(entry.get(5..)?);
        }
        entries = rest;
    }
    (!name.is_empty()).then(|| String::from_utf8_lossy(&name).into_owned())
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    bytes.get(offset..offset + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;

    /// A device in memory.
    struct Bytes(Vec<u8>);

    impl FileExt for Bytes {
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
            let rest = self.0.get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or_default();
            let len = rest.len().min(buffer.len());
            buffer[..len].copy_from_slice(&rest[..len]);
            Ok(len)
        }

        fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    fn image(options: &[&str]) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("tree");
        fs::create_dir_all(tree.join("openstack")).unwrap();
        fs::write(tree.join("user-data"), "#cloud-config\n").unwrap();
        fs::write(tree.join("meta-data"), "m".repeat(5000)).unwrap();
        fs::write(tree.join("config"), "{}").unwrap();
        let output = folder.path().join("out.iso");
        let made = Command::new("xorrisofs").args(options).arg("-o").arg(&output).arg(&tree).output();
        let made = made.expect("xorriso is installed");
        assert!(made.status.success(), "{made:?}");
        fs::read(output).unwrap()
    }

    #[test]
    fn images_of_all_kinds_show_their_files() {
        for options in [&["-rock", "-joliet"][..], &["-joliet"], &["-rock"], &[]] {
            let files = read(&Bytes(image(options))).unwrap();
            assert_eq!(files.user_data.as_deref(), Some(&b"#cloud-config\n"[..]), "{options:?}");
            assert_eq!(files.meta_data.map(|data| data.len()), Some(5000), "{options:?}");
            assert_eq!(files.config.as_deref(), Some(&b"{}"[..]), "{options:?}");
        }
    }

    #[test]
    fn an_image_that_lies_ends_with_an_error_or_with_nothing() {
        let mut image = Bytes(image(&["-rock", "-joliet"]));
        assert!(read(&Bytes(vec![])).is_err());
        // Every byte of descriptors and folders once with other values: none panics, loops or takes much memory.
        for at in (16 * 2048..image.0.len().min(40 * 2048)).filter(|at| at % 2048 < 512) {
            for value in [0, 1, 0x7f, 0xff] {
                let right = std::mem::replace(&mut image.0[at], value);
                let _ = read(&image);
                image.0[at] = right;
            }
        }
    }
}

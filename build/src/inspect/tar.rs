//! tar (ustar, GNU and pax), with LinuxKit's records of where a member comes from.

use tar::{EntryType, Header, PaxExtensions};

use super::ArchiveFault;
use super::listing::{Kind, Listing, Member, Records};
use super::tape::Tape;

pub(super) const BLOCK: usize = 512;
/// Longest extended header or long name.
const EXTENDED_BYTES_MAX: u64 = 1 << 20;

/// Whether a header is here.
pub(super) fn starts(bytes: &[u8]) -> bool {
    let Ok(block) = <&[u8; BLOCK]>::try_from(bytes) else { return false };
    let sum = |bytes: &[u8]| bytes.iter().map(|&byte| u32::from(byte)).sum::<u32>();
    let expected = sum(&block[..148]) + 8 * u32::from(b' ') + sum(&block[156..]);
    Header::from_byte_slice(block).cksum().ok() == Some(expected)
}

/// What extended headers say about the next member.
#[derive(Default)]
struct Extended {
    name: Option<Vec<u8>>,
    size: Option<u64>,
    records: Records,
}

/// Adds members up to the block of zeros, or the end.
pub(super) fn read(tape: &mut Tape<'_>, listing: &mut Listing) -> Result<(), ArchiveFault> {
    let mut extended = Extended::default();
    loop {
        let offset = tape.offset();
        let bad = |field| ArchiveFault::Header { offset, field };
        let start = tape.peek(BLOCK)?;
        if start.is_empty() || start.iter().all(|&byte| byte == 0) {
            return Ok(());
        }
        if !starts(start) {
            return Err(bad("checksum"));
        }
        let block = tape.take(BLOCK as u64)?;
        let header = Header::from_byte_slice(&block);
        let size = header.entry_size().map_err(|_| bad("size"))?;
        match header.entry_type() {
            EntryType::XHeader | EntryType::GNULongName if size > EXTENDED_BYTES_MAX => return Err(bad("length")),
            EntryType::XHeader => extended.read(&tape.take(size)?),
            EntryType::GNULongName => {
                let mut name = tape.take(size)?;
                name.truncate(name.iter().position(|&byte| byte == 0).unwrap_or(name.len()));
                extended.name = Some(name);
            }
            EntryType::XGlobalHeader | EntryType::GNULongLink => tape.skip(size)?,
            kind => {
                let size = match kind {
                    EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => extended.size.unwrap_or(size),
                    _ => 0,
                };
                member(tape, header, std::mem::take(&mut extended), size, listing)?;
                pad(tape, size)?;
                continue;
            }
        }
        pad(tape, size)?;
    }
}

fn member(
    tape: &mut Tape<'_>,
    header: &Header,
    extended: Extended,
    size: u64,
    listing: &mut Listing,
) -> Result<(), ArchiveFault> {
    let name = extended.name.unwrap_or_else(|| header.path_bytes().into_owned());
    let kind = match header.entry_type() {
        EntryType::Directory => Kind::Folder,
        EntryType::Symlink | EntryType::Link => Kind::Link,
        _ => Kind::File,
    };
    let content = match listing.wants(&name, size) {
        true => Some(tape.take(size)?),
        false => {
            tape.skip(size)?;
            None
        }
    };
    let records = Some(extended.records).filter(|records| !records.location.is_empty());
    listing.add(Member { name: &name, kind, bytes: size, records, content })
}

impl Extended {
    /// What cannot be read says nothing.
    fn read(&mut self, records: &[u8]) {
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        for record in PaxExtensions::new(records).flatten() {
            let value = record.value_bytes();
            match record.key_bytes() {
                b"path" => self.name = Some(value.to_vec()),
                b"size" => self.size = record.value().ok().and_then(|size| size.parse().ok()),
                b"LINUXKIT.source" => self.records.source = text(value),
                b"LINUXKIT.location" => self.records.location = text(value),
                _ => {}
            }
        }
    }
}

/// At the very end it may be missing.
fn pad(tape: &mut Tape<'_>, len: u64) -> Result<(), ArchiveFault> {
    let padding = usize::try_from(len.wrapping_neg() % BLOCK as u64).unwrap_or(0);
    let there = tape.peek(padding)?.len() as u64;
    tape.skip(there)
}

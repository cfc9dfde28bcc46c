//! cpio in the form that Linux reads (`Documentation/driver-api/early-userspace/buffer-format.rst`): thirteen fields of
//! eight hexadecimal digits behind `070701`, a name, the content; both padded to four bytes.

use super::ArchiveFault;
use super::listing::{Kind, Listing, Member};
use super::tape::Tape;
use crate::tree::PATH_LIMIT_BYTES;

const HEADER_BYTES: usize = 110;
const TRAILER: &[u8] = b"TRAILER!!!";

const MODE: usize = 1;
const FILE_BYTES: usize = 6;
const NAME_BYTES: usize = 11;

/// Whether a header is here.
pub(super) fn starts(bytes: &[u8]) -> bool {
    bytes.starts_with(b"070701") || bytes.starts_with(b"070702")
}

/// Adds members up to the trailer.
pub(super) fn read(tape: &mut Tape<'_>, listing: &mut Listing) -> Result<(), ArchiveFault> {
    let start = tape.offset();
    let padding = |offset: u64| (offset - start).wrapping_neg() % 4;
    loop {
        let offset = tape.offset();
        let bad = |field| ArchiveFault::Header { offset, field };
        let header = tape.take(HEADER_BYTES as u64)?;
        if !starts(&header) {
            return Err(bad("magic"));
        }
        let field = |number: usize| {
            let digits = header.get(6 + 8 * number..14 + 8 * number)?;
            let text = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|c| c.is_ascii_hexdigit()))?;
            u32::from_str_radix(text, 16).ok().map(u64::from)
        };
        let mode = field(MODE).ok_or(bad("mode"))?;
        let len = field(FILE_BYTES).ok_or(bad("length"))?;
        let fits = |len: &u64| (1..=PATH_LIMIT_BYTES as u64 + 1).contains(len);
        let name_bytes = field(NAME_BYTES).filter(fits).ok_or(bad("length of the name"))?;
        let name = tape.take(name_bytes)?;
        let name = name.strip_suffix(b"\0").ok_or(bad("name"))?;
        skip_padding(tape, padding(tape.offset()))?;
        if name == TRAILER {
            return Ok(());
        }
        let kind = match mode & 0o170_000 {
            0o040_000 => Kind::Folder,
            0o120_000 => Kind::Link,
            _ => Kind::File,
        };
        let content = match listing.wants(name, len) {
            true => Some(tape.take(len)?),
            false => {
                tape.skip(len)?;
                None
            }
        };
        listing.add(Member { name, kind, bytes: len, records: None, content })?;
        skip_padding(tape, padding(tape.offset()))?;
    }
}

/// At the very end it may be missing.
fn skip_padding(tape: &mut Tape<'_>, len: u64) -> Result<(), ArchiveFault> {
    let there = tape.peek(usize::try_from(len).unwrap_or(0))?.len() as u64;
    tape.skip(there)
}

//! What lies behind one another in a file: archives, compressed or not, and zeros between them.

use std::io::Read;

use flate2::bufread::GzDecoder;

use super::tape::{Budget, Tape};
use super::{ArchiveFault, Listing, cpio, tar};
use crate::cancel::Cancel;
use crate::layer::LayerLimits;

/// A compressed tar in nothing else is 1 deep.
pub(super) const DEPTH_MAX: usize = 2;

/// Largest window that a zstd frame may ask for, as a power of two: the kernel's limit for an initrd. It bounds memory.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// Adds all members to `listing`.
pub(super) fn read(
    archive: impl Read,
    packed_bytes: u64,
    cancel: &Cancel,
    listing: &mut Listing,
) -> Result<(), ArchiveFault> {
    let limits = LayerLimits::default().for_archive(packed_bytes);
    let budget = Budget::new(limits.content_bytes.saturating_add(packed_bytes), cancel);
    parts(&mut Tape::new(Box::new(archive), budget), 0, listing)
}

/// Everything from here to the end.
pub(super) fn parts(tape: &mut Tape<'_>, depth: usize, listing: &mut Listing) -> Result<(), ArchiveFault> {
    loop {
        // Before zeros are skipped: a tar may start with a header that has no name.
        if tar::starts(tape.peek(tar::BLOCK)?) {
            tar::read(tape, listing)?;
            continue;
        }
        tape.skip_zeros()?;
        let offset = tape.offset();
        let budget = tape.budget();
        let start = tape.peek(tar::BLOCK)?;
        match start {
            [] => return Ok(()),
            _ if cpio::starts(start) => cpio::read(tape, listing)?,
            _ if tar::starts(start) => {}
            [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] if depth == DEPTH_MAX => return Err(ArchiveFault::TooDeep),
            [0x1f, 0x8b, ..] => {
                parts(&mut Tape::new(Box::new(GzDecoder::new(&mut *tape)), budget), depth + 1, listing)?
            }
            [0x28, 0xb5, 0x2f, 0xfd, ..] => {
                let mut decoder =
                    zstd::stream::read::Decoder::with_buffer(&mut *tape).map_err(ArchiveFault::Io)?.single_frame();
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(ArchiveFault::Io)?;
                parts(&mut Tape::new(Box::new(decoder), budget), depth + 1, listing)?;
            }
            _ => return Err(ArchiveFault::Unknown { offset }),
        }
    }
}

//! Tables of eight-byte entries, read in pieces. What a file has no data for is passed over.

use std::io;

use super::super::tables::{ENTRY_BYTES, Table, number};
use crate::block::HostFile;

/// Bytes of a table that are read at once.
const PIECE_BYTES: u64 = 64 * 1024;

/// Gives each entry that is not zero, with its index, until one fails.
pub(super) fn for_each<E: From<io::Error>>(
    file: &HostFile,
    table: Table,
    mut each: impl FnMut(u64, u64) -> Result<(), E>,
) -> Result<(), E> {
    let end = table.offset.saturating_add(table.entries.saturating_mul(ENTRY_BYTES));
    let mut piece = vec![0; usize::try_from(PIECE_BYTES.min(end - table.offset)).unwrap_or(0)];
    let mut at = table.offset;
    while at < end {
        // A table that is mostly a hole costs what is in it, not what it claims to be.
        match file.next_data(at)? {
            Some(data) if data < end => at = at.max(table.offset + (data - table.offset) / ENTRY_BYTES * ENTRY_BYTES),
            _ => break,
        }
        let len = usize::try_from(end - at).unwrap_or(usize::MAX).min(piece.len());
        let bytes = piece.get_mut(..len).unwrap_or_default();
        file.read_bytes(bytes, at)?;
        let first = (at - table.offset) / ENTRY_BYTES;
        for (index, entry) in (first..).zip(bytes.chunks_exact(8)) {
            match number(entry) {
                0 => {}
                entry => each(index, entry)?,
            }
        }
        at += len as u64;
    }
    Ok(())
}

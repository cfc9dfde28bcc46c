//! What a folder lists: names in byte order, cut into runs of which each shares a block of inodes, and an index of those
//! runs for large folders.

use std::io;

use super::super::FormatError;
use super::SquashfsError;
use super::metadata::{Metadata, Position};
use super::pack::Packer;
use crate::tree::TreePath;

/// Names that one run holds at most; Linux refuses more.
const RUN_LIMIT: usize = 256;

/// Longest name. Linux' own are a byte shorter.
pub(super) const NAME_LIMIT_BYTES: usize = 256;

const HEADER_BYTES: usize = 12;
const ENTRY_BYTES: usize = 8;

/// One name in a folder.
pub(super) struct Entry<'a> {
    pub(super) name: &'a [u8],
    /// As in an inode that is not extended.
    pub(super) kind: u16,
    /// The inode's number.
    pub(super) number: u32,
    /// Where the inode is.
    pub(super) at: Position,
}

/// Where a folder's names are.
#[derive(Default)]
pub(super) struct Listing {
    pub(super) at: Position,
    pub(super) len_bytes: u64,
    /// Where runs start that are in another block than the first.
    pub(super) index: Vec<Indexed>,
}

/// A run, as the index tells it.
pub(super) struct Indexed {
    /// From the start of the listing, in unpacked bytes.
    pub(super) offset: u64,
    /// The packed block where it starts.
    pub(super) block: u64,
    /// Its first name.
    pub(super) name: Box<[u8]>,
}

/// Appends the names of a folder, which are in byte order, to `table`.
pub(super) fn list(
    folder: &dyn Fn() -> TreePath,
    entries: &[Entry<'_>],
    table: &mut Metadata,
    packer: &mut Packer,
) -> Result<Listing, FormatError> {
    let mut listing = Listing { at: table.position(), ..Listing::default() };
    let mut indexed = listing.at.block;
    let mut rest = entries;
    while let Some(first) = rest.first() {
        let here = table.position();
        if here.block != indexed {
            indexed = here.block;
            listing.index.push(Indexed { offset: listing.len_bytes, block: here.block, name: first.name.into() });
        }
        let (run, behind) = rest.split_at(run_len(rest, first, table.room()));
        listing.len_bytes += put_run(folder, run, first, table, packer)?;
        rest = behind;
    }
    Ok(listing)
}

/// How many names go into one run: those whose inodes are in one block, with numbers near the first, and which start
/// before the block of names is full, so that each block can have a place in the index.
fn run_len(entries: &[Entry<'_>], first: &Entry<'_>, room: usize) -> usize {
    let mut used = HEADER_BYTES;
    let fits = |entry: &&Entry<'_>| {
        let is_near = delta(entry, first).is_some();
        let fits = is_near && entry.at.block == first.at.block && used < room;
        used += ENTRY_BYTES + entry.name.len();
        fits
    };
    entries.iter().take(RUN_LIMIT).take_while(fits).count().max(1)
}

fn delta(entry: &Entry<'_>, first: &Entry<'_>) -> Option<i16> {
    i16::try_from(i64::from(entry.number) - i64::from(first.number)).ok()
}

fn put_run(
    folder: &dyn Fn() -> TreePath,
    run: &[Entry<'_>],
    first: &Entry<'_>,
    table: &mut Metadata,
    packer: &mut Packer,
) -> Result<u64, FormatError> {
    let too_long = |_| {
        let limit_bytes = u64::from(u32::MAX);
        SquashfsError::TableTooLong { what: "the table of inodes", limit_bytes }
    };
    let mut bytes = Vec::with_capacity(HEADER_BYTES + run.len() * 32);
    let count = u32::try_from(run.len() - 1).map_err(io::Error::other)?;
    let block = u32::try_from(first.at.block).map_err(too_long)?;
    for word in [count, block, first.number] {
        bytes.extend(word.to_le_bytes());
    }
    for entry in run {
        let len = entry.name.len();
        let name_len = u16::try_from(len.wrapping_sub(1)).ok().filter(|_| len <= NAME_LIMIT_BYTES);
        let name_len = name_len.ok_or_else(|| {
            let path = folder().join(entry.name);
            SquashfsError::Name { path, limit_bytes: NAME_LIMIT_BYTES }
        })?;
        bytes.extend(entry.at.offset.to_le_bytes());
        bytes.extend(delta(entry, first).unwrap_or(0).to_le_bytes());
        bytes.extend(entry.kind.to_le_bytes());
        bytes.extend(name_len.to_le_bytes());
        bytes.extend_from_slice(entry.name);
    }
    table.put(&bytes, packer)?;
    Ok(bytes.len() as u64)
}

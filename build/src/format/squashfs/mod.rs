//! The root as a squashfs 4.0 image (Linux' `Documentation/filesystems/squashfs.rst` and `fs/squashfs/squashfs_fs.h`), less
//! what is below `boot`.
//!
//! Contents come first, packed by all threads and written as they come; the tables behind them stay in memory until then,
//! and the superblock, which tells where they are, is written last, over its place at the start. Nothing depends on the
//! clock, on the number of threads or on anything but the tree and the options.

mod attributes;
mod compression;
mod contents;
mod data;
mod directory;
mod duplicates;
mod error;
mod inode;
mod inodes;
mod inventory;
mod kept;
mod metadata;
mod options;
mod order;
mod pack;
mod superblock;
mod tables;

use std::io;

use super::{FormatError, Material, Sink, Watch};
use attributes::Attributes;
use contents::Contents;
use inodes::Inodes;
use inventory::Inventory;
use pack::Packer;
use superblock::{Starts, Superblock};
use tables::table;

pub use compression::{Compression, CompressionError, Compressor};
pub use error::SquashfsError;
pub use options::{SquashfsOptionError, SquashfsOptions};
pub use order::{SquashfsOrder, SquashfsOrderError};

/// Devices are read in pieces of that many bytes at most; the image fills its last.
const PAD_BYTES: u64 = 4096;

/// Writes the image, which starts where `sink` does: its superblock is put there by [`Sink::rewrite`].
pub(super) fn write(material: &Material<'_>, sink: &mut dyn Sink, watch: Watch<'_>) -> Result<(), FormatError> {
    let options = &material.options.squashfs;
    let (compression, block_bytes) = (options.compression, options.block_bytes);
    let inventory = Inventory::of(material.tree);
    let contents = Contents::of(&inventory, options, material.packing, watch)?;
    let mut out = Placed { sink, offset: 0 };
    out.put(&[0; superblock::BYTES])?;
    let told = compression.options();
    if let Some(told) = &told {
        out.put(&metadata::plain_block(told)?)?;
    }
    let data = data::write(&contents, (compression, block_bytes), material.packing, &mut out, watch)?;

    let packer = &mut Packer::new(compression, block_bytes)?;
    let inodes = Inodes::of(&inventory, &contents, &data, packer, watch)?;
    let Inodes { table: inode_table, names, root, places, owners, attributes } = inodes;
    let inodes_at = out.put(&inode_table)?;
    let names_at = out.put(&names)?;
    let fragments_at = match contents.fragments {
        0 => superblock::NO_TABLE,
        _ => out.put_table(&data.fragments, packer)?,
    };
    let places_at = out.put_table(&places, packer)?;
    let owners_at = out.put_table(&owners.bytes, packer)?;
    let attributes_at = out.put_attributes(attributes, packer)?;
    let len_bytes = out.offset;
    out.sink.skip(len_bytes.next_multiple_of(PAD_BYTES) - len_bytes)?;

    let superblock = Superblock {
        inodes: u32::try_from(inventory.len()).unwrap_or(u32::MAX),
        mtime_s: inodes::time(material.tree.implied_mtime_s()),
        block_bytes,
        fragments: contents.fragments,
        compressor: compression.compressor(),
        tells_options: told.is_some(),
        owners: owners.count(),
        root,
        len_bytes,
        starts: Starts {
            owners: owners_at,
            attributes: attributes_at,
            inodes: inodes_at,
            names: names_at,
            fragments: fragments_at,
            places: places_at,
        },
    };
    Ok(sink.rewrite(0, &superblock.bytes())?)
}

/// The image so far.
struct Placed<'a> {
    sink: &'a mut dyn Sink,
    /// Where the next byte goes.
    offset: u64,
}

impl Placed<'_> {
    /// Appends `bytes` and returns where they start.
    fn put(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let start = self.offset;
        self.sink.write_all(bytes)?;
        self.offset += bytes.len() as u64;
        Ok(start)
    }

    /// Appends a table and returns where the superblock looks for it.
    fn put_table(&mut self, entries: &[u8], packer: &mut Packer) -> io::Result<u64> {
        let (bytes, at) = table(entries, self.offset, packer)?;
        self.put(&bytes)?;
        Ok(at)
    }

    fn put_attributes(&mut self, attributes: Attributes<'_>, packer: &mut Packer) -> Result<u64, FormatError> {
        let Some((bytes, at)) = attributes.finish(self.offset, packer)? else { return Ok(superblock::NO_TABLE) };
        self.put(&bytes)?;
        Ok(at)
    }
}

#[cfg(test)]
mod tests;

//! The first 96 bytes of the image: what it is, and where its tables are.

use super::compression::Compressor;
use super::inode::Bytes;

/// Its length.
pub(super) const BYTES: usize = 96;

/// Stands for the start of a table that is not there.
pub(super) const NO_TABLE: u64 = u64::MAX;

const MAGIC: u32 = 0x7371_7368;
const VERSION: (u16, u16) = (4, 0);

/// Files of one content share its blocks.
const SHARES_CONTENTS: u16 = 1 << 6;

/// There is a table from numbers to inodes, so that NFS can export it.
const HAS_PLACES: u16 = 1 << 7;

/// The compressor's options are behind the superblock.
const TELLS_OPTIONS: u16 = 1 << 10;

/// Inodes, contents, fragments, attributes, owners: nothing is packed.
const NOTHING_PACKED: u16 = 1 | 1 << 1 | 1 << 3 | 1 << 8 | 1 << 11;

/// What it tells.
pub(super) struct Superblock {
    pub(super) inodes: u32,
    pub(super) mtime_s: u32,
    pub(super) block_bytes: u32,
    pub(super) fragments: u32,
    pub(super) compressor: Compressor,
    pub(super) tells_options: bool,
    pub(super) owners: u16,
    /// The root's inode.
    pub(super) root: u64,
    /// Without what fills the last piece of a device.
    pub(super) len_bytes: u64,
    pub(super) starts: Starts,
}

/// Where tables start.
pub(super) struct Starts {
    pub(super) owners: u64,
    pub(super) attributes: u64,
    pub(super) inodes: u64,
    pub(super) names: u64,
    pub(super) fragments: u64,
    pub(super) places: u64,
}

impl Superblock {
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut flags = SHARES_CONTENTS | HAS_PLACES;
        if self.tells_options {
            flags |= TELLS_OPTIONS;
        }
        if self.compressor == Compressor::None {
            flags |= NOTHING_PACKED;
        }
        let block_log = u16::try_from(self.block_bytes.ilog2()).unwrap_or(0);
        let mut bytes = Bytes::default();
        bytes.u32(MAGIC).u32(self.inodes).u32(self.mtime_s).u32(self.block_bytes).u32(self.fragments);
        bytes.u16(self.compressor.number()).u16(block_log).u16(flags).u16(self.owners).u16(VERSION.0).u16(VERSION.1);
        bytes.u64(self.root).u64(self.len_bytes);
        let starts = &self.starts;
        for start in [starts.owners, starts.attributes, starts.inodes, starts.names, starts.fragments, starts.places] {
            bytes.u64(start);
        }
        debug_assert_eq!(bytes.0.len(), BYTES);
        bytes.0
    }
}

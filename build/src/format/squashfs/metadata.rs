//! Metadata: a stream of bytes, cut into blocks of 8 KiB that are packed one by one. What is in it is found by the place of
//! its block among the packed ones and by its offset in the unpacked block.

use std::io;

use super::pack::Packer;

/// Bytes in every block but the last, before they are packed.
pub(super) const BLOCK_BYTES: usize = 8192;

/// Marks a block that stands as it is.
const AS_IT_IS: u16 = 1 << 15;

/// A place in a stream of metadata.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Position {
    /// Where the packed block starts, from the start of the first.
    pub(super) block: u64,
    /// Offset in the unpacked block.
    pub(super) offset: u16,
}

impl Position {
    /// As inodes and attributes are referred to.
    pub(super) fn reference(self) -> u64 {
        self.block << 16 | u64::from(self.offset)
    }
}

/// A stream of metadata on its way. It stays in memory: it grows with the number of files, not with what is in them.
#[derive(Default)]
pub(super) struct Metadata {
    plain: Vec<u8>,
    packed: Vec<u8>,
    /// Where each packed block starts.
    starts: Vec<u64>,
}

impl Metadata {
    /// Where the next byte goes.
    pub(super) fn position(&self) -> Position {
        let offset = u16::try_from(self.plain.len()).unwrap_or(0);
        Position { block: self.packed.len() as u64, offset }
    }

    /// Bytes that the block in work still takes.
    pub(super) fn room(&self) -> usize {
        BLOCK_BYTES - self.plain.len()
    }

    /// Appends `bytes`.
    pub(super) fn put(&mut self, mut bytes: &[u8], packer: &mut Packer) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(self.room()));
            self.plain.extend_from_slice(now);
            bytes = rest;
            if self.room() == 0 {
                self.end_block(packer)?;
            }
        }
        Ok(())
    }

    /// All packed blocks, and where each starts.
    pub(super) fn finish(mut self, packer: &mut Packer) -> io::Result<(Vec<u8>, Vec<u64>)> {
        if !self.plain.is_empty() {
            self.end_block(packer)?;
        }
        Ok((self.packed, self.starts))
    }

    fn end_block(&mut self, packer: &mut Packer) -> io::Result<()> {
        let start = self.packed.len();
        self.starts.push(start as u64);
        self.packed.extend([0; 2]);
        let stored = packer.pack(&self.plain, &mut self.packed)?;
        let len = u16::try_from(stored.len_bytes).map_err(io::Error::other)?;
        let header = if stored.is_packed { len } else { len | AS_IT_IS };
        self.packed[start..start + 2].copy_from_slice(&header.to_le_bytes());
        self.plain.clear();
        Ok(())
    }
}

/// One block that stands as it is, such as a compressor's options.
pub(super) fn plain_block(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let len = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    Ok([&(len | AS_IT_IS).to_le_bytes(), bytes].concat())
}

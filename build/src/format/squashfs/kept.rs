//! Packed blocks that an earlier build made, found by what is in them and without reading that.

use sha2::{Digest as _, Sha256};

use super::compression::{Compression, Compressor};
use super::contents::Job;
use crate::cache::{Cache, Key, Shelf};
use crate::tree::Body;

/// What packs; it changes whenever anything does that packed bytes depend on.
fn packed_by(compressor: Compressor) -> Option<&'static str> {
    match compressor {
        Compressor::Gzip => Some("zlib-rs 0.6.8"),
        Compressor::Zstd => Some("zstd-sys 2.1.2+zstd.1.5.7"),
        Compressor::Xz => Some("liblzma-sys 0.4.9"),
        // Packing is faster than the cache.
        Compressor::Lz4 | Compressor::None => None,
    }
}

/// What was packed before.
#[derive(Clone)]
pub(super) struct Kept<'a> {
    cache: &'a Cache,
    /// Of everything but the content.
    begun: Option<Sha256>,
}

/// Some blocks as they are packed.
#[derive(Default)]
pub(super) struct Blocks {
    /// As block lists tell them.
    pub(super) words: Vec<u32>,
    pub(super) bytes: Vec<u8>,
}

impl<'a> Kept<'a> {
    pub(super) fn new(cache: &'a Cache, compression: Compression, block_bytes: u32) -> Self {
        let by = packed_by(compression.compressor());
        let begun = by.map(|by| Sha256::new_with_prefix(format!("squashfs 1, {by}, {compression}, {block_bytes}\0")));
        Self { cache, begun }
    }

    /// What tells these blocks from all others; `None` if only reading could.
    pub(super) fn key(&self, job: &Job) -> Option<Key> {
        let mut hash = self.begun.clone()?;
        hash.update([u8::from(job.owner.may_have_holes())]);
        for body in &job.bodies {
            hash.update(body.len().to_le_bytes());
            match body {
                Body::Inline(bytes) => {
                    hash.update([0]);
                    hash.update(bytes);
                }
                Body::Spooled { .. } => {
                    let (identity, start) = body.identity()?;
                    hash.update([1]);
                    hash.update(identity);
                    hash.update(start.to_le_bytes());
                }
            }
        }
        Some(hash.finalize().into())
    }

    /// As many blocks as `count`, if they are there.
    pub(super) fn find(&self, key: &Key, count: usize) -> Option<Blocks> {
        let entry = self.cache.get(Shelf::Packed, key)?;
        let (words, bytes) = entry.split_at_checked(count.checked_mul(4)?)?;
        let words = words.chunks_exact(4).filter_map(|word| Some(u32::from_le_bytes(*word.first_chunk()?))).collect();
        Some(Blocks { words, bytes: bytes.into() })
    }

    pub(super) fn keep(&self, key: &Key, blocks: &Blocks) {
        let mut entry: Vec<u8> = blocks.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        entry.extend_from_slice(&blocks.bytes);
        self.cache.put(Shelf::Packed, key, &entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_blocks_in_the_cache_are_of_these_libraries() {
        let lock = include_str!("../../../../Cargo.lock");
        for by in Compressor::ALL.into_iter().filter_map(packed_by) {
            let (name, version) = by.split_once(' ').unwrap();
            let locked = lock.split(&format!("name = \"{name}\"\nversion = \"")).nth(1).unwrap();
            assert_eq!(locked.split('"').next().unwrap(), version, "`packed_by` must name the {name} that is used");
        }
    }
}

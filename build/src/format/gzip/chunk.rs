//! One chunk: what is in it, and how it is packed.

use std::io;

use crc32fast::Hasher;
use flate2::{Compress, Compression, FlushCompress, Status};
use sha2::{Digest as _, Sha256};

use super::CHUNK_BYTES;
use crate::cache::{Cache, Key, Shelf};
use crate::tree::Body;

/// Level 1 packs twice as fast as level 2; an initrd is read once, so building it counts more than its last percents.
const LEVEL: u32 = 1;

/// What the packed bytes depend on besides the plain ones. It changes whenever anything in here does, or the library.
const PACKED_BY: &str = "kiln packed 1, zlib-rs 0.6.8, level 1";

/// Checksum and length of the plain bytes, in front of the packed ones.
const HEAD_BYTES: usize = 8;

/// Plain bytes, some of which still lie where their layer was unpacked.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    parts: Vec<Part>,
    len_bytes: usize,
}

#[derive(Debug)]
enum Part {
    Bytes(Vec<u8>),
    Body(Body),
    /// So many of them.
    Zeros(usize),
}

impl Chunk {
    pub(super) fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    pub(super) fn add_bytes(&mut self, bytes: &[u8]) {
        self.len_bytes += bytes.len();
        match self.parts.last_mut() {
            Some(Part::Bytes(part)) => part.extend_from_slice(bytes),
            _ => self.parts.push(Part::Bytes(bytes.to_vec())),
        }
    }

    /// `body` is not longer than a chunk.
    pub(super) fn add_body(&mut self, body: Body) {
        self.len_bytes += usize::try_from(body.len()).unwrap_or(CHUNK_BYTES);
        self.parts.push(Part::Body(body));
    }

    pub(super) fn add_zeros(&mut self, count: usize) {
        self.len_bytes += count;
        self.parts.push(Part::Zeros(count));
    }

    /// Whether it is as long as can be, and all of it is zero: as most of a disk image is.
    fn is_void(&self) -> bool {
        matches!(self.parts[..], [Part::Zeros(CHUNK_BYTES)])
    }

    /// What tells this chunk from all others; `None` if only reading it could.
    fn key(&self) -> Option<Key> {
        let mut hash = Sha256::new_with_prefix(PACKED_BY);
        for part in &self.parts {
            match part {
                Part::Bytes(bytes) => {
                    hash.update([0]);
                    hash.update((bytes.len() as u64).to_le_bytes());
                    hash.update(bytes);
                }
                Part::Body(body) => {
                    let (identity, start) = body.identity()?;
                    hash.update([1]);
                    hash.update(identity);
                    hash.update(start.to_le_bytes());
                    hash.update(body.len().to_le_bytes());
                }
                Part::Zeros(count) => {
                    hash.update([2]);
                    hash.update((*count as u64).to_le_bytes());
                }
            }
        }
        Some(hash.finalize().into())
    }

    fn read(&self, plain: &mut Vec<u8>) -> io::Result<()> {
        plain.clear();
        for part in &self.parts {
            match part {
                Part::Bytes(bytes) => plain.extend_from_slice(bytes),
                Part::Body(body) => {
                    let start = plain.len();
                    plain.resize(start + usize::try_from(body.len()).map_err(io::Error::other)?, 0);
                    body.read_exact_at(plain.get_mut(start..).unwrap_or_default(), 0)?;
                }
                Part::Zeros(count) => plain.resize(plain.len() + count, 0),
            }
        }
        Ok(())
    }
}

/// A packed chunk.
#[derive(Clone)]
pub(super) struct Packed {
    /// As in the cache: [`HEAD_BYTES`], then the packed bytes.
    entry: Vec<u8>,
    /// Of the plain bytes.
    pub(super) checksum: Hasher,
}

impl Packed {
    /// Blocks of a deflate stream (RFC 1951) that end at a byte boundary, none of them its last.
    pub(super) fn bytes(&self) -> &[u8] {
        self.entry.get(HEAD_BYTES..).unwrap_or_default()
    }
}

/// Packs one chunk after another.
pub(super) struct ChunkPacker<'a> {
    cache: &'a Cache,
    deflate: Compress,
    plain: Vec<u8>,
    /// The chunk of zeros, once one came by.
    void: Option<Packed>,
}

impl<'a> ChunkPacker<'a> {
    pub(super) fn new(cache: &'a Cache) -> Self {
        let deflate = Compress::new(Compression::new(LEVEL), false);
        Self { cache, deflate, plain: Vec::with_capacity(CHUNK_BYTES), void: None }
    }

    pub(super) fn pack(&mut self, chunk: &Chunk) -> io::Result<Packed> {
        if !chunk.is_void() {
            return self.pack_any(chunk);
        }
        if self.void.is_none() {
            // It is packed once, so it may take its time: level 1 would leave ten times as much of it.
            let fast = std::mem::replace(&mut self.deflate, Compress::new(Compression::best(), false));
            chunk.read(&mut self.plain)?;
            self.void = Some(self.deflated()?);
            self.deflate = fast;
        }
        self.void.clone().ok_or_else(|| io::Error::other("no packed zeros"))
    }

    fn pack_any(&mut self, chunk: &Chunk) -> io::Result<Packed> {
        let key = chunk.key();
        if let Some(packed) = key.and_then(|key| self.find(&key, chunk)) {
            return Ok(packed);
        }
        chunk.read(&mut self.plain)?;
        let packed = self.deflated()?;
        if let Some(key) = key {
            self.cache.put(Shelf::Packed, &key, &packed.entry);
        }
        Ok(packed)
    }

    /// What was read, packed.
    fn deflated(&mut self) -> io::Result<Packed> {
        let mut checksum = Hasher::new();
        checksum.update(&self.plain);
        let mut entry = Vec::with_capacity(self.plain.len() / 2 + 1024);
        entry.extend_from_slice(&checksum.clone().finalize().to_le_bytes());
        entry.extend_from_slice(&u32::try_from(self.plain.len()).map_err(io::Error::other)?.to_le_bytes());
        self.deflate(&mut entry)?;
        Ok(Packed { entry, checksum })
    }

    fn find(&self, key: &Key, chunk: &Chunk) -> Option<Packed> {
        let entry = self.cache.get(Shelf::Packed, key)?;
        let (crc32, rest) = entry.split_first_chunk::<4>()?;
        let len = u32::from_le_bytes(*rest.first_chunk()?);
        if usize::try_from(len).ok()? != chunk.len_bytes {
            return None;
        }
        let checksum = Hasher::new_with_initial_len(u32::from_le_bytes(*crc32), len.into());
        Some(Packed { entry, checksum })
    }

    fn deflate(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        self.deflate.reset();
        loop {
            let taken = usize::try_from(self.deflate.total_in()).unwrap_or(usize::MAX);
            let rest = self.plain.get(taken..).unwrap_or_default();
            let status = self.deflate.compress_vec(rest, out, FlushCompress::Sync).map_err(io::Error::other)?;
            // All is out when there was room to spare.
            if out.len() < out.capacity() && self.deflate.total_in() == self.plain.len() as u64 {
                return Ok(());
            }
            debug_assert!(!matches!(status, Status::StreamEnd), "nothing asked for an end");
            out.reserve(out.len() / 2 + 1024);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_bytes_in_the_cache_are_of_this_library() {
        let lock = include_str!("../../../../Cargo.lock");
        let version = lock.split("name = \"zlib-rs\"\nversion = \"").nth(1).unwrap().split('"').next().unwrap();
        assert!(PACKED_BY.contains(&format!("zlib-rs {version},")), "PACKED_BY must name zlib-rs {version}");
    }
}

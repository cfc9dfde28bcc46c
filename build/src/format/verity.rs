//! A dm-verity hash tree behind a file system, in the same file: SHA-256, blocks of 4 KiB, no salt, with the superblock that
//! cryptsetup writes and `veritysetup verify --hash-offset` reads (Linux'
//! `Documentation/admin-guide/device-mapper/verity.rst`, cryptsetup's wiki "DMVerity").
//!
//! All threads hash; what is kept in memory does not grow with the file system.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use sha2::{Digest as _, Sha256};

use super::{Extents, FormatError, Threads, Watch};
use crate::tree::{Body, Spool};

/// Length of a block of data and of the tree.
pub const BLOCK_BYTES: u64 = 4096;
const BLOCK: usize = 4096;
const DIGEST_BYTES: usize = 32;
const DIGESTS_A_BLOCK: u64 = 128;
/// Blocks that one thread hashes in one go: their digests fill four blocks.
const CHUNK_BLOCKS: u64 = 4 * DIGESTS_A_BLOCK;
/// A device of one block would have no tree.
const LEAST_BLOCKS: u64 = 2;

/// A file system with its tree.
#[derive(Debug, Clone)]
pub struct Verity {
    /// The file system, and from the next multiple of 4 KiB on superblock and tree.
    pub extents: Extents,
    /// Digest of all of the file system.
    pub root_hash: [u8; DIGEST_BYTES],
}

/// Reads all of `file_system` once and puts its tree behind it.
///
/// # Errors
/// What the disk says; [`FormatError::Cancelled`].
pub fn seal(file_system: Extents, threads: Threads, watch: Watch<'_>) -> Result<Verity, FormatError> {
    let blocks = file_system.len_bytes().div_ceil(BLOCK_BYTES).max(LEAST_BLOCKS);
    let spool = Spool::create(watch.folder)?;
    let levels = Levels::of(blocks);
    for level in 0..levels.places.len() {
        let (place, below) = (levels.places[level], level.checked_sub(1).map(|below| levels.places[below]));
        let read = |buffer: &mut [u8], block: u64| match below {
            None => file_system.read_at(buffer, block * BLOCK_BYTES),
            Some(below) => spool.file().read_exact_at(buffer, (below.first_block + block) * BLOCK_BYTES),
        };
        let count = below.map_or(blocks, |below| below.blocks);
        hash_level(&read, count, (spool.file(), place), threads, watch)?;
    }
    let mut top = [0; BLOCK];
    spool.file().read_exact_at(&mut top, BLOCK_BYTES)?;
    let root_hash: [u8; DIGEST_BYTES] = Sha256::digest(top).into();
    spool.file().write_all_at(&superblock(blocks, &root_hash), 0)?;
    let mut extents = file_system;
    let tree = Body::Spooled { spool: Arc::new(spool), start: 0, len: levels.end_block * BLOCK_BYTES };
    extents.put(blocks * BLOCK_BYTES, tree);
    Ok(Verity { extents, root_hash })
}

/// Where the blocks of one level are, counted from the superblock's, which fills block 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    first_block: u64,
    blocks: u64,
}

/// From the level of the data's digests up to the one that is a single block. In the file the highest comes first.
struct Levels {
    places: Vec<Place>,
    end_block: u64,
}

impl Levels {
    fn of(data_blocks: u64) -> Self {
        let mut places = Vec::new();
        let mut blocks = data_blocks;
        while blocks > 1 {
            blocks = blocks.div_ceil(DIGESTS_A_BLOCK);
            places.push(Place { first_block: 0, blocks });
        }
        let mut end_block = 1;
        for place in places.iter_mut().rev() {
            place.first_block = end_block;
            end_block += place.blocks;
        }
        Self { places, end_block }
    }
}

/// Writes the digests of `count` blocks, the last of their blocks filled up with zeros.
fn hash_level(
    read: &(impl Fn(&mut [u8], u64) -> io::Result<()> + Sync),
    count: u64,
    (to, place): (&File, Place),
    Threads(threads): Threads,
    watch: Watch<'_>,
) -> Result<(), FormatError> {
    let next = AtomicU64::new(0);
    let work = || -> Result<(), FormatError> {
        let mut blocks = Vec::new();
        loop {
            let first = next.fetch_add(CHUNK_BLOCKS, Ordering::Relaxed);
            if first >= count {
                return Ok(());
            }
            watch.cancel.check()?;
            let here = usize::try_from(CHUNK_BLOCKS.min(count - first)).unwrap_or_default();
            blocks.resize(here * BLOCK, 0);
            read(&mut blocks, first)?;
            let mut digests: Vec<u8> = blocks.chunks_exact(BLOCK).flat_map(Sha256::digest).collect();
            digests.resize(digests.len().next_multiple_of(BLOCK), 0);
            let block = place.first_block + first / DIGESTS_A_BLOCK;
            to.write_all_at(&digests, block * BLOCK_BYTES)?;
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.get()).map(|_| scope.spawn(work)).collect();
        let ends = workers.into_iter().map(|worker| match worker.join() {
            Ok(end) => end,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        // All are waited for, whatever one says.
        ends.collect::<Vec<_>>().into_iter().collect()
    })
}

fn superblock(data_blocks: u64, root_hash: &[u8; DIGEST_BYTES]) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"verity\0\0");
    put(8, &1_u32.to_le_bytes());
    // Digests fill a power of two, the salt comes first.
    put(12, &1_u32.to_le_bytes());
    put(16, &uuid(root_hash));
    put(32, b"sha256");
    put(64, &u32::try_from(BLOCK_BYTES).unwrap_or_default().to_le_bytes());
    put(68, &u32::try_from(BLOCK_BYTES).unwrap_or_default().to_le_bytes());
    put(72, &data_blocks.to_le_bytes());
    block
}

/// A UUID of version 8 (RFC 9562, 5.8), the tree's own.
fn uuid(root_hash: &[u8; DIGEST_BYTES]) -> [u8; 16] {
    let digest = Sha256::new().chain_update(b"kiln dm-verity tree").chain_update(root_hash).finalize();
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&digest[..16]);
    uuid[6] = uuid[6] & 0x0f | 0x80;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    uuid
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::{FileSink, StreamSink};
    use super::*;
    use crate::cancel::Cancel;
    use crate::progress::Silent;

    fn sealed(len: usize, threads: usize) -> Verity {
        let content: Vec<u8> = (0..len).map(|at| at.wrapping_mul(31).to_le_bytes()[at % 3]).collect();
        let watch = Watch { cancel: &Cancel::default(), meter: &Silent, folder: &std::env::temp_dir() };
        seal(Extents::from(Body::Inline(content.into())), Threads::new(threads), watch).unwrap()
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn a_cancelled_tree_is_none() {
        let cancel = Cancel::default();
        cancel.cancel();
        let watch = Watch { cancel: &cancel, meter: &Silent, folder: &std::env::temp_dir() };
        let body = Extents::from(Body::Inline(vec![0; 9999].into()));
        assert!(matches!(seal(body, Threads::new(2), watch), Err(FormatError::Cancelled(_))));
    }

    #[test]
    fn veritysetup_accepts_the_tree_and_sees_a_flipped_bit() {
        // One block, one level, its last block full, two levels, three levels.
        for len in [1, 4096, 128 * 4096, 128 * 4096 + 1, (128 * 128 + 1) * 4096 + 5] {
            let verity = sealed(len, 3);
            assert_eq!(verity.root_hash, sealed(len, 1).root_hash, "{len}");
            let file = tempfile::NamedTempFile::new().unwrap();
            let mut sink = FileSink::new(file.reopen().unwrap());
            let watch = Watch { cancel: &Cancel::default(), meter: &Silent, folder: &std::env::temp_dir() };
            verity.extents.write(&mut sink, watch).unwrap();
            sink.finish().unwrap();
            let offset = len.next_multiple_of(4096).max(8192);
            let verify = || {
                let mut command = Command::new("veritysetup");
                command.arg("verify").args([file.path(), file.path()]).arg(hex(&verity.root_hash));
                let output = command.arg(format!("--hash-offset={offset}")).output();
                output.expect("veritysetup (Debian: cryptsetup-bin) is installed")
            };
            let good = verify();
            assert!(good.status.success(), "{len}: {}", String::from_utf8_lossy(&good.stderr));
            let flipped = File::options().read(true).write(true).open(file.path()).unwrap();
            let mut byte = [0];
            flipped.read_exact_at(&mut byte, len as u64 / 2).unwrap();
            flipped.write_all_at(&[byte[0] ^ 1], len as u64 / 2).unwrap();
            assert!(!verify().status.success(), "{len}");
        }
    }

    #[test]
    fn the_bytes_do_not_depend_on_the_number_of_threads() {
        let written = |threads| {
            let watch = Watch { cancel: &Cancel::default(), meter: &Silent, folder: &std::env::temp_dir() };
            let mut sink = StreamSink(Vec::new());
            sealed(3_000_000, threads).extents.write(&mut sink, watch).unwrap();
            sink.0
        };
        assert!(written(1) == written(7));
    }
}

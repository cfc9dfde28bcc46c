//! One gzip member (RFC 1952), packed by several threads. Chunks of one size are packed each on its own and end at a
//! byte boundary, so the bytes depend on the content alone, not on the number of threads.

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use crc32fast::Hasher;
use flate2::{Compress, Compression, FlushCompress, Status};

/// What is packed at once. Smaller chunks pack worse, larger ones need more memory.
const CHUNK_BYTES: usize = 512 * 1024;

/// Level 1 packs twice as fast as level 2; an initrd is read once, so building it counts more than its last percents.
const LEVEL: u32 = 1;

/// Chunks on the way, for each thread: one in work, one waiting.
const CHUNKS_A_THREAD: usize = 2;

/// How many threads pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threads(NonZeroUsize);

impl Threads {
    /// Most threads: they keep memory below 64 MiB, and the one that reads cannot feed more.
    const LIMIT: usize = 16;

    /// `count` threads, at least one and at most sixteen.
    pub fn new(count: usize) -> Self {
        Self(NonZeroUsize::new(count.min(Self::LIMIT)).unwrap_or(NonZeroUsize::MIN))
    }

    /// As many as this machine runs at once.
    pub fn of_machine() -> Self {
        Self::new(thread::available_parallelism().map_or(1, NonZeroUsize::get))
    }
}

/// Packs what `produce` writes into one gzip member on `out`.
pub fn compress<E: From<io::Error>>(
    out: &mut (impl Write + ?Sized),
    Threads(threads): Threads,
    produce: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> Result<(), E> {
    // Deflate, no flags, no time, packed as fast as possible, made on any system.
    out.write_all(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255])?;
    thread::scope(|scope| {
        let lanes = (0..threads.get()).map(|_| {
            let (work, to_do) = sync_channel(CHUNKS_A_THREAD);
            let (done, packed) = sync_channel(CHUNKS_A_THREAD);
            scope.spawn(move || pack_all(&to_do, &done));
            Lane { work, packed }
        });
        let lanes = lanes.collect();
        let chunk = Vec::with_capacity(CHUNK_BYTES);
        let mut packer = Packer { lanes, sent: 0, written: 0, chunk, out, total: Hasher::new(), len: 0 };
        produce(&mut packer)?;
        packer.finish().map_err(E::from)
    })
}

/// Packs chunks until there are no more to come.
fn pack_all(to_do: &Receiver<Vec<u8>>, done: &SyncSender<io::Result<Packed>>) {
    let mut deflate = Compress::new(Compression::new(LEVEL), false);
    while let Ok(chunk) = to_do.recv() {
        // Nobody waits for it any more when the other end failed.
        if done.send(pack(&mut deflate, chunk)).is_err() {
            return;
        }
    }
}

fn pack(deflate: &mut Compress, mut chunk: Vec<u8>) -> io::Result<Packed> {
    deflate.reset();
    let mut bytes = Vec::with_capacity(chunk.len() / 2 + 1024);
    loop {
        let taken = usize::try_from(deflate.total_in()).unwrap_or(usize::MAX);
        let rest = chunk.get(taken..).unwrap_or_default();
        let status = deflate.compress_vec(rest, &mut bytes, FlushCompress::Sync).map_err(io::Error::other)?;
        // All is out when there was room to spare.
        if bytes.len() < bytes.capacity() && deflate.total_in() == chunk.len() as u64 {
            break;
        }
        debug_assert!(!matches!(status, Status::StreamEnd), "nothing asked for an end");
        bytes.reserve(bytes.len() / 2 + 1024);
    }
    let mut checksum = Hasher::new();
    checksum.update(&chunk);
    chunk.clear();
    Ok(Packed { bytes, checksum, empty: chunk })
}

struct Packed {
    bytes: Vec<u8>,
    checksum: Hasher,
    /// The chunk's memory, to be filled again.
    empty: Vec<u8>,
}

/// One thread. Chunks go to the lanes in turn and come back in turn.
struct Lane {
    work: SyncSender<Vec<u8>>,
    packed: Receiver<io::Result<Packed>>,
}

struct Packer<'a, W: ?Sized> {
    lanes: Vec<Lane>,
    /// How many chunks went to the lanes.
    sent: usize,
    /// How many came back.
    written: usize,
    chunk: Vec<u8>,
    out: &'a mut W,
    total: Hasher,
    len: u64,
}

impl<W: Write + ?Sized> Packer<'_, W> {
    fn send_chunk(&mut self) -> io::Result<()> {
        let all_busy = self.sent - self.written == self.lanes.len() * CHUNKS_A_THREAD;
        let empty = if all_busy { self.take_oldest()? } else { Vec::with_capacity(CHUNK_BYTES) };
        let chunk = std::mem::replace(&mut self.chunk, empty);
        self.len += chunk.len() as u64;
        let lane = &self.lanes[self.sent % self.lanes.len()];
        lane.work.send(chunk).map_err(|_| io::Error::other("a packing thread ended"))?;
        self.sent += 1;
        Ok(())
    }

    /// Writes the oldest chunk and gives its memory back.
    fn take_oldest(&mut self) -> io::Result<Vec<u8>> {
        let lane = &self.lanes[self.written % self.lanes.len()];
        let packed = lane.packed.recv().map_err(|_| io::Error::other("a packing thread ended"))??;
        self.written += 1;
        self.out.write_all(&packed.bytes)?;
        self.total.combine(&packed.checksum);
        Ok(packed.empty)
    }

    fn finish(mut self) -> io::Result<()> {
        if !self.chunk.is_empty() {
            self.send_chunk()?;
        }
        while self.written < self.sent {
            self.take_oldest()?;
        }
        // An empty last block of fixed codes.
        self.out.write_all(&[0x03, 0x00])?;
        self.out.write_all(&self.total.finalize().to_le_bytes())?;
        let len = u32::try_from(self.len & u64::from(u32::MAX)).unwrap_or(0);
        self.out.write_all(&len.to_le_bytes())
    }
}

impl<W: Write + ?Sized> Write for Packer<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = bytes.len().min(CHUNK_BYTES - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..len]);
        if self.chunk.len() == CHUNK_BYTES {
            self.send_chunk()?;
        }
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn packed(content: &[u8], threads: usize, write_bytes: usize) -> Vec<u8> {
        let mut out = Vec::new();
        compress(&mut out, Threads::new(threads), |packer| {
            content.chunks(write_bytes).try_for_each(|part| packer.write_all(part))
        })
        .unwrap();
        out
    }

    fn content(len: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let byte = |index: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // A stretch that does not pack at all, then one that packs well.
            if index % 1_500_000 < 700_000 { (state >> 24).to_le_bytes()[0] } else { b'z' }
        };
        (0..len).map(byte).collect()
    }

    #[test]
    fn one_member_holds_all_and_its_bytes_do_not_depend_on_threads_or_writes() {
        for chunks_len in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES, 9 * CHUNK_BYTES + 5] {
            let plain = content(chunks_len);
            let one = packed(&plain, 1, 1 << 20);
            let mut back = Vec::new();
            let mut reader = flate2::read::GzDecoder::new(&one[..]);
            reader.read_to_end(&mut back).unwrap();
            assert!(back == plain, "{chunks_len} bytes");
            assert!(reader.into_inner().is_empty(), "one member and nothing behind it");
            for threads in [2, 3, 4, 7] {
                assert!(packed(&plain, threads, 99_999) == one, "{chunks_len} bytes, {threads} threads");
            }
        }
    }

    #[test]
    fn a_full_output_and_a_failed_producer_end_the_threads() {
        struct Full(usize);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let plain = content(8 * CHUNK_BYTES);
        let error = compress(&mut Full(1 << 20), Threads::new(2), |packer| packer.write_all(&plain)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        let failed = |packer: &mut dyn Write| {
            packer.write_all(&plain)?;
            Err(io::Error::from(io::ErrorKind::NotFound))
        };
        assert_eq!(compress(&mut Vec::new(), Threads::new(2), failed).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}

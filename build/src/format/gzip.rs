//! One gzip member (RFC 1952), packed by several threads. It is cut into chunks, each of which is packed on its own and ends
//! at a byte boundary, so the bytes depend on the content alone, not on the number of threads. A chunk that an earlier
//! build packed is taken from the cache, by what is in it and without reading that.

mod chunk;

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use crc32fast::Hasher;

use super::Sink;
use crate::cache::Cache;
use crate::tree::Body;
use chunk::{Chunk, ChunkPacker, Packed};

/// Longest chunk. Smaller ones pack worse, larger ones need more memory.
const CHUNK_BYTES: usize = 512 * 1024;

/// Shortest chunk that ends before it is full, where one member ends and the next begins. So a member that is new moves
/// the ends of few chunks.
const SHORT_CHUNK_BYTES: usize = 128 * 1024;

/// Of the members behind a short chunk, one of this many begins a new one; its name tells.
const CUT_ONE_OF: u32 = 4;

/// Chunks on the way, for each thread: one in work, one waiting.
const CHUNKS_A_THREAD: usize = 2;

/// How bytes are packed. Changes nothing about the result.
#[derive(Debug, Clone, Copy)]
pub struct Packing<'a> {
    /// How many threads pack.
    pub threads: Threads,
    /// Where chunks are that were packed before, and where they stay.
    pub cache: &'a Cache,
}

/// How many threads pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threads(pub(super) NonZeroUsize);

impl Threads {
    /// Most threads: they keep memory below 64 MiB, and the one that reads cannot feed more.
    const LIMIT: usize = 16;

    /// `count` threads, at least one and at most sixteen.
    pub fn new(count: usize) -> Self {
        Self(NonZeroUsize::new(count.min(Self::LIMIT)).unwrap_or(NonZeroUsize::MIN))
    }

    /// How many.
    pub(super) fn count(self) -> usize {
        self.0.get()
    }

    /// As many as this machine runs at once.
    pub fn of_machine() -> Self {
        Self::new(thread::available_parallelism().map_or(1, NonZeroUsize::get))
    }
}

/// Packs what `produce` writes into one gzip member on `out`.
pub fn compress<E: From<io::Error>>(
    out: &mut (impl Write + ?Sized),
    packing: Packing<'_>,
    produce: impl FnOnce(&mut dyn Sink) -> Result<(), E>,
) -> Result<(), E> {
    // Deflate, no flags, no time, packed as fast as possible, made on any system.
    out.write_all(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255])?;
    let Threads(threads) = packing.threads;
    thread::scope(|scope| {
        let lanes = (0..threads.get()).map(|_| {
            let (work, to_do) = sync_channel(CHUNKS_A_THREAD);
            let (done, packed) = sync_channel(CHUNKS_A_THREAD);
            scope.spawn(move || pack_all(packing.cache, &to_do, &done));
            Lane { work, packed }
        });
        let lanes = lanes.collect();
        let mut packer =
            Packer { lanes, sent: 0, written: 0, chunk: Chunk::default(), out, total: Hasher::new(), len: 0 };
        produce(&mut packer)?;
        packer.finish().map_err(E::from)
    })
}

/// Packs chunks until there are no more to come.
fn pack_all(cache: &Cache, to_do: &Receiver<Chunk>, done: &SyncSender<io::Result<Packed>>) {
    let mut packer = ChunkPacker::new(cache);
    while let Ok(chunk) = to_do.recv() {
        // Nobody waits for it any more when the other end failed.
        if done.send(packer.pack(&chunk)).is_err() {
            return;
        }
    }
}

/// One thread. Chunks go to the lanes in turn and come back in turn.
struct Lane {
    work: SyncSender<Chunk>,
    packed: Receiver<io::Result<Packed>>,
}

struct Packer<'a, W: ?Sized> {
    lanes: Vec<Lane>,
    /// How many chunks went to the lanes.
    sent: usize,
    /// How many came back.
    written: usize,
    chunk: Chunk,
    out: &'a mut W,
    total: Hasher,
    len: u64,
}

impl<W: Write + ?Sized> Packer<'_, W> {
    fn send_chunk(&mut self) -> io::Result<()> {
        if self.sent - self.written == self.lanes.len() * CHUNKS_A_THREAD {
            self.write_oldest()?;
        }
        let chunk = std::mem::take(&mut self.chunk);
        self.len += chunk.len_bytes() as u64;
        let lane = &self.lanes[self.sent % self.lanes.len()];
        lane.work.send(chunk).map_err(|_| io::Error::other("a packing thread ended"))?;
        self.sent += 1;
        Ok(())
    }

    fn write_oldest(&mut self) -> io::Result<()> {
        let lane = &self.lanes[self.written % self.lanes.len()];
        let packed = lane.packed.recv().map_err(|_| io::Error::other("a packing thread ended"))??;
        self.written += 1;
        self.out.write_all(packed.bytes())?;
        self.total.combine(&packed.checksum);
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        if self.chunk.len_bytes() > 0 {
            self.send_chunk()?;
        }
        while self.written < self.sent {
            self.write_oldest()?;
        }
        // An empty last block of fixed codes.
        self.out.write_all(&[0x03, 0x00])?;
        self.out.write_all(&self.total.finalize().to_le_bytes())?;
        let len = u32::try_from(self.len & u64::from(u32::MAX)).unwrap_or(0);
        self.out.write_all(&len.to_le_bytes())
    }

    fn room(&self) -> usize {
        CHUNK_BYTES - self.chunk.len_bytes()
    }
}

impl<W: Write + ?Sized> Write for Packer<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = bytes.len().min(self.room());
        self.chunk.add_bytes(&bytes[..len]);
        if self.room() == 0 {
            self.send_chunk()?;
        }
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: Write + ?Sized> Sink for Packer<'_, W> {
    fn append(&mut self, body: &Body) -> io::Result<()> {
        if let Body::Inline(bytes) = body {
            return self.write_all(bytes);
        }
        let mut offset = 0;
        while let Some(part) =
            body.slice(offset, (body.len() - offset).min(self.room() as u64)).filter(|p| !p.is_empty())
        {
            offset += part.len();
            self.chunk.add_body(part);
            if self.room() == 0 {
                self.send_chunk()?;
            }
        }
        Ok(())
    }

    fn skip(&mut self, len_bytes: u64) -> io::Result<()> {
        let mut left = len_bytes;
        while left > 0 {
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(self.room());
            self.chunk.add_zeros(count);
            left -= count as u64;
            if self.room() == 0 {
                self.send_chunk()?;
            }
        }
        Ok(())
    }

    /// A long content begins a chunk, so that where it is cut does not depend on what is in front of it.
    fn begin_member(&mut self, name: &[u8], content_bytes: u64) -> io::Result<()> {
        let is_long = content_bytes >= SHORT_CHUNK_BYTES as u64;
        let is_chosen = || crc32fast::hash(name).is_multiple_of(CUT_ONE_OF);
        if self.chunk.len_bytes() > 0 && (is_long || self.chunk.len_bytes() >= SHORT_CHUNK_BYTES && is_chosen()) {
            self.send_chunk()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn packed(content: &[u8], threads: usize, write_bytes: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let packing = Packing { threads: Threads::new(threads), cache: &Cache::none() };
        compress(&mut out, packing, |packer| content.chunks(write_bytes).try_for_each(|part| packer.write_all(part)))
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
    fn zeros_are_short_and_read_back() {
        for (before, zeros, limit) in [(0, 1_u64, 100), (5, 1 << 20, 10_000), (700_000, (64 << 20) + 3, 700_000)] {
            let plain = content(before);
            let mut out = Vec::new();
            let packing = Packing { threads: Threads::new(2), cache: &Cache::none() };
            compress(&mut out, packing, |packer| {
                packer.write_all(&plain)?;
                packer.skip(zeros)?;
                packer.write_all(b"end")
            })
            .unwrap();
            assert!(out.len() < before + limit, "{zeros}: {} bytes", out.len());
            let mut back = Vec::new();
            flate2::read::GzDecoder::new(&out[..]).read_to_end(&mut back).unwrap();
            let (head, rest) = back.split_at(before);
            let (middle, end) = rest.split_at(usize::try_from(zeros).unwrap());
            assert!(head == plain && middle.iter().all(|&byte| byte == 0) && end == b"end");
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
        let packing = Packing { threads: Threads::new(2), cache: &Cache::none() };
        let error = compress(&mut Full(1 << 20), packing, |packer| packer.write_all(&plain)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        let failed = |packer: &mut dyn Sink| {
            packer.write_all(&plain)?;
            Err(io::Error::from(io::ErrorKind::NotFound))
        };
        assert_eq!(compress(&mut Vec::new(), packing, failed).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}

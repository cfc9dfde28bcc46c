//! Contents to packed blocks, by all threads at once, and what inodes must know of them.

use std::io;

use super::super::in_order::in_order;
use super::super::{FormatError, Packing, Watch};
use super::Placed;
use super::compression::Compression;
use super::contents::{Contents, Job, Owner};
use super::kept::{Blocks, Kept};
use super::pack::Packer;
use crate::tree::Body;

/// Where everything is.
#[derive(Default)]
pub(super) struct Data {
    /// By content.
    pub(super) runs: Vec<Run>,
    /// Of all contents, as block lists tell them.
    blocks: Vec<u32>,
    /// The table of fragments.
    pub(super) fragments: Vec<u8>,
}

/// The blocks of one content.
#[derive(Default, Clone, Copy)]
pub(super) struct Run {
    /// The first, from the start of the image.
    pub(super) start: u64,
    first: usize,
    count: usize,
    pub(super) sparse_bytes: u64,
}

/// A piece of work that is done.
struct Done {
    owner: Owner,
    plain_bytes: u64,
    blocks: Blocks,
}

impl Data {
    pub(super) fn blocks(&self, run: &Run) -> &[u32] {
        self.blocks.get(run.first..run.first + run.count).unwrap_or_default()
    }

    fn add(&mut self, done: &Done, offset: u64, block_bytes: u32) -> io::Result<()> {
        let words = &done.blocks.words;
        match done.owner {
            Owner::Content(index) => {
                let first = self.blocks.len();
                let run = self.runs.get_mut(index).ok_or(io::ErrorKind::NotFound)?;
                if run.count == 0 {
                    *run = Run { start: offset, first, ..Run::default() };
                }
                run.count += words.len();
                let sparse = words.iter().filter(|word| **word == 0).count();
                run.sparse_bytes += sparse as u64 * u64::from(block_bytes);
                self.blocks.extend_from_slice(words);
            }
            Owner::Fragment => {
                self.fragments.extend(offset.to_le_bytes());
                for word in [words.first().copied().unwrap_or(0), 0] {
                    self.fragments.extend(word.to_le_bytes());
                }
            }
        }
        Ok(())
    }
}

/// Packs and appends all contents.
pub(super) fn write(
    contents: &Contents,
    (compression, block_bytes): (Compression, u32),
    packing: Packing<'_>,
    out: &mut Placed<'_>,
    watch: Watch<'_>,
) -> Result<Data, FormatError> {
    let mut data = Data { runs: vec![Run::default(); contents.all.len()], ..Data::default() };
    let kept = &Kept::new(packing.cache, compression, block_bytes);
    let worker = || {
        let mut hands = Hands::new(compression, block_bytes, kept);
        move |job: Job| hands.as_mut().map_err(|error| io::Error::from(error.kind()))?.work(&job)
    };
    in_order(packing.threads, contents.jobs(), worker, |done: io::Result<Done>| {
        watch.cancel.check()?;
        let done = done?;
        data.add(&done, out.offset, block_bytes)?;
        out.put(&done.blocks.bytes)?;
        watch.meter.advance(done.plain_bytes);
        Ok::<_, FormatError>(())
    })?;
    Ok(data)
}

/// One thread's.
struct Hands<'a> {
    packer: Packer,
    kept: &'a Kept<'a>,
    block_bytes: usize,
    plain: Vec<u8>,
    /// A block of them: comparing with it is faster than looking at each byte.
    zeros: Vec<u8>,
}

impl<'a> Hands<'a> {
    fn new(compression: Compression, block_bytes: u32, kept: &'a Kept<'a>) -> io::Result<Self> {
        let packer = Packer::new(compression, block_bytes)?;
        let block_bytes = usize::try_from(block_bytes).map_err(io::Error::other)?;
        Ok(Self { packer, kept, block_bytes, plain: Vec::new(), zeros: vec![0; block_bytes] })
    }

    fn work(&mut self, job: &Job) -> io::Result<Done> {
        let plain_bytes = job.bodies.iter().map(Body::len).sum();
        let key = self.kept.key(job);
        let count = usize::try_from(plain_bytes).map_err(io::Error::other)?.div_ceil(self.block_bytes);
        if let Some(blocks) = key.and_then(|key| self.kept.find(&key, count)) {
            return Ok(Done { owner: job.owner, plain_bytes, blocks });
        }
        let blocks = self.pack(job)?;
        if let Some(key) = key {
            self.kept.keep(&key, &blocks);
        }
        Ok(Done { owner: job.owner, plain_bytes, blocks })
    }

    fn pack(&mut self, job: &Job) -> io::Result<Blocks> {
        self.read(&job.bodies)?;
        let mut blocks = Blocks::default();
        for block in self.plain.chunks(self.block_bytes) {
            let is_hole = job.owner.may_have_holes() && self.zeros.starts_with(block);
            let word = if is_hole { 0 } else { self.packer.pack(block, &mut blocks.bytes)?.word() };
            blocks.words.push(word);
        }
        Ok(blocks)
    }

    fn read(&mut self, bodies: &[Body]) -> io::Result<()> {
        self.plain.clear();
        for body in bodies {
            let start = self.plain.len();
            self.plain.resize(start + usize::try_from(body.len()).map_err(io::Error::other)?, 0);
            body.read_exact_at(self.plain.get_mut(start..).unwrap_or_default(), 0)?;
        }
        Ok(())
    }
}

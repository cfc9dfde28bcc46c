//! Which contents are in the image, each once, in what order, and where their ends share a block: all of it is known before
//! a byte is read.

use std::collections::HashMap;

use super::super::{FormatError, Packing, Watch};
use super::duplicates::originals;
use super::inventory::Inventory;
use super::options::SquashfsOptions;
use crate::tree::{Body, NodeId};

/// Bytes that are packed as one piece of work: several blocks, so that threads and cache have less to look after.
const WORK_BYTES: u64 = 1 << 20;

/// One content, however many files have it.
pub(super) struct Content {
    pub(super) body: Body,
    /// Whole blocks.
    pub(super) blocks: u64,
    /// The rest, if there is one: number of a fragment and offset in it.
    pub(super) tail: Option<(u32, u32)>,
}

/// All contents of the image.
pub(super) struct Contents {
    pub(super) all: Vec<Content>,
    of: HashMap<NodeId, usize>,
    pub(super) fragments: u32,
    block_bytes: u32,
}

/// A piece of work.
pub(super) struct Job {
    pub(super) owner: Owner,
    /// What is in it, side by side.
    pub(super) bodies: Vec<Body>,
}

/// What a piece of work is a part of.
#[derive(Debug, Clone, Copy)]
pub(super) enum Owner {
    /// Whole blocks of a content, behind those that came before.
    Content(usize),
    /// The next fragment.
    Fragment,
}

impl Owner {
    /// A tail among others cannot be a hole.
    pub(super) fn may_have_holes(self) -> bool {
        matches!(self, Self::Content(_))
    }
}

impl Contents {
    /// Lays out all files. Those that are alike are read for it, nothing else.
    pub(super) fn of(
        inventory: &Inventory<'_>,
        options: &SquashfsOptions,
        packing: Packing<'_>,
        watch: Watch<'_>,
    ) -> Result<Self, FormatError> {
        let block_bytes = options.block_bytes;
        let ranks = options.order.ranks(inventory);
        let mut files: Vec<(NodeId, &Body)> = inventory.files().collect();
        files.sort_by_key(|(id, _)| std::cmp::Reverse(ranks.get(id).copied().unwrap_or(0)));
        let bodies: Vec<&Body> = files.iter().map(|(_, body)| *body).collect();
        let originals = originals(&bodies, packing, watch)?;
        let mut contents = Self { all: Vec::new(), of: HashMap::new(), fragments: 0, block_bytes };
        let mut places = Vec::with_capacity(files.len());
        for (index, (id, body)) in files.iter().enumerate() {
            let original = originals.get(index).copied().filter(|original| *original < index);
            let place = original.and_then(|original| places.get(original).copied()).unwrap_or_else(|| {
                let blocks = body.len() / u64::from(block_bytes);
                contents.all.push(Content { body: (*body).clone(), blocks, tail: None });
                contents.all.len() - 1
            });
            places.push(place);
            contents.of.insert(*id, place);
        }
        contents.place_tails();
        Ok(contents)
    }

    /// The content of a file that has one.
    pub(super) fn place(&self, file: NodeId) -> Option<usize> {
        self.of.get(&file).copied()
    }

    /// All the work there is, in the order of the image.
    pub(super) fn jobs(&self) -> impl Iterator<Item = Job> {
        let mut fragment = Vec::new();
        let mut number = 0;
        let last = self.fragments;
        self.all.iter().enumerate().flat_map(move |(index, content)| {
            let mut jobs = self.block_jobs(index, content);
            if let Some((place, _)) = content.tail {
                if place != number {
                    jobs.push(Job { owner: Owner::Fragment, bodies: std::mem::take(&mut fragment) });
                    number = place;
                }
                fragment.extend(self.tail(content));
            }
            if index + 1 == self.all.len() && last > 0 {
                jobs.push(Job { owner: Owner::Fragment, bodies: std::mem::take(&mut fragment) });
            }
            jobs
        })
    }

    fn block_jobs(&self, index: usize, content: &Content) -> Vec<Job> {
        let block_bytes = u64::from(self.block_bytes);
        let whole_bytes = content.blocks * block_bytes;
        let step = WORK_BYTES.max(block_bytes);
        let starts = (0..whole_bytes.div_ceil(step)).map(|number| number * step);
        let body = |start: u64| content.body.slice(start, step.min(whole_bytes - start));
        starts.map(|start| Job { owner: Owner::Content(index), bodies: body(start).into_iter().collect() }).collect()
    }

    fn tail(&self, content: &Content) -> Option<Body> {
        let whole_bytes = content.blocks * u64::from(self.block_bytes);
        content.body.slice(whole_bytes, content.body.len() - whole_bytes)
    }

    fn place_tails(&mut self) {
        let (mut fragment, mut used) = (0, 0);
        for content in &mut self.all {
            let tail_bytes = u32::try_from(content.body.len() % u64::from(self.block_bytes)).unwrap_or(0);
            if tail_bytes == 0 {
                continue;
            }
            if used + tail_bytes > self.block_bytes {
                fragment += 1;
                used = 0;
            }
            content.tail = Some((fragment, used));
            used += tail_bytes;
        }
        self.fragments = if used > 0 { fragment + 1 } else { 0 };
    }
}

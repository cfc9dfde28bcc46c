//! Contents on their way to clusters: several threads pack, and what they make stands in a spool in the order of the
//! files, so that the bytes do not depend on how many threads there are.

use std::io::{self, BufWriter, Write};
use std::sync::Arc;

use super::index::{self, Cluster};
use super::lz4::{Effort, Encoder};
use super::{BLOCK_BYTES, FormatError, Watch};
use crate::format::Threads;
use crate::format::in_order::in_order;
use crate::tree::{Body, Spool};

const BLOCK: usize = 4096;

/// What one thread packs at a time: small files together, large ones in pieces. A multiple of a block, so that every piece
/// but a file's last ends with an entry of its index.
const UNIT_BYTES: usize = 2 << 20;

/// A compressed file.
pub(super) struct Packed {
    /// A block for each cluster.
    pub(super) blocks: Body,
    pub(super) clusters: Vec<Cluster>,
}

/// All of one file, or a part of it.
struct Piece {
    file: usize,
    body: Body,
}

/// What a thread made of a unit.
#[derive(Default)]
struct PackedUnit {
    blocks: Vec<u8>,
    /// For each piece its file and the clusters.
    pieces: Vec<(usize, Vec<Cluster>)>,
    plain_bytes: u64,
}

/// Packs `bodies`. Gives `None` for each that does not get smaller.
pub(super) fn pack(
    bodies: &[Body],
    effort: Effort,
    threads: Threads,
    watch: Watch<'_>,
) -> Result<Vec<Option<Packed>>, FormatError> {
    let spool = Arc::new(Spool::create(watch.folder)?);
    let mut out = BufWriter::with_capacity(256 << 10, spool.file());
    let mut clusters: Vec<Vec<Cluster>> = vec![Vec::new(); bodies.len()];
    let worker = || {
        let (mut encoder, mut text) = (Encoder::new(effort), Vec::new());
        move |unit: Vec<Piece>| pack_unit(&unit, &mut encoder, &mut text)
    };
    in_order(threads, units(bodies), worker, |packed: io::Result<PackedUnit>| {
        watch.cancel.check()?;
        let packed = packed?;
        out.write_all(&packed.blocks)?;
        packed.pieces.into_iter().for_each(|(file, made)| clusters[file].extend(made));
        watch.meter.advance(packed.plain_bytes);
        Ok::<_, FormatError>(())
    })?;
    out.flush()?;
    drop(out);
    let mut start = 0;
    let keep = |(body, clusters): (&Body, Vec<Cluster>)| {
        let len = clusters.len() as u64 * BLOCK_BYTES;
        let blocks = Body::Spooled { spool: spool.clone(), start, len };
        start += len;
        // Uncompressed, the tail needs no block of its own.
        let index_bytes = index::len_bytes(0, body.len()) as u64;
        let is_smaller = len + index_bytes < body.len();
        (is_smaller && !clusters.is_empty()).then_some(Packed { blocks, clusters })
    };
    Ok(bodies.iter().zip(clusters).map(keep).collect())
}

/// What is to pack, in order. A body of one block cannot get smaller.
fn units(bodies: &[Body]) -> impl Iterator<Item = Vec<Piece>> {
    let pieces = bodies.iter().enumerate().filter(|(_, body)| body.len() > BLOCK_BYTES).flat_map(|(file, body)| {
        let starts = (0..body.len()).step_by(UNIT_BYTES);
        let piece = move |start| body.slice(start, (body.len() - start).min(UNIT_BYTES as u64));
        starts.filter_map(piece).map(move |body| Piece { file, body })
    });
    let mut pieces = pieces.peekable();
    std::iter::from_fn(move || {
        let mut unit = vec![pieces.next()?];
        let mut len_bytes = unit[0].body.len();
        while let Some(piece) = pieces.next_if(|piece| len_bytes + piece.body.len() <= UNIT_BYTES as u64) {
            len_bytes += piece.body.len();
            unit.push(piece);
        }
        Some(unit)
    })
}

fn pack_unit(unit: &[Piece], encoder: &mut Encoder, text: &mut Vec<u8>) -> io::Result<PackedUnit> {
    let mut packed = PackedUnit::default();
    for Piece { file, body } in unit {
        text.resize(usize::try_from(body.len()).map_err(io::Error::other)?, 0);
        body.read_exact_at(text, 0)?;
        packed.plain_bytes += body.len();
        packed.pieces.push((*file, pack_text(text, encoder, &mut packed.blocks)));
    }
    Ok(packed)
}

fn pack_text(text: &[u8], encoder: &mut Encoder, blocks: &mut Vec<u8>) -> Vec<Cluster> {
    let mut clusters = Vec::new();
    let mut block = Vec::with_capacity(BLOCK);
    let mut start = 0;
    encoder.begin(text.len());
    while start < text.len() {
        block.clear();
        let plain = BLOCK.min(text.len() - start);
        let taken = if plain == BLOCK { encoder.encode(text, start, BLOCK, &mut block) } else { 0 };
        let is_plain = taken <= BLOCK;
        let len = if is_plain { plain } else { taken };
        if is_plain {
            blocks.extend_from_slice(&text[start..start + len]);
            blocks.resize(blocks.len().next_multiple_of(BLOCK), 0);
        } else {
            // Zeros stand in front, so that it can be unpacked where it is.
            blocks.resize(blocks.len() + BLOCK - block.len(), 0);
            blocks.extend_from_slice(&block);
        }
        clusters.push(Cluster { len_bytes: u32::try_from(len).unwrap_or(0), is_plain });
        start += len;
    }
    clusters
}

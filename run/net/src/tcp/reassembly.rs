//! What came from the guest behind a gap, until the gap is filled.

use std::collections::VecDeque;

use crate::wire::{SackBlocks, Seq};

/// Most pieces that are kept; a piece that would be one more is dropped, and the guest sends it again.
const PIECES_LIMIT: usize = 32;

#[derive(Debug)]
struct Piece {
    start: Seq,
    bytes: Vec<u8>,
}

impl Piece {
    fn end(&self) -> Seq {
        self.start + len(&self.bytes)
    }
}

/// Pieces in the order of their numbers; none overlap or touch.
#[derive(Debug, Default)]
pub struct Reassembly {
    pieces: VecDeque<Piece>,
    /// Where the piece begins that came last, which acknowledgements name first (RFC 2018 section 4).
    newest: Option<Seq>,
}

impl Reassembly {
    /// How many bytes are kept.
    pub fn len_bytes(&self) -> usize {
        self.pieces.iter().map(|piece| piece.bytes.len()).sum()
    }

    /// Keeps `bytes`, which begin at `start`, as far as they are new.
    pub fn insert(&mut self, start: Seq, bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let mut merged = Piece { start, bytes };
        let first = self.pieces.partition_point(|piece| piece.end().is_before(start));
        let behind = self.pieces.partition_point(|piece| !merged.end().is_before(piece.start));
        if first == behind && self.pieces.len() >= PIECES_LIMIT {
            return;
        }
        // What goes on at the end of one piece, as most does, is not copied together.
        if behind == first + 1
            && let Some(piece) = self.pieces.get_mut(first)
            && !start.is_before(piece.start)
        {
            let old = usize::try_from(piece.end().since(start).max(0)).unwrap_or(usize::MAX);
            piece.bytes.extend_from_slice(merged.bytes.get(old..).unwrap_or_default());
            self.newest = Some(piece.start);
            return;
        }
        for old in self.pieces.drain(first..behind) {
            merged = join(old, merged);
        }
        self.newest = Some(merged.start);
        self.pieces.insert(first, merged);
    }

    /// What can be used now that everything before `next` has come: the bytes from there on.
    pub fn take(&mut self, next: Seq) -> Option<Vec<u8>> {
        while let Some(piece) = self.pieces.front() {
            if next.is_before(piece.start) {
                return None;
            }
            let Some(mut piece) = self.pieces.pop_front() else { break };
            if next.is_before(piece.end()) {
                let old = usize::try_from(next - piece.start).unwrap_or(usize::MAX);
                piece.bytes.drain(..old.min(piece.bytes.len()));
                return Some(piece.bytes);
            }
        }
        None
    }

    /// What is kept, as the guest is to be told.
    pub fn sack(&self) -> SackBlocks {
        let mut blocks = SackBlocks::default();
        let is_newest = |piece: &&Piece| Some(piece.start) == self.newest;
        for piece in self.pieces.iter().filter(is_newest).chain(self.pieces.iter().filter(|piece| !is_newest(piece))) {
            blocks.push(piece.start, piece.end());
        }
        blocks
    }
}

/// Both as one; what came first counts where they overlap.
fn join(old: Piece, new: Piece) -> Piece {
    let (start, old_end, new_end) =
        (if new.start.is_before(old.start) { new.start } else { old.start }, old.end(), new.end());
    let mut bytes = Vec::with_capacity(old.bytes.len() + new.bytes.len());
    if new.start.is_before(old.start) {
        let before = usize::try_from(old.start - new.start).unwrap_or(usize::MAX).min(new.bytes.len());
        bytes.extend_from_slice(&new.bytes[..before]);
    }
    bytes.extend_from_slice(&old.bytes);
    if old_end.is_before(new_end) {
        let behind = usize::try_from(new_end - old_end).unwrap_or(usize::MAX).min(new.bytes.len());
        bytes.extend_from_slice(&new.bytes[new.bytes.len() - behind..]);
    }
    Piece { start, bytes }
}

fn len(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(start: u32, end: u32) -> Vec<u8> {
        (start..end).map(|number| u8::try_from(number % 251).unwrap()).collect()
    }

    fn blocks(kept: &Reassembly) -> Vec<(u32, u32)> {
        kept.sack().iter().map(|(start, end)| (start.0, end.0)).collect()
    }

    #[test]
    fn pieces_in_any_order_give_the_whole() {
        // Every order of five pieces that overlap, touch and repeat.
        let pieces = [(10, 20), (15, 40), (40, 41), (60, 80), (30, 70)];
        for order in 0..3125_u32 {
            let mut kept = Reassembly::default();
            let mut left = order;
            for _ in 0..5 {
                let (start, end) = pieces[(left % 5) as usize];
                left /= 5;
                kept.insert(Seq(start), text(start, end));
            }
            for (start, end) in pieces {
                kept.insert(Seq(start), text(start, end));
            }
            assert_eq!(blocks(&kept), [(10, 80)]);
            assert_eq!(kept.take(Seq(9)), None);
            assert_eq!(kept.take(Seq(12)), Some(text(12, 80)));
            assert!(kept.pieces.is_empty());
        }
    }

    #[test]
    fn numbers_wrap_around() {
        let mut kept = Reassembly::default();
        kept.insert(Seq(5), b"fghi".to_vec());
        kept.insert(Seq(u32::MAX - 2), b"xyzabcde".to_vec());
        assert_eq!(blocks(&kept), [(u32::MAX - 2, 9)]);
        assert_eq!(kept.take(Seq(u32::MAX)), Some(b"zabcdefghi".to_vec()));
    }

    #[test]
    fn the_newest_is_named_first_and_there_are_never_too_many() {
        let mut kept = Reassembly::default();
        for number in 0..100 {
            kept.insert(Seq(number * 10), text(0, 5));
        }
        assert_eq!(kept.pieces.len(), PIECES_LIMIT);
        assert_eq!(blocks(&kept)[0], (310, 315));
        assert_eq!(blocks(&kept).len(), 4);
        kept.insert(Seq(15), text(0, 5));
        assert_eq!(blocks(&kept)[0], (10, 25), "one that joins others always fits");
        assert_eq!(kept.take(Seq(500)), None);
        assert!(kept.pieces.is_empty(), "what is old goes");
    }
}

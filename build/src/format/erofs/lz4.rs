//! LZ4 blocks (lz4's `doc/lz4_Block_format.md`) of a given length: as much of a text as fits into one. Libraries know
//! only the other way round.
//!
//! Each block stands alone: it never refers to what came before it.

/// Shortest match.
const MATCH_BYTES: usize = 4;

/// How many bytes at the end of a block are literals.
const LAST_LITERALS: usize = 5;

/// No match starts nearer than this to a block's end.
const LAST_MATCH: usize = 12;

/// Farthest that a match can refer back.
const WINDOW_BYTES: usize = 65_535;

const HASH_BITS: u32 = 15;

/// A match this long is not put off.
const LONG_MATCH_BYTES: usize = 64;

/// How hard to look for matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effort {
    /// The last place that looks alike, and the first match that there is.
    Fast,
    /// So many places that look alike, the longest match, and whether the next position has a longer one.
    Best {
        /// How many places.
        places: u32,
    },
}

/// Makes one block after another.
pub(super) struct Encoder {
    effort: Effort,
    /// The last position of each hash.
    heads: Vec<u32>,
    /// For each position its hash's former one, by the lowest bits.
    chain: Vec<u32>,
    /// Positions of a new text go on from here, so that those of older texts are never taken for its own.
    base: usize,
    /// Up to where positions are in the table.
    known: usize,
    sequences: Vec<Sequence>,
}

/// Literals, then a match.
#[derive(Debug, Clone, Copy)]
struct Sequence {
    literals: usize,
    matched: usize,
    distance: u16,
}

/// Bytes behind the token for a length that its four bits cannot tell.
fn more_bytes(len: usize) -> usize {
    len.checked_sub(15).map_or(0, |rest| 1 + rest / 255)
}

/// Most literals of a last sequence of at most `room` bytes.
fn last_literals(room: usize) -> usize {
    let Some(room) = room.checked_sub(1) else { return 0 };
    let most = room - room / 256;
    (most.saturating_sub(2)..=most + 1).rev().find(|len| len + more_bytes(*len) <= room).unwrap_or(0)
}

impl Encoder {
    pub(super) fn new(effort: Effort) -> Self {
        let (heads, chain) = (vec![0; 1 << HASH_BITS], vec![0; 1 << 16]);
        Self { effort, heads, chain, base: 1, known: 0, sequences: Vec::new() }
    }

    /// What comes next is another text, of `len_bytes`.
    pub(super) fn begin(&mut self, len_bytes: usize) {
        self.base += self.known + WINDOW_BYTES;
        if u32::try_from(self.base + len_bytes).is_err() {
            self.heads.fill(0);
            self.base = 1;
        }
        self.known = 0;
    }

    /// Appends a block of at most `limit` bytes of the text from `start` on. Returns how much of the text is in it.
    pub(super) fn encode(&mut self, text: &[u8], start: usize, limit: usize, out: &mut Vec<u8>) -> usize {
        self.sequences.clear();
        let end = match self.effort {
            Effort::Fast => self.parse_fast(text, start, limit),
            Effort::Best { places } => self.parse_best(text, start, limit, places),
        };
        let mut at = start;
        for sequence in &self.sequences {
            let literals = &text[at..at + sequence.literals];
            put_token(out, literals, sequence.matched - MATCH_BYTES);
            out.extend_from_slice(&sequence.distance.to_le_bytes());
            put_more(out, sequence.matched - MATCH_BYTES);
            at += sequence.literals + sequence.matched;
        }
        put_token(out, &text[at..end], 0);
        end - start
    }

    /// The end of the text in a block, whose sequences are then known.
    fn parse_fast(&mut self, text: &[u8], start: usize, limit: usize) -> usize {
        let (mut at, mut anchor, mut cost) = (start, start, 0);
        let mut misses = 0;
        while at + LAST_MATCH <= text.len() && cost + (at - anchor) < limit {
            let former = self.know(text, at);
            let from = former.checked_sub(self.base).filter(|from| *from >= start && at - from <= WINDOW_BYTES);
            let Some(from) = from.filter(|from| text[*from..*from + MATCH_BYTES] == text[at..at + MATCH_BYTES]) else {
                misses += 1;
                at += 1 + misses / 64;
                continue;
            };
            misses = 0;
            let back =
                (0..(at - anchor).min(from - start)).take_while(|n| text[at - n - 1] == text[from - n - 1]).count();
            let (at_first, from_first) = (at - back, from - back);
            let matched = match_len(text, from_first, at_first);
            let literals = at_first - anchor;
            let next = cost + 3 + literals + more_bytes(literals) + more_bytes(matched - MATCH_BYTES);
            let least = LAST_LITERALS.max(LAST_MATCH.saturating_sub(matched));
            if next + 1 + least > limit {
                break;
            }
            cost = next;
            let distance = u16::try_from(at_first - from_first).unwrap_or(u16::MAX);
            self.sequences.push(Sequence { literals, matched, distance });
            at = at_first + matched;
            anchor = at;
        }
        (anchor + last_literals(limit - cost)).min(text.len())
    }

    /// The same, but a match is put off where the next position has a longer one.
    fn parse_best(&mut self, text: &[u8], start: usize, limit: usize, places: u32) -> usize {
        let (mut at, mut anchor, mut cost) = (start, start, 0);
        while at + LAST_MATCH <= text.len() && cost + (at - anchor) < limit {
            let (mut matched, mut distance) = self.longest(text, start, at, places, MATCH_BYTES - 1);
            if matched < MATCH_BYTES {
                at += 1;
                continue;
            }
            while matched < LONG_MATCH_BYTES && at + 1 + LAST_MATCH <= text.len() {
                let next = self.longest(text, start, at + 1, places, matched);
                if next.0 <= matched {
                    break;
                }
                (matched, distance) = next;
                at += 1;
            }
            let literals = at - anchor;
            let next = cost + 3 + literals + more_bytes(literals) + more_bytes(matched - MATCH_BYTES);
            let least = LAST_LITERALS.max(LAST_MATCH.saturating_sub(matched));
            if next + 1 + least > limit {
                break;
            }
            cost = next;
            self.sequences.push(Sequence { literals, matched, distance });
            at += matched;
            anchor = at;
        }
        (anchor + last_literals(limit - cost)).min(text.len())
    }

    /// The longest match for what is at `at` that is longer than `least` bytes, and how far back it is; `least` if there
    /// is none.
    fn longest(&mut self, text: &[u8], start: usize, at: usize, places: u32, least: usize) -> (usize, u16) {
        while self.known < at {
            self.know(text, self.known.max(start));
        }
        let mut place = self.know(text, at);
        let (mut longest, mut distance) = (least, 0);
        let oldest = self.base + start.max(at.saturating_sub(WINDOW_BYTES));
        let end = text.len().saturating_sub(LAST_LITERALS);
        for _ in 0..places {
            if place < oldest || at + longest >= end {
                break;
            }
            let from = place - self.base;
            if text[from + longest] == text[at + longest] {
                let len = match_len(text, from, at);
                if len > longest {
                    (longest, distance) = (len, at - from);
                }
            }
            place = self.chain[place & 0xffff] as usize;
        }
        (longest, u16::try_from(distance).unwrap_or(u16::MAX))
    }

    /// Enters `at` into the table, if it is not there; gives the former position of its hash.
    fn know(&mut self, text: &[u8], at: usize) -> usize {
        let word = text.get(at..at + 4).and_then(|word| word.first_chunk()).map_or(0, |word| u32::from_le_bytes(*word));
        let hash = (word.wrapping_mul(2_654_435_761) >> (32 - HASH_BITS)) as usize;
        let place = self.base + at;
        if at < self.known {
            return self.chain[place & 0xffff] as usize;
        }
        let former = self.heads[hash];
        self.chain[place & 0xffff] = former;
        self.heads[hash] = u32::try_from(place).unwrap_or(0);
        self.known = at + 1;
        former as usize
    }
}

/// How far the text goes on alike at two places, but for the last literals.
fn match_len(text: &[u8], from: usize, at: usize) -> usize {
    let end = text.len().saturating_sub(LAST_LITERALS);
    let (mut len, most) = (0, end.saturating_sub(at));
    while len + 8 <= most {
        let word = |place: usize| text[place + len..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
        let differs = word(from) ^ word(at);
        if differs != 0 {
            return len + (differs.trailing_zeros() / 8) as usize;
        }
        len += 8;
    }
    len + (len..most).take_while(|n| text[from + n] == text[at + n]).count()
}

fn put_token(out: &mut Vec<u8>, literals: &[u8], matched: usize) {
    let four_bits = |len: usize| u8::try_from(len.min(15)).unwrap_or(15);
    out.push(four_bits(literals.len()) << 4 | four_bits(matched));
    put_more(out, literals.len());
    out.extend_from_slice(literals);
}

fn put_more(out: &mut Vec<u8>, len: usize) {
    let Some(mut rest) = len.checked_sub(15) else { return };
    while rest >= 255 {
        out.push(255);
        rest -= 255;
    }
    out.push(u8::try_from(rest).unwrap_or(255));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packs all of it into blocks, reads each back with another's decoder, and gives the number of blocks.
    fn check(text: &[u8], limit: usize, effort: Effort) -> usize {
        let mut encoder = Encoder::new(effort);
        let mut blocks = 0;
        for _round in 0..2 {
            encoder.begin(text.len());
            blocks = 0;
            let mut start = 0;
            while start < text.len() {
                let mut block = Vec::new();
                let taken = encoder.encode(text, start, limit, &mut block);
                assert!(taken > 0 && block.len() <= limit, "{taken} bytes in {}", block.len());
                assert_ne!(block[0], 0, "zeros in front of a block must not be taken for its start");
                let back = lz4_flex::block::decompress(&block, taken).unwrap();
                assert!(back == text[start..start + taken], "{effort:?}: other bytes at {start}");
                check_ends(&block, taken);
                start += taken;
                blocks += 1;
            }
        }
        blocks
    }

    /// What decoders other than lz4_flex insist on.
    fn check_ends(block: &[u8], len: usize) {
        let (mut at, mut done) = (0, 0);
        loop {
            let token = block[at];
            at += 1;
            let length = |four_bits: u8, at: &mut usize| {
                let mut len = usize::from(four_bits);
                let mut goes_on = four_bits == 15;
                while goes_on {
                    len += usize::from(block[*at]);
                    goes_on = block[*at] == 255;
                    *at += 1;
                }
                len
            };
            let literals = length(token >> 4, &mut at);
            at += literals;
            done += literals;
            if at == block.len() {
                assert!(done == len && (literals >= LAST_LITERALS || literals == len));
                return;
            }
            assert!(done + LAST_MATCH <= len, "a match starts {} bytes before the end", len - done);
            at += 2;
            done += length(token & 15, &mut at) + MATCH_BYTES;
        }
    }

    fn texts() -> Vec<Vec<u8>> {
        let mut state = 1_u32;
        let mut random = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 16
        };
        let noise: Vec<u8> = (0..50_000).map(|_| random().to_le_bytes()[0]).collect();
        let words: Vec<String> =
            (0..300).map(|_| "abcdefghij"[..2 + random() as usize % 8].repeat(1 + random() as usize % 3)).collect();
        let prose: Vec<u8> = (0..40_000).flat_map(|_| words[random() as usize % 300].clone().into_bytes()).collect();
        let mixed = prose[..9_000].iter().chain(&noise[..9_000]).chain(&prose[5_000..9_000]).copied().collect();
        let mut texts = vec![noise, prose, mixed, vec![0; 600_000], b"ab".repeat(40_000)];
        texts.extend((1..40).map(|len| vec![b'x'; len]));
        texts.extend((1..40).map(|len| (0..len).collect()));
        texts
    }

    #[test]
    fn every_block_reads_back_and_ends_as_decoders_want() {
        for text in texts() {
            for effort in [Effort::Fast, Effort::Best { places: 64 }] {
                for limit in [64, 4096] {
                    check(&text, limit, effort);
                }
            }
        }
    }

    #[test]
    fn more_effort_gives_fewer_blocks() {
        let prose = &texts()[1];
        let [fast, good, best] = [Effort::Fast, Effort::Best { places: 4 }, Effort::Best { places: 512 }]
            .map(|effort| check(prose, 4096, effort));
        assert!(fast > good && good > best, "{fast}, {good}, {best}");
    }
}

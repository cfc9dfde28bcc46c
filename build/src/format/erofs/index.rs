//! Where the clusters of a compressed file start: for each 4 KiB of the file two or four bytes behind its inode (the
//! compact form of Linux' `fs/erofs/zmap.c`).

use super::BLOCK_BYTES;

const BLOCK: usize = 4096;

const HEADER_BYTES: usize = 8;

/// Packs of sixteen entries of two bytes are there, where they fit.
const ADVISE_TWO_BYTES: u16 = 1;

/// One block of the image, and how much of the file is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cluster {
    pub(super) len_bytes: u32,
    /// As it is, not compressed.
    pub(super) is_plain: bool,
}

/// How many entries of which kind there are.
struct Shape {
    /// Zeros in front, so that the header stands at a multiple of eight.
    pad_bytes: usize,
    /// Packs of two, up to a multiple of 32 bytes.
    first: usize,
    /// Packs of sixteen.
    middle: usize,
    /// Packs of two.
    last: usize,
}

impl Shape {
    /// Of what stands so many bytes behind a multiple of 32, for so many entries.
    fn new(at: usize, entries: usize) -> Self {
        let pad_bytes = at.next_multiple_of(8) - at;
        let ahead = (32 - (at + pad_bytes + HEADER_BYTES) % 32) % 32 / 4;
        if ahead >= entries {
            return Self { pad_bytes, first: entries.div_ceil(2), middle: 0, last: 0 };
        }
        let middle = (entries - ahead) / 16;
        Self { pad_bytes, first: ahead / 2, middle, last: (entries - ahead - 16 * middle).div_ceil(2) }
    }

    fn len_bytes(&self) -> usize {
        self.pad_bytes + HEADER_BYTES + 8 * self.first + 32 * self.middle + 8 * self.last
    }

    /// How many entries each pack has, in order.
    fn packs(&self) -> impl Iterator<Item = usize> {
        let of = |count, entries| std::iter::repeat_n(entries, count);
        of(self.first, 2).chain(of(self.middle, 16)).chain(of(self.last, 2))
    }
}

fn entries(len_bytes: u64) -> usize {
    usize::try_from(len_bytes.div_ceil(BLOCK_BYTES)).unwrap_or(usize::MAX)
}

/// Length of what [`encode`] makes.
pub(super) fn len_bytes(at: usize, len_bytes: u64) -> usize {
    Shape::new(at, entries(len_bytes)).len_bytes()
}

/// What an entry tells of its 4 KiB.
#[derive(Clone, Copy)]
enum Entry {
    /// A cluster starts here, so many bytes in.
    Head { offset: u16, is_plain: bool },
    /// Here goes on what started so many entries before; so many entries on another starts.
    Inside { back: u16, ahead: u16 },
}

impl Entry {
    const NONE: Self = Self::Head { offset: 0, is_plain: true };

    /// Its fourteen bits. The last one of a pack tells what comes, the others what was.
    fn bits(self, is_last: bool) -> u32 {
        match self {
            Self::Head { offset, is_plain } => u32::from(offset) | if is_plain { 0 } else { 1 << 12 },
            Self::Inside { back, ahead } => u32::from(if is_last { ahead } else { back }) | 2 << 12,
        }
    }
}

/// The index of a file of `len_bytes` whose clusters stand in blocks from `first_block` on. It stands so many bytes behind
/// a multiple of 32.
pub(super) fn encode(at: usize, clusters: &[Cluster], len_bytes: u64, first_block: u32) -> Vec<u8> {
    let all = read(clusters, len_bytes);
    let shape = Shape::new(at, all.len());
    let mut bytes = vec![0; shape.pad_bytes + 4];
    bytes.extend_from_slice(&ADVISE_TWO_BYTES.to_le_bytes());
    bytes.extend_from_slice(&[0; 2]);
    let mut rest = &all[..];
    let mut block = first_block;
    for count in shape.packs() {
        let (pack, behind) = rest.split_at(count.min(rest.len()));
        rest = behind;
        let bits = if count == 16 { 14 } else { 16 };
        let mut packed = [0_u8; 28];
        for (index, entry) in pack.iter().chain(std::iter::repeat(&Entry::NONE)).take(count).enumerate() {
            let start = index * bits;
            let word = entry.bits(index + 1 == count) << (start % 8);
            word.to_le_bytes().iter().zip(packed.iter_mut().skip(start / 8)).for_each(|(from, to)| *to |= from);
        }
        bytes.extend_from_slice(&packed[..count * bits / 8]);
        // Heads count on from the block before the first one's.
        bytes.extend_from_slice(&block.wrapping_sub(1).to_le_bytes());
        let heads = pack.iter().filter(|entry| matches!(entry, Entry::Head { .. })).count();
        block = block.wrapping_add(u32::try_from(heads).unwrap_or(0));
    }
    bytes
}

fn read(clusters: &[Cluster], len_bytes: u64) -> Vec<Entry> {
    let short = |number: usize| u16::try_from(number).unwrap_or(u16::MAX);
    let count = entries(len_bytes);
    let mut all = vec![Entry::NONE; count];
    let mut start = 0_usize;
    for cluster in clusters {
        let head = start / BLOCK;
        all[head] = Entry::Head { offset: short(start % BLOCK), is_plain: cluster.is_plain };
        start += cluster.len_bytes as usize;
        // The end of a file counts as the start of another cluster, so that the last one's length is known.
        let next = (start / BLOCK).min(count);
        for (inside, entry) in all.iter_mut().enumerate().take(next).skip(head + 1) {
            *entry = Entry::Inside { back: short(inside - head), ahead: short(next - inside) };
        }
        if next > head && next < count {
            all[next] = Entry::Head { offset: short(start % BLOCK), is_plain: true };
        }
    }
    all
}

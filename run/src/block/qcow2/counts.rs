//! The counts of a block of them: how many refer to a cluster, in 2^order bits each.

use std::ops::Range;

use super::tables::number;

/// Where a count is in its block. Counts of less than a byte begin at the low end of theirs.
#[derive(Debug, Clone, Copy)]
pub struct CountPlace {
    /// The first byte that it is in.
    pub start: u64,
    /// In how many bytes it is.
    pub len: usize,
    shift: u32,
    mask: u64,
}

impl CountPlace {
    /// The count with this index in its block. `order` is at most 6.
    pub fn of(index: u64, order: u32) -> Self {
        let (first_bit, bits) = (index << order, 1 << order);
        let shift = u32::try_from(first_bit & 7).unwrap_or(0);
        Self { start: first_bit >> 3, len: (bits >> 3).max(1), shift, mask: u64::MAX >> (64 - bits) }
    }

    /// The count, from the bytes that it is in.
    pub fn read(self, bytes: &[u8]) -> u64 {
        (number(bytes) >> self.shift) & self.mask
    }

    /// Makes it one, in the bytes that it is in, where it is zero.
    pub fn make_one(self, bytes: &mut [u8]) {
        if let Some(last) = bytes.last_mut() {
            *last |= 1 << self.shift;
        }
    }

    fn range(self) -> Option<Range<usize>> {
        let start = usize::try_from(self.start).ok()?;
        Some(start..start + self.len)
    }
}

/// One count of a block of them; what is not in it counts none.
pub fn count(block: &[u8], at: usize, order: u32) -> u64 {
    let place = CountPlace::of(at as u64, order);
    place.range().and_then(|range| block.get(range)).map_or(0, |bytes| place.read(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_its_own_bits_and_no_others() {
        // An order, an index, and the byte and bits of its low end.
        for (order, index, byte, shift) in [
            (0, 0, 0, 0),
            (0, 7, 0, 7),
            (0, 8, 1, 0),
            (1, 3, 0, 6),
            (2, 3, 1, 4),
            (3, 5, 5, 0),
            (4, 5, 11, 0),
            (5, 1, 7, 0),
            (6, 1, 15, 0),
        ] {
            let largest = u64::MAX >> (64 - (1_u32 << order));
            let mut block = [0; 32];
            let place = CountPlace::of(index, order);
            let range = place.range().unwrap();
            place.make_one(&mut block[range.clone()]);
            let mut expected = [0; 32];
            expected[byte] = 1_u8 << shift;
            assert_eq!(block, expected, "order {order}, {index}");
            assert_eq!(place.read(&block[range]), 1);
            let at = usize::try_from(index).unwrap();
            assert_eq!((count(&block, at, order), count(&[0xff; 32], at, order)), (1, largest));
            assert_eq!((count(&block, at + 1, order), count(&[], at, order)), (0, 0));
        }
    }
}

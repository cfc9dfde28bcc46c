//! What the kernel is told about memory.

use crate::layout::{EBDA_START, ECAM_LEN, ECAM_START, KERNEL_START};
use crate::mem::Split;

/// One range of the map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// First address.
    pub start: u64,
    /// Bytes.
    pub len_bytes: u64,
    /// What is there, as both protocols number it.
    pub kind: Kind,
}

/// What is in a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// Memory to use.
    Ram = 1,
    /// Not to be used.
    Reserved = 2,
}

/// The map of a machine with this memory, in rising order.
pub fn ranges(split: Split) -> Vec<Range> {
    let range = |start, end: u64, kind| Range { start, len_bytes: end.saturating_sub(start), kind };
    let mut map = vec![
        range(0, EBDA_START, Kind::Ram),
        range(EBDA_START, KERNEL_START, Kind::Reserved),
        range(KERNEL_START, split.low_bytes, Kind::Ram),
        range(ECAM_START, ECAM_START + ECAM_LEN, Kind::Reserved),
    ];
    map.extend(split.pieces().skip(1).map(|(start, len)| range(start, start + len, Kind::Ram)));
    map
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{GIB, MIB};

    #[test]
    fn ranges_rise_without_overlap_and_hold_all_memory() {
        for ram in [64 * MIB, 3 * GIB, 5 * GIB] {
            let map = ranges(Split::new(ram));
            assert!(map.windows(2).all(|pair| pair[0].start + pair[0].len_bytes <= pair[1].start));
            let usable: u64 = map.iter().filter(|range| range.kind == Kind::Ram).map(|range| range.len_bytes).sum();
            assert_eq!(usable, ram - (MIB - EBDA_START));
        }
    }
}

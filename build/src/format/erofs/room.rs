//! Where inodes go: slots of 32 bytes, of which a block has 128. An inode and what stands behind it in the same slots is
//! put where it fits best, so that few blocks have gaps.

use std::collections::VecDeque;

use super::BLOCK_BYTES;

/// An inode's number is that of its first slot.
pub(super) const SLOT_BYTES: u64 = 32;

const SLOTS_A_BLOCK: u64 = BLOCK_BYTES / SLOT_BYTES;

/// Blocks that may still be filled: neighbours in the tree stay within 256 KiB.
const OPEN_BLOCKS: usize = 64;

/// The slots behind the superblock, which ends 1152 bytes into the first block.
const FIRST_SLOT: u64 = 36;

/// Slots that were given out.
pub(super) struct Room {
    blocks: u64,
    /// Blocks that are not full, and how many of their slots are taken.
    open: VecDeque<(u64, u64)>,
}

impl Room {
    pub(super) fn new() -> Self {
        Self { blocks: 1, open: VecDeque::from([(0, FIRST_SLOT)]) }
    }

    /// How many blocks have slots that were given out.
    pub(super) fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Slots for `len_bytes`, all in one block if that can be, else in blocks of their own. Gives the first one's number.
    pub(super) fn take(&mut self, len_bytes: u64) -> u64 {
        let slots = len_bytes.div_ceil(SLOT_BYTES);
        let fits = |taken: u64| taken + slots <= SLOTS_A_BLOCK;
        let best =
            self.open.iter().enumerate().filter(|(_, (_, taken))| fits(*taken)).max_by_key(|(index, (_, taken))| {
                // The first of equals.
                (*taken, usize::MAX - index)
            });
        if let Some((index, &(block, taken))) = best {
            self.fill(index, taken + slots);
            return block * SLOTS_A_BLOCK + taken;
        }
        let first = self.blocks;
        self.blocks += slots.div_ceil(SLOTS_A_BLOCK).max(1);
        self.open.push_back((self.blocks - 1, 0));
        self.fill(self.open.len() - 1, slots - (self.blocks - 1 - first) * SLOTS_A_BLOCK);
        if self.open.len() > OPEN_BLOCKS {
            self.open.pop_front();
        }
        first * SLOTS_A_BLOCK
    }

    fn fill(&mut self, index: usize, taken: u64) {
        if taken == SLOTS_A_BLOCK {
            self.open.remove(index);
        } else if let Some(block) = self.open.get_mut(index) {
            block.1 = taken;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_taken_once_and_stay_in_a_block_where_they_can() {
        let mut room = Room::new();
        let mut taken = std::collections::BTreeSet::new();
        let mut state = 1_u64;
        for round in 0..5_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let len_bytes = 1 + (state >> 33) % if round % 50 == 0 { 20_000 } else { 3_000 };
            let first = room.take(len_bytes);
            let end = first + len_bytes.div_ceil(SLOT_BYTES);
            if len_bytes <= BLOCK_BYTES {
                assert_eq!(first / SLOTS_A_BLOCK, (end - 1) / SLOTS_A_BLOCK, "{len_bytes} bytes cross a block");
            }
            assert!((first..end).all(|slot| slot >= FIRST_SLOT && taken.insert(slot)), "a slot is taken twice");
            assert!(end <= room.blocks() * SLOTS_A_BLOCK);
        }
        let all = room.blocks() * SLOTS_A_BLOCK;
        assert!(taken.len() as u64 * 100 > all * 95, "{} of {all}", taken.len());
    }
}

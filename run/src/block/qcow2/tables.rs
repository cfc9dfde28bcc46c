//! Where an image has its tables, and what they are made of: entries of eight bytes, the high one first.

/// Bytes of an entry.
pub(super) const ENTRY_BYTES: u64 = 8;
/// Where an entry of the L1 or an L2 table points to (QEMU's `docs/interop/qcow2.txt`, "Cluster mapping").
pub(super) const OFFSET_BITS: u64 = 0x00ff_ffff_ffff_fe00;

/// Where a table is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Table {
    /// In the file, in bytes.
    pub offset: u64,
    /// How many entries.
    pub entries: u64,
}

impl Table {
    /// Whether one of its entries begins at this offset of the file.
    pub fn holds(&self, offset: u64) -> bool {
        let inside = offset.checked_sub(self.offset);
        inside.is_some_and(|inside| inside.is_multiple_of(ENTRY_BYTES) && inside / ENTRY_BYTES < self.entries)
    }
}

/// Where an image has its tables, as its header says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tables {
    /// Size of a cluster, as a power of two.
    pub cluster_bits: u32,
    /// The L1 table in use.
    pub first: Table,
    /// The table of blocks of counts.
    pub counts: Table,
    /// Bits of a count, as a power of two.
    pub count_order: u32,
    /// How many snapshots there are, and where their table is.
    pub snapshots: u32,
    pub snapshots_offset: u64,
}

impl Tables {
    /// How many clusters a block of counts is for.
    pub fn counts_per_block(&self) -> u64 {
        1 << (self.cluster_bits + 3 - self.count_order)
    }
}

/// A number of up to eight bytes, the high one first.
pub(super) fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

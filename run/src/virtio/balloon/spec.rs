//! Numbers of the memory balloon (section 5.5).

/// Unit of all addresses and counts, in bytes (5.5.6).
pub(super) const PAGE_BYTES: u64 = 4096;
/// Bytes of one page number in the inflate and deflate queues.
pub(super) const PAGE_NUMBER_BYTES: usize = 4;

/// Feature bits (5.5.3), as masks.
pub(super) mod feature {
    /// The statistics queue exists.
    pub const STATS_VQ: u64 = 1 << 1;
    /// The guest may take pages out of the balloon before it kills a program for want of memory.
    pub const DEFLATE_ON_OOM: u64 = 1 << 2;
    /// The reporting queue exists.
    pub const REPORTING: u64 = 1 << 5;
}

/// Queues (5.5.2).
pub(super) mod queue {
    pub const INFLATE: u16 = 0;
    pub const DEFLATE: u16 = 1;
    pub const STATS: u16 = 2;
    /// By the specification the queue of a feature that is not offered. Drivers before Linux 6.11 leave no hole for it: it
    /// is then their reporting queue.
    pub const REPORTING_WITHOUT_HOLE: u16 = 3;
    pub const REPORTING: u16 = 4;
}

/// Device configuration (5.5.4): pages that the balloon should have, then pages that it has.
pub(super) mod config {
    pub const ACTUAL: u64 = 4;
    pub const BYTES: usize = 8;
}

/// Entries of the statistics queue (5.5.6.3): a tag of 16 bits, a value of 64.
pub(super) mod stats {
    pub const ENTRY_BYTES: usize = 10;
    /// Memory that no program or file uses, in bytes.
    pub const FREE: u16 = 4;
    /// All memory that the guest's kernel has, in bytes.
    pub const TOTAL: u16 = 5;
    /// Memory that new programs could have without swapping, in bytes.
    pub const AVAILABLE: u16 = 6;
}

//! Folders of the host's that the guest sees.

use std::path::PathBuf;

/// Longest tag, in bytes (Virtual I/O Device 1.2, section 5.11.4).
pub const TAG_LIMIT_BYTES: usize = 36;
/// Most shares: each has three threads.
pub const MAX_SHARES: usize = 8;

/// One folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Share {
    /// The folder.
    pub folder: PathBuf,
    /// What the guest mounts it by.
    pub tag: String,
    /// The guest may not change anything.
    pub read_only: bool,
    /// How long the guest may believe names and attributes without asking, in seconds; it sees changes by the host that
    /// much later.
    pub cache_s: u32,
    /// The host watches it, and the agent in the guest is told of what changes.
    pub watch: bool,
    /// Users that have another number in the guest; without one, root has the host's numbers, and any other user of the
    /// host is root in the guest.
    pub users: Vec<IdRange>,
    /// The same for groups.
    pub groups: Vec<IdRange>,
}

/// Numbers of users or groups that are others in the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// The first, in the guest.
    pub guest: u32,
    /// The first, on the host.
    pub host: u32,
    /// How many.
    pub count: u32,
}

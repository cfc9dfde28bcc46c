//! Numbers of the file system device (Virtual I/O Device 1.2, section 5.11). No logic.

/// The device's configuration (5.11.4).
pub(super) mod config {
    /// Length of the tag, which zeros fill.
    pub(in super::super) const TAG_BYTES: usize = crate::config::TAG_LIMIT_BYTES;
    /// Number of request queues.
    pub(in super::super) const REQUEST_QUEUES: usize = TAG_BYTES;
    /// Length of what a driver can read.
    pub(in super::super) const BYTES: usize = REQUEST_QUEUES + 4;
}

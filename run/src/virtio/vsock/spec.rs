//! Numbers of section 5.10. No logic.

/// Feature bits (5.10.3), as masks.
pub mod feature {
    /// Streams.
    pub const STREAM: u64 = 1 << 0;
    /// Messages.
    pub const SEQPACKET: u64 = 1 << 1;
}

/// Event: all connections are gone, and the guest's number may be another one (5.10.6.7).
pub const TRANSPORT_RESET: u32 = 0;

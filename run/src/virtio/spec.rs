//! Numbers of the Virtual I/O Device specification, version 1.2, that every device shares. No logic.

/// Kinds of devices (section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum DeviceType {
    /// Network card (5.1).
    Net = 1,
    /// Block device (5.2).
    Block = 2,
    /// Console (5.3).
    Console = 3,
    /// Entropy source (5.4).
    Entropy = 4,
    /// Traditional memory balloon (5.5).
    Balloon = 5,
    /// Socket device (5.10).
    Socket = 19,
    /// File system (5.11).
    FileSystem = 26,
}

/// Bits of the device status field (2.1).
pub mod status {
    /// The driver has found the device.
    pub const ACKNOWLEDGE: u8 = 1;
    /// The driver knows how to drive it.
    pub const DRIVER: u8 = 2;
    /// The driver is set up: the device is live.
    pub const DRIVER_OK: u8 = 4;
    /// Features are agreed on.
    pub const FEATURES_OK: u8 = 8;
    /// The device met an error from which only a reset recovers.
    pub const DEVICE_NEEDS_RESET: u8 = 64;
    /// The driver has given up.
    pub const FAILED: u8 = 128;
}

/// Reserved feature bits (section 6), as masks.
pub mod feature {
    /// A descriptor may point to a table of descriptors (2.7.5.3).
    pub const INDIRECT_DESC: u64 = 1 << 28;
    /// Either side says from which entry on it wants to be told (2.7.7.1, 2.7.10).
    pub const EVENT_IDX: u64 = 1 << 29;
    /// Not a legacy device.
    pub const VERSION_1: u64 = 1 << 32;
}

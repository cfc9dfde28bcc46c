//! Numbers of the network card's section, 5.1, in version 1.3 of the specification where 1.2 does not have them. No
//! logic.

/// Feature bits (5.1.3), as masks.
pub mod feature {
    /// The device takes frames whose checksum is not complete.
    pub const CSUM: u64 = 1 << 0;
    /// So does the driver.
    pub const GUEST_CSUM: u64 = 1 << 1;
    /// The driver may change what it takes while it runs.
    pub const CTRL_GUEST_OFFLOADS: u64 = 1 << 2;
    /// The device tells the largest packet.
    pub const MTU: u64 = 1 << 3;
    /// The device has an address.
    pub const MAC: u64 = 1 << 5;
    /// The driver takes TCP segments over IPv4 that are longer than the link allows.
    pub const GUEST_TSO4: u64 = 1 << 7;
    /// The same over IPv6.
    pub const GUEST_TSO6: u64 = 1 << 8;
    /// So does the device, over IPv4.
    pub const HOST_TSO4: u64 = 1 << 11;
    /// So does the device, over IPv6.
    pub const HOST_TSO6: u64 = 1 << 12;
    /// A frame may lie in several chains of the receive queue.
    pub const MRG_RXBUF: u64 = 1 << 15;
    /// The device tells whether the link is up.
    pub const STATUS: u64 = 1 << 16;
    /// There is a queue for commands.
    pub const CTRL_VQ: u64 = 1 << 17;
    /// The driver takes several UDP datagrams over IPv4 in one frame (1.3).
    pub const GUEST_USO4: u64 = 1 << 54;
    /// The same over IPv6 (1.3).
    pub const GUEST_USO6: u64 = 1 << 55;
    /// The device takes several UDP datagrams in one frame (1.3).
    pub const HOST_USO: u64 = 1 << 56;

    /// What the driver may switch off and on again while it runs (5.1.6.5.6.1).
    pub const GUEST_OFFLOADS: u64 = GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6 | GUEST_USO4 | GUEST_USO6;
}

/// The configuration (5.1.4): address, status, number of queue pairs, MTU.
pub mod config {
    /// Offset of the link's status.
    pub const STATUS: usize = 6;
    /// Offset of the number of queue pairs.
    pub const MAX_QUEUE_PAIRS: usize = 8;
    /// Offset of the largest packet.
    pub const MTU: usize = 10;
    /// Its length.
    pub const BYTES: usize = 12;
    /// The link is up.
    pub const LINK_UP: u16 = 1;
}

/// Commands of the driver (5.1.6.5): class, command, what it is about, and room for the answer.
pub mod command {
    /// Class of changes to what the driver takes.
    pub const GUEST_OFFLOADS: u8 = 5;
    /// Its one command: the features that count from now on, in eight bytes.
    pub const GUEST_OFFLOADS_SET: u8 = 0;
    /// Length of such a command.
    pub const BYTES: usize = 10;
    /// The answer: done.
    pub const OK: u8 = 0;
    /// The answer: not done.
    pub const ERROR: u8 = 1;
}

/// The header in front of each frame (5.1.6).
pub mod header {
    /// Its length.
    pub const BYTES: usize = 12;
}

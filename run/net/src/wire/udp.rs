//! UDP (RFC 768).

use super::{Malformed, u16_at};

/// Length of the header.
pub const UDP_HEADER_BYTES: usize = 8;

/// The header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Udp {
    /// Where it comes from.
    pub source_port: u16,
    /// Where it goes.
    pub destination_port: u16,
    /// Header and payload, in bytes: at least the header, and inside of the packet.
    pub len_bytes: u16,
}

impl Udp {
    /// Reads it from a packet's content of `content_bytes`.
    pub fn read(bytes: &[u8], content_bytes: usize) -> Result<Self, Malformed> {
        let len_bytes = u16_at(bytes, 4)?;
        if usize::from(len_bytes) < UDP_HEADER_BYTES || usize::from(len_bytes) > content_bytes {
            return Err(Malformed::Length);
        }
        Ok(Self { source_port: u16_at(bytes, 0)?, destination_port: u16_at(bytes, 2)?, len_bytes })
    }
}

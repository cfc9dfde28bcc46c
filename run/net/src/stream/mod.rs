//! A port over a Unix stream socket: each frame behind its length, four bytes, the highest first. QEMU's `-netdev stream`,
//! passt, gvproxy and socket_vmnet speak so.

mod incoming;
mod port;
mod train;

pub use incoming::Incoming;
pub use port::StreamPort;

use crate::wire::{HEADERS_LIMIT_BYTES, Malformed, Offload, VIRTIO_HEADER_BYTES};

/// The length in front of each frame.
pub const LENGTH_BYTES: usize = 4;
/// Longest frame: a segment of 64 KiB with its headers.
const FRAME_LIMIT_BYTES: usize = 65_536 + HEADERS_LIMIT_BYTES;

/// The frame in front of which virtio's header stands, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Ethernet frames with complete checksums.
    Plain,
    /// In front of each the twelve bytes of virtio-net (Virtual I/O Device 1.2, section 5.1.6), which tell of checksums and
    /// segments.
    Virtio,
}

impl Framing {
    /// Takes apart what came as one: the frame, and what is not done about it.
    ///
    /// # Errors
    /// The header in front of it cannot be one.
    pub fn split(self, whole: &[u8]) -> Result<(&[u8], Offload), Malformed> {
        let Self::Virtio = self else { return Ok((whole, Offload::default())) };
        let (header, frame) = whole.split_first_chunk().ok_or(Malformed::Short)?;
        Ok((frame, Offload::read(header, frame.len())?))
    }

    fn header_bytes(self) -> usize {
        match self {
            Self::Plain => 0,
            Self::Virtio => VIRTIO_HEADER_BYTES,
        }
    }
}

#[cfg(test)]
mod tests;

//! The header of a packet (Virtual I/O Device specification, version 1.2, section 5.10.6).

use crate::config::VsockKind;

/// Length of a header.
pub const HEADER_BYTES: usize = 44;

/// What a packet is for (5.10.6, `VIRTIO_VSOCK_OP_*`).
pub mod op {
    /// Asks for a connection.
    pub const REQUEST: u16 = 1;
    /// Takes it.
    pub const RESPONSE: u16 = 2;
    /// Ends it at once, or refuses it.
    pub const RESET: u16 = 3;
    /// Says which ways are no longer used.
    pub const SHUTDOWN: u16 = 4;
    /// Carries data.
    pub const DATA: u16 = 5;
    /// Says how much was taken.
    pub const CREDIT_UPDATE: u16 = 6;
    /// Asks for that.
    pub const CREDIT_REQUEST: u16 = 7;
}

/// Flags of [`op::SHUTDOWN`] (5.10.6.5).
pub mod shutdown {
    /// The sender receives no more.
    pub const RECEIVE: u32 = 1;
    /// The sender sends no more.
    pub const SEND: u32 = 2;
    /// Neither.
    pub const BOTH: u32 = RECEIVE | SEND;
}

/// Flag of [`op::DATA`]: a message ends here (5.10.6.6.1, `VIRTIO_VSOCK_SEQ_EOM`).
pub const END_OF_MESSAGE: u32 = 1;

/// The header of a packet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Header {
    /// Number of the sender.
    pub src_cid: u64,
    /// Number of the receiver.
    pub dst_cid: u64,
    /// Port of the sender.
    pub src_port: u32,
    /// Port of the receiver.
    pub dst_port: u32,
    /// Bytes of data behind the header.
    pub len: u32,
    /// Stream or messages.
    pub kind: u16,
    /// What it is for.
    pub op: u16,
    /// Depends on that.
    pub flags: u32,
    /// Bytes that the sender keeps at most.
    pub buf_alloc: u32,
    /// Bytes that the sender has passed on so far, modulo 2^32.
    pub fwd_cnt: u32,
}

impl Header {
    /// Reads it; any bytes make a header.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; HEADER_BYTES]) -> Self {
        let mut rest = &bytes[..];
        let mut number = |count: usize| {
            let (value, behind) = rest.split_at(count);
            rest = behind;
            value.iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte))
        };
        #[expect(clippy::cast_possible_truncation, reason = "each field is read with its own length")]
        Self {
            src_cid: number(8),
            dst_cid: number(8),
            src_port: number(4) as u32,
            dst_port: number(4) as u32,
            len: number(4) as u32,
            kind: number(2) as u16,
            op: number(2) as u16,
            flags: number(4) as u32,
            buf_alloc: number(4) as u32,
            fwd_cnt: number(4) as u32,
        }
    }

    /// As it lies in memory.
    #[must_use]
    pub fn bytes(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..8].copy_from_slice(&self.src_cid.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.dst_cid.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.src_port.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.dst_port.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.len.to_le_bytes());
        bytes[28..30].copy_from_slice(&self.kind.to_le_bytes());
        bytes[30..32].copy_from_slice(&self.op.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.flags.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.buf_alloc.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.fwd_cnt.to_le_bytes());
        bytes
    }

    /// A packet of the same connection that goes the other way, with nothing in it.
    #[must_use]
    pub fn back(&self, op: u16) -> Self {
        Self {
            src_cid: self.dst_cid,
            dst_cid: self.src_cid,
            src_port: self.dst_port,
            dst_port: self.src_port,
            kind: self.kind,
            op,
            ..Self::default()
        }
    }

    /// What the connection carries; `None` if nobody knows.
    #[must_use]
    pub fn kind(&self) -> Option<VsockKind> {
        match self.kind {
            1 => Some(VsockKind::Stream),
            2 => Some(VsockKind::SeqPacket),
            _ => None,
        }
    }
}

/// The number that stands for it in a header (5.10.6, `VIRTIO_VSOCK_TYPE_*`).
#[must_use]
pub fn kind_number(kind: VsockKind) -> u16 {
    match kind {
        VsockKind::Stream => 1,
        VsockKind::SeqPacket => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back_as_it_was() {
        let mut bytes = [0; HEADER_BYTES];
        for (at, byte) in (1..).zip(&mut bytes) {
            *byte = at;
        }
        let header = Header::from_bytes(&bytes);
        assert_eq!((header.src_cid, header.dst_port), (0x0807_0605_0403_0201, 0x1817_1615));
        assert_eq!((header.kind, header.op, header.fwd_cnt), (0x1e1d, 0x201f, 0x2c2b_2a29));
        assert_eq!(header.bytes(), bytes);
    }
}

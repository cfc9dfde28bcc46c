//! Netlink messages (`netlink(7)`), written and read: a header, a body of fixed length, attributes.

/// `NLM_F_REQUEST | NLM_F_ACK`.
const REQUEST: u16 = 0x5;
/// `NLM_F_DUMP`.
pub const DUMP: u16 = 0x300;
/// `NLM_F_REPLACE`.
pub const REPLACE: u16 = 0x100;
/// `NLM_F_EXCL`.
pub const EXCLUSIVE: u16 = 0x200;
/// `NLM_F_CREATE`.
pub const CREATE: u16 = 0x400;

/// `NLMSG_ERROR`: the kernel's answer, with code 0 for success.
pub const ERROR: u16 = 2;
/// `NLMSG_DONE`: the end of a list.
pub const DONE: u16 = 3;

/// `struct nlmsghdr`.
pub const HEADER_BYTES: usize = 16;
const ATTRIBUTE_HEADER_BYTES: usize = 4;

/// A request under construction.
pub struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// A request that the kernel acknowledges.
    pub fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend(0_u32.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((flags | REQUEST).to_ne_bytes());
        // Sequence number and port are the socket's and the kernel's.
        bytes.extend([0; 8]);
        Self { bytes }
    }

    /// Adds what stands in front of attributes.
    pub fn body(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// Adds an attribute.
    pub fn attribute(&mut self, kind: u16, value: &[u8]) {
        let at = self.open(kind);
        self.bytes.extend(value);
        self.close(at);
    }

    /// Begins an attribute that holds others.
    pub fn open(&mut self, kind: u16) -> usize {
        let at = self.bytes.len();
        self.bytes.extend([0; 2]);
        self.bytes.extend(kind.to_ne_bytes());
        at
    }

    /// Ends what [`open`](Self::open) began.
    pub fn close(&mut self, at: usize) {
        let len = u16::try_from(self.bytes.len().saturating_sub(at)).unwrap_or(u16::MAX);
        if let Some(field) = self.bytes.get_mut(at..at.saturating_add(2)) {
            field.copy_from_slice(&len.to_ne_bytes());
        }
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }

    /// The whole, with its length.
    pub fn finish(mut self) -> Vec<u8> {
        let len = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        if let Some(field) = self.bytes.get_mut(..4) {
            field.copy_from_slice(&len.to_ne_bytes());
        }
        self.bytes
    }
}

/// One message of a datagram from the kernel.
pub struct Part<'a> {
    /// Its kind.
    pub kind: u16,
    /// Which request it answers.
    pub sequence: u32,
    /// What is behind the header.
    pub body: &'a [u8],
}

/// The messages of a datagram, up to the first that is cut short.
pub fn parts(mut datagram: &[u8]) -> impl Iterator<Item = Part<'_>> {
    std::iter::from_fn(move || {
        let len = usize::try_from(u32_at(datagram, 0)?).ok()?;
        let (kind, sequence) = (u16_at(datagram, 4)?, u32_at(datagram, 8)?);
        let body = datagram.get(HEADER_BYTES..len)?;
        datagram = datagram.get(len.checked_next_multiple_of(4)?..).unwrap_or_default();
        Some(Part { kind, sequence, body })
    })
}

/// Attributes, with their kind, up to the first that is cut short.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    /// `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER` are no part of the kind.
    const KIND: u16 = 0x3fff;
    std::iter::from_fn(move || {
        let len = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & KIND;
        let value = bytes.get(ATTRIBUTE_HEADER_BYTES..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// A number of the machine's own byte order.
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

/// A number of the machine's own byte order.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_short_ends_the_list_and_never_loops() {
        let mut message = Message::new(16, 0);
        message.body(&[0; 16]);
        message.attribute(3, b"eth0\0");
        message.attribute(4, &1500_u32.to_ne_bytes());
        let whole = message.finish();
        for len in 0..whole.len() {
            assert_eq!(parts(&whole[..len]).count(), 0);
            assert!(attributes(&whole[32..][..len.saturating_sub(32)]).count() < 2);
        }
        let part = parts(&whole).next().unwrap();
        let read: Vec<_> = attributes(&part.body[16..]).collect();
        assert_eq!((part.kind, read), (16, vec![(3, &b"eth0\0"[..]), (4, &1500_u32.to_ne_bytes()[..])]));
        assert_eq!(parts(&[0; 64]).count(), 0, "a length below that of the header");
        assert_eq!(attributes(&[0; 64]).count(), 0);
    }
}

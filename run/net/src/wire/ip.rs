//! IPv4 (RFC 791) and IPv6 (RFC 8200).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use super::{Checksum, Malformed, at, u16_at, u32_at};

pub(super) const IPV4_HEADER_BYTES: usize = 20;
pub(super) const IPV6_HEADER_BYTES: usize = 40;

/// IPv6 extension headers that are looked through in one packet; real ones have at most two.
const EXTENSIONS_LIMIT: usize = 6;

/// What a packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Protocol(pub u8);

impl Protocol {
    /// ICMP for IPv4.
    pub const ICMP: Self = Self(1);
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
    /// ICMP for IPv6.
    pub const ICMPV6: Self = Self(58);
    const HOP_BY_HOP: Self = Self(0);
    pub(super) const FRAGMENT: Self = Self(44);
    const DESTINATION_OPTIONS: Self = Self(60);
}

/// Which part of a packet this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment {
    /// What the parts of one packet have in common.
    pub id: u32,
    /// Where in the packet's content it starts.
    pub offset_bytes: u16,
    /// Whether there is something behind it.
    pub has_more: bool,
}

/// What is used of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ip {
    /// Who sent it.
    pub source: IpAddr,
    /// Whom it is for.
    pub destination: IpAddr,
    /// What it carries.
    pub protocol: Protocol,
    /// Time to live, hop limit.
    pub hop_limit: u8,
    /// Set for a packet that comes in parts.
    pub fragment: Option<Fragment>,
}

impl Ip {
    /// Reads IPv4's header from a frame's content of `content_bytes`; gives also where the packet's content is.
    pub fn read_v4(bytes: &[u8], content_bytes: usize) -> Result<(Self, Range<usize>), Malformed> {
        let [version_and_len] = at(bytes, 0)?;
        let header_bytes = usize::from(version_and_len & 0xf) * 4;
        if version_and_len >> 4 != 4 || header_bytes < IPV4_HEADER_BYTES {
            return Err(Malformed::Value);
        }
        let header = bytes.get(..header_bytes).ok_or(Malformed::Short)?;
        let mut sum = Checksum::default();
        sum.add(header);
        if sum.finish() != 0 {
            return Err(Malformed::Checksum);
        }
        let total_bytes = usize::from(u16_at(header, 2)?);
        if total_bytes < header_bytes || total_bytes > content_bytes {
            return Err(Malformed::Length);
        }
        let flags_and_offset = u16_at(header, 6)?;
        let has_more = flags_and_offset & 0x2000 != 0;
        let offset_bytes = (flags_and_offset & 0x1fff) << 3;
        let fragment = Fragment { id: u16_at(header, 4)?.into(), offset_bytes, has_more };
        let [hop_limit, protocol] = at(header, 8)?;
        let ip = Self {
            source: Ipv4Addr::from(at::<4>(header, 12)?).into(),
            destination: Ipv4Addr::from(at::<4>(header, 16)?).into(),
            protocol: Protocol(protocol),
            hop_limit,
            fragment: (has_more || offset_bytes > 0).then_some(fragment),
        };
        Ok((ip, header_bytes..total_bytes))
    }

    /// The same for IPv6, through its extension headers.
    pub fn read_v6(bytes: &[u8], content_bytes: usize) -> Result<(Self, Range<usize>), Malformed> {
        let [version] = at(bytes, 0)?;
        if version >> 4 != 6 {
            return Err(Malformed::Value);
        }
        let end = IPV6_HEADER_BYTES + usize::from(u16_at(bytes, 4)?);
        if end > content_bytes {
            return Err(Malformed::Length);
        }
        let [protocol, hop_limit] = at(bytes, 6)?;
        let mut ip = Self {
            source: Ipv6Addr::from(at::<16>(bytes, 8)?).into(),
            destination: Ipv6Addr::from(at::<16>(bytes, 24)?).into(),
            protocol: Protocol(protocol),
            hop_limit,
            fragment: None,
        };
        let mut start = IPV6_HEADER_BYTES;
        for _ in 0..EXTENSIONS_LIMIT {
            let [next, len] = match ip.protocol {
                Protocol::HOP_BY_HOP | Protocol::DESTINATION_OPTIONS | Protocol::FRAGMENT => at(bytes, start)?,
                _ => return Ok((ip, start..end)),
            };
            let len_bytes = match ip.protocol {
                Protocol::FRAGMENT => {
                    let offset_and_more = u16_at(bytes, start + 2)?;
                    let (offset_bytes, has_more) = (offset_and_more & !7, offset_and_more & 1 != 0);
                    // A packet in one part is whole (RFC 6946).
                    if offset_bytes > 0 || has_more {
                        ip.fragment = Some(Fragment { id: u32_at(bytes, start + 4)?, offset_bytes, has_more });
                    }
                    8
                }
                _ => (usize::from(len) + 1) * 8,
            };
            start += len_bytes;
            ip.protocol = Protocol(next);
            if start > end {
                return Err(Malformed::Length);
            }
            if ip.fragment.is_some() {
                return Ok((ip, start..end));
            }
        }
        Err(Malformed::Value)
    }
}

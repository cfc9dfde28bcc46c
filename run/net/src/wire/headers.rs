//! The headers of a frame that is sent to the guest, in one place, written from the outside in.

use std::net::IpAddr;

use super::ip::{IPV4_HEADER_BYTES, IPV6_HEADER_BYTES};
use super::offload::{TCP_CHECKSUM_OFFSET, UDP_CHECKSUM_OFFSET, put, put_ip_len, put_tcp};
use super::tcp::{TCP_HEADER_BYTES, write_options};
use super::udp::UDP_HEADER_BYTES;
use super::{
    Checksum, ETHERNET_HEADER_BYTES, EtherType, Ethernet, Ip, Mac, Malformed, Offload, Protocol, SegmentKind, Segments,
    Tcp, at,
};

/// The extension header of a fragment (RFC 8200 section 4.5).
const FRAGMENT_HEADER_BYTES: u16 = 8;

/// Ethernet, IPv6, TCP with all options.
const LIMIT_BYTES: usize = ETHERNET_HEADER_BYTES + IPV6_HEADER_BYTES + 60;

/// Headers, ready to be sent in front of a payload.
#[derive(Debug, Clone)]
pub struct Headers {
    bytes: [u8; LIMIT_BYTES],
    len: usize,
    offload: Offload,
}

impl Headers {
    /// Length of the headers of a TCP segment between these addresses, with `options`.
    pub fn tcp_len_bytes(source: IpAddr, tcp: &Tcp) -> usize {
        let ip_bytes = if source.is_ipv4() { IPV4_HEADER_BYTES } else { IPV6_HEADER_BYTES };
        ETHERNET_HEADER_BYTES + ip_bytes + TCP_HEADER_BYTES + write_options(&tcp.options).1
    }

    /// A TCP segment with `payload_bytes` behind it. Its checksum is that of the pseudo header.
    pub fn tcp(macs: Macs, ip: &Ip, tcp: &Tcp, payload_bytes: usize) -> Self {
        let (options, options_len) = write_options(&tcp.options);
        let header_bytes = TCP_HEADER_BYTES + options_len;
        let mut headers = Self::ip(macs, ip, header_bytes + payload_bytes);
        headers.put(&tcp.source_port.to_be_bytes());
        headers.put(&tcp.destination_port.to_be_bytes());
        headers.put(&tcp.seq.0.to_be_bytes());
        headers.put(&tcp.ack.0.to_be_bytes());
        headers.put(&[u8::try_from(header_bytes / 4).unwrap_or(0) << 4, tcp.flags.0]);
        headers.put(&tcp.window.to_be_bytes());
        headers.begin_checksum(ip, TCP_CHECKSUM_OFFSET, header_bytes + payload_bytes);
        headers.put(&[0; 2]);
        headers.put(options.get(..options_len).unwrap_or_default());
        headers
    }

    /// A UDP datagram with `payload_bytes` behind it. Its checksum is that of the pseudo header.
    pub fn udp(macs: Macs, ip: &Ip, source_port: u16, destination_port: u16, payload_bytes: usize) -> Self {
        let len_bytes = UDP_HEADER_BYTES + payload_bytes;
        let mut headers = Self::ip(macs, ip, len_bytes);
        headers.put(&source_port.to_be_bytes());
        headers.put(&destination_port.to_be_bytes());
        headers.put(&u16::try_from(len_bytes).unwrap_or(u16::MAX).to_be_bytes());
        headers.begin_checksum(ip, UDP_CHECKSUM_OFFSET, len_bytes);
        headers
    }

    /// An IP packet with `content_bytes` behind it, which bring their own checksum.
    pub fn ip(macs: Macs, ip: &Ip, content_bytes: usize) -> Self {
        let mut headers = Self { bytes: [0; LIMIT_BYTES], len: 0, offload: Offload::default() };
        let ether_type = if ip.source.is_ipv4() { EtherType::IPV4 } else { EtherType::IPV6 };
        let Macs { source, destination } = macs;
        headers.put(&Ethernet { destination, source, ether_type }.bytes());
        let content = u16::try_from(content_bytes).unwrap_or(u16::MAX);
        match (ip.source, ip.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let [a, b] = content.saturating_add(20).to_be_bytes();
                let ([.., c, d], [e, f]) = match ip.fragment {
                    Some(part) => (part.id.to_be_bytes(), fragment_word(part.offset_bytes >> 3, part.has_more, 0x2000)),
                    // Not to be made into fragments: then an identification says nothing (RFC 6864).
                    None => ([0; 4], [0x40, 0]),
                };
                let mut header = [0x45, 0, a, b, c, d, e, f, ip.hop_limit, ip.protocol.0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                header[12..16].copy_from_slice(&source.octets());
                header[16..].copy_from_slice(&destination.octets());
                let mut sum = Checksum::default();
                sum.add(&header);
                header[10..12].copy_from_slice(&sum.finish().to_be_bytes());
                headers.put(&header);
            }
            (source, destination) => {
                let extension_bytes = if ip.fragment.is_some() { FRAGMENT_HEADER_BYTES } else { 0 };
                let next = if ip.fragment.is_some() { Protocol::FRAGMENT } else { ip.protocol };
                let [a, b] = content.saturating_add(extension_bytes).to_be_bytes();
                headers.put(&[0x60, 0, 0, 0, a, b, next.0, ip.hop_limit]);
                for address in [source, destination] {
                    headers.put(&match address {
                        IpAddr::V6(address) => address.octets(),
                        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                    });
                }
                if let Some(part) = ip.fragment {
                    headers.put(&[ip.protocol.0, 0]);
                    headers.put(&fragment_word(part.offset_bytes, part.has_more, 1));
                    headers.put(&part.id.to_be_bytes());
                }
            }
        }
        headers
    }

    /// A whole short frame, which needs nothing done.
    pub fn whole(frame: &[u8]) -> Self {
        let mut headers = Self { bytes: [0; LIMIT_BYTES], len: 0, offload: Offload::default() };
        headers.put(frame);
        headers
    }

    /// The start of a frame that was made elsewhere, as headers with all it lacks, and the rest of it.
    pub fn of_frame<'a>(frame: &'a [u8], offload: &Offload) -> (Self, &'a [u8]) {
        let (start, rest) = frame.split_at(frame.len().min(LIMIT_BYTES));
        let mut headers = Self::whole(start);
        headers.offload = *offload;
        (headers, rest)
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Whether they are of IPv4.
    pub fn is_v4(&self) -> bool {
        self.bytes.get(12..14) == Some(&EtherType::IPV4.0.to_be_bytes())
    }

    /// What its receiver has to do.
    pub fn offload(&self) -> Offload {
        self.offload
    }

    /// Says that the payload stands for packets of `segment_bytes` each.
    pub fn set_segment_bytes(&mut self, segment_bytes: u16) {
        let kind = match self.offload.checksum_offset {
            UDP_CHECKSUM_OFFSET => SegmentKind::Udp,
            _ if self.is_v4() => SegmentKind::TcpV4,
            _ => SegmentKind::TcpV6,
        };
        let header_bytes = u16::try_from(self.len).unwrap_or(u16::MAX);
        self.offload.segments = Some(Segments { kind, header_bytes, payload_bytes: segment_bytes });
    }

    /// Those of one of the TCP segments that a payload of `payload_bytes` stands for, behind `sent_bytes` of others; and
    /// how much of the payload it has. All of it, if they stand for one.
    ///
    /// # Errors
    /// They are of something else.
    pub fn segment(&self, sent_bytes: usize, payload_bytes: usize) -> Result<(Self, usize), Malformed> {
        let Some(segments) = self.offload.segments else { return Ok((self.clone(), payload_bytes)) };
        if segments.kind == SegmentKind::Udp {
            return Err(Malformed::Value);
        }
        let segment_bytes = usize::from(segments.payload_bytes);
        let left = payload_bytes.saturating_sub(sent_bytes);
        let count = left.min(segment_bytes);
        let mut headers = self.clone();
        headers.offload.segments = None;
        let index = sent_bytes.checked_div(segment_bytes).ok_or(Malformed::Value)?;
        put_ip_len(&mut headers.bytes, self.len + count, index)?;
        let tcp = usize::from(self.offload.checksum_start);
        let sent = u32::try_from(sent_bytes).map_err(|_| Malformed::Length)?;
        put_tcp(&mut headers.bytes, tcp, sent, (sent_bytes == 0, count == left))?;
        // The sum of the pseudo header, of which the length is another now.
        let field = tcp + usize::from(self.offload.checksum_offset);
        let mut sum = Checksum::default();
        sum.add(&at::<2>(&self.bytes, field)?);
        let others = u16::try_from(payload_bytes - count).map_err(|_| Malformed::Length)?;
        sum.add(&(!others).to_be_bytes());
        put(&mut headers.bytes, field, &sum.partial().to_be_bytes())?;
        Ok((headers, count))
    }

    /// Completes the checksum over the payload, for a receiver that does not.
    pub fn complete_checksum(&mut self, payload: &[u8]) {
        let Offload { checksum_start, checksum_offset, .. } = self.offload;
        let start = usize::from(checksum_start);
        if start == 0 {
            return;
        }
        let mut sum = Checksum::default();
        sum.add(self.bytes.get(start..self.len).unwrap_or_default());
        sum.add(payload);
        let is_udp = checksum_offset == UDP_CHECKSUM_OFFSET;
        let checksum = match sum.finish() {
            // Zero means that there is none.
            0 if is_udp => 0xffff,
            other => other,
        };
        let field = start + usize::from(checksum_offset);
        if let Some(field) = self.bytes.get_mut(field..field + 2) {
            field.copy_from_slice(&checksum.to_be_bytes());
        }
        self.offload.checksum_start = 0;
    }

    /// Puts the sum of the pseudo header of a segment of `len_bytes`, whose field is `offset` bytes behind its start.
    fn begin_checksum(&mut self, ip: &Ip, offset: u16, len_bytes: usize) {
        let sum = Checksum::of_pseudo_header(ip.source, ip.destination, ip.protocol.0, len_bytes);
        self.offload.checksum_start = u16::try_from(self.len).unwrap_or(0).saturating_sub(offset);
        self.offload.checksum_offset = offset;
        self.put(&sum.partial().to_be_bytes());
    }

    fn put(&mut self, bytes: &[u8]) {
        if let Some(place) = self.bytes.get_mut(self.len..self.len + bytes.len()) {
            place.copy_from_slice(bytes);
            self.len += bytes.len();
        }
    }
}

/// Offset and flag in one.
fn fragment_word(offset: u16, has_more: bool, more: u16) -> [u8; 2] {
    (offset | if has_more { more } else { 0 }).to_be_bytes()
}

/// Both ends of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Macs {
    /// Who sends it.
    pub source: Mac,
    /// Whom it is for.
    pub destination: Mac,
}

impl Ip {
    /// A packet as it is sent here: whole, with 64 hops to go.
    pub fn new(source: IpAddr, destination: IpAddr, protocol: Protocol) -> Self {
        const HOP_LIMIT: u8 = 64;
        Self { source, destination, protocol, hop_limit: HOP_LIMIT, fragment: None }
    }
}

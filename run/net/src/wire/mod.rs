//! Headers of Ethernet, ARP, IP, ICMP, UDP and TCP: read with every length checked, and written.
//!
//! A frame's headers are copied once and only the copy is looked at, because a guest may change its memory at any time.
//! Payloads are never looked at here: they are ranges of the frame.

mod arp;
mod checksum;
mod ethernet;
mod headers;
mod ip;
mod join;
mod offload;
mod seq;
mod tcp;
mod udp;

pub use arp::{Arp, ArpOperation};
pub use checksum::Checksum;
pub use ethernet::{ETHERNET_HEADER_BYTES, EtherType, Ethernet, Mac, NoMac};
pub use headers::{Headers, Macs};
pub use ip::{Fragment, Ip, Protocol};
pub use join::Joined;
pub use offload::{Offload, SegmentKind, Segments, VIRTIO_HEADER_BYTES};
pub use seq::Seq;
pub use tcp::{SackBlocks, Tcp, TcpFlags, TcpOptions, Timestamps};
pub use udp::{UDP_HEADER_BYTES, Udp};

use std::ops::Range;

/// Headers longer than this are refused: Ethernet (14), IPv6 with extension headers, TCP with options (60).
pub const HEADERS_LIMIT_BYTES: usize = 256;

/// Why a frame is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It ends inside a header, or its headers are longer than [`HEADERS_LIMIT_BYTES`].
    #[error("the frame ends inside a header")]
    Short,
    /// A length field disagrees with the frame.
    #[error("a length field disagrees with the frame")]
    Length,
    /// A version, type or size that the protocol does not have.
    #[error("a field has a value that the protocol does not know")]
    Value,
    /// The checksum of a header is wrong.
    #[error("the checksum of a header is wrong")]
    Checksum,
}

/// A frame, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its Ethernet header.
    pub ethernet: Ethernet,
    /// What it carries.
    pub body: Body,
}

/// What a frame carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// An ARP packet.
    Arp(Arp),
    /// An IP packet, version 4 or 6.
    Ip {
        /// Its header.
        ip: Ip,
        /// What it carries.
        segment: Segment,
        /// Where the payload of the innermost header is in the frame.
        payload: Range<usize>,
    },
    /// Something that is not served here.
    Other,
}

/// What an IP packet carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// TCP.
    Tcp(Tcp),
    /// UDP.
    Udp(Udp),
    /// ICMP or ICMPv6: its header is part of the payload.
    Icmp,
    /// A part of a packet, or a protocol that is not served here.
    Opaque,
}

impl Frame {
    /// Reads a frame of `len_bytes` from its first bytes, `head`: all of it or at least [`HEADERS_LIMIT_BYTES`].
    ///
    /// # Errors
    /// What is wrong with it; nobody need be told.
    pub fn read(head: &[u8], len_bytes: usize) -> Result<Self, Malformed> {
        let (ethernet, rest) = Ethernet::read(head)?;
        let rest_len = len_bytes.checked_sub(ETHERNET_HEADER_BYTES).ok_or(Malformed::Short)?;
        let body = match ethernet.ether_type {
            EtherType::ARP => Body::Arp(Arp::read(rest)?),
            EtherType::IPV4 | EtherType::IPV6 => read_ip(ethernet.ether_type, rest, rest_len)?,
            _ => Body::Other,
        };
        Ok(Self { ethernet, body })
    }
}

fn read_ip(ether_type: EtherType, bytes: &[u8], len_bytes: usize) -> Result<Body, Malformed> {
    let (ip, range) = match ether_type {
        EtherType::IPV4 => Ip::read_v4(bytes, len_bytes)?,
        _ => Ip::read_v6(bytes, len_bytes)?,
    };
    let inner = bytes.get(range.start..).map(|inner| inner.get(..range.len()).unwrap_or(inner)).unwrap_or_default();
    let (segment, header_bytes) = match ip.protocol {
        _ if ip.fragment.is_some() => (Segment::Opaque, 0),
        Protocol::TCP => Tcp::read(inner).map(|(tcp, len)| (Segment::Tcp(tcp), len))?,
        Protocol::UDP => (Segment::Udp(Udp::read(inner, range.len())?), UDP_HEADER_BYTES),
        Protocol::ICMP | Protocol::ICMPV6 => (Segment::Icmp, 0),
        _ => (Segment::Opaque, 0),
    };
    if header_bytes > range.len() {
        return Err(Malformed::Length);
    }
    let end = match &segment {
        // What is behind the datagram is padding.
        Segment::Udp(udp) => range.start + usize::from(udp.len_bytes),
        _ => range.end,
    };
    let payload = ETHERNET_HEADER_BYTES + range.start + header_bytes..ETHERNET_HEADER_BYTES + end;
    Ok(Body::Ip { ip, segment, payload })
}

/// Bytes at a place, if they are there.
fn at<const N: usize>(bytes: &[u8], offset: usize) -> Result<[u8; N], Malformed> {
    bytes.get(offset..).and_then(|rest| rest.first_chunk()).copied().ok_or(Malformed::Short)
}

fn u16_at(bytes: &[u8], offset: usize) -> Result<u16, Malformed> {
    at(bytes, offset).map(u16::from_be_bytes)
}

fn u32_at(bytes: &[u8], offset: usize) -> Result<u32, Malformed> {
    at(bytes, offset).map(u32::from_be_bytes)
}

#[cfg(test)]
mod tests;

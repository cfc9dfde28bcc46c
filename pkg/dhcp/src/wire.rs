//! Packets around the messages: IPv4 and UDP, ARP, IPv6 and ICMPv6, read from and written to packet sockets.
//!
//! Checksums of what arrives are not looked at: a packet from the same host need not have one yet, the link has its own, and a
//! message that is wrong shows by its transaction.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Everybody on the link.
pub const EVERYBODY: [u8; 6] = [0xff; 6];
/// The link's routers: the hardware address of `ff02::2`.
pub const ROUTERS: [u8; 6] = [0x33, 0x33, 0, 0, 0, 2];
/// ICMPv6 type of a router's advertisement (RFC 4861 section 4.2).
pub const ADVERTISEMENT: u8 = 134;

const SOLICITATION: u8 = 133;
const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
const UDP_BYTES: usize = 8;
const UDP: u8 = 17;
const ICMP6: u8 = 58;
/// What no router in between lets through (RFC 4861 section 6.1.2).
const OWN_LINK_HOPS: u8 = 255;

fn sum(start: u32, bytes: &[u8]) -> u32 {
    let pairs = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])));
    pairs.fold(start, u32::wrapping_add)
}

fn fold(mut sum: u32) -> [u8; 2] {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let [.., high, low] = (!sum).to_be_bytes();
    [high, low]
}

/// A datagram of UDP from port 68 to port 67. `payload` has less than 60 KiB.
pub fn to_server(source: Ipv4Addr, destination: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let udp_len = u16::try_from(UDP_BYTES + payload.len()).unwrap_or(u16::MAX);
    let total = udp_len.saturating_add(20);
    let mut packet = vec![0x45, 0xc0];
    packet.extend(total.to_be_bytes());
    // Not in pieces, 64 hops.
    packet.extend([0, 0, 0x40, 0, 64, UDP, 0, 0]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    let checksum = fold(sum(0, &packet));
    packet[10..12].copy_from_slice(&checksum);
    packet.extend([0, 68, 0, 67]);
    packet.extend(udp_len.to_be_bytes());
    packet.extend([0, 0]);
    packet.extend_from_slice(payload);
    let pseudo = sum(u32::from(UDP) + u32::from(udp_len), &packet[12..20]);
    let checksum = match fold(sum(pseudo, &packet[IPV4_BYTES..])) {
        [0, 0] => [0xff, 0xff],
        checksum => checksum,
    };
    packet[IPV4_BYTES + 6..IPV4_BYTES + 8].copy_from_slice(&checksum);
    packet
}

/// What a server sent to port 68.
pub fn from_server(packet: &[u8]) -> Option<&[u8]> {
    let header_len = usize::from(packet.first()? & 0xf) * 4;
    let total = usize::from(u16::from_be_bytes(*packet.get(2..)?.first_chunk()?));
    let is_piece = u16::from_be_bytes(*packet.get(6..)?.first_chunk()?) & 0x3fff != 0;
    if packet.first()? >> 4 != 4 || header_len < IPV4_BYTES || is_piece || *packet.get(9)? != UDP {
        return None;
    }
    let udp = packet.get(header_len..total)?;
    if udp.get(..4)? != [0, 67, 0, 68] {
        return None;
    }
    let len = usize::from(u16::from_be_bytes(*udp.get(4..)?.first_chunk()?));
    udp.get(UDP_BYTES..len)
}

/// The question who has `address` (RFC 5227 section 2.1.1), from one that has none; the announcement that it is taken has it
/// for its own.
pub fn who_has(mac: [u8; 6], own: Ipv4Addr, address: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, 1];
    packet.extend(mac);
    packet.extend(own.octets());
    packet.extend([0; 6]);
    packet.extend(address.octets());
    packet
}

/// Who says of itself to have which address.
pub fn who_says(packet: &[u8]) -> Option<([u8; 6], Ipv4Addr)> {
    if packet.get(..7)? != [0, 1, 8, 0, 6, 4, 0] || packet.len() < 28 {
        return None;
    }
    let mac = *packet.get(8..)?.first_chunk()?;
    Some((mac, Ipv4Addr::from(*packet.get(14..)?.first_chunk::<4>()?)))
}

/// The question for routers (RFC 4861 section 4.1), from one that has no address yet.
pub fn solicitation() -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 8, ICMP6, OWN_LINK_HOPS];
    packet.extend(Ipv6Addr::UNSPECIFIED.octets());
    packet.extend(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2).octets());
    packet.extend([SOLICITATION, 0, 0, 0, 0, 0, 0, 0]);
    let pseudo = sum(u32::from(ICMP6) + 8, &packet[8..IPV6_BYTES]);
    let checksum = fold(sum(pseudo, &packet[IPV6_BYTES..]));
    packet[IPV6_BYTES + 2..IPV6_BYTES + 4].copy_from_slice(&checksum);
    packet
}

/// A router's advertisement from its type on, and who sent it. Only a router of this link counts.
pub fn advertisement(packet: &[u8]) -> Option<(Ipv6Addr, &[u8])> {
    let len = usize::from(u16::from_be_bytes(*packet.get(4..)?.first_chunk()?));
    let source = Ipv6Addr::from(*packet.get(8..)?.first_chunk::<16>()?);
    let [first, ..] = packet else { return None };
    let is_of_link = packet.get(6..8)? == [ICMP6, OWN_LINK_HOPS] && source.segments()[0] & 0xffc0 == 0xfe80;
    let body = packet.get(IPV6_BYTES..IPV6_BYTES.checked_add(len)?)?;
    (first >> 4 == 6 && is_of_link && body.first() == Some(&ADVERTISEMENT)).then_some((source, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(payload: &[u8]) -> Vec<u8> {
        let mut packet = to_server(Ipv4Addr::new(10, 0, 2, 2), Ipv4Addr::BROADCAST, payload);
        packet[20..24].copy_from_slice(&[0, 67, 0, 68]);
        packet
    }

    #[test]
    fn packets_that_are_cut_short_or_lie_about_their_length_are_none() {
        let whole = answer(b"payload");
        for len in 0..whole.len() {
            assert_eq!(from_server(&whole[..len]), None, "{len}");
        }
        for (place, value) in
            [(0, 0x65), (0, 0x41), (0, 0x4f), (2, 9), (3, 27), (6, 0x20), (7, 1), (9, 6), (21, 53), (25, 7)]
        {
            let mut changed = whole.clone();
            changed[place] = value;
            assert_eq!(from_server(&changed), None, "{place}");
        }
        assert_eq!(from_server(&[whole, vec![0; 9]].concat()), Some(&b"payload"[..]), "padding of the link");
    }

    #[test]
    fn sums_are_right() {
        let packet = to_server(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, b"odd");
        assert_eq!(fold(sum(0, &packet[..20])), [0, 0]);
        assert_eq!(fold(sum(sum(17 + 11, &packet[12..20]), &packet[20..])), [0, 0]);
        let packet = solicitation();
        assert_eq!(fold(sum(sum(58 + 8, &packet[8..40]), &packet[40..])), [0, 0]);
    }

    #[test]
    fn an_advertisement_from_afar_or_of_another_kind_is_none() {
        let mut packet = solicitation();
        packet[40] = ADVERTISEMENT;
        assert_eq!(advertisement(&packet), None, "from nobody");
        packet[8..10].copy_from_slice(&[0xfe, 0x80]);
        assert!(advertisement(&packet).is_some());
        for (place, value) in [(0, 0x40), (6, 17), (7, 254), (8, 0x20), (5, 9), (40, SOLICITATION)] {
            let mut changed = packet.clone();
            changed[place] = value;
            assert_eq!(advertisement(&changed), None, "{place}");
        }
        for len in 0..packet.len() {
            assert_eq!(advertisement(&packet[..len]), None);
        }
    }

    #[test]
    fn who_has_an_address_is_heard() {
        let (mac, address) = ([2, 0, 0, 0, 0, 1], Ipv4Addr::new(10, 0, 2, 15));
        assert_eq!(who_says(&who_has(mac, address, address)), Some((mac, address)));
        assert_eq!(who_says(&who_has(mac, address, address)[..27]), None);
        assert_eq!(who_says(&[0; 28]), None);
    }
}

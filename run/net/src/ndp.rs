//! Neighbours and routers of IPv6 (RFC 4861, options for name servers RFC 8106): what the guest asks, and what the
//! gateway answers. What only a router or a neighbour may say is not listened to.

use std::net::{IpAddr, Ipv6Addr};

use crate::wire::{Checksum, Ip, Mac};

const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOR_SOLICITATION: u8 = 135;
const NEIGHBOR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;

/// Nobody behind a router can send a packet with so many hops left (RFC 4861 section 11.2).
pub const HOP_LIMIT: u8 = 255;
/// How long the gateway counts as a router, and its name server as one, in seconds.
const ROUTER_S: u16 = 1_800;
/// How long addresses of the prefix are good (RFC 4861 section 6.2.1 has a month and a week), in seconds.
const VALID_S: u32 = 86_400;
const PREFERRED_S: u32 = 14_400;
/// Options that are looked at in one message.
const OPTIONS_LIMIT: usize = 16;

mod option {
    pub const SOURCE_MAC: u8 = 1;
    pub const TARGET_MAC: u8 = 2;
    pub const PREFIX: u8 = 3;
    pub const MTU: u8 = 5;
    pub const NAME_SERVERS: u8 = 25;
    pub const SEARCH: u8 = 31;
}

/// Everybody on the link.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// A message of the guest's about the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Who are the routers here?
    Routers,
    /// Who has this address? Asked by nobody, it means: nobody else, I hope (RFC 4862 section 5.4).
    Neighbor(Ipv6Addr),
    /// Something that only routers and neighbours say, which a guest is not.
    Claim,
}

/// Reads an ICMPv6 message. `None` if it is about something else, or wrong.
pub fn read(ip: &Ip, message: &[u8]) -> Option<Asked> {
    let [kind, code, ..] = *message else { return None };
    let is_ours = matches!(kind, ROUTER_SOLICITATION..=REDIRECT);
    if !is_ours || code != 0 || ip.hop_limit != HOP_LIMIT || !has_checksum(ip, message) {
        return None;
    }
    match kind {
        ROUTER_SOLICITATION => options_are_right(message.get(8..)?).then_some(Asked::Routers),
        NEIGHBOR_SOLICITATION => {
            let target = Ipv6Addr::from(*message.get(8..)?.first_chunk::<16>()?);
            (!target.is_multicast() && options_are_right(message.get(24..)?)).then_some(Asked::Neighbor(target))
        }
        _ => Some(Asked::Claim),
    }
}

/// Whether the checksum of an ICMPv6 message is right.
pub fn has_checksum(ip: &Ip, message: &[u8]) -> bool {
    let mut sum = Checksum::of_pseudo_header(ip.source, ip.destination, ip.protocol.0, message.len());
    sum.add(message);
    sum.finish() == 0
}

/// A length of nothing makes a message wrong (RFC 4861 section 4.6).
fn options_are_right(mut options: &[u8]) -> bool {
    for _ in 0..OPTIONS_LIMIT {
        match options {
            [] => return true,
            [_, len, ..] if *len > 0 => match options.get(usize::from(*len) * 8..) {
                Some(rest) => options = rest,
                None => return false,
            },
            _ => return false,
        }
    }
    false
}

/// Where a solicitation for `address` is sent to (RFC 4291 section 2.7.1).
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// The link-local address that a hardware address leads to (RFC 4291 appendix A).
pub fn link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

/// Who says that an address is theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// A router, because it was asked.
    AskedRouter,
    /// A router, to all.
    Router,
    /// A host, to all.
    Host,
}

/// `target` is at `mac`, says who has it.
pub fn neighbor_advertisement(target: Ipv6Addr, mac: Mac, sender: Sender) -> Vec<u8> {
    const ROUTER: u8 = 0x80;
    const SOLICITED: u8 = 0x40;
    const OVERRIDE: u8 = 0x20;
    let flags = OVERRIDE
        | match sender {
            Sender::AskedRouter => ROUTER | SOLICITED,
            Sender::Router => ROUTER,
            Sender::Host => 0,
        };
    let mut message = vec![NEIGHBOR_ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0];
    message.extend(target.octets());
    message.extend([option::TARGET_MAC, 1]);
    message.extend(mac.0);
    message
}

/// What a router says of its link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Router<'a> {
    /// Its hardware address.
    pub mac: Mac,
    /// The first address of the link's prefix, 64 bits long.
    pub prefix: Ipv6Addr,
    /// The name server.
    pub dns: Ipv6Addr,
    /// Largest packet, in bytes.
    pub mtu: u16,
    /// Domains that short names are looked for in.
    pub search: &'a [String],
    /// Whether it leads anywhere else. If not, guests do not try.
    pub is_default: bool,
}

impl Router<'_> {
    /// The message.
    pub fn advertisement(&self) -> Vec<u8> {
        /// Addresses and more can be had by DHCPv6.
        const MANAGED_AND_OTHER: u8 = 0xc0;
        /// The prefix is on the link, and addresses are made of it.
        const ON_LINK_AUTONOMOUS: u8 = 0xc0;
        let mut message = vec![ROUTER_ADVERTISEMENT, 0, 0, 0, 64, MANAGED_AND_OTHER];
        message.extend(if self.is_default { ROUTER_S } else { 0 }.to_be_bytes());
        // No word on how long neighbours count as reachable, and how often they are asked.
        message.extend([0; 8]);
        message.extend([option::SOURCE_MAC, 1]);
        message.extend(self.mac.0);
        message.extend([option::MTU, 1, 0, 0]);
        message.extend(u32::from(self.mtu).to_be_bytes());
        message.extend([option::PREFIX, 4, 64, ON_LINK_AUTONOMOUS]);
        message.extend(VALID_S.to_be_bytes());
        message.extend(PREFERRED_S.to_be_bytes());
        message.extend([0; 4]);
        message.extend(self.prefix.octets());
        message.extend([option::NAME_SERVERS, 3, 0, 0]);
        message.extend(u32::from(ROUTER_S).to_be_bytes());
        message.extend(self.dns.octets());
        let mut names: Vec<u8> = self.search.iter().filter_map(|name| crate::dns::name_bytes(name)).flatten().collect();
        if !names.is_empty() {
            names.resize(names.len().next_multiple_of(8), 0);
            if let Ok(len) = u8::try_from(names.len() / 8 + 1) {
                message.extend([option::SEARCH, len, 0, 0]);
                message.extend(u32::from(ROUTER_S).to_be_bytes());
                message.extend(names);
            }
        }
        message
    }
}

/// Whether the host can send to the Internet's IPv6 now. Nothing is sent for it.
pub fn host_has_route() -> bool {
    // Any address of the global block will do: only the host's routes are asked.
    let anywhere = (IpAddr::from(Ipv6Addr::new(0x2a00, 0x1450, 0, 0, 0, 0, 0, 1)), 53);
    std::net::UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).and_then(|socket| socket.connect(anywhere)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Protocol;

    fn ip(hop_limit: u8) -> Ip {
        let source = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9);
        Ip { hop_limit, ..Ip::new(source.into(), ALL_NODES.into(), Protocol::ICMPV6) }
    }

    fn with_checksum(ip: &Ip, mut message: Vec<u8>) -> Vec<u8> {
        let mut sum = Checksum::of_pseudo_header(ip.source, ip.destination, ip.protocol.0, message.len());
        sum.add(&message);
        message[2..4].copy_from_slice(&sum.finish().to_be_bytes());
        message
    }

    fn solicitation(target: Ipv6Addr, options: &[u8]) -> Vec<u8> {
        [&[NEIGHBOR_SOLICITATION, 0, 0, 0, 0, 0, 0, 0], &target.octets()[..], options].concat()
    }

    #[test]
    fn what_comes_from_afar_or_is_wrong_is_not_listened_to() {
        let target = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
        let good = with_checksum(&ip(255), solicitation(target, &[1, 1, 2, 0, 0, 0, 0, 2]));
        assert_eq!(read(&ip(255), &good), Some(Asked::Neighbor(target)));
        assert_eq!(read(&ip(254), &good), None);
        let mut changed = good.clone();
        changed[20] ^= 1;
        assert_eq!(read(&ip(255), &changed), None, "its checksum is wrong");
        for len in 0..good.len() {
            assert_eq!(read(&ip(255), &good[..len]), None);
            if len >= 4 {
                let cut = with_checksum(&ip(255), [&good[..2], &[0, 0], &good[4..len]].concat());
                assert_eq!(read(&ip(255), &cut).is_some(), len == 24, "{len}: it ends between its parts");
            }
        }
        for options in [&[1, 0, 0, 0, 0, 0, 0, 0][..], &[1, 2, 0, 0, 0, 0, 0, 0], &[1; 3]] {
            let wrong = with_checksum(&ip(255), solicitation(target, options));
            assert_eq!(read(&ip(255), &wrong), None, "{options:?}");
        }
        let many = with_checksum(&ip(255), solicitation(target, &[1, 1, 0, 0, 0, 0, 0, 0].repeat(OPTIONS_LIMIT)));
        assert_eq!(read(&ip(255), &many), None);
        let group = with_checksum(&ip(255), solicitation(ALL_NODES, &[]));
        assert_eq!(read(&ip(255), &group), None);
    }

    #[test]
    fn a_guest_is_no_router_and_no_neighbour_of_others() {
        for kind in [ROUTER_ADVERTISEMENT, NEIGHBOR_ADVERTISEMENT, REDIRECT] {
            let claim = with_checksum(&ip(255), [&[kind, 0, 0, 0][..], &[0; 40]].concat());
            assert_eq!(read(&ip(255), &claim), Some(Asked::Claim));
        }
    }

    #[test]
    fn an_advertisement_has_all_that_a_guest_needs() {
        let search = ["example.test".to_owned()];
        let prefix = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 0);
        let dns = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 3);
        let mut router = Router { mac: Mac([2; 6]), prefix, dns, mtu: 1_400, search: &search, is_default: true };
        let message = router.advertisement();
        assert_eq!(message[..8], [134, 0, 0, 0, 64, 0xc0, 7, 8]);
        assert!(options_are_right(&message[16..]));
        let mut rest = &message[16..];
        let mut seen = Vec::new();
        while let [kind, len, ..] = *rest {
            let (option, after) = rest.split_at(usize::from(len) * 8);
            match kind {
                option::SOURCE_MAC => assert_eq!(option[2..], [2; 6]),
                option::MTU => assert_eq!(option[4..], [0, 0, 5, 120]),
                option::PREFIX => assert_eq!((option[2], &option[16..]), (64, &prefix.octets()[..])),
                option::NAME_SERVERS => assert_eq!(option[8..], dns.octets()),
                option::SEARCH => assert_eq!(option[8..22], *b"\x07example\x04test\0"),
                other => panic!("{other}"),
            }
            seen.push(kind);
            rest = after;
        }
        assert_eq!(seen, [1, 5, 3, 25, 31]);
        router.is_default = false;
        assert_eq!(router.advertisement()[6..8], [0, 0], "without a way out it is no router");
    }

    #[test]
    fn addresses_follow_from_others() {
        assert_eq!(link_local(Mac([0x52, 0x55, 10, 0, 2, 2])).to_string(), "fe80::5055:aff:fe00:202");
        let address = "fd00::1:2345:6789".parse().unwrap();
        assert_eq!(solicited_node(address).to_string(), "ff02::1:ff45:6789");
    }
}

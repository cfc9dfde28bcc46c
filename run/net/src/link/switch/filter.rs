//! Which way a frame goes on a network of several machines, and which frames of another machine's are let in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use super::folder::Who;
use crate::port::GuestFrame;
use crate::stack::Network;
use crate::wire::{Arp, Body, EtherType, Ethernet, Frame, HEADERS_LIMIT_BYTES, Ip, Mac, Protocol, Segment};

const DHCP_PORTS: Range<u16> = 67..69;
const DHCPV6_PORTS: Range<u16> = 546..548;
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOR_SOLICITATION: u8 = 135;
const NEIGHBOR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;
/// Who listens to which groups (RFC 2710, RFC 3810): everybody gets everything here.
const LISTENERS: [u8; 4] = [130, 131, 132, 143];

/// Where a frame of the guest's goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    /// To the gateway.
    Stack,
    /// It asks for an address of another machine's.
    Arp(Arp),
    /// To one machine.
    One(Mac),
    /// To all of them.
    All,
    /// To nobody.
    Nowhere,
}

/// What all machines on the network agree on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Link {
    gateway_mac: Mac,
    gateway: Ipv4Addr,
    dns: Ipv4Addr,
    v6: Option<V6>,
}

#[derive(Debug, Clone, Copy)]
struct V6 {
    prefix: Ipv6Addr,
    gateway: Ipv6Addr,
    dns: Ipv6Addr,
}

impl Link {
    pub(super) fn of(network: &Network) -> Self {
        let v6 = network.v6.map(|v6| V6 { prefix: v6.prefix, gateway: v6.gateway, dns: v6.dns });
        Self { gateway_mac: network.gateway_mac, gateway: network.lease.gateway, dns: network.lease.dns, v6 }
    }

    fn is_gateway_v6(&self, address: Ipv6Addr) -> bool {
        address == crate::ndp::link_local(self.gateway_mac)
            || self.v6.is_some_and(|v6| address == v6.gateway || address == v6.dns)
    }

    fn prefix(&self) -> Option<Ipv6Addr> {
        self.v6.map(|v6| v6.prefix)
    }

    /// Which way a frame of the machine with address `own` goes.
    pub(super) fn way<'a>(&self, own: Mac, frame: &dyn GuestFrame, mut others: impl Iterator<Item = &'a Who>) -> Way {
        let head = frame.head();
        let Ok((ethernet, rest)) = Ethernet::read(head) else { return Way::Nowhere };
        let Ethernet { destination, source, ether_type } = ethernet;
        if source != own {
            return Way::Nowhere;
        }
        if ether_type == EtherType::ARP {
            return match Arp::read(rest) {
                Ok(arp) if arp.target == self.gateway || arp.target == self.dns => Way::Stack,
                Ok(arp) if arp.sender_mac == own && arp.operation == crate::wire::ArpOperation::Request => {
                    Way::Arp(arp)
                }
                _ => Way::Nowhere,
            };
        }
        if destination == self.gateway_mac {
            return Way::Stack;
        }
        if !destination.is_group() {
            return Way::One(destination);
        }
        let Ok(Frame { body: Body::Ip { segment, payload, .. }, .. }) = Frame::read(head, frame.len_bytes()) else {
            return Way::Nowhere;
        };
        match segment {
            Segment::Udp(udp) if DHCP_PORTS.contains(&udp.destination_port) => Way::Stack,
            Segment::Udp(udp) if DHCPV6_PORTS.contains(&udp.destination_port) => Way::Stack,
            Segment::Icmp if ether_type == EtherType::IPV6 => {
                let message = head.get(payload.start..).unwrap_or_default();
                match message.first() {
                    Some(&ROUTER_SOLICITATION) => Way::Stack,
                    Some(&(ROUTER_ADVERTISEMENT | REDIRECT)) | None => Way::Nowhere,
                    Some(kind) if LISTENERS.contains(kind) => Way::Nowhere,
                    Some(&NEIGHBOR_SOLICITATION) => match target(message) {
                        Some(target) if self.is_gateway_v6(target) => Way::Stack,
                        // Who surely has it is asked alone.
                        Some(target) => {
                            others.find(|who| who.has(target, self.prefix())).map_or(Way::All, |who| Way::One(who.mac))
                        }
                        None => Way::Nowhere,
                    },
                    Some(_) => Way::All,
                }
            }
            _ => Way::All,
        }
    }

    /// The address for which a machine asks whether anybody else has it (RFC 4862 section 5.4.2), or says that it has it;
    /// if it is surely its own, and not only of this link.
    pub(super) fn claimed(&self, frame: &[u8], who: &Who) -> Option<Ipv6Addr> {
        const NEXT_HEADER: usize = 20;
        if frame.get(NEXT_HEADER) != Some(&Protocol::ICMPV6.0)
            || frame.get(12..14) != Some(&EtherType::IPV6.0.to_be_bytes())
        {
            return None;
        }
        let Body::Ip { ip, segment: Segment::Icmp, payload } = Frame::read(frame, frame.len()).ok()?.body else {
            return None;
        };
        let message = frame.get(payload)?;
        let tells = match *message.first()? {
            NEIGHBOR_SOLICITATION => ip.source.is_unspecified(),
            kind => kind == NEIGHBOR_ADVERTISEMENT,
        };
        let target = target(message)?;
        (tells && !target.is_unicast_link_local() && who.has(target, self.prefix())).then_some(target)
    }

    /// Whether a frame that came from `who` is let in to the machine with address `own`: nobody is somebody else, and
    /// nobody is the gateway.
    pub(super) fn lets_in<'a>(
        &self,
        own: Mac,
        frame: &[u8],
        who: &Who,
        others: impl Iterator<Item = &'a Who> + Clone,
    ) -> bool {
        let head = frame.get(..HEADERS_LIMIT_BYTES).unwrap_or(frame);
        let Ok(read) = Frame::read(head, frame.len()) else { return false };
        let Ethernet { destination, source, .. } = read.ethernet;
        if source != who.mac || destination != own && !destination.is_group() {
            return false;
        }
        // Questions for addresses are answered where they are asked.
        let Body::Ip { ip, segment, payload } = read.body else { return false };
        if let Segment::Udp(udp) = &segment {
            let ports = if ip.source.is_ipv4() { DHCP_PORTS } else { DHCPV6_PORTS };
            if ports.contains(&udp.source_port) || ports.contains(&udp.destination_port) {
                return false;
            }
        }
        match ip.source {
            IpAddr::V4(source) => source == who.address,
            IpAddr::V6(source) => {
                let is_free = |address: Ipv6Addr| {
                    let mut others = others.clone();
                    !self.is_gateway_v6(address)
                        && !others.any(|other| other != who && other.has(address, self.prefix()))
                };
                let message = frame.get(payload).unwrap_or_default();
                is_free(source) && (segment != Segment::Icmp || may_say(&ip, message, who, is_free))
            }
        }
    }
}

/// Whether an ICMPv6 message is one that a neighbour may send.
fn may_say(ip: &Ip, message: &[u8], who: &Who, is_free: impl Fn(Ipv6Addr) -> bool) -> bool {
    /// Options of a solicitation and of an advertisement (RFC 4861 section 4.6.1): source's and target's link-layer address.
    const LINK_LAYER: [u8; 2] = [1, 2];
    match message.first() {
        Some(&(ROUTER_SOLICITATION | ROUTER_ADVERTISEMENT | REDIRECT)) | None => false,
        Some(kind @ &(NEIGHBOR_SOLICITATION | NEIGHBOR_ADVERTISEMENT)) => {
            let Some(target) = target(message) else { return false };
            let may_be = *kind == NEIGHBOR_SOLICITATION || is_free(target);
            let (options, rest) = message.get(24..).unwrap_or_default().as_chunks::<8>();
            let is_own = |option: &[u8; 8]| {
                let [code, len, mac @ ..] = option;
                *len == 1 && (!LINK_LAYER.contains(code) || *mac == who.mac.0)
            };
            ip.hop_limit == 255 && may_be && rest.is_empty() && options.iter().all(is_own)
        }
        Some(_) => !ip.source.is_unspecified(),
    }
}

/// Whom a solicitation or an advertisement is about.
fn target(message: &[u8]) -> Option<Ipv6Addr> {
    Some(Ipv6Addr::from(*message.get(8..)?.first_chunk::<16>()?))
}

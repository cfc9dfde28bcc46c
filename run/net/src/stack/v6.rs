//! What the gateway does on an IPv6 link: it answers for its addresses, tells of itself and gives addresses.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::{Network, NetworkV6, Outwards, Stack};
use crate::Millis;
use crate::dhcpv6::LeaseV6;
use crate::ndp::{self, Asked, Router, Sender};
use crate::port::GuestPort;
use crate::wire::{Ip, Mac, Protocol};

/// The guest hears of the router so often without asking: a third of how long it believes it (RFC 4861 section 6.2.1).
const ADVERTISED_MS: Millis = 600_000;
/// Somebody who asks all the time is not answered more often.
const ANSWERED_MS: Millis = 100;
/// The host is asked for its route so often, at most: it may move to another network.
const ROUTE_MS: Millis = 1_000;
const DHCP_SERVER_PORT: u16 = 547;
const DHCP_CLIENT_PORT: u16 = 546;
/// All servers of DHCP on the link (RFC 8415 section 7.1).
const DHCP_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

/// When the guest heard of the router, and what of the host's route.
#[derive(Debug, Default)]
pub(super) struct Advertising {
    last: Option<Millis>,
    route: Option<(Millis, bool)>,
}

impl Advertising {
    /// The next time without being asked. Before the guest has asked for the first time there is nobody to tell.
    pub(super) fn due(&self) -> Option<Millis> {
        self.last.map(|last| last + ADVERTISED_MS)
    }

    fn has_route(&mut self, now: Millis) -> bool {
        match self.route {
            Some((looked, has_route)) if now.saturating_sub(looked) < ROUTE_MS => has_route,
            _ => {
                let has_route = ndp::host_has_route();
                self.route = Some((now, has_route));
                has_route
            }
        }
    }
}

impl Stack {
    /// The guest asks about the link.
    pub(super) fn about_link(&mut self, asked: Asked, source: IpAddr, port: &mut dyn GuestPort, now: Millis) {
        let Some(v6) = self.network.v6 else { return };
        match asked {
            Asked::Claim => self.drops.spoofed += 1,
            Asked::Routers => {
                if self.advertising.last.is_none_or(|last| now.saturating_sub(last) >= ANSWERED_MS) {
                    self.advertise(v6, port, now);
                }
            }
            Asked::Neighbor(target) => {
                let is_ours = self.network.is_gateway(target.into()) || self.network.is_dns(target.into());
                // Everything else on the link is the guest's own, or belongs to nobody.
                if is_ours {
                    let to = if source.is_unspecified() { ndp::ALL_NODES.into() } else { source };
                    let sender = if source.is_unspecified() { Sender::Router } else { Sender::AskedRouter };
                    let message = ndp::neighbor_advertisement(target, self.network.gateway_mac, sender);
                    self.send_on_link((target, to), message, port);
                } else if source.is_unspecified() {
                    self.guest_has(target);
                }
            }
        }
    }

    /// Tells the guest of the router, if it is time.
    pub(super) fn advertise_when_due(&mut self, port: &mut dyn GuestPort, now: Millis) {
        if let Some(v6) = self.network.v6
            && self.advertising.due().is_some_and(|due| due <= now)
        {
            self.advertise(v6, port, now);
        }
    }

    fn advertise(&mut self, v6: NetworkV6, port: &mut dyn GuestPort, now: Millis) {
        self.advertising.last = Some(now);
        let is_default = match v6.outwards {
            Outwards::Always => true,
            Outwards::Never => false,
            Outwards::IfHostHas => self.advertising.has_route(now),
        };
        let router = Router {
            mac: self.network.gateway_mac,
            prefix: v6.prefix,
            dns: v6.dns,
            mtu: self.network.lease.mtu,
            search: &self.network.lease.search,
            is_default,
        };
        let message = router.advertisement();
        self.send_on_link((ndp::link_local(self.network.gateway_mac), ndp::ALL_NODES.into()), message, port);
    }

    fn send_on_link(&mut self, (from, to): (Ipv6Addr, IpAddr), message: Vec<u8>, port: &mut dyn GuestPort) {
        let mut guest = self.guest(port);
        if to.is_multicast() {
            guest.macs.destination = Mac::of_group(to);
        }
        guest.message(Ip { hop_limit: ndp::HOP_LIMIT, ..Ip::new(from.into(), to, Protocol::ICMPV6) }, message);
    }

    /// Whether a datagram is for the DHCP server.
    pub(super) fn is_dhcpv6(&self, from: SocketAddr, to: SocketAddr) -> bool {
        let is_to_server = to.ip() == DHCP_SERVERS || self.network.is_gateway(to.ip());
        from.is_ipv6() && is_to_server && to.port() == DHCP_SERVER_PORT && from.port() == DHCP_CLIENT_PORT
    }

    /// Answers it.
    pub(super) fn dhcpv6(&mut self, from: SocketAddr, bytes: &[u8], port: &mut dyn GuestPort) {
        let Some(v6) = self.network.v6 else { return };
        let Network { lease, gateway_mac, .. } = &self.network;
        let lease = LeaseV6 { address: v6.address, dns: v6.dns, server: *gateway_mac, search: &lease.search };
        if let Some(answer) = lease.answer(bytes) {
            let server = SocketAddr::new(ndp::link_local(self.network.gateway_mac).into(), DHCP_SERVER_PORT);
            self.guest(port).datagram((server, from), &answer);
        }
    }
}

//! From the host's sockets to the guest.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Network, Stack};
use crate::Millis;
use crate::echo::{self, Refused};
use crate::packets::{IDS_A_TURN, ToGuest};
use crate::poll::{Owner, Ready};
use crate::port::GuestPort;
use crate::publish::{self, Caller, Datagram, Seen};
use crate::tcp::{FlowKey, Unreachable};
use crate::udp::{Arrived, Undelivered};
use crate::wire::{ETHERNET_HEADER_BYTES, Headers, Ip, Protocol};

/// Ethernet, IPv6 and UDP headers.
const DATAGRAM_HEADERS_BYTES: usize = 62;

/// How the guest of a network sees others.
struct AsSeen<'a> {
    network: &'a Network,
    has_v6: bool,
}

impl Seen for AsSeen<'_> {
    fn by_v4(&self, from: SocketAddr) -> SocketAddr {
        self.network.seen_by_v4(from)
    }

    fn by_v6(&self, from: SocketAddr) -> Option<SocketAddr> {
        self.has_v6.then(|| self.network.seen_by_v6(from))
    }
}

impl Stack {
    /// The way to the guest.
    pub(super) fn guest<'a>(&mut self, port: &'a mut dyn GuestPort) -> ToGuest<'a> {
        let id = self.ids;
        self.ids = self.ids.wrapping_add(IDS_A_TURN);
        ToGuest { port, macs: self.macs(), mtu: self.network.lease.mtu, id }
    }

    /// Something happened to a socket. True if it has more, which it does not tell again.
    pub(super) fn socket(&mut self, ready: Ready, port: &mut dyn GuestPort, now: Millis) -> bool {
        match ready.token.owner {
            Owner::Tcp => {
                let (table, poll, mut cx) = self.tcp(port, now);
                if let Some(unreachable) = table.ready(ready, poll, &mut cx) {
                    self.tell_unreachable(&unreachable, port);
                }
                false
            }
            // What the guest has no room for stays in the sockets.
            Owner::Udp | Owner::Publish if port.room(DATAGRAM_HEADERS_BYTES) == 0 => true,
            Owner::Udp => {
                let mut guest = self.guest(port);
                let Self { udp, network, .. } = self;
                udp.ready(ready, now, |Arrived { guest: to, from, bytes, each_bytes }| {
                    let ends = (network.seen(from), to);
                    match each_bytes {
                        Some(each_bytes) => guest.datagrams(ends, bytes, each_bytes),
                        None => guest.datagram(ends, bytes),
                    }
                })
            }
            Owner::Echo => {
                let mut guest = self.guest(port);
                self.echoes.ready(ready, &mut guest, now);
                false
            }
            Owner::Dns => {
                if let Some(answer) = self.dns.ready(ready, &self.poll, now) {
                    self.guest(port).datagram((answer.from, answer.to), &answer.bytes);
                }
                false
            }
            Owner::Publish => self.published(ready, port, now),
            // Whoever waited is told of the one, the others are on no network.
            Owner::Port | Owner::Listener | Owner::Stream => false,
        }
    }

    fn published(&mut self, ready: Ready, port: &mut dyn GuestPort, now: Millis) -> bool {
        for Caller { socket, from, guest_port, first } in self.publications.accept(ready) {
            let mut ways = self.ways_in(from, guest_port);
            let Some(key) = ways.next() else { continue };
            let second = ways.next();
            let (table, poll, mut cx) = self.tcp(port, now);
            // Too many: whoever connected sees the end of it.
            let _ = table.accept((key, second), (socket, first), poll, &mut cx);
        }
        let seen = AsSeen { network: &self.network, has_v6: self.guest_v6.is_some() };
        let (datagrams, has_more) = self.publications.receive(ready, now, &seen);
        datagrams.into_iter().for_each(|datagram| self.published_datagram(&datagram, port));
        has_more
    }

    fn published_datagram(&mut self, Datagram { from, guest_port, bytes }: &Datagram, port: &mut dyn GuestPort) {
        let address = match from {
            SocketAddr::V4(_) => Some(IpAddr::from(self.network.lease.address)),
            SocketAddr::V6(_) => self.guest_v6.map(IpAddr::from),
        };
        if let Some(address) = address {
            self.guest(port).datagram((*from, (address, *guest_port).into()), bytes);
        }
    }

    /// The guest says that nobody is where a datagram went.
    pub(super) fn refused(&mut self, refused: Refused, port: &mut dyn GuestPort, now: Millis) {
        let seen = AsSeen { network: &self.network, has_v6: self.guest_v6.is_some() };
        if let Some(datagram) = self.publications.refused(refused.guest, refused.remote, now, &seen) {
            self.published_datagram(&datagram, port);
        }
    }

    /// The ends of a connection of somebody's to a published port, as the guest sees them: those to try first, then others.
    /// Guests have IPv4 always, and nearly all their programs listen there; who comes over IPv6 is tried over IPv6 first.
    fn ways_in(&self, from: Option<SocketAddr>, guest_port: u16) -> impl Iterator<Item = FlowKey> + use<> {
        // Who comes over a Unix socket has no address.
        let from = from.unwrap_or((Ipv4Addr::LOCALHOST, publish::FIRST_STAND_IN).into());
        let v4 = (IpAddr::from(self.network.lease.address), self.network.seen_by_v4(from));
        let v6 = self.guest_v6.map(|address| (IpAddr::from(address), self.network.seen_by_v6(from)));
        let ways = if from.is_ipv6() { [v6, Some(v4)] } else { [Some(v4), v6] };
        let key = |(address, seen)| {
            let guest = SocketAddr::new(address, guest_port);
            publish::candidates(seen).map(|remote| FlowKey { guest, remote }).find(|key| !self.tcp.has(*key))
        };
        ways.into_iter().flatten().filter_map(key).collect::<Vec<_>>().into_iter()
    }

    /// The guest has this address, or asks whether anybody else has it. Of several, the one that it was given counts.
    pub(crate) fn guest_has(&mut self, address: Ipv6Addr) {
        let Some(v6) = self.network.v6.filter(|v6| v6.is_inside(address)) else { return };
        if self.guest_v6 != Some(v6.address) {
            self.guest_v6 = Some(address);
        }
    }

    pub(super) fn tell_unreachable(
        &mut self,
        Unreachable { key, first, error }: &Unreachable,
        port: &mut dyn GuestPort,
    ) {
        if !self.may_tell() {
            return;
        }
        let ip = Ip::new(key.guest.ip(), key.remote.ip(), Protocol::TCP);
        let headers = Headers::ip(self.macs(), &ip, 8);
        let mut original = headers.bytes().get(ETHERNET_HEADER_BYTES..).unwrap_or_default().to_vec();
        original.extend(key.guest.port().to_be_bytes());
        original.extend(key.remote.port().to_be_bytes());
        original.extend(first.0.to_be_bytes());
        let code = echo::unreachable_code(error, ip.source);
        echo::send_unreachable(code, (&ip, &original), &mut self.guest(port));
    }

    fn may_tell(&mut self) -> bool {
        let left = self.errors_left;
        self.errors_left = left.saturating_sub(1);
        left > 0
    }

    /// Tells the guest what became of a datagram to `seen`, with its start as the guest sent it.
    pub(super) fn tell_undelivered(&mut self, lost: &Undelivered, seen: SocketAddr, port: &mut dyn GuestPort) {
        if !self.may_tell() {
            return;
        }
        let Undelivered { guest: from, payload, error, mtu, .. } = lost;
        let ip = Ip::new(from.ip(), seen.ip(), Protocol::UDP);
        let headers = Headers::udp(self.macs(), &ip, from.port(), seen.port(), payload.len());
        let start = headers.bytes().get(ETHERNET_HEADER_BYTES..).unwrap_or_default();
        let quoted = [start, payload].concat();
        let mut guest = self.guest(port);
        match mtu {
            Some(mtu) => echo::send_too_big(*mtu, (&ip, &quoted), &mut guest),
            None => echo::send_unreachable(echo::unreachable_code(error, ip.source), (&ip, &quoted), &mut guest),
        }
    }
}

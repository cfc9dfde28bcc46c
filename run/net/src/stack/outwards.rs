//! From the guest to the host's sockets and to the services of the network.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;
use std::ops::Range;

use super::{Network, Stack};
use crate::Millis;
use crate::dns::DNS_PORT;
use crate::echo::Request;
use crate::ndp;
use crate::port::{GuestFrame, GuestPort};
use crate::tcp::{FlowKey, Table, Target};
use crate::udp::Undelivered;
use crate::wire::{Ip, Tcp, Udp};

pub(super) const DHCP_SERVER_PORT: u16 = 67;
const DHCP_CLIENT_PORT: u16 = 68;

impl Stack {
    /// Where a destination of the guest's really is; `None` if it may not go there.
    fn target(&mut self, destination: SocketAddr, now: Millis) -> Option<SocketAddr> {
        let (address, port) = (destination.ip(), destination.port());
        match address {
            IpAddr::V4(_) if self.network.is_gateway(address) && self.network.host_loopback => {
                Some((Ipv4Addr::LOCALHOST, port).into())
            }
            IpAddr::V6(_) if self.network.is_gateway(address) && self.network.host_loopback => {
                Some((Ipv6Addr::LOCALHOST, port).into())
            }
            _ if self.network.is_inside(address) => None,
            _ => {
                let Network { policy, host_loopback, .. } = &self.network;
                let is_own = |address| !host_loopback && self.own.has(address, now);
                policy.check(destination, is_own).is_ok().then_some(destination)
            }
        }
    }

    /// The host's loopback of the other family, for a gateway that leads to both: many servers listen on one only, and a
    /// guest knows the gateway by one name.
    fn other_loopback(&self, destination: SocketAddr) -> Option<SocketAddr> {
        let leads_there = self.network.host_loopback && self.network.is_gateway(destination.ip());
        let other: IpAddr = match destination {
            SocketAddr::V4(_) => Ipv6Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv4Addr::LOCALHOST.into(),
        };
        leads_there.then_some(SocketAddr::new(other, destination.port()))
    }

    pub(super) fn tcp_segment(
        &mut self,
        (ip, tcp): (&Ip, &Tcp),
        (frame, payload): (&dyn GuestFrame, Range<usize>),
        port: &mut dyn GuestPort,
        now: Millis,
    ) {
        let key = FlowKey {
            guest: SocketAddr::new(ip.source, tcp.source_port),
            remote: SocketAddr::new(ip.destination, tcp.destination_port),
        };
        let target = match Table::begins(tcp) {
            true if self.tcp.has(key) => None,
            true if self.network.is_dns(ip.destination) && tcp.destination_port == DNS_PORT => {
                self.dns.open(&self.poll, now).map(Target::Service)
            }
            true => {
                let first = self.target(key.remote, now);
                first.map(|first| Target::Host { first, second: self.other_loopback(key.remote) })
            }
            false => None,
        };
        let (table, poll, mut cx) = self.tcp(port, now);
        if let Some(unreachable) = table.segment((key, tcp), (frame, payload), target, poll, &mut cx) {
            self.tell_unreachable(&unreachable, port);
        }
    }

    pub(super) fn datagram(
        &mut self,
        (ip, udp): (&Ip, Udp),
        (bytes, segment_bytes): (&[u8], Option<NonZeroU16>),
        port: &mut dyn GuestPort,
        now: Millis,
    ) {
        let from = SocketAddr::new(ip.source, udp.source_port);
        let to = SocketAddr::new(ip.destination, udp.destination_port);
        if udp.destination_port == DHCP_SERVER_PORT && udp.source_port == DHCP_CLIENT_PORT && from.is_ipv4() {
            self.dhcp(bytes, port);
        } else if self.is_dhcpv6(from, to) {
            self.dhcpv6(from, bytes, port);
        } else if self.network.is_dns(to.ip()) && to.port() == DNS_PORT {
            if let Some(answer) = self.dns.ask((from, to), bytes, &self.poll, now) {
                self.guest(port).datagram((answer.from, answer.to), &answer.bytes);
            }
        } else if self.publications.send(from, to, bytes) {
            // It answers one that came to a published port.
        } else if let Some(target) = self.target(to, now) {
            if let Err(error) = self.send_outwards((from, target), bytes, segment_bytes, now) {
                let payload = bytes.to_vec();
                let lost = Undelivered { guest: from, target, payload, error, mtu: None };
                self.tell_undelivered(&lost, to, port);
            }
        } else {
            self.drops.refused += 1;
            // Groups are not answered (RFC 1122 section 3.2.2).
            let is_one = !to.ip().is_multicast() && to.ip() != Ipv4Addr::BROADCAST && !from.ip().is_unspecified();
            if is_one {
                let (payload, error) = (bytes.to_vec(), io::ErrorKind::PermissionDenied.into());
                let lost = Undelivered { guest: from, target: to, payload, error, mtu: None };
                self.tell_undelivered(&lost, to, port);
            }
        }
    }

    /// What the guest's card would cut into datagrams is cut here, and goes on in one piece if the host can do that.
    fn send_outwards(
        &mut self,
        (from, target): (SocketAddr, SocketAddr),
        bytes: &[u8],
        segment_bytes: Option<NonZeroU16>,
        now: Millis,
    ) -> io::Result<()> {
        let Some(segment_bytes) = segment_bytes.filter(|_| !bytes.is_empty()) else {
            return self.udp.send(from, target, bytes, &self.poll, now);
        };
        bytes
            .chunks(usize::from(segment_bytes.get()))
            .try_for_each(|piece| self.udp.send(from, target, piece, &self.poll, now))
    }

    fn dhcp(&mut self, bytes: &[u8], port: &mut dyn GuestPort) {
        let Some(answer) = self.network.lease.answer(bytes) else { return };
        if let (Some(file), Some(holder)) = (&mut self.lease_file, &answer.holder) {
            // The lease counts without it.
            let _ = file.record(holder, self.network.lease.address);
        }
        let from = SocketAddr::new(self.network.lease.gateway.into(), DHCP_SERVER_PORT);
        let to = SocketAddr::new(answer.destination.into(), DHCP_CLIENT_PORT);
        self.guest(port).datagram((from, to), &answer.bytes);
    }

    pub(super) fn icmp(&mut self, request: Request<'_>, port: &mut dyn GuestPort, now: Millis) {
        if let Some(asked) = ndp::read(request.ip, request.message) {
            self.about_link(asked, request.ip.source, port, now);
            return;
        }
        if !request.is_echo() {
            match request.refused() {
                Some(refused) => self.refused(refused, port, now),
                None => self.drops.unserved += 1,
            }
            return;
        }
        let destination = request.ip.destination;
        if self.network.is_gateway(destination) || self.network.is_dns(destination) {
            request.answer(&mut self.guest(port));
        } else if self.echoes_left == 0 {
            self.drops.limited += 1;
        } else if let Some(target) = self.target(SocketAddr::new(destination, 0), now) {
            self.echoes_left -= 1;
            self.echoes.ask(request, target.ip(), &self.poll, now);
        } else {
            self.drops.refused += 1;
        }
    }
}

//! From the host's sockets to the guest.

use std::net::{IpAddr, SocketAddr};

use super::Stack;
use crate::Millis;
use crate::echo;
use crate::poll::{Owner, Ready};
use crate::port::GuestPort;
use crate::publish::{self, Caller, Datagram};
use crate::tcp::{FlowKey, Unreachable};
use crate::wire::{Headers, Ip, Protocol};

impl Stack {
    pub(super) fn send_datagram(&self, (from, to): (SocketAddr, SocketAddr), bytes: &[u8], port: &mut dyn GuestPort) {
        let ip = Ip::new(from.ip(), to.ip(), Protocol::UDP);
        let headers = Headers::udp(self.macs(), &ip, from.port(), to.port(), bytes.len());
        // Lost, if there is no room, as any datagram may be.
        let _ = port.send(headers, bytes);
    }

    pub(super) fn socket(&mut self, ready: Ready, port: &mut dyn GuestPort, now: Millis) {
        let macs = self.macs();
        match ready.token.owner {
            Owner::Tcp => {
                let (table, _, mut cx) = self.tcp(port, now);
                if let Some(unreachable) = table.ready(ready, &mut cx) {
                    self.tell_unreachable(&unreachable, port);
                }
            }
            Owner::Udp => {
                let mut came = Vec::new();
                self.udp.ready(ready, now, |to, from, bytes| came.push((to, from, bytes.to_vec())));
                for (to, from, bytes) in came {
                    self.send_datagram((self.seen(from), to), &bytes, port);
                }
            }
            Owner::Echo => self.echoes.ready(ready, macs, port, now),
            Owner::Dns => {
                if let Some(answer) = self.dns.ready(ready) {
                    self.send_datagram((answer.from, answer.to), &answer.bytes, port);
                }
            }
            Owner::Publish => self.published(ready, port, now),
        }
    }

    /// How the guest sees an address of the host's side: the host itself is the gateway.
    fn seen(&self, from: SocketAddr) -> SocketAddr {
        let is_foreign = match from.ip() {
            IpAddr::V4(address) => !address.is_loopback() && !self.network.is_inside(address),
            IpAddr::V6(_) => false,
        };
        if is_foreign { from } else { SocketAddr::new(self.network.lease.gateway.into(), from.port()) }
    }

    fn published(&mut self, ready: Ready, port: &mut dyn GuestPort, now: Millis) {
        for Caller { socket, from, guest_port } in self.publications.accept(ready) {
            let guest = SocketAddr::new(self.network.lease.address.into(), guest_port);
            let is_free = |remote: &SocketAddr| !self.tcp.has(FlowKey { guest, remote: *remote });
            let Some(remote) = publish::candidates(self.seen(from)).find(is_free) else { continue };
            let (table, poll, mut cx) = self.tcp(port, now);
            // Too many: whoever connected sees the end of it.
            let _ = table.accept(FlowKey { guest, remote }, socket, poll, &mut cx);
        }
        let (datagrams, has_more) = self.publications.receive(ready, now, |from| self.seen(from));
        for Datagram { from, guest_port, bytes } in datagrams {
            let guest = SocketAddr::new(self.network.lease.address.into(), guest_port);
            self.send_datagram((from, guest), &bytes, port);
        }
        if has_more {
            self.unfinished.push(ready);
        }
    }

    pub(super) fn tell_unreachable(&self, Unreachable { key, first, error }: &Unreachable, port: &mut dyn GuestPort) {
        let ip = Ip::new(key.guest.ip(), key.remote.ip(), Protocol::TCP);
        let headers = Headers::ip(self.macs(), &ip, 8);
        let mut original = headers.bytes().get(crate::wire::ETHERNET_HEADER_BYTES..).unwrap_or_default().to_vec();
        original.extend(key.guest.port().to_be_bytes());
        original.extend(key.remote.port().to_be_bytes());
        original.extend(first.0.to_be_bytes());
        let code = echo::unreachable_code(error, Protocol::ICMP);
        echo::send_unreachable(code, (&ip, &original), self.macs(), port);
    }
}

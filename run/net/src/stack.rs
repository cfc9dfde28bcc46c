//! The whole of it: frames from the guest are read and go to whom they are for; what sockets bring goes back.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use crate::Millis;
use crate::dhcp::Lease;
use crate::dns::{Forwarder, Servers};
use crate::echo::{self, Echoes, Request};
use crate::link::Link;
use crate::policy::Policy;
use crate::poll::{Owner, Poll, Ready};
use crate::port::{Abilities, GuestFrame, GuestPort};
use crate::publish::{Publications, Published};
use crate::tcp::{Budget, Context, FlowKey, Table, Unreachable};

use crate::udp::Nat;
use crate::wire::{ArpOperation, Body, Frame, Headers, Ip, Mac, Macs, Protocol, Segment, Tcp, Udp};

/// What all TCP connections of a guest may keep in memory, in bytes.
const BUDGET_BYTES: usize = 64 << 20;
/// How often what is silent is forgotten.
const SWEEP_MS: Millis = 1_000;
const DNS_PORT: u16 = 53;
const DHCP_SERVER_PORT: u16 = 67;
const DHCP_CLIENT_PORT: u16 = 68;
/// IPv4 and TCP headers without options.
const HEADERS_BYTES: u16 = 40;

/// What a guest's network is like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// What the guest is told: addresses, MTU, names.
    pub lease: Lease,
    /// The gateway's hardware address.
    pub gateway_mac: Mac,
    /// The guest's, if it is known; frames from others are dropped.
    pub guest_mac: Option<Mac>,
    /// Whether the gateway's address leads to the host's own loopback.
    pub host_loopback: bool,
    /// Where else the guest may go.
    pub policy: Policy,
    /// The list of name servers, in the form of `resolv.conf`.
    pub resolvers: PathBuf,
    /// Further names, and what they mean.
    pub names: HashMap<String, IpAddr>,
}

impl Default for Network {
    /// QEMU's addresses, which people's scripts know: 10.0.2.0/24, gateway .2, name server .3, guest .15.
    fn default() -> Self {
        let address = |last| Ipv4Addr::new(10, 0, 2, last);
        Self {
            lease: Lease {
                address: address(15),
                prefix_bits: 24,
                gateway: address(2),
                dns: address(3),
                mtu: 1500,
                host_name: None,
                search: Vec::new(),
            },
            gateway_mac: Mac([0x52, 0x55, 10, 0, 2, 2]),
            guest_mac: None,
            host_loopback: false,
            policy: Policy::default(),
            resolvers: "/etc/resolv.conf".into(),
            names: HashMap::new(),
        }
    }
}

/// What became of frames that came to nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drops {
    /// They could not be read.
    pub malformed: u64,
    /// Their sender was somebody else than they said.
    pub spoofed: u64,
    /// They were for nobody here, or of a protocol that is not served.
    pub unserved: u64,
    /// They were for a place where the guest may not go.
    pub refused: u64,
}

/// The network of one guest.
pub struct Stack {
    network: Network,
    poll: Poll,
    tcp: Table,
    udp: Nat,
    echoes: Echoes,
    dns: Forwarder,
    publications: Publications,
    budget: Budget,
    /// Whose frames come: the first one, if nobody said.
    guest_mac: Option<Mac>,
    drops: Drops,
    swept: Millis,
}

impl Stack {
    /// A network with nobody on it yet.
    ///
    /// # Errors
    /// The host's: no more descriptors.
    pub fn new(network: Network) -> io::Result<Self> {
        let gateway = IpAddr::from(network.lease.gateway);
        let mut names = network.names.clone();
        names.insert("gateway.kiln.internal".into(), gateway);
        if network.host_loopback {
            for name in ["host.kiln.internal", "host.docker.internal", "host.containers.internal"] {
                names.insert(name.into(), gateway);
            }
        }
        Ok(Self {
            guest_mac: network.guest_mac,
            dns: Forwarder::new(names, Servers::of_file(&network.resolvers)),
            network,
            poll: Poll::new()?,
            tcp: Table::default(),
            udp: Nat::default(),
            echoes: Echoes::default(),
            publications: Publications::default(),
            budget: Budget::new(BUDGET_BYTES),
            drops: Drops::default(),
            swept: 0,
        })
    }

    /// What came to nothing so far.
    pub fn drops(&self) -> Drops {
        self.drops
    }

    /// How many TCP connections there are.
    pub fn connections(&self) -> usize {
        self.tcp.len()
    }

    /// Opens a port of the host that leads to one of the guest's.
    ///
    /// # Errors
    /// The host's: the port is taken, or not for everybody.
    pub fn publish(&mut self, published: Published) -> io::Result<SocketAddr> {
        self.publications.add(published, &self.poll)
    }

    fn ip(
        &mut self,
        (ip, segment): (Ip, Segment),
        (frame, payload): (&dyn GuestFrame, Range<usize>),
        port: &mut dyn GuestPort,
        now: Millis,
    ) {
        if !self.may_be_source(ip.source, &segment) {
            self.drops.spoofed += 1;
            return;
        }
        match segment {
            Segment::Tcp(tcp) => self.tcp_segment((&ip, &tcp), (frame, payload), port, now),
            Segment::Udp(udp) => {
                let mut bytes = Vec::new();
                frame.copy_to(payload, &mut bytes);
                self.datagram((&ip, udp), &bytes, port, now);
            }
            Segment::Icmp => {
                let mut message = Vec::new();
                frame.copy_to(payload, &mut message);
                self.icmp(Request { ip: &ip, message: &message }, port, now);
            }
            Segment::Opaque => self.drops.unserved += 1,
        }
    }

    /// An address of the network that nobody else has; or none yet, to ask for one.
    fn may_be_source(&self, source: IpAddr, segment: &Segment) -> bool {
        let IpAddr::V4(source) = source else { return false };
        let lease = &self.network.lease;
        let is_asking =
            source.is_unspecified() && matches!(segment, Segment::Udp(udp) if udp.destination_port == DHCP_SERVER_PORT);
        is_asking || self.is_inside(source) && source != lease.gateway && source != lease.dns
    }

    fn is_inside(&self, address: Ipv4Addr) -> bool {
        let lease = &self.network.lease;
        let mask = u32::MAX.checked_shl(32 - u32::from(lease.prefix_bits)).unwrap_or(0);
        (address.to_bits() ^ lease.gateway.to_bits()) & mask == 0
    }

    fn macs(&self) -> Macs {
        Macs { source: self.network.gateway_mac, destination: self.guest_mac.unwrap_or(Mac::BROADCAST) }
    }

    /// Where a destination of the guest's really is; `None` if it may not go there.
    fn target(&mut self, destination: SocketAddr, now: Millis) -> Option<SocketAddr> {
        let lease = &self.network.lease;
        let port = destination.port();
        match destination.ip() {
            IpAddr::V4(address) if address == lease.dns && port == DNS_PORT => self.dns.server(now),
            IpAddr::V4(address) if address == lease.gateway && self.network.host_loopback => {
                Some((Ipv4Addr::LOCALHOST, port).into())
            }
            IpAddr::V4(address) if self.is_inside(address) => None,
            _ => self.network.policy.check(destination).is_ok().then_some(destination),
        }
    }

    fn tcp_segment(
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
            true => self.target(key.remote, now),
            false => None,
        };
        let macs = self.macs();
        let Self { poll, tcp: table, budget, .. } = self;
        let mut cx = Context { now, port, macs, link_mss: self.network.lease.mtu - HEADERS_BYTES, budget };
        if let Some(unreachable) = table.segment((key, tcp), (frame, payload), target, poll, &mut cx) {
            self.tell_unreachable(&unreachable, port);
        }
    }

    fn datagram(&mut self, (ip, udp): (&Ip, Udp), bytes: &[u8], port: &mut dyn GuestPort, now: Millis) {
        let from = SocketAddr::new(ip.source, udp.source_port);
        let to = SocketAddr::new(ip.destination, udp.destination_port);
        let lease = &self.network.lease;
        if udp.destination_port == DHCP_SERVER_PORT && udp.source_port == DHCP_CLIENT_PORT {
            self.dhcp(bytes, port);
        } else if to.ip() == lease.dns && to.port() == DNS_PORT {
            if let Some(answer) = self.dns.ask((from, to), bytes, &self.poll, now) {
                self.send_datagram((answer.from, answer.to), &answer.bytes, port);
            }
        } else if self.publications.takes(from, to) {
            self.publications.send(from, to, bytes);
        } else if let Some(target) = self.target(to, now) {
            if let Err(error) = self.udp.send(from, target, bytes, &self.poll, now) {
                let code = echo::unreachable_code(&error, Protocol::ICMP);
                let quoted = self.quoted(ip, udp, bytes);
                echo::send_unreachable(code, (ip, &quoted), self.macs(), port);
            }
        } else {
            self.drops.refused += 1;
        }
    }

    /// The start of a datagram as the guest sent it, for the message that it reached nobody.
    fn quoted(&self, ip: &Ip, udp: Udp, bytes: &[u8]) -> Vec<u8> {
        let headers = Headers::udp(self.macs(), ip, udp.source_port, udp.destination_port, bytes.len());
        let start = headers.bytes().get(crate::wire::ETHERNET_HEADER_BYTES..).unwrap_or_default();
        [start, bytes].concat()
    }

    fn dhcp(&mut self, bytes: &[u8], port: &mut dyn GuestPort) {
        let Some(answer) = self.network.lease.answer(bytes) else { return };
        let from = SocketAddr::new(self.network.lease.gateway.into(), DHCP_SERVER_PORT);
        let to = SocketAddr::new(answer.destination.into(), DHCP_CLIENT_PORT);
        self.send_datagram((from, to), &answer.bytes, port);
    }

    fn icmp(&mut self, request: Request<'_>, port: &mut dyn GuestPort, now: Millis) {
        if !request.is_echo() {
            self.drops.unserved += 1;
            return;
        }
        let lease = &self.network.lease;
        let destination = request.ip.destination;
        if destination == lease.gateway || destination == lease.dns {
            request.answer(self.macs(), port);
        } else if let Some(target) = self.target(SocketAddr::new(destination, 0), now) {
            self.echoes.ask(request, target.ip(), &self.poll, now);
        } else {
            self.drops.refused += 1;
        }
    }

    fn send_datagram(&self, (from, to): (SocketAddr, SocketAddr), bytes: &[u8], port: &mut dyn GuestPort) {
        let ip = Ip::new(from.ip(), to.ip(), Protocol::UDP);
        let headers = Headers::udp(self.macs(), &ip, from.port(), to.port(), bytes.len());
        // Lost, if there is no room, as any datagram may be.
        let _ = port.send(headers, bytes);
    }

    fn socket(&mut self, ready: Ready, port: &mut dyn GuestPort, now: Millis) {
        let macs = self.macs();
        match ready.token.owner {
            Owner::Tcp => {
                let link_mss = self.network.lease.mtu - HEADERS_BYTES;
                let mut cx = Context { now, port, macs, link_mss, budget: &mut self.budget };
                if let Some(unreachable) = self.tcp.ready(ready, &mut cx) {
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
            IpAddr::V4(address) => !address.is_loopback() && !self.is_inside(address),
            IpAddr::V6(_) => false,
        };
        if is_foreign { from } else { SocketAddr::new(self.network.lease.gateway.into(), from.port()) }
    }

    fn published(&mut self, ready: Ready, port: &mut dyn GuestPort, now: Millis) {
        for (socket, from, guest_port) in self.publications.accept(ready) {
            let guest = SocketAddr::new(self.network.lease.address.into(), guest_port);
            let key = FlowKey { guest, remote: self.seen(from) };
            let macs = self.macs();
            let link_mss = self.network.lease.mtu - HEADERS_BYTES;
            let mut cx = Context { now, port, macs, link_mss, budget: &mut self.budget };
            // Too many: whoever connected sees the end of it.
            let _ = self.tcp.accept(key, socket, &self.poll, &mut cx);
        }
        let mut publications = std::mem::take(&mut self.publications);
        publications.receive(
            ready,
            now,
            |from| self.seen(from),
            |from, guest_port, bytes| {
                let guest = SocketAddr::new(self.network.lease.address.into(), guest_port);
                self.send_datagram((from, guest), bytes, port);
            },
        );
        self.publications = publications;
    }

    fn tell_unreachable(&self, Unreachable { key, first, error }: &Unreachable, port: &mut dyn GuestPort) {
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

impl Link for Stack {
    fn fd(&self) -> BorrowedFd<'_> {
        self.poll.fd()
    }

    fn takes(&self) -> Abilities {
        Abilities { checksum: true, segmentation: true }
    }

    fn from_guest(&mut self, frame: &dyn GuestFrame, port: &mut dyn GuestPort, now: Millis) {
        let Ok(read) = Frame::read(frame.head(), frame.len_bytes()) else {
            self.drops.malformed += 1;
            return;
        };
        let source = read.ethernet.source;
        if source.is_group() || *self.guest_mac.get_or_insert(source) != source || source == self.network.gateway_mac {
            self.drops.spoofed += 1;
            return;
        }
        match read.body {
            Body::Arp(arp) => {
                let is_ours = arp.target == self.network.lease.gateway || arp.target == self.network.lease.dns;
                if arp.operation == ArpOperation::Request && is_ours && arp.sender_mac == source {
                    // Lost, if there is no room: the guest asks again.
                    let _ = port.send(Headers::whole(&arp.answer(self.network.gateway_mac)), &[]);
                }
            }
            Body::Ip { ip, segment, payload } => self.ip((ip, segment), (frame, payload), port, now),
            Body::Other => self.drops.unserved += 1,
        }
    }

    fn turn(&mut self, port: &mut dyn GuestPort, now: Millis) -> io::Result<bool> {
        for ready in self.poll.ready()? {
            self.socket(ready, port, now);
        }
        let macs = self.macs();
        let link_mss = self.network.lease.mtu - HEADERS_BYTES;
        let mut cx = Context { now, port, macs, link_mss, budget: &mut self.budget };
        self.tcp.timers(&mut cx);
        let has_more = self.tcp.flush(&mut cx);
        if now.saturating_sub(self.swept) >= SWEEP_MS {
            self.swept = now;
            self.udp.sweep(now);
            self.echoes.sweep(now);
            for answer in self.dns.sweep(&self.poll, now) {
                self.send_datagram((answer.from, answer.to), &answer.bytes, port);
            }
        }
        Ok(has_more)
    }

    fn deadline(&self) -> Option<Millis> {
        let is_sweeping = self.dns.is_waiting() || !self.udp.is_empty() || !self.echoes.is_empty();
        let sweep = is_sweeping.then_some(self.swept + SWEEP_MS);
        [self.tcp.deadline(), sweep].into_iter().flatten().min()
    }
}

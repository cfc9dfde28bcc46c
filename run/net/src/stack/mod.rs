//! The whole of it: frames from the guest are read and go to whom they are for; what sockets bring goes back.

mod inwards;
mod network;
mod outwards;
mod v6;

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU16;
use std::ops::Range;
use std::os::fd::BorrowedFd;

use rustix::event::{PollFlags, Timespec};

pub use network::{Network, NetworkV6, Outwards};

use crate::Millis;
use crate::dhcp::LeaseFile;
use crate::dns::{DOMAIN, Forwarder, Servers};
use crate::echo::{Echoes, Request};
use crate::fragments::Fragments;
use crate::limits::Limits;
use crate::link::{Link, Woken};
use crate::policy::OwnAddresses;
use crate::poll::{Owner, Poll, Ready};
use crate::port::{Abilities, GuestFrame, GuestPort};
use crate::publish::{Host, OpenPort, Publications, Published};
use crate::tcp::{Budget, Context, Table};
use crate::udp::Nat;
use crate::wire::{
    ArpOperation, Body, Frame, Headers, Ip, Mac, Macs, Protocol, Segment, SegmentKind, UDP_HEADER_BYTES, Udp,
};
use outwards::DHCP_SERVER_PORT;
use v6::Advertising;

/// What all TCP connections of a guest may keep in memory, in bytes.
const BUDGET_BYTES: usize = 64 << 20;
/// How often what is silent is forgotten.
const SWEEP_MS: Millis = 1_000;

/// Messages about what cannot be reached (RFC 4443 section 2.4 (f) wants a limit; Linux has 1,000).
const ERRORS_A_SECOND: u32 = 200;
/// Echo requests that go out: a guest does not flood others in the host's name.
const ECHOES_A_SECOND: u32 = 1_000;
/// RFC 8200 section 5.
const LEAST_MTU_V6: u16 = 1_280;

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
    /// They were echo requests, more than may go out in a second.
    pub limited: u64,
    /// They were parts of packets that never became whole; counted by packets.
    pub incomplete: u64,
    /// They were datagrams for a socket of the host that was full.
    pub overflowed: u64,
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
    /// An IPv6 address that it has.
    guest_v6: Option<Ipv6Addr>,
    drops: Drops,
    swept: Millis,
    /// Sockets that something happened to, or with more than one turn takes.
    unfinished: Vec<Ready>,
    /// How the guest's socket is waited for.
    watched: Option<PollFlags>,
    /// Numbers of packets that go in fragments.
    ids: u32,
    advertising: Advertising,
    lease_file: Option<LeaseFile>,
    fragments: Fragments,
    own: OwnAddresses,
    /// Messages about what cannot be reached that may still be sent before the next sweep.
    errors_left: u32,
    /// Echo requests that may still go out before the next sweep.
    echoes_left: u32,
    /// Memory for datagrams, so that it is used again.
    scratch: Vec<u8>,
}

impl Stack {
    /// A network with nobody on it yet.
    ///
    /// # Errors
    /// The host's: no more descriptors.
    pub fn new(mut network: Network) -> io::Result<Self> {
        network.v6 = network.v6.filter(|_| network.lease.mtu >= LEAST_MTU_V6);
        let poll = Poll::new()?;
        let limits = Limits::of_process();
        let mut tcp = Table::default();
        tcp.set_limit(limits.connections);
        let servers = Servers::of_file(&network.resolvers);
        if network.lease.search.iter().all(|domain| domain == DOMAIN) {
            network.lease.search.extend(servers.search());
        }
        Ok(Self {
            guest_mac: network.guest_mac,
            guest_v6: None,
            lease_file: network.lease_file.as_deref().map(LeaseFile::new),
            dns: Forwarder::new(network.all_names(), servers, limits.questions),
            network,
            publications: Publications::new(&poll),
            poll,
            tcp,
            udp: Nat::new(limits.datagram_ports),
            echoes: Echoes::new(limits.echoes),
            budget: Budget::new(BUDGET_BYTES),
            drops: Drops::default(),
            swept: 0,
            unfinished: Vec::new(),
            watched: None,
            ids: 0,
            advertising: Advertising::default(),
            fragments: Fragments::default(),
            own: OwnAddresses::default(),
            errors_left: ERRORS_A_SECOND,
            echoes_left: ECHOES_A_SECOND,
            scratch: Vec::new(),
        })
    }

    /// What came to nothing so far.
    pub fn drops(&self) -> Drops {
        Drops { incomplete: self.fragments.given_up(), overflowed: self.udp.lost(), ..self.drops }
    }

    /// How many TCP connections there are.
    pub fn connections(&self) -> usize {
        self.tcp.len()
    }

    /// Opens a port of the host that leads to one of the guest's.
    ///
    /// # Errors
    /// The host's: the port is taken, or not for everybody.
    pub fn publish(&mut self, published: Published) -> io::Result<Host> {
        let port = OpenPort::open(published)?;
        let host = port.published().host.clone();
        self.publications.add(port)?;
        Ok(host)
    }

    /// From now on `name`, in lower case, means `addresses`; with none of them, nothing of our own.
    pub fn set_name(&mut self, name: &str, addresses: &[IpAddr]) {
        self.dns.set_name(name, addresses);
    }

    /// The ports of the host that lead to the guest's, for whoever changes them while the guest runs.
    pub fn publications(&self) -> Publications {
        self.publications.clone()
    }

    fn ip(
        &mut self,
        (ip, segment): (Ip, Segment),
        (frame, payload): (&dyn GuestFrame, Range<usize>),
        port: &mut dyn GuestPort,
        now: Millis,
    ) {
        if ip.source.is_ipv6() && self.network.v6.is_none() {
            self.drops.unserved += 1;
            return;
        }
        if !self.may_be_source(ip.source, &segment) {
            self.drops.spoofed += 1;
            return;
        }
        if let IpAddr::V6(address) = ip.source {
            self.guest_has(address);
        }
        match segment {
            Segment::Tcp(tcp) => self.tcp_segment((&ip, &tcp), (frame, payload), port, now),
            Segment::Udp(udp) => {
                let segments = frame.offload().segments.filter(|segments| segments.kind == SegmentKind::Udp);
                let segment_bytes = segments.and_then(|segments| NonZeroU16::new(segments.payload_bytes));
                let mut bytes = std::mem::take(&mut self.scratch);
                frame.copy_to(payload, &mut bytes);
                self.datagram((&ip, udp), (&bytes, segment_bytes), port, now);
                bytes.clear();
                self.scratch = bytes;
            }
            Segment::Icmp => {
                let mut message = Vec::new();
                frame.copy_to(payload, &mut message);
                self.icmp(Request { ip: &ip, message: &message }, port, now);
            }
            Segment::Opaque if ip.fragment.is_some() => {
                let mut part = Vec::new();
                frame.copy_to(payload, &mut part);
                if let Some(content) = self.fragments.add(&ip, part, now) {
                    self.whole(Ip { fragment: None, ..ip }, &content, port, now);
                }
            }
            Segment::Opaque => self.drops.unserved += 1,
        }
    }

    /// A packet that came in parts. TCP never does: its segments are as long as the link allows.
    fn whole(&mut self, ip: Ip, content: &[u8], port: &mut dyn GuestPort, now: Millis) {
        match ip.protocol {
            Protocol::UDP => match Udp::read(content, content.len()) {
                Ok(udp) => {
                    let bytes = content.get(UDP_HEADER_BYTES..udp.len_bytes.into()).unwrap_or_default();
                    self.datagram((&ip, udp), (bytes, None), port, now);
                }
                Err(_) => self.drops.malformed += 1,
            },
            // Nothing about the link comes in parts (RFC 6980).
            Protocol::ICMP | Protocol::ICMPV6 => {
                let request = Request { ip: &ip, message: content };
                if request.is_echo() {
                    self.icmp(request, port, now);
                } else {
                    self.drops.unserved += 1;
                }
            }
            _ => self.drops.unserved += 1,
        }
    }

    /// An address of the network that nobody else has; or none yet, to ask for one.
    fn may_be_source(&self, source: IpAddr, segment: &Segment) -> bool {
        let is_asking = match (source, segment) {
            (IpAddr::V4(_), Segment::Udp(udp)) => udp.destination_port == DHCP_SERVER_PORT,
            // Is my address free? Who are the routers?
            (IpAddr::V6(_), Segment::Icmp) => true,
            _ => false,
        };
        let is_on_link = match source {
            IpAddr::V4(_) => self.network.is_inside(source),
            IpAddr::V6(address) => address.is_unicast_link_local() || self.network.is_inside(source),
        };
        source.is_unspecified() && is_asking
            || is_on_link && !self.network.is_gateway(source) && !self.network.is_dns(source)
    }

    /// What `ready` and what came before ask for. True if there is more.
    fn work(&mut self, ready: Vec<Ready>, port: &mut dyn GuestPort, now: Millis) -> bool {
        let unfinished = std::mem::take(&mut self.unfinished);
        for ready in unfinished.into_iter().chain(ready) {
            if self.socket(ready, port, now) && !self.unfinished.iter().any(|other| other.token == ready.token) {
                self.unfinished.push(ready);
            }
        }
        for lost in self.udp.flush() {
            let seen = self.network.seen(lost.target);
            self.tell_undelivered(&lost, seen, port);
        }
        self.advertise_when_due(port, now);
        let (table, _, mut cx) = self.tcp(port, now);
        table.timers(&mut cx);
        let has_more = table.flush(&mut cx);
        if now.saturating_sub(self.swept) >= SWEEP_MS {
            self.swept = now;
            self.errors_left = ERRORS_A_SECOND;
            self.echoes_left = ECHOES_A_SECOND;
            self.udp.sweep(now);
            self.budget.give_back();
            self.fragments.sweep(now);
            self.echoes.sweep(now);
            for answer in self.dns.sweep(&self.poll, now) {
                self.guest(port).datagram((answer.from, answer.to), &answer.bytes);
            }
        }
        has_more || !self.unfinished.is_empty()
    }

    fn macs(&self) -> Macs {
        Macs { source: self.network.gateway_mac, destination: self.guest_mac.unwrap_or(Mac::BROADCAST) }
    }

    /// The connections, and what they need.
    fn tcp<'a>(&'a mut self, port: &'a mut dyn GuestPort, now: Millis) -> (&'a mut Table, &'a Poll, Context<'a>) {
        let macs = self.macs();
        let cx = Context { now, port, macs, link_mtu: self.network.lease.mtu, budget: &mut self.budget };
        (&mut self.tcp, &self.poll, cx)
    }
}

impl Link for Stack {
    fn fd(&self) -> BorrowedFd<'_> {
        self.poll.fd()
    }

    fn change_guest(&mut self) {
        let limits = Limits::of_process();
        self.tcp = Table::default();
        self.tcp.set_limit(limits.connections);
        self.udp = Nat::new(limits.datagram_ports);
        self.echoes = Echoes::new(limits.echoes);
        self.fragments = Fragments::default();
        self.advertising = Advertising::default();
        self.budget = Budget::new(BUDGET_BYTES);
        self.guest_mac = self.network.guest_mac;
        self.guest_v6 = None;
        self.unfinished.clear();
    }

    fn takes(&self) -> Abilities {
        Abilities::ALL
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
        let ready = self.poll.ready()?;
        Ok(self.work(ready, port, now))
    }

    fn settle(&mut self, port: &mut dyn GuestPort, now: Millis) -> io::Result<bool> {
        Ok(self.work(Vec::new(), port, now))
    }

    // The guest's socket is one of all the sockets then: a thread that waits for a list of sockets among others is woken in
    // two steps, of which the second does not know that whoever wakes it will wait next (Linux: `wake_up_sync`).
    fn wait(&mut self, port: BorrowedFd<'_>, wanted: PollFlags, timeout: Option<&Timespec>) -> io::Result<Woken> {
        if self.watched != Some(wanted) {
            self.poll.watch(port, wanted, self.watched.is_some())?;
            self.watched = Some(wanted);
        }
        let ready = self.poll.wait(timeout)?;
        let port = ready.iter().any(|ready| ready.token.owner == Owner::Port && ready.is_readable);
        let is_late = ready.is_empty();
        self.unfinished.extend(ready);
        Ok(Woken { port, link: false, is_late })
    }

    fn forget(&mut self, port: BorrowedFd<'_>) {
        self.watched = None;
        self.poll.forget(port);
    }

    fn lost(&self) -> u64 {
        self.udp.lost()
    }

    fn deadline(&self) -> Option<Millis> {
        let is_sweeping = self.dns.is_waiting()
            || !self.udp.is_empty()
            || !self.echoes.is_empty()
            || !self.fragments.is_empty()
            || self.budget.has_spares();
        let sweep = is_sweeping.then_some(self.swept + SWEEP_MS);
        [self.tcp.deadline(), sweep, self.advertising.due()].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests;

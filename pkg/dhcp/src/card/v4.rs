//! A card's side of DHCPv4.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use kiln_guest::host_name;
use kiln_guest::netlink::{Address, Card, Route};
use kiln_guest::packet::{Hears, PacketSocket};

use super::{METRIC, PACKET_BYTES, PACKET_LIMIT, Surroundings, own_name};
use crate::retry::Random;
use crate::v4::{Act, Client, Lease, Message};
use crate::{Millis, SECOND, wire};

const CLIENT_PORT: u16 = 68;
const SERVER_PORT: u16 = 67;
/// Questions whether somebody else has the address, and the time between them. The address is used meanwhile: who waits for
/// this is a machine that boots.
const PROBES: u32 = 2;
const PROBE_WAIT: Millis = SECOND;
/// A lease that was kept is longer than any message only if it is none.
const KEPT_LIMIT_BYTES: u64 = 9216;

/// Whether somebody else has the address.
struct Probe {
    socket: PacketSocket,
    address: Ipv4Addr,
    sent: u32,
    due: Millis,
}

/// DHCPv4 on one card.
pub struct Side {
    client: Client,
    socket: PacketSocket,
    /// Holds the port on the lease's address: the server's answers to it find somebody, and are read from `socket`.
    held: Option<UdpSocket>,
    probe: Option<Probe>,
    taken: Option<Lease>,
}

impl Side {
    /// Begins; `None`, which is told, if the card cannot be listened to.
    pub fn open(card: &Card, now: Millis, random: Random, around: &mut Surroundings<'_>) -> Option<Self> {
        let socket = match PacketSocket::open(card.index, Hears::Udp4(CLIENT_PORT)) {
            Ok(socket) => socket,
            Err(error) => {
                around.say(card, &format!("cannot listen for DHCP: {error} (it takes CAP_NET_RAW)"));
                return None;
            }
        };
        let mut client = Client::new(card.mac, own_name(around.arguments), random);
        client.start(now, kept(card, around));
        Some(Self { client, socket, held: None, probe: None, taken: None })
    }

    pub fn carrier_is_back(&mut self, now: Millis) {
        self.client.carrier_is_back(now);
    }

    pub fn taken(&self) -> Option<&Lease> {
        self.taken.as_ref()
    }

    pub fn is_ready(&self) -> bool {
        self.client.lease().is_some()
    }

    pub fn due(&self) -> Option<Millis> {
        self.client.due().into_iter().chain(self.probe.as_ref().map(|probe| probe.due)).min()
    }

    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [self.socket.as_fd()].into_iter().chain(self.probe.as_ref().map(|probe| probe.socket.as_fd()))
    }

    pub fn turn(&mut self, card: &Card, now: Millis, around: &mut Surroundings<'_>) {
        let mut acts = vec![];
        let mut buffer = vec![0; PACKET_BYTES];
        for _ in 0..PACKET_LIMIT {
            // An error is told by the link's news: it is down or away.
            let Ok(Some(packet)) = self.socket.receive(&mut buffer) else { break };
            if let Some(message) = wire::from_server(packet) {
                self.client.receive(now, message, &mut acts);
            }
        }
        self.probe(card, now, &mut acts);
        self.client.turn(now, &mut acts);
        self.do_all(card, now, acts, around);
    }

    pub fn release(&mut self, card: &Card, now: Millis, around: &mut Surroundings<'_>) {
        let mut acts = vec![];
        self.client.release(now, &mut acts);
        self.do_all(card, now, acts, around);
    }

    fn do_all(&mut self, card: &Card, now: Millis, acts: Vec<Act>, around: &mut Surroundings<'_>) {
        for act in acts {
            match act {
                Act::Broadcast(message, from) => {
                    let packet = wire::to_server(from, Ipv4Addr::BROADCAST, &message);
                    // What is lost is sent again.
                    let _ = self.socket.send(&packet, wire::EVERYBODY);
                }
                Act::Unicast(message, _, server) => {
                    let _ = self.held.as_ref().map(|socket| socket.send_to(&message, (server, SERVER_PORT)));
                }
                Act::Take(lease, message) => self.take(card, now, *lease, &message, around),
                Act::Drop(why) => self.drop_lease(card, why, around),
                Act::Note(note) => around.say(card, &note),
            }
        }
    }

    fn take(&mut self, card: &Card, now: Millis, lease: Lease, message: &[u8], around: &mut Surroundings<'_>) {
        let old = self.taken.take();
        let is_new = old.as_ref().is_none_or(|old| old.address != lease.address);
        let network = |lease: &Lease| (lease.address, lease.prefix_bits);
        if let Some(old) = old.as_ref().filter(|old| network(old) != network(&lease)) {
            let _gone = around.routes.remove_address(card.index, &address(old, around));
        }
        if let Some(mtu) = lease.mtu.map(u32::from).filter(|mtu| *mtu != card.mtu) {
            let done = around.routes.set_mtu(card.index, mtu);
            around.check(card, &format!("set an MTU of {mtu}"), done);
        }
        let done = around.routes.set_address(card.index, &address(&lease, around));
        around.check(card, &format!("set the address {}", lease.address), done);
        let routes = routes(card, &lease);
        let old_routes = old.as_ref().map(|old| self::routes(card, old)).unwrap_or_default();
        for route in old_routes.iter().filter(|old| !routes.contains(old)) {
            // It may have gone with its address.
            let _gone = around.routes.remove_route(card.index, route);
        }
        // Gateways by routes on the link come after those.
        for route in routes
            .iter()
            .filter(|route| route.gateway.is_none())
            .chain(routes.iter().filter(|route| route.gateway.is_some()))
        {
            let done = around.routes.set_route(card.index, route);
            around.check(card, &format!("set the route to {}/{}", route.destination, route.prefix_bits), done);
        }
        if is_new || self.held.is_none() {
            // Without it there is no renewal by unicast; it is asked for by broadcast later on.
            self.held = UdpSocket::bind((lease.address, CLIENT_PORT)).ok();
        }
        if is_new && !around.arguments.once {
            self.begin_probe(card, now, lease.address);
        }
        if let Some(name) = lease.host_name.as_deref().filter(|_| host_name::is_placeholder(&host_name::current())) {
            let done = host_name::set(name);
            around.check(card, &format!("name the machine {name}"), done);
        }
        let done = keep(card, message, around);
        around.check(card, "keep the lease", done);
        if old.as_ref() != Some(&lease) {
            around.say(card, &describe(&lease));
        }
        self.taken = Some(lease);
    }

    fn drop_lease(&mut self, card: &Card, why: &str, around: &mut Surroundings<'_>) {
        let _gone = fs::remove_file(kept_path(card, around));
        self.probe = None;
        self.held = None;
        let Some(lease) = self.taken.take() else { return };
        // Its routes go with it.
        let _gone = around.routes.remove_address(card.index, &address(&lease, around));
        around.say(card, &format!("{} is given up: {why}", lease.address));
    }

    fn begin_probe(&mut self, card: &Card, now: Millis, address: Ipv4Addr) {
        let socket = PacketSocket::open(card.index, Hears::Arp).ok();
        self.probe = socket.map(|socket| Probe { socket, address, sent: 0, due: now });
    }

    /// Asks who else has the address, and in the end tells everybody whose it is.
    fn probe(&mut self, card: &Card, now: Millis, acts: &mut Vec<Act>) {
        let Some(probe) = &mut self.probe else { return };
        let mut buffer = [0; 64];
        let mut is_taken = false;
        for _ in 0..PACKET_LIMIT {
            let Ok(Some(packet)) = probe.socket.receive(&mut buffer) else { break };
            is_taken |= wire::who_says(packet).is_some_and(|(mac, ip)| ip == probe.address && mac != card.mac);
        }
        if is_taken {
            self.probe = None;
            return self.client.conflict(now, acts);
        }
        if now < probe.due {
            return;
        }
        let is_last = probe.sent >= PROBES;
        let own = if is_last { probe.address } else { Ipv4Addr::UNSPECIFIED };
        let _lost = probe.socket.send(&wire::who_has(card.mac, own, probe.address), wire::EVERYBODY);
        probe.sent += 1;
        probe.due = now.saturating_add(PROBE_WAIT);
        if is_last {
            self.probe = None;
        }
    }
}

/// As the kernel has it: who ends now can renew nothing, so the address stays.
fn address(lease: &Lease, around: &Surroundings<'_>) -> Address {
    let valid_s = if around.arguments.once { u32::MAX } else { lease.valid_s };
    let address = IpAddr::V4(lease.address);
    Address { address, prefix_bits: lease.prefix_bits, valid_s, preferred_s: valid_s }
}

fn routes(card: &Card, lease: &Lease) -> Vec<Route> {
    lease.kernel_routes(METRIC.saturating_add(card.index))
}

fn describe(lease: &Lease) -> String {
    let mut text = format!("{}/{}", lease.address, lease.prefix_bits);
    if let Some((.., Some(gateway))) = lease.routes.iter().find(|(_, prefix_bits, _)| *prefix_bits == 0) {
        text.push_str(&format!(" by {gateway}"));
    }
    for server in &lease.dns {
        text.push_str(&format!(", name server {server}"));
    }
    if lease.valid_s != u32::MAX {
        text.push_str(&format!(", for {} s", lease.valid_s));
    }
    text
}

fn kept_path(card: &Card, around: &Surroundings<'_>) -> PathBuf {
    around.folder.join(format!("{}.lease", card.name))
}

/// The server's message as it came, under its name when it is whole.
fn keep(card: &Card, message: &[u8], around: &Surroundings<'_>) -> io::Result<()> {
    let path = kept_path(card, around);
    let new = path.with_extension("new");
    fs::write(&new, message)?;
    fs::rename(new, path)
}

/// The address of a lease that was kept.
fn kept(card: &Card, around: &Surroundings<'_>) -> Option<Ipv4Addr> {
    let path = kept_path(card, around);
    let is_small = fs::metadata(&path).is_ok_and(|found| found.len() <= KEPT_LIMIT_BYTES);
    let bytes = fs::read(path).ok().filter(|_| is_small)?;
    (bytes.get(28..34)? == card.mac).then_some(())?;
    Some(Lease::read(&Message::read_any(&bytes)?).ok()?.address)
}

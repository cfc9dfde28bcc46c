//! A card's side of IPv6: what routers say, and DHCPv6 when they say so. Addresses and routes from routers are the kernel's.

use std::fs;
use std::net::{IpAddr, Ipv6Addr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use kiln_guest::netlink::{Address, Card};
use kiln_guest::packet::{Hears, PacketSocket};

use super::{PACKET_BYTES, PACKET_LIMIT, Surroundings};
use crate::advertisement::Advertisement;
use crate::resolv::Names;
use crate::retry::Random;
use crate::v6::{Act, Client, Mode, Reply};
use crate::{Millis, SECOND, wire};

const CLIENT_PORT: u16 = 546;
const SERVER_PORT: u16 = 547;
/// All servers and relays on the link (RFC 8415 section 7.1).
const SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
/// MAX_RTR_SOLICITATIONS and RTR_SOLICITATION_INTERVAL (RFC 4861 section 10).
const SOLICITATIONS: u32 = 3;
const SOLICITATION_WAIT: Millis = 4 * SECOND;
/// Name servers, and domains, that routers have told of: more are left out.
const KNOWN_LIMIT: usize = 8;
/// Addresses of this network namespace: address, number of the link, prefix, scope, flags, name; all in hexadecimal digits.
const ADDRESSES: &str = "/proc/net/if_inet6";
/// `IFA_F_TENTATIVE` and `IFA_F_DADFAILED`: not to be used.
const UNUSABLE: u8 = 0x48;

/// Whether the kernel has IPv6.
pub fn is_there() -> bool {
    Path::new(ADDRESSES).exists()
}

/// IPv6 on one card.
pub struct Side {
    client: Client,
    routers: PacketSocket,
    /// Bound to the link's own address, once the kernel has made it.
    servers: Option<UdpSocket>,
    wanted: Mode,
    has_router: bool,
    solicited: u32,
    due: Option<Millis>,
    dns: Vec<(Ipv6Addr, Option<Millis>)>,
    search: Vec<(String, Option<Millis>)>,
    reply: Option<Reply>,
}

impl Side {
    /// Begins; `None`, which is told, if the card cannot be listened to.
    pub fn open(card: &Card, now: Millis, random: Random, around: &mut Surroundings<'_>) -> Option<Self> {
        let routers = match PacketSocket::open(card.index, Hears::Icmp6(wire::ADVERTISEMENT)) {
            Ok(routers) => routers,
            Err(error) => {
                around.say(card, &format!("cannot listen for routers: {error} (it takes CAP_NET_RAW)"));
                return None;
            }
        };
        Some(Self {
            client: Client::new(card.mac, random),
            routers,
            servers: None,
            wanted: Mode::Off,
            has_router: false,
            solicited: 0,
            due: Some(now),
            dns: vec![],
            search: vec![],
            reply: None,
        })
    }

    pub fn carrier_is_back(&mut self, now: Millis) {
        self.solicited = 0;
        self.due = Some(now);
    }

    pub fn due(&self) -> Option<Millis> {
        let ends = self.dns.iter().filter_map(|(_, end)| *end).chain(self.search.iter().filter_map(|(_, end)| *end));
        ends.chain(self.due).chain(self.client.due()).min()
    }

    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [self.routers.as_fd()].into_iter().chain(self.servers.as_ref().map(AsFd::as_fd))
    }

    /// Whether there is a way out, and an address to be known by.
    pub fn is_ready(&self, index: u32) -> bool {
        self.has_router && (self.client.lease().is_some() || has_global(index))
    }

    pub fn names(&self, card: &str, names: &mut Names) {
        self.dns.iter().for_each(|(server, _)| names.server(IpAddr::V6(*server), card));
        names.domains(self.search.iter().map(|(name, _)| name));
        if let Some(reply) = &self.reply {
            reply.dns.iter().for_each(|server| names.server(IpAddr::V6(*server), card));
            names.domains(&reply.search);
        }
    }

    pub fn turn(&mut self, card: &Card, now: Millis, around: &mut Surroundings<'_>) {
        let mut buffer = vec![0; PACKET_BYTES];
        for _ in 0..PACKET_LIMIT {
            let Ok(Some(packet)) = self.routers.receive(&mut buffer) else { break };
            if let Some(read) = wire::advertisement(packet).and_then(|(_, body)| Advertisement::read(body)) {
                self.hear(now, read);
            }
        }
        self.dns.retain(|(_, end)| end.is_none_or(|end| end > now));
        self.search.retain(|(_, end)| end.is_none_or(|end| end > now));
        self.solicit(now);
        let mut acts = vec![];
        if self.wanted != Mode::Off && self.servers.is_none() {
            self.servers = own_address(card.index).and_then(|own| bound(own, card.index));
        }
        if let Some(socket) = &self.servers {
            self.client.set_mode(now, self.wanted, &mut acts);
            for _ in 0..PACKET_LIMIT {
                let Ok((len, sender)) = socket.recv_from(&mut buffer) else { break };
                if sender.port() == SERVER_PORT {
                    self.client.receive(now, buffer.get(..len).unwrap_or_default(), &mut acts);
                }
            }
        }
        self.client.turn(now, &mut acts);
        self.do_all(card, acts, around);
    }

    pub fn release(&mut self, card: &Card, now: Millis, around: &mut Surroundings<'_>) {
        let mut acts = vec![];
        self.client.release(now, &mut acts);
        self.wanted = Mode::Off;
        self.do_all(card, acts, around);
    }

    fn hear(&mut self, now: Millis, read: Advertisement) {
        self.has_router |= read.is_router;
        self.solicited = SOLICITATIONS;
        self.due = None;
        if read.is_managed {
            self.wanted = Mode::Address;
        } else if read.has_other && self.wanted == Mode::Off {
            self.wanted = Mode::Information;
        }
        learn(&mut self.dns, read.dns, now);
        learn(&mut self.search, read.search, now);
    }

    fn solicit(&mut self, now: Millis) {
        if self.due.is_none_or(|due| due > now) {
            return;
        }
        let is_over = self.solicited >= SOLICITATIONS;
        self.due = (!is_over).then(|| now.saturating_add(SOLICITATION_WAIT));
        if !is_over {
            self.solicited += 1;
            // What is lost is sent again, and routers speak by themselves now and then.
            let _ = self.routers.send(&wire::solicitation(), wire::ROUTERS);
        }
    }

    fn do_all(&mut self, card: &Card, acts: Vec<Act>, around: &mut Surroundings<'_>) {
        for act in acts {
            match act {
                Act::Send(message) => {
                    let to = SocketAddrV6::new(SERVERS, SERVER_PORT, 0, card.index);
                    // What is lost is sent again.
                    let _ = self.servers.as_ref().map(|socket| socket.send_to(&message, to));
                }
                Act::Take(reply) => self.take(card, *reply, around),
                Act::Drop(why) => self.drop_lease(card, why, around),
            }
        }
    }

    fn take(&mut self, card: &Card, reply: Reply, around: &mut Surroundings<'_>) {
        let old = self.reply.take().and_then(|reply| address(&reply, around));
        let new = address(&reply, around);
        if let Some(old) = old.filter(|old| new.is_none_or(|new| new.address != old.address)) {
            let _gone = around.routes.remove_address(card.index, &old);
        }
        if let Some(new) = new {
            let done = around.routes.set_address(card.index, &new);
            around.check(card, &format!("set the address {}", new.address), done);
            if old.is_none_or(|old| old.address != new.address) {
                around.say(card, &format!("{} by DHCPv6, for {} s", new.address, new.valid_s));
            }
        }
        self.reply = Some(reply);
    }

    fn drop_lease(&mut self, card: &Card, why: &str, around: &mut Surroundings<'_>) {
        if let Some(old) = self.reply.take().and_then(|reply| address(&reply, around)) {
            let _gone = around.routes.remove_address(card.index, &old);
            around.say(card, &format!("{} is given up: {why}", old.address));
        }
    }
}

/// Adds what is new, changes the end of what is known, and forgets what is taken back.
fn learn<T: PartialEq>(known: &mut Vec<(T, Option<Millis>)>, told: Vec<(T, u32)>, now: Millis) {
    for (item, seconds) in told {
        let end = (seconds != u32::MAX).then(|| now.saturating_add(u64::from(seconds) * SECOND));
        match known.iter().position(|(old, _)| *old == item) {
            Some(place) if seconds == 0 => drop(known.remove(place)),
            Some(place) => known[place].1 = end,
            None if seconds > 0 && known.len() < KNOWN_LIMIT => known.push((item, end)),
            None => {}
        }
    }
}

fn address(reply: &Reply, around: &Surroundings<'_>) -> Option<Address> {
    let lease = reply.lease?;
    let or_for_ever = |seconds| if around.arguments.once { u32::MAX } else { seconds };
    // Which addresses are on the link is what routers say.
    let (valid_s, preferred_s) = (or_for_ever(lease.valid_s), or_for_ever(lease.preferred_s));
    Some(Address { address: IpAddr::V6(lease.address), prefix_bits: 128, valid_s, preferred_s })
}

fn bound(own: Ipv6Addr, index: u32) -> Option<UdpSocket> {
    let socket = UdpSocket::bind(SocketAddrV6::new(own, CLIENT_PORT, 0, index)).ok()?;
    socket.set_nonblocking(true).ok()?;
    Some(socket)
}

/// The link's own address, once the kernel has found that nobody else has it.
fn own_address(index: u32) -> Option<Ipv6Addr> {
    usable(&fs::read_to_string(ADDRESSES).ok()?, index).find(|address| address.segments()[0] & 0xffc0 == 0xfe80)
}

fn has_global(index: u32) -> bool {
    let Ok(text) = fs::read_to_string(ADDRESSES) else { return false };
    usable(&text, index).any(|address| address.segments()[0] & 0xffc0 != 0xfe80)
}

fn usable(text: &str, wanted: u32) -> impl Iterator<Item = Ipv6Addr> {
    text.lines().filter_map(move |line| {
        let mut words = line.split_whitespace();
        let address = u128::from_str_radix(words.next()?, 16).ok()?;
        let index = u32::from_str_radix(words.next()?, 16).ok()?;
        let flags = u8::from_str_radix(words.nth(2)?, 16).ok()?;
        (index == wanted && flags & UNUSABLE == 0).then_some(Ipv6Addr::from(address))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_may_be_anothers_are_not_used() {
        let text = "fe80000000000000505400fffe010203 02 40 20 c0 eth0\nfe80000000000000505400fffe010204 03 40 20 80 eth1\n\
                    x\nfd000000000000000000000000000015 02 80 00 80 eth0\n";
        assert_eq!(usable(text, 2).collect::<Vec<_>>(), ["fd00::15".parse::<Ipv6Addr>().unwrap()]);
        assert_eq!(usable(text, 3).count(), 1);
    }

    #[test]
    fn what_routers_take_back_is_forgotten_and_their_lists_stay_short() {
        let mut known = vec![];
        learn(&mut known, vec![(1, 60), (2, u32::MAX), (1, 30), (3, 0)], 1000);
        assert_eq!(known, [(1, Some(31_000)), (2, None)]);
        learn(&mut known, vec![(1, 0)], 2000);
        assert_eq!(known, [(2, None)]);
        learn(&mut known, (10..100).map(|number| (number, 9)).collect(), 0);
        assert_eq!(known.len(), KNOWN_LIMIT);
    }
}

//! UDP outwards: every port of the guest has one socket of the host, whomever it talks to (RFC 4787: the mapping does
//! not depend on the other end, who may answer does).

mod socket;

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::sockopt::set_ipv6_v6only;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};

use crate::Millis;
use crate::poll::{Owner, Poll, Ready, Token};
use socket::{BATCH, Failure, Inbox, Outbox, Received};

/// Ends that one port may have talked to and still hear from. With more, everybody may answer.
const PEERS_LIMIT: usize = 256;
/// A mapping is forgotten after so long without a datagram, once somebody answered (RFC 4787 section 4.3).
const SILENCE_MS: Millis = 300_000;
/// And before anybody did.
const UNANSWERED_MS: Millis = 60_000;
/// And when it asked for nothing but names: one question, one answer.
const NAMES_MS: Millis = 10_000;
const DNS_PORT: u16 = 53;
/// Times that one socket is read in one turn.
const BATCHES_A_TURN: usize = 2;
/// Datagrams that did not arrive and are told to the guest in one turn.
const UNDELIVERED_LIMIT: usize = 32;
/// Longest datagram.
pub const DATAGRAM_LIMIT_BYTES: usize = 65_507;

#[derive(Debug)]
struct Mapping {
    socket: OwnedFd,
    guest: SocketAddr,
    peers: HashSet<IpAddr>,
    is_answered: bool,
    is_for_names: bool,
    last_word: Millis,
}

/// A datagram that did not arrive, for the guest to know.
#[derive(Debug)]
pub struct Undelivered {
    /// Who sent it.
    pub guest: SocketAddr,
    /// Whom it was for.
    pub target: SocketAddr,
    /// What it said, or the start of it.
    pub payload: Vec<u8>,
    /// Why.
    pub error: io::Error,
    /// What the link on the way carries, if it was too large for it.
    pub mtu: Option<u32>,
}

/// What came for a port of the guest.
#[derive(Debug, Clone, Copy)]
pub struct Arrived<'a> {
    /// Whom it is for.
    pub guest: SocketAddr,
    /// Who sent it.
    pub from: SocketAddr,
    /// What it says.
    pub bytes: &'a [u8],
    /// Set if it is several datagrams of this length, of which the last may be shorter.
    pub each_bytes: Option<NonZeroU16>,
}

/// The mappings of one guest.
#[derive(Debug)]
pub struct Nat {
    /// Ports at once; when one more comes, the one that is silent longest goes.
    limit: usize,
    by_guest: HashMap<SocketAddr, u32>,
    by_place: HashMap<u32, Mapping>,
    next: u32,
    inbox: Inbox,
    /// What waits for [`flush`](Self::flush), of one mapping.
    outbox: Outbox,
    sender: u32,
    undelivered: Vec<Undelivered>,
}

impl Nat {
    /// For at most so many ports of the guest.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            by_guest: HashMap::new(),
            by_place: HashMap::new(),
            next: 0,
            inbox: Inbox::default(),
            outbox: Outbox::default(),
            sender: 0,
            undelivered: Vec::new(),
        }
    }

    /// Datagrams that were lost because a socket was full.
    pub fn lost(&self) -> u64 {
        self.outbox.lost
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_place.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_place.is_empty()
    }

    /// Sends a datagram of the guest's, with others, at the latest at the next [`flush`](Self::flush). A socket that is
    /// full drops it.
    ///
    /// # Errors
    /// The host's: no more descriptors.
    pub fn send(
        &mut self,
        guest: SocketAddr,
        target: SocketAddr,
        payload: &[u8],
        poll: &Poll,
        now: Millis,
    ) -> io::Result<()> {
        let place = match self.by_guest.get(&guest) {
            Some(place) => *place,
            None => self.map(guest, poll, now)?,
        };
        if self.sender != place || self.outbox.is_full_for(payload.len()) {
            self.send_waiting();
            self.sender = place;
        }
        let Some(mapping) = self.by_place.get_mut(&place) else { return Ok(()) };
        mapping.last_word = now;
        mapping.is_for_names &= target.port() == DNS_PORT;
        if mapping.peers.len() <= PEERS_LIMIT {
            mapping.peers.insert(target.ip());
        }
        self.outbox.push(target, payload);
        Ok(())
    }

    /// Sends what waits; gives what did not arrive since the last time.
    pub fn flush(&mut self) -> Vec<Undelivered> {
        self.send_waiting();
        std::mem::take(&mut self.undelivered)
    }

    fn send_waiting(&mut self) {
        let Some(mapping) = self.by_place.get(&self.sender).filter(|_| !self.outbox.is_empty()) else { return };
        for Failure { target, payload, error } in self.outbox.send(mapping.socket.as_fd()) {
            if self.undelivered.len() < UNDELIVERED_LIMIT {
                let guest = mapping.guest;
                self.undelivered.push(Undelivered { guest, target, payload, error, mtu: None });
            }
        }
    }

    fn map(&mut self, guest: SocketAddr, poll: &Poll, now: Millis) -> io::Result<u32> {
        if self.by_place.len() >= self.limit {
            let oldest = self.by_place.iter().min_by_key(|(_, mapping)| mapping.last_word).map(|(place, _)| *place);
            oldest.into_iter().for_each(|place| self.forget(place));
        }
        let (family, any): (_, SocketAddr) = match guest {
            SocketAddr::V4(_) => (AddressFamily::INET, (Ipv4Addr::UNSPECIFIED, 0).into()),
            SocketAddr::V6(_) => (AddressFamily::INET6, (Ipv6Addr::UNSPECIFIED, 0).into()),
        };
        let socket = socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
        if guest.is_ipv6() {
            set_ipv6_v6only(&socket, true)?;
        }
        bind(&socket, &any)?;
        socket::keep_errors(socket.as_fd(), guest.is_ipv4())?;
        socket::take_runs(socket.as_fd());
        let place = self.next;
        self.next = self.next.wrapping_add(1);
        poll.add(socket.as_fd(), Token { owner: Owner::Udp, place, generation: 0 })?;
        let mapping =
            Mapping { socket, guest, peers: HashSet::new(), is_answered: false, is_for_names: true, last_word: now };
        self.by_guest.insert(guest, place);
        self.by_place.insert(place, mapping);
        Ok(place)
    }

    fn forget(&mut self, place: u32) {
        if let Some(mapping) = self.by_place.remove(&place) {
            self.by_guest.remove(&mapping.guest);
        }
    }

    /// Gives `take` what came for the guest's port. True if there may be more.
    pub fn ready(&mut self, ready: Ready, now: Millis, mut take: impl FnMut(Arrived<'_>)) -> bool {
        let Some(mapping) = self.by_place.get_mut(&ready.token.place) else { return false };
        let socket = mapping.socket.as_fd();
        // While errors wait, reading fails.
        for _ in 0..if ready.has_ended { BATCH } else { 0 } {
            let Ok(socket::Returned { target, payload, error, mtu }) = socket::returned(socket) else { break };
            if self.undelivered.len() < UNDELIVERED_LIMIT {
                self.undelivered.push(Undelivered { guest: mapping.guest, target, payload, error, mtu });
            }
        }
        for _ in 0..BATCHES_A_TURN {
            let has_more = match self.inbox.fill(socket) {
                Ok(has_more) => has_more,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                // Of a datagram that did not arrive; the next call tells of others again.
                Err(_) => return true,
            };
            for Received { from, bytes, each_bytes } in self.inbox.received() {
                if mapping.peers.len() <= PEERS_LIMIT && !mapping.peers.contains(&from.ip()) {
                    continue;
                }
                mapping.last_word = now;
                mapping.is_answered = true;
                take(Arrived { guest: mapping.guest, from, bytes, each_bytes });
            }
            if !has_more {
                // Empty: the poll tells of the next one.
                return false;
            }
        }
        true
    }

    /// Forgets those that are silent, and gives back the memory of what passed.
    pub fn sweep(&mut self, now: Millis) {
        self.outbox.give_back();
        let is_over = |mapping: &Mapping| {
            let limit_ms = match () {
                () if mapping.is_for_names => NAMES_MS,
                () if mapping.is_answered => SILENCE_MS,
                () => UNANSWERED_MS,
            };
            now.saturating_sub(mapping.last_word) > limit_ms
        };
        let over: Vec<u32> =
            self.by_place.iter().filter(|(_, mapping)| is_over(mapping)).map(|(place, _)| *place).collect();
        over.into_iter().for_each(|place| self.forget(place));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    fn guest(port: u16) -> SocketAddr {
        (Ipv4Addr::new(10, 0, 2, 15), port).into()
    }

    fn received(nat: &mut Nat, poll: &Poll) -> Vec<(SocketAddr, SocketAddr, Vec<u8>)> {
        let mut all = Vec::new();
        for ready in poll.ready().unwrap() {
            nat.ready(ready, 1, |arrived| all.push((arrived.guest, arrived.from, arrived.bytes.to_vec())));
        }
        all
    }

    #[test]
    fn a_port_is_one_socket_and_only_those_it_spoke_to_answer() {
        let (mut nat, poll) = (Nat::new(100), Poll::new().unwrap());
        let [one, two] = [1, 2].map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
        let stranger = UdpSocket::bind("127.0.0.2:0").unwrap();
        for peer in [&one, &two] {
            nat.send(guest(5), peer.local_addr().unwrap(), b"hello", &poll, 0).unwrap();
        }
        assert!(nat.flush().is_empty());
        let mut buffer = [0; 9];
        let (len, from) = one.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"hello");
        assert_eq!(two.recv_from(&mut buffer).unwrap().1, from, "the same port for both");
        let inside = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), from.port());
        stranger.send_to(b"stranger", inside).unwrap();
        one.send_to(b"answer", inside).unwrap();
        let got = received(&mut nat, &poll);
        assert_eq!(got, [(guest(5), one.local_addr().unwrap(), b"answer".to_vec())]);
    }

    #[test]
    fn what_nobody_takes_is_told() {
        let (mut nat, poll) = (Nat::new(100), Poll::new().unwrap());
        let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        nat.send(guest(5), closed, b"hello", &poll, 0).unwrap();
        let mut told = nat.flush();
        while told.is_empty() {
            received(&mut nat, &poll);
            told = nat.flush();
        }
        let [Undelivered { guest: whose, target, payload, error, .. }] = &told[..] else { panic!("{told:?}") };
        assert_eq!((*whose, *target, &payload[..]), (guest(5), closed, &b"hello"[..]));
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn a_port_that_asked_for_names_goes_soon() {
        let (mut nat, poll) = (Nat::new(100), Poll::new().unwrap());
        nat.send(guest(5), "127.0.0.1:53".parse().unwrap(), b"", &poll, 0).unwrap();
        nat.sweep(NAMES_MS);
        assert_eq!(nat.len(), 1);
        nat.sweep(NAMES_MS + 1);
        assert!(nat.is_empty());
    }

    #[test]
    fn there_are_never_too_many_and_silent_ones_go() {
        let (mut nat, poll) = (Nat::new(100), Poll::new().unwrap());
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        // Fewer descriptors than mappings may be allowed here.
        for port in 1..100 {
            nat.send(guest(port), peer, b"", &poll, port.into()).unwrap();
        }
        assert_eq!(nat.len(), 99);
        for port in 100..200 {
            nat.send(guest(port), peer, b"", &poll, 99).unwrap();
            assert!(nat.len() <= 100);
        }
        assert!(nat.by_guest.contains_key(&guest(199)) && !nat.by_guest.contains_key(&guest(1)));
        nat = Nat::new(100);
        for port in 1..100 {
            nat.send(guest(port), peer, b"", &poll, port.into()).unwrap();
        }
        nat.sweep(50 + UNANSWERED_MS);
        assert_eq!(nat.len(), 50);
        nat.sweep(100 + UNANSWERED_MS);
        assert!(nat.is_empty() && nat.by_guest.is_empty());
    }
}

//! UDP outwards: every port of the guest has one socket of the host, whomever it talks to (RFC 4787: the mapping does
//! not depend on the other end, who may answer does).

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recvfrom, sendto, socket_with};

use crate::Millis;
use crate::poll::{Owner, Poll, Ready, Token};

/// Ports of the guest that are mapped at once; when one more comes, the one that is silent longest goes.
const MAPPINGS_LIMIT: usize = 1_024;
/// Ends that one port may have talked to and still hear from. With more, everybody may answer.
const PEERS_LIMIT: usize = 256;
/// A mapping is forgotten after so long without a datagram, once somebody answered (RFC 4787 section 4.3).
const SILENCE_MS: Millis = 300_000;
/// And before anybody did.
const UNANSWERED_MS: Millis = 60_000;
/// Datagrams that one socket gives in one turn.
const DATAGRAMS_A_TURN: usize = 64;
/// Longest datagram.
pub const DATAGRAM_LIMIT_BYTES: usize = 65_507;

#[derive(Debug)]
struct Mapping {
    socket: OwnedFd,
    guest: SocketAddr,
    peers: HashSet<IpAddr>,
    is_answered: bool,
    last_word: Millis,
}

/// The mappings of one guest.
#[derive(Debug, Default)]
pub struct Nat {
    by_guest: HashMap<SocketAddr, u32>,
    by_place: HashMap<u32, Mapping>,
    next: u32,
}

impl Nat {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_place.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_place.is_empty()
    }

    /// Sends a datagram of the guest's.
    ///
    /// # Errors
    /// The host's, if it knows at once that nobody can be reached. A socket that is full drops the datagram.
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
        let Some(mapping) = self.by_place.get_mut(&place) else { return Ok(()) };
        mapping.last_word = now;
        if mapping.peers.len() <= PEERS_LIMIT {
            mapping.peers.insert(target.ip());
        }
        match sendto(&mapping.socket, payload, SendFlags::DONTWAIT | SendFlags::NOSIGNAL, &target) {
            Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::NOBUFS) => Ok(()),
            // Of an earlier datagram.
            Err(rustix::io::Errno::CONNREFUSED) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn map(&mut self, guest: SocketAddr, poll: &Poll, now: Millis) -> io::Result<u32> {
        if self.by_place.len() >= MAPPINGS_LIMIT {
            let oldest = self.by_place.iter().min_by_key(|(_, mapping)| mapping.last_word).map(|(place, _)| *place);
            oldest.into_iter().for_each(|place| self.forget(place));
        }
        let (family, any): (_, SocketAddr) = match guest {
            SocketAddr::V4(_) => (AddressFamily::INET, (Ipv4Addr::UNSPECIFIED, 0).into()),
            SocketAddr::V6(_) => (AddressFamily::INET6, (Ipv6Addr::UNSPECIFIED, 0).into()),
        };
        let socket = socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
        bind(&socket, &any)?;
        let place = self.next;
        self.next = self.next.wrapping_add(1);
        poll.add(socket.as_fd(), Token { owner: Owner::Udp, place, generation: 0 })?;
        let mapping = Mapping { socket, guest, peers: HashSet::new(), is_answered: false, last_word: now };
        self.by_guest.insert(guest, place);
        self.by_place.insert(place, mapping);
        Ok(place)
    }

    fn forget(&mut self, place: u32) {
        if let Some(mapping) = self.by_place.remove(&place) {
            self.by_guest.remove(&mapping.guest);
        }
    }

    /// Gives `take` what came for the guest's port: whom it is for, who sent it, and what. True if there may be more.
    pub fn ready(&mut self, ready: Ready, now: Millis, mut take: impl FnMut(SocketAddr, SocketAddr, &[u8])) -> bool {
        let Some(mapping) = self.by_place.get_mut(&ready.token.place) else { return false };
        let mut buffer = vec![0; DATAGRAM_LIMIT_BYTES];
        for _ in 0..DATAGRAMS_A_TURN {
            let (len, from) = match recvfrom(&mapping.socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((len, _, from)) => (len, from),
                // Somebody's port is closed; the next call tells of datagrams again.
                Err(rustix::io::Errno::CONNREFUSED) => continue,
                Err(_) => return false,
            };
            let Some(from) = from.and_then(|from| SocketAddr::try_from(from).ok()) else { continue };
            if mapping.peers.len() <= PEERS_LIMIT && !mapping.peers.contains(&from.ip()) {
                continue;
            }
            mapping.last_word = now;
            mapping.is_answered = true;
            take(mapping.guest, from, buffer.get(..len).unwrap_or_default());
        }
        true
    }

    /// Forgets those that are silent.
    pub fn sweep(&mut self, now: Millis) {
        let is_over = |mapping: &Mapping| {
            let limit_ms = if mapping.is_answered { SILENCE_MS } else { UNANSWERED_MS };
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
            nat.ready(ready, 1, |to, from, bytes| all.push((to, from, bytes.to_vec())));
        }
        all
    }

    #[test]
    fn a_port_is_one_socket_and_only_those_it_spoke_to_answer() {
        let (mut nat, poll) = (Nat::default(), Poll::new().unwrap());
        let [one, two] = [1, 2].map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
        let stranger = UdpSocket::bind("127.0.0.2:0").unwrap();
        for peer in [&one, &two] {
            nat.send(guest(5), peer.local_addr().unwrap(), b"hello", &poll, 0).unwrap();
        }
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
    fn there_are_never_too_many_and_silent_ones_go() {
        let (mut nat, poll) = (Nat::default(), Poll::new().unwrap());
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        // Fewer descriptors than mappings may be allowed here.
        for port in 1..100 {
            nat.send(guest(port), peer, b"", &poll, port.into()).unwrap();
        }
        assert_eq!(nat.len(), 99);
        nat.sweep(50 + UNANSWERED_MS);
        assert_eq!(nat.len(), 50);
        nat.sweep(100 + UNANSWERED_MS);
        assert!(nat.is_empty() && nat.by_guest.is_empty());
    }
}

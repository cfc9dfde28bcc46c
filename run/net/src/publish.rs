//! Ports of the host that lead to ports of the guest.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, accept_with, bind, getpeername, getsockname, listen,
    recvfrom, sendto, socket_with,
    sockopt::{set_ipv6_v6only, set_socket_reuseaddr},
};

use crate::Millis;
use crate::poll::{Owner, Poll, Ready, Token};
use crate::udp::DATAGRAM_LIMIT_BYTES;

/// Connections that wait to be taken.
const BACKLOG: i32 = 1_024;
/// Datagrams that one port gives in one turn.
const TURN_LIMIT: usize = 64;
/// Those who sent datagrams to one port and may be answered; when one more comes, the one that is silent longest goes.
const CLIENTS_LIMIT: usize = 1_024;
/// Ports that stand in for those of clients that look alike to the guest: the dynamic ones (RFC 6335 section 6).
const STAND_INS: std::ops::RangeInclusive<u16> = 49_152..=65_535;

/// What a port carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A port of the host, and where it leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// The host's address and port; port 0 lets the host choose.
    pub host: SocketAddr,
    /// The guest's port.
    pub guest_port: u16,
    /// What it carries.
    pub transport: Transport,
}

/// A port of the host that is open and leads nowhere yet. Closed when dropped.
#[derive(Debug)]
pub struct OpenPort {
    socket: OwnedFd,
    published: Published,
}

impl OpenPort {
    /// Opens it. Whoever connects waits until it leads somewhere.
    ///
    /// # Errors
    /// The host's: the port is taken, or not for everybody.
    pub fn open(published: Published) -> io::Result<Self> {
        let family = if published.host.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let kind = match published.transport {
            Transport::Tcp => SocketType::STREAM,
            Transport::Udp => SocketType::DGRAM,
        };
        let socket = socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
        if published.host.is_ipv6() {
            // IPv4 has a socket of its own.
            set_ipv6_v6only(&socket, true)?;
        }
        if published.transport == Transport::Tcp {
            // A port that was open a moment ago is free.
            set_socket_reuseaddr(&socket, true)?;
        }
        bind(&socket, &published.host)?;
        if published.transport == Transport::Tcp {
            listen(&socket, BACKLOG)?;
        }
        let host = SocketAddr::try_from(getsockname(&socket)?).map_err(io::Error::from)?;
        Ok(Self { socket, published: Published { host, ..published } })
    }

    /// What it is, with the port that it got.
    pub fn published(&self) -> &Published {
        &self.published
    }
}

#[derive(Debug)]
struct Opened {
    port: OpenPort,
    /// Who is who: as the guest sees them, as they are, and when they spoke last.
    clients: HashMap<SocketAddr, (SocketAddr, Millis)>,
}

/// The published ports of a guest. Its clones are the same ports, for other threads: they may come and go while the guest
/// runs.
#[derive(Debug, Clone)]
pub struct Publications {
    table: Arc<Mutex<Table>>,
    poll: Poll,
}

#[derive(Debug, Default)]
struct Table {
    opened: BTreeMap<u32, Opened>,
    next: u32,
}

/// Somebody who connected.
#[derive(Debug)]
pub struct Caller {
    /// The connection.
    pub socket: OwnedFd,
    /// Who it is.
    pub from: SocketAddr,
    /// The guest's port.
    pub guest_port: u16,
}

/// A datagram for the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// Who sent it, as the guest sees it.
    pub from: SocketAddr,
    /// The guest's port.
    pub guest_port: u16,
    /// What it says.
    pub bytes: Vec<u8>,
}

impl Publications {
    /// No ports yet. What happens to them is told by `poll`.
    pub fn new(poll: &Poll) -> Self {
        Self { table: Arc::default(), poll: poll.clone() }
    }

    /// An open port leads to the guest from now on; gives the number by which it can be taken back.
    ///
    /// # Errors
    /// The host's: no more descriptors can be waited for.
    pub fn add(&self, port: OpenPort) -> io::Result<u32> {
        let mut table = self.lock();
        let place = table.next;
        table.next = table.next.wrapping_add(1);
        self.poll.add(port.socket.as_fd(), Token { owner: Owner::Publish, place, generation: 0 })?;
        table.opened.insert(place, Opened { port, clients: HashMap::new() });
        Ok(place)
    }

    /// Closes a port; connections that came through it stay. `None` if there is none of that number.
    pub fn remove(&self, number: u32) -> Option<Published> {
        Some(self.lock().opened.remove(&number)?.port.published)
    }

    /// All ports, with their numbers.
    pub fn list(&self) -> Vec<(u32, Published)> {
        self.lock().opened.iter().map(|(number, opened)| (*number, opened.port.published)).collect()
    }

    /// Those who connected.
    pub(crate) fn accept(&self, ready: Ready) -> Vec<Caller> {
        let table = self.lock();
        let Some(opened) = table.opened.get(&ready.token.place) else { return Vec::new() };
        if opened.port.published.transport != Transport::Tcp {
            return Vec::new();
        }
        let mut callers = Vec::new();
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        while let Ok(socket) = accept_with(&opened.port.socket, flags) {
            // One that is gone already has no name any more.
            let from = getpeername(&socket).ok().flatten().and_then(|from| SocketAddr::try_from(from).ok());
            if let Some(from) = from {
                callers.push(Caller { socket, from, guest_port: opened.port.published.guest_port });
            }
        }
        callers
    }

    /// Datagrams that came, and whether there may be more. `seen` is how the guest sees somebody.
    pub(crate) fn receive(
        &self,
        ready: Ready,
        now: Millis,
        seen: impl Fn(SocketAddr) -> SocketAddr,
    ) -> (Vec<Datagram>, bool) {
        let mut table = self.lock();
        let place = ready.token.place;
        let published = table.opened.get(&place).map(|opened| opened.port.published);
        let Some(published) = published.filter(|published| published.transport == Transport::Udp) else {
            return (Vec::new(), false);
        };
        let mut datagrams = Vec::new();
        let mut buffer = vec![0; DATAGRAM_LIMIT_BYTES];
        for _ in 0..TURN_LIMIT {
            let Some(opened) = table.opened.get(&place) else { break };
            let (len, from) = match recvfrom(&opened.port.socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((len, _, from)) => (len, from),
                // An answer of ours reached nobody.
                Err(rustix::io::Errno::CONNREFUSED) => continue,
                Err(_) => return (datagrams, false),
            };
            let Some(from) = from.and_then(|from| SocketAddr::try_from(from).ok()) else { continue };
            let Some(shown) = table.shown(place, published.guest_port, from, seen(from)) else { continue };
            table.heard(place, shown, from, now);
            let bytes = buffer.get(..len).unwrap_or_default().to_vec();
            datagrams.push(Datagram { from: shown, guest_port: published.guest_port, bytes });
        }
        (datagrams, true)
    }

    /// Sends a datagram of the guest's if it answers one that came to a published port; false if it does not.
    pub(crate) fn send(&self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) -> bool {
        let table = self.lock();
        let answered = table.of_guest(from.port()).find_map(|(_, opened)| Some((opened, opened.clients.get(&to)?.0)));
        let Some((opened, client)) = answered else { return false };
        // Lost, as any datagram may be.
        let _ = sendto(&opened.port.socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL, &client);
        true
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// The UDP ports that lead to this one of the guest's.
    fn of_guest(&self, guest_port: u16) -> impl Iterator<Item = (u32, &Opened)> {
        let is_port = move |opened: &Opened| {
            opened.port.published.transport == Transport::Udp && opened.port.published.guest_port == guest_port
        };
        self.opened.iter().filter(move |(_, opened)| is_port(opened)).map(|(place, opened)| (*place, opened))
    }

    /// How the guest sees `from`, who sent something to the port at `place`: as `wanted`, unless somebody else looks so.
    fn shown(&self, place: u32, guest_port: u16, from: SocketAddr, wanted: SocketAddr) -> Option<SocketAddr> {
        let is_free = |shown: &SocketAddr| {
            self.of_guest(guest_port).all(|(other, opened)| {
                opened.clients.get(shown).is_none_or(|(client, _)| other == place && *client == from)
            })
        };
        candidates(wanted).find(is_free)
    }

    fn heard(&mut self, place: u32, shown: SocketAddr, from: SocketAddr, now: Millis) {
        let Some(opened) = self.opened.get_mut(&place) else { return };
        if opened.clients.len() >= CLIENTS_LIMIT && !opened.clients.contains_key(&shown) {
            let oldest = opened.clients.iter().min_by_key(|(_, (_, spoke))| *spoke).map(|(client, _)| *client);
            oldest.map(|client| opened.clients.remove(&client));
        }
        opened.clients.insert(shown, (from, now));
    }
}

/// Addresses under which the guest may see somebody: their own first.
pub(crate) fn candidates(wanted: SocketAddr) -> impl Iterator<Item = SocketAddr> {
    std::iter::once(wanted).chain(STAND_INS.map(move |port| SocketAddr::new(wanted.ip(), port)))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    fn open(transport: Transport, host: &str) -> io::Result<OpenPort> {
        OpenPort::open(Published { host: host.parse().unwrap(), guest_port: 80, transport })
    }

    fn ready(place: u32) -> Ready {
        Ready {
            token: Token { owner: Owner::Publish, place, generation: 0 },
            is_readable: true,
            is_writable: false,
            has_ended: false,
        }
    }

    #[test]
    fn a_port_that_is_taken_is_refused_and_one_that_was_removed_is_free() {
        let poll = Poll::new().unwrap();
        let ports = Publications::new(&poll);
        for transport in [Transport::Tcp, Transport::Udp] {
            let port = open(transport, "127.0.0.1:0").unwrap();
            let taken = port.published().host.to_string();
            assert_ne!(port.published().host.port(), 0);
            let number = ports.add(port).unwrap();
            assert_eq!(open(transport, &taken).unwrap_err().kind(), io::ErrorKind::AddrInUse);
            assert_eq!(ports.remove(number).map(|published| published.host.to_string()), Some(taken.clone()));
            assert_eq!(ports.remove(number), None);
            open(transport, &taken).unwrap();
        }
        assert_eq!(ports.list(), []);
    }

    #[test]
    fn clients_that_look_alike_to_the_guest_are_told_apart() {
        let poll = Poll::new().unwrap();
        let ports = Publications::new(&poll);
        let gateway: SocketAddr = "10.0.2.2:7".parse().unwrap();
        let mut seen = Vec::new();
        let clients = ["127.0.0.1:0", "127.0.0.2:0"].map(|address| UdpSocket::bind(address).unwrap());
        for client in &clients {
            let port = open(Transport::Udp, "127.0.0.1:0").unwrap();
            let host = port.published().host;
            let place = ports.add(port).unwrap();
            client.send_to(b"hello", host).unwrap();
            let (datagrams, _) = ports.receive(ready(place), 0, |_| gateway);
            let [Datagram { from, guest_port: 80, bytes }] = &datagrams[..] else { panic!("{datagrams:?}") };
            assert_eq!(bytes, b"hello");
            seen.push(*from);
        }
        assert_ne!(seen[0], seen[1]);
        let guest = "10.0.2.15:80".parse().unwrap();
        for (client, (seen, word)) in clients.iter().zip(seen.into_iter().zip([b"to one", b"to two"])) {
            assert!(ports.send(guest, seen, word));
            let mut buffer = [0; 16];
            let (len, _) = client.recv_from(&mut buffer).unwrap();
            assert_eq!(buffer[..len], word[..]);
        }
        assert!(!ports.send(guest, "10.0.2.2:9".parse().unwrap(), b"to nobody"));
    }
}

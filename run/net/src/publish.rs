//! Ports of the host that lead to ports of the guest.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, accept_with, bind, getsockname, listen, recvfrom,
    sendto, socket_with,
    sockopt::{set_ipv6_v6only, set_socket_reuseaddr},
};

use crate::Millis;
use crate::poll::{Owner, Poll, Ready, Token};
use crate::udp::DATAGRAM_LIMIT_BYTES;

/// Connections that wait to be taken.
const BACKLOG: i32 = 1_024;
/// Connections and datagrams that one port gives in one turn.
const TURN_LIMIT: usize = 64;
/// Those who sent datagrams to one port and may be answered; when one more comes, the one that is silent longest goes.
const CLIENTS_LIMIT: usize = 1_024;

/// What a port carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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

#[derive(Debug)]
struct Opened {
    socket: OwnedFd,
    published: Published,
    /// Who is who: as the guest sees them, as they are, and when they spoke last.
    clients: HashMap<SocketAddr, (SocketAddr, Millis)>,
}

/// The published ports of a guest.
#[derive(Debug, Default)]
pub struct Publications {
    opened: HashMap<u32, Opened>,
    next: u32,
}

impl Publications {
    /// Opens one; gives the address that it has.
    ///
    /// # Errors
    /// The host's: the port is taken, or not for everybody.
    pub fn add(&mut self, published: Published, poll: &Poll) -> io::Result<SocketAddr> {
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
        let address = SocketAddr::try_from(getsockname(&socket)?).map_err(io::Error::from)?;
        let place = self.next;
        self.next = self.next.wrapping_add(1);
        poll.add(socket.as_fd(), Token { owner: Owner::Publish, place, generation: 0 })?;
        self.opened.insert(place, Opened { socket, published, clients: HashMap::new() });
        Ok(address)
    }

    /// Connections that came: their sockets, who they are, and the guest's port.
    pub fn accept(&mut self, ready: Ready) -> Vec<(OwnedFd, SocketAddr, u16)> {
        let Some(opened) = self.opened.get(&ready.token.place) else { return Vec::new() };
        if opened.published.transport != Transport::Tcp {
            return Vec::new();
        }
        let mut accepted = Vec::new();
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        while let Ok(socket) = accept_with(&opened.socket, flags) {
            let from =
                rustix::net::getpeername(&socket).ok().flatten().and_then(|from| SocketAddr::try_from(from).ok());
            if let Some(from) = from {
                accepted.push((socket, from, opened.published.guest_port));
            }
        }
        accepted
    }

    /// Gives `take` the datagrams that came: who sent them, as the guest sees it, the guest's port, and what.
    pub fn receive(
        &mut self,
        ready: Ready,
        now: Millis,
        seen: impl Fn(SocketAddr) -> SocketAddr,
        mut take: impl FnMut(SocketAddr, u16, &[u8]),
    ) {
        let Some(opened) = self.opened.get_mut(&ready.token.place) else { return };
        if opened.published.transport != Transport::Udp {
            return;
        }
        let mut buffer = vec![0; DATAGRAM_LIMIT_BYTES];
        for _ in 0..TURN_LIMIT {
            let Ok((len, _, from)) = recvfrom(&opened.socket, &mut buffer[..], RecvFlags::DONTWAIT) else { break };
            let Some(from) = from.and_then(|from| SocketAddr::try_from(from).ok()) else { continue };
            let shown = seen(from);
            if opened.clients.len() >= CLIENTS_LIMIT && !opened.clients.contains_key(&shown) {
                let oldest = opened.clients.iter().min_by_key(|(_, (_, spoke))| *spoke).map(|(client, _)| *client);
                oldest.map(|client| opened.clients.remove(&client));
            }
            opened.clients.insert(shown, (from, now));
            take(shown, opened.published.guest_port, buffer.get(..len).unwrap_or_default());
        }
    }

    /// Whether a datagram of the guest's answers one that came to a published port.
    pub fn takes(&self, from: SocketAddr, to: SocketAddr) -> bool {
        self.answered(from, to).is_some()
    }

    /// Sends it.
    pub fn send(&self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        if let Some((opened, client)) = self.answered(from, to) {
            // Lost, as any datagram may be.
            let _ = sendto(&opened.socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL, &client);
        }
    }

    fn answered(&self, from: SocketAddr, to: SocketAddr) -> Option<(&Opened, SocketAddr)> {
        let is_port = |opened: &&Opened| {
            opened.published.transport == Transport::Udp && opened.published.guest_port == from.port()
        };
        let mut opened = self.opened.values().filter(is_port);
        opened.find_map(|opened| opened.clients.get(&to).map(|(client, _)| (opened, *client)))
    }
}

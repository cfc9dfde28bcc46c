//! The connections to the other machines of a network. Who joins calls all who are there; they take the call.

use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_send_buffer_size};
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with, recv, send};

use super::filter::Link as Subnet;
use super::folder::{MEMBERS_LIMIT, Seat, Who};
use super::is_own;
use crate::Millis;
use crate::link::outgoing::Gone;
use crate::link::packets::{Kind, Packets, Turned};
use crate::link::watch::Watch;
use crate::memory::MemoryFrame;
use crate::port::{GuestFrame, GuestPort};
use crate::stream::Framing;

/// What a caller says first, and then its number.
const GREETING: [u8; 5] = *b"kiln\x01";
/// Who calls says who it is within this time.
const STRANGER_MS: Millis = 1_000;
/// Somebody whose line is busy is called again after so long.
const BUSY_MS: Millis = 100;
/// Tokens below are the member's.
const FIRST_TOKEN: u64 = 16;
/// What may be on its way in the kernel, where its limit allows as much: a few frames of 64 KiB.
const BUFFER_BYTES: usize = 2 << 20;

#[derive(Debug)]
struct Peer {
    token: u64,
    who: Who,
    packets: Packets,
    /// IPv6 addresses that it has.
    claims: Vec<Ipv6Addr>,
    /// How many of ours it knows.
    told: usize,
}

#[derive(Debug)]
struct Stranger {
    token: u64,
    socket: OwnedFd,
    since: Millis,
}

/// The others.
#[derive(Debug, Default)]
pub(super) struct Peers {
    peers: Vec<Peer>,
    strangers: Vec<Stranger>,
    /// Their lines were busy.
    busy: Vec<Who>,
    busy_until: Option<Millis>,
    next_token: u64,
    /// Who has the first turn.
    first: usize,
    scratch: Vec<u8>,
    /// Names that came, with their addresses, and names that went.
    changes: Vec<(String, Vec<IpAddr>)>,
    /// Frames that tell of our guest's IPv6 addresses.
    own_claims: Vec<Vec<u8>>,
    lost: u64,
}

impl Peers {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Who> + Clone {
        self.peers.iter().map(|peer| &peer.who)
    }

    /// Names with all their addresses, and names that went, without, since the last call.
    pub(super) fn take_changes(&mut self) -> Vec<(String, Vec<IpAddr>)> {
        std::mem::take(&mut self.changes)
    }

    /// Calls somebody who is there.
    pub(super) fn call(&mut self, who: Who, seat: &Seat, watch: &Watch) -> std::io::Result<()> {
        let socket = match seat.dial(who.number) {
            Ok(socket) => socket,
            Err(error) if Errno::from_io_error(&error) == Some(Errno::AGAIN) => {
                self.busy.push(who);
                return Ok(());
            }
            // Gone this moment.
            Err(_) => return Ok(()),
        };
        let hello = [&GREETING[..], &seat.who().number.to_be_bytes()].concat();
        if send(&socket, &hello, SendFlags::DONTWAIT | SendFlags::NOSIGNAL).is_ok() {
            let token = self.token();
            watch.add(socket.as_fd(), token)?;
            self.add(token, who, socket);
        }
        Ok(())
    }

    /// Calls those whose line was busy.
    pub(super) fn call_again(&mut self, seat: &Seat, watch: &Watch, now: Millis) {
        if self.busy.is_empty() || self.busy_until.is_some_and(|until| now < until) {
            return;
        }
        for who in std::mem::take(&mut self.busy) {
            // Somebody else may have that number by now, or has called meanwhile.
            if seat.member(who.number).as_ref() == Some(&who) && !self.iter().any(|known| *known == who) {
                // Without a descriptor to spare, the two do not hear each other.
                let _ = self.call(who, seat, watch);
            }
        }
        self.busy_until = Some(now + BUSY_MS);
    }

    /// Takes calls.
    pub(super) fn accept(&mut self, listener: BorrowedFd<'_>, watch: &Watch, now: Millis) {
        while self.strangers.len() < MEMBERS_LIMIT {
            let Ok(socket) = accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) else { return };
            let token = self.token();
            if is_own(&socket) && watch.add(socket.as_fd(), token).is_ok() {
                self.strangers.push(Stranger { token, socket, since: now });
            }
        }
    }

    /// Something happened at a connection.
    pub(super) fn happened(&mut self, token: u64, is_readable: bool) {
        if is_readable && let Some(peer) = self.peers.iter_mut().find(|peer| peer.token == token) {
            peer.packets.set_readable();
        }
    }

    /// Hears who the callers are.
    pub(super) fn greet(&mut self, seat: &Seat, now: Millis) {
        for stranger in std::mem::take(&mut self.strangers) {
            let mut hello = [0; GREETING.len() + 5];
            match recv(&stranger.socket, &mut hello[..], RecvFlags::DONTWAIT) {
                Ok((len, _)) => {
                    let number = hello.get(..len).and_then(|hello| hello.strip_prefix(&GREETING));
                    let number = number.and_then(|number| Some(u32::from_be_bytes(number.try_into().ok()?)));
                    if let Some(who) = number.and_then(|number| seat.member(number)) {
                        self.add(stranger.token, who, stranger.socket);
                    }
                }
                Err(Errno::AGAIN | Errno::INTR) if now.saturating_sub(stranger.since) < STRANGER_MS => {
                    self.strangers.push(stranger);
                }
                Err(_) => {}
            }
        }
    }

    fn token(&mut self) -> u64 {
        self.next_token += 1;
        FIRST_TOKEN + self.next_token
    }

    fn add(&mut self, token: u64, who: Who, socket: OwnedFd) {
        // Whoever had that number or that address before is gone.
        while let Some(at) = self.peers.iter().position(|peer| peer.who.number == who.number || peer.who.mac == who.mac)
        {
            self.remove(at);
        }
        if self.peers.len() >= MEMBERS_LIMIT {
            return;
        }
        // Less is slower, nothing else.
        let _ = set_socket_send_buffer_size(&socket, BUFFER_BYTES);
        let _ = set_socket_recv_buffer_size(&socket, BUFFER_BYTES);
        self.changes.push((who.name.clone(), vec![who.address.into()]));
        let packets = Packets::new(socket, Kind::Connection, Framing::Virtio);
        self.peers.push(Peer { token, who, packets, claims: Vec::new(), told: 0 });
    }

    fn remove(&mut self, at: usize) {
        let peer = self.peers.swap_remove(at);
        self.lost += peer.packets.lost();
        self.changes.push((peer.who.name, Vec::new()));
    }

    /// Our guest told everybody who is here of an IPv6 address; those who come later get `frame`, which says the same.
    pub(super) fn add_own_claim(&mut self, frame: Vec<u8>) {
        self.own_claims.push(frame);
        self.peers.iter_mut().for_each(|peer| peer.told = self.own_claims.len());
    }

    /// Sends a frame to one of them. False if nobody has that address.
    pub(super) fn send(&mut self, mac: crate::wire::Mac, frame: &dyn GuestFrame, now: Millis) -> bool {
        let Some(at) = self.peers.iter().position(|peer| peer.who.mac == mac) else { return false };
        if self.peers.get_mut(at).is_some_and(|peer| peer.packets.send(frame, now).is_err()) {
            self.remove(at);
            return false;
        }
        true
    }

    /// Sends a frame to all of them.
    pub(super) fn send_all(&mut self, frame: &dyn GuestFrame, now: Millis) {
        for at in (0..self.peers.len()).rev() {
            if self.peers.get_mut(at).is_some_and(|peer| peer.packets.send(frame, now).is_err()) {
                self.remove(at);
            }
        }
    }

    /// Moves frames both ways. True if there is more.
    pub(super) fn turn(
        &mut self,
        subnet: &Subnet,
        own: crate::wire::Mac,
        port: &mut dyn GuestPort,
        now: Millis,
    ) -> bool {
        let mut has_more = false;
        let mut gone = Vec::new();
        let mut claims = Vec::new();
        let count = self.peers.len();
        for offset in 0..count {
            let at = (self.first + offset) % count;
            let (before, rest) = self.peers.split_at_mut(at);
            let Some((peer, after)) = rest.split_first_mut() else { continue };
            let Peer { token, who, packets, told, .. } = peer;
            let others = before.iter().chain(after.iter()).map(|other| &other.who);
            let lets_in = |frame: &[u8], _: &_| {
                let is_good = subnet.lets_in(own, frame, who, others.clone());
                claims.extend(subnet.claimed(frame, who).filter(|_| is_good).map(|address| (*token, address)));
                is_good
            };
            let untold = self.own_claims.iter().skip(*told).map(MemoryFrame::whole);
            let mut is_gone = false;
            untold.for_each(|frame| is_gone |= packets.send(&frame, now).is_err());
            *told = self.own_claims.len();
            if is_gone {
                gone.push(*token);
                continue;
            }
            match packets.turn(&mut self.scratch, lets_in, port, now) {
                Ok(turned) => has_more |= turned == Turned::More,
                Err(Gone) => gone.push(*token),
            }
        }
        claims.into_iter().for_each(|(token, address)| self.learn(token, address));
        self.first = self.first.wrapping_add(1);
        for token in gone {
            if let Some(at) = self.peers.iter().position(|peer| peer.token == token) {
                self.remove(at);
            }
        }
        has_more
    }

    /// One of them has an IPv6 address.
    fn learn(&mut self, token: u64, address: Ipv6Addr) {
        let Some(peer) = self.peers.iter_mut().find(|peer| peer.token == token) else { return };
        if !peer.claims.contains(&address) {
            // Two, at most: only what is surely its own gets here.
            peer.claims.push(address);
            let addresses = std::iter::once(peer.who.address.into()).chain(peer.claims.iter().copied().map(IpAddr::V6));
            self.changes.push((peer.who.name.clone(), addresses.collect()));
        }
    }

    pub(super) fn deadline(&self) -> Option<Millis> {
        let stranger = self.strangers.iter().map(|stranger| stranger.since + STRANGER_MS);
        let peers = self.peers.iter().filter_map(|peer| peer.packets.deadline());
        let busy = (!self.busy.is_empty()).then_some(self.busy_until.unwrap_or(0));
        stranger.chain(peers).chain(busy).min()
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost + self.peers.iter().map(|peer| peer.packets.lost()).sum::<u64>()
    }
}

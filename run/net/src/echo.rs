//! ICMP: echoes are answered for the gateway and passed on to others, and the guest is told what cannot be reached
//! (RFC 792, RFC 4443).

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, ipproto, recv, send, socket_with,
};

use crate::Millis;
use crate::packets::ToGuest;
use crate::poll::{Owner, Poll, Ready, Token};
use crate::wire::{Ip, Protocol};

/// A conversation without a word for so long is over.
const SILENCE_MS: Millis = 30_000;
/// Largest echo that is passed on, with its header.
const ECHO_LIMIT_BYTES: usize = 65_507;
const HEADER_BYTES: usize = 8;
/// RFC 792.
const PORT_UNREACHABLE_V4: u8 = 3;
/// RFC 4443 section 3.1.
const PORT_UNREACHABLE_V6: u8 = 4;

/// Where nobody is, as the guest says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// The guest's end.
    pub guest: SocketAddr,
    /// Who sent something there.
    pub remote: SocketAddr,
}

/// The types of a family's messages.
#[derive(Debug, Clone, Copy)]
struct Types {
    request: u8,
    reply: u8,
    unreachable: u8,
}

fn types(protocol: Protocol) -> Types {
    match protocol {
        Protocol::ICMPV6 => Types { request: 128, reply: 129, unreachable: 1 },
        _ => Types { request: 8, reply: 0, unreachable: 3 },
    }
}

/// One guest's identifier and destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    guest: IpAddr,
    remote: IpAddr,
    identifier: [u8; 2],
}

#[derive(Debug)]
struct Conversation {
    socket: OwnedFd,
    last_word: Millis,
    key: Key,
}

/// Echoes on their way.
#[derive(Debug)]
pub struct Echoes {
    /// Conversations at once; when one more begins, the one that is silent longest ends.
    limit: usize,
    by_key: HashMap<Key, u32>,
    by_place: HashMap<u32, Conversation>,
    next: u32,
}

/// What the guest asks of whom.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Its header.
    pub ip: &'a Ip,
    /// Its message.
    pub message: &'a [u8],
}

impl Request<'_> {
    /// Whether it is an echo request.
    pub fn is_echo(&self) -> bool {
        self.message.len() >= HEADER_BYTES && self.message.first() == Some(&types(self.ip.protocol).request)
    }

    /// Which end of the guest's it says nobody is at, if it is about a datagram that came there.
    pub fn refused(&self) -> Option<Refused> {
        let kinds = types(self.ip.protocol);
        let (kind, quoted) = (self.message.first_chunk::<2>()?, self.message.get(HEADER_BYTES..)?);
        let (source, destination, udp): (IpAddr, IpAddr, _) = match self.ip.protocol {
            Protocol::ICMPV6 if *kind == [kinds.unreachable, PORT_UNREACHABLE_V6] => {
                let header = quoted.first_chunk::<40>().filter(|header| header[6] == Protocol::UDP.0)?;
                let (addresses, _) = header.get(8..)?.as_chunks::<16>();
                let [source, destination] = *addresses else { return None };
                (source.into(), destination.into(), quoted.get(40..)?)
            }
            Protocol::ICMP if *kind == [kinds.unreachable, PORT_UNREACHABLE_V4] => {
                let header = quoted.first_chunk::<20>().filter(|header| header[9] == Protocol::UDP.0)?;
                let (addresses, _) = header.get(12..)?.as_chunks::<4>();
                let [source, destination] = *addresses else { return None };
                (source.into(), destination.into(), quoted.get(usize::from(header[0] & 0xf) * 4..)?)
            }
            _ => return None,
        };
        let [a, b, c, d] = *udp.first_chunk()?;
        Some(Refused {
            guest: SocketAddr::new(destination, u16::from_be_bytes([c, d])),
            remote: SocketAddr::new(source, u16::from_be_bytes([a, b])),
        })
    }

    /// The answer of somebody who is here.
    pub fn answer(&self, guest: &mut ToGuest<'_>) {
        let mut message = self.message.to_vec();
        if let Some(kind) = message.first_mut() {
            *kind = types(self.ip.protocol).reply;
        }
        guest.message(Ip::new(self.ip.destination, self.ip.source, self.ip.protocol), message);
    }
}

impl Echoes {
    /// At most so many conversations.
    pub fn new(limit: usize) -> Self {
        Self { limit, by_key: HashMap::new(), by_place: HashMap::new(), next: 0 }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_place.is_empty()
    }

    /// Passes an echo request on. Nothing happens if the host may not do that: then the guest hears nothing, as from a
    /// machine that does not answer.
    pub fn ask(&mut self, request: Request<'_>, target: IpAddr, poll: &Poll, now: Millis) {
        let [_, _, _, _, a, b, ..] = *request.message else { return };
        if request.message.len() > ECHO_LIMIT_BYTES {
            return;
        }
        let key = Key { guest: request.ip.source, remote: request.ip.destination, identifier: [a, b] };
        let place = match self.by_key.get(&key) {
            Some(place) => *place,
            None => match self.begin(key, (request.ip.protocol, target), poll, now) {
                Ok(place) => place,
                Err(_) => return,
            },
        };
        if let Some(conversation) = self.by_place.get_mut(&place) {
            conversation.last_word = now;
            // Lost, as on any way.
            let _ = send(&conversation.socket, request.message, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        }
    }

    fn begin(&mut self, key: Key, (protocol, target): (Protocol, IpAddr), poll: &Poll, now: Millis) -> io::Result<u32> {
        if self.by_place.len() >= self.limit {
            let oldest =
                self.by_place.iter().min_by_key(|(_, conversation)| conversation.last_word).map(|(place, _)| *place);
            oldest.into_iter().for_each(|place| self.end(place));
        }
        let (family, kind) = match protocol {
            Protocol::ICMPV6 => (AddressFamily::INET6, ipproto::ICMPV6),
            _ => (AddressFamily::INET, ipproto::ICMP),
        };
        let socket = socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, Some(kind))?;
        connect(&socket, &SocketAddr::new(target, 0))?;
        let place = self.next;
        self.next = self.next.wrapping_add(1);
        let token = Token { owner: Owner::Echo, place, generation: 0 };
        poll.add(socket.as_fd(), token)?;
        self.by_key.insert(key, place);
        self.by_place.insert(place, Conversation { socket, last_word: now, key });
        Ok(place)
    }

    fn end(&mut self, place: u32) {
        if let Some(conversation) = self.by_place.remove(&place) {
            self.by_key.remove(&conversation.key);
        }
    }

    /// Answers came.
    pub fn ready(&mut self, ready: Ready, guest: &mut ToGuest<'_>, now: Millis) {
        let Some(conversation) = self.by_place.get_mut(&ready.token.place) else { return };
        let mut buffer = vec![0; ECHO_LIMIT_BYTES];
        while let Ok((len, _)) = recv(&conversation.socket, &mut buffer[..], RecvFlags::DONTWAIT) {
            conversation.last_word = now;
            let Key { guest: to, remote, identifier } = conversation.key;
            let protocol = if to.is_ipv4() { Protocol::ICMP } else { Protocol::ICMPV6 };
            let mut message = buffer.get(..len).unwrap_or_default().to_vec();
            // The host's kernel put its own identifier there.
            if let Some(place) = message.get_mut(4..6) {
                place.copy_from_slice(&identifier);
                guest.message(Ip::new(remote, to, protocol), message);
            }
        }
    }

    /// Forgets those that are silent.
    pub fn sweep(&mut self, now: Millis) {
        let silent = |(place, conversation): (&u32, &Conversation)| {
            (now.saturating_sub(conversation.last_word) > SILENCE_MS).then_some(*place)
        };
        let places: Vec<u32> = self.by_place.iter().filter_map(silent).collect();
        places.into_iter().for_each(|place| self.end(place));
    }
}

/// Why something cannot be reached, as the guest's kernel understands it.
pub fn unreachable_code(error: &io::Error, guest: IpAddr) -> u8 {
    let is_v6 = guest.is_ipv6();
    match error.kind() {
        io::ErrorKind::ConnectionRefused if is_v6 => 4,
        io::ErrorKind::ConnectionRefused => 3,
        io::ErrorKind::NetworkUnreachable => 0,
        io::ErrorKind::PermissionDenied if is_v6 => 1,
        io::ErrorKind::PermissionDenied => 13,
        _ if is_v6 => 3,
        _ => 1,
    }
}

/// Tells the guest that the packet whose headers begin with `original` (from its IP header on) reached nobody.
pub fn send_unreachable(code: u8, (ip, original): (&Ip, &[u8]), guest: &mut ToGuest<'_>) {
    let protocol = if ip.source.is_ipv4() { Protocol::ICMP } else { Protocol::ICMPV6 };
    send_error((types(protocol).unreachable, code, 0), (ip, original), guest);
}

/// Tells the guest that its packet was too large for a link further on, which carries `mtu` bytes (RFC 1191, RFC 4443
/// section 3.2).
pub fn send_too_big(mtu: u32, (ip, original): (&Ip, &[u8]), guest: &mut ToGuest<'_>) {
    let (kind, code) = if ip.source.is_ipv4() { (3, 4) } else { (2, 0) };
    send_error((kind, code, mtu), (ip, original), guest);
}

fn send_error((kind, code, value): (u8, u8, u32), (ip, original): (&Ip, &[u8]), guest: &mut ToGuest<'_>) {
    /// RFC 1812 section 4.3.2.3 and RFC 4443 section 2.4: never more than fits a smallest packet.
    const QUOTED_BYTES: usize = 548;
    let protocol = if ip.source.is_ipv4() { Protocol::ICMP } else { Protocol::ICMPV6 };
    let mut message = vec![kind, code, 0, 0];
    message.extend(value.to_be_bytes());
    message.extend_from_slice(original.get(..QUOTED_BYTES).unwrap_or(original));
    guest.message(Ip::new(ip.destination, ip.source, protocol), message);
}

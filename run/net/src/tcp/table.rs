//! All connections of a guest: found by their ends, by their socket's token and by their deadline.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, ipproto, socket_with};

use super::remembered::Past;
use super::{Context, Ending, Flow, FlowKey, Keeping, Millis, Stage, StreamSocket};
use crate::poll::{Owner, Poll, Ready, Token};
use crate::port::GuestFrame;
use crate::wire::{Headers, Ip, Protocol, Seq, Tcp, TcpFlags, TcpOptions};

/// Most connections at once.
pub const FLOWS_LIMIT: usize = 10_000;
/// Most connections whose other end has not answered yet. When one more comes, the oldest goes.
pub const HALF_OPEN_LIMIT: usize = 4_096;

/// What the guest is to be told about a connection that could not be made.
#[derive(Debug)]
pub struct Unreachable {
    /// Its ends.
    pub key: FlowKey,
    /// The number of the guest's SYN.
    pub first: Seq,
    /// Why.
    pub error: io::Error,
}

/// Where a connection of the guest's leads.
#[derive(Debug)]
pub enum Target {
    /// Somewhere outside.
    Host {
        /// The place.
        first: SocketAddr,
        /// Another one, if the first has nobody.
        second: Option<SocketAddr>,
    },
    /// A service of the network's own, which has the other end of this socket.
    Service(OwnedFd),
}

impl From<SocketAddr> for Target {
    fn from(first: SocketAddr) -> Self {
        Self::Host { first, second: None }
    }
}

/// Slots that stay when there are no connections any more.
const SPARE_SLOTS: usize = 64;

#[derive(Debug)]
struct Slot {
    generation: u32,
    flow: Option<Flow>,
    is_dirty: bool,
    /// The deadline under which it stands among the timers.
    armed: Option<Millis>,
}

/// The connections.
#[derive(Debug)]
pub struct Table {
    slots: Vec<Slot>,
    /// That of the next slot: no token of one that was there before has it.
    generation: u32,
    free: Vec<u32>,
    by_key: HashMap<FlowKey, u32>,
    timers: BTreeSet<(Millis, u32)>,
    /// Those that have something to send, once each.
    dirty: Vec<u32>,
    /// Those that are not connected, the oldest first. Some of them may be connected or gone.
    pub(super) half_open: VecDeque<(u32, u32)>,
    pub(super) half_open_limit: usize,
    limit: usize,
    past: Past,
    keeping: Keeping,
    /// Makes first numbers hard to guess.
    secret: RandomState,
}

impl Default for Table {
    fn default() -> Self {
        Self::new(Keeping::Kernel)
    }
}

impl Table {
    /// No connections yet. `keeping` says where what peers sent stays until the guest has it.
    pub fn new(keeping: Keeping) -> Self {
        Self {
            slots: Vec::new(),
            generation: 0,
            free: Vec::new(),
            by_key: HashMap::new(),
            timers: BTreeSet::new(),
            dirty: Vec::new(),
            half_open: VecDeque::new(),
            half_open_limit: HALF_OPEN_LIMIT,
            limit: FLOWS_LIMIT,
            past: Past::default(),
            keeping,
            secret: RandomState::new(),
        }
    }

    /// Takes at most so many connections.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit.min(FLOWS_LIMIT);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// When [`timers`](Self::timers) is to be called.
    pub fn deadline(&self) -> Option<Millis> {
        self.timers.first().map(|(deadline, _)| *deadline)
    }

    /// Whether [`flush`](Self::flush) has something to do.
    pub fn has_work(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Whether a segment may begin a connection.
    pub fn begins(tcp: &Tcp) -> bool {
        tcp.flags.has(TcpFlags::SYN) && !tcp.flags.has(TcpFlags::ACK) && !tcp.flags.has(TcpFlags::RST)
    }

    /// A segment came from the guest. `target` is where its connection leads, if one may be made.
    pub fn segment(
        &mut self,
        (key, tcp): (FlowKey, &Tcp),
        (frame, payload): (&dyn GuestFrame, Range<usize>),
        target: Option<Target>,
        poll: &Poll,
        cx: &mut Context<'_>,
    ) -> Option<Unreachable> {
        if let Some(place) = self.by_key.get(&key).copied() {
            let result = self.flow(place)?.segment(tcp, (frame, payload), cx);
            return self.after(place, result, cx);
        }
        if Self::begins(tcp)
            && let Some(target) = target
        {
            // A port may be used again at once (RFC 9293 section 3.10.7.4): the old connection is over.
            self.past.forget(key);
            return self.connect((key, tcp), target, poll, cx);
        }
        if !self.past.answer(key, tcp, cx) && !tcp.flags.has(TcpFlags::RST) {
            refuse(key, tcp, payload.len(), cx);
        }
        None
    }

    /// Whether there is a connection between these two.
    pub fn has(&self, key: FlowKey) -> bool {
        self.by_key.contains_key(&key)
    }

    /// Somebody connected to a published port: the guest is called, under the `second` ends if nobody is there under the
    /// first. If there is something that is to come `first`, the socket may also be a Unix one.
    ///
    /// # Errors
    /// There are too many connections, or the host has no more.
    pub fn accept(
        &mut self,
        (key, second): (FlowKey, Option<FlowKey>),
        (socket, first): (OwnedFd, Option<Vec<u8>>),
        poll: &Poll,
        cx: &mut Context<'_>,
    ) -> io::Result<()> {
        if self.len() >= self.limit || self.by_key.contains_key(&key) {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        self.past.forget(key);
        let socket = match first {
            Some(first) => StreamSocket::beginning_with(socket, first)?,
            None => StreamSocket::new(socket, self.keeping)?,
        };
        let mut flow = Flow::inbound(key, socket, self.first_number(key, cx.now), cx);
        flow.second_key = second;
        self.insert(flow, poll, cx)
    }

    /// Something happened to a socket.
    pub fn ready(&mut self, ready: Ready, poll: &Poll, cx: &mut Context<'_>) -> Option<Unreachable> {
        let slot = self.slots.get_mut(ready.token.place as usize)?;
        if slot.generation != ready.token.generation {
            return None;
        }
        let flow = slot.flow.as_mut()?;
        let result = match flow.next_target(ready) {
            Some((target, error)) => connecting(target, self.keeping)
                .and_then(|socket| poll.add(socket.fd(), ready.token).map(|()| flow.socket = socket))
                .map_err(|_| flow.not_connected(error, cx)),
            None => flow.ready(ready, cx),
        };
        self.after(ready.token.place, result, cx)
    }

    /// Does what is due.
    pub fn timers(&mut self, cx: &mut Context<'_>) {
        self.past.sweep(cx.now);
        while let Some(&(deadline, place)) = self.timers.first()
            && deadline <= cx.now
        {
            self.timers.pop_first();
            let Some(slot) = self.slots.get_mut(place as usize) else { continue };
            slot.armed = None;
            let Some(flow) = &mut slot.flow else { continue };
            let result = flow.timer(cx);
            self.after(place, result, cx);
        }
    }

    /// Sends and acknowledges for all that something happened to. Those with more to send stay for the next time; true
    /// if there are any.
    pub fn flush(&mut self, cx: &mut Context<'_>) -> bool {
        for place in std::mem::take(&mut self.dirty) {
            let Some(slot) = self.slots.get_mut(place as usize) else { continue };
            slot.is_dirty = false;
            let Some(flow) = &mut slot.flow else { continue };
            match flow.flush(cx) {
                Ok(has_more) => {
                    self.arm(place);
                    if has_more {
                        self.mark(place);
                    }
                }
                Err(ending) => {
                    self.after(place, Err(ending), cx);
                }
            }
        }
        self.has_work()
    }

    fn connect(
        &mut self,
        (key, syn): (FlowKey, &Tcp),
        target: Target,
        poll: &Poll,
        cx: &mut Context<'_>,
    ) -> Option<Unreachable> {
        if self.len() >= self.limit {
            refuse(key, syn, 0, cx);
            return None;
        }
        let (socket, second) = match target {
            Target::Service(socket) => (StreamSocket::beginning_with(socket, Vec::new()), None),
            Target::Host { first, mut second } => {
                let socket = connecting(first, self.keeping).or_else(|error| {
                    second.take().and_then(|second| connecting(second, self.keeping).ok()).ok_or(error)
                });
                (socket, second)
            }
        };
        let made = socket.and_then(|socket| {
            let first = self.first_number(key, cx.now);
            let mut flow = Flow::outbound(key, syn, socket, first, (cx.link_mss(key), cx.now));
            flow.second = second;
            self.insert(flow, poll, cx)
        });
        match made {
            Ok(()) => None,
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                refuse(key, syn, 0, cx);
                None
            }
            Err(error) => Some(Unreachable { key, first: syn.seq, error }),
        }
    }

    fn insert(&mut self, flow: Flow, poll: &Poll, cx: &mut Context<'_>) -> io::Result<()> {
        let place = match self.free.pop() {
            Some(place) => place,
            None => {
                let place = u32::try_from(self.slots.len()).map_err(|_| io::ErrorKind::QuotaExceeded)?;
                self.slots.push(Slot { generation: self.generation, flow: None, is_dirty: false, armed: None });
                place
            }
        };
        let slot = self.slots.get_mut(place as usize).ok_or(io::ErrorKind::QuotaExceeded)?;
        let token = Token { owner: Owner::Tcp, place, generation: slot.generation };
        if let Err(error) = poll.add(flow.socket().fd(), token) {
            self.free.push(place);
            return Err(error);
        }
        let is_half_open = flow.stage() == Stage::Connecting;
        self.by_key.insert(flow.key(), place);
        slot.flow = Some(flow);
        let generation = slot.generation;
        self.arm(place);
        self.mark(place);
        if is_half_open {
            self.half_open.push_back((place, generation));
            self.bound_half_open(cx);
        }
        Ok(())
    }

    fn bound_half_open(&mut self, cx: &mut Context<'_>) {
        if self.half_open.len() <= self.half_open_limit {
            return;
        }
        let slots = &self.slots;
        self.half_open.retain(|(place, generation)| {
            let slot = slots.get(*place as usize).filter(|slot| slot.generation == *generation);
            slot.and_then(|slot| slot.flow.as_ref()).is_some_and(|flow| flow.stage() == Stage::Connecting)
        });
        let excess = self.half_open.len().saturating_sub(self.half_open_limit);
        // Some more than must go, so that this is not done for each that comes.
        let most = if excess > 0 { excess + self.half_open_limit / 64 } else { 0 };
        for (place, _) in self.half_open.drain(..most.min(self.half_open.len())).collect::<Vec<_>>() {
            self.remove(place, cx);
        }
    }

    fn after(&mut self, place: u32, result: Result<(), Ending>, cx: &mut Context<'_>) -> Option<Unreachable> {
        match result {
            Ok(()) => {
                self.arm(place);
                self.mark(place);
                None
            }
            Err(Ending::Elsewhere(key)) if !self.by_key.contains_key(&key) => {
                self.move_to(place, key, cx);
                None
            }
            Err(ending) => {
                let flow = self.flow(place)?;
                let (key, first) = (flow.key(), flow.guest_first());
                self.remove(place, cx);
                match ending {
                    Ending::Over | Ending::Elsewhere(_) => None,
                    Ending::Done(remembered) => {
                        self.past.add(key, remembered, cx.now);
                        None
                    }
                    Ending::Unreachable(error) => Some(Unreachable { key, first, error }),
                }
            }
        }
    }

    /// The connection at `place` gets other ends, under which the guest is called.
    fn move_to(&mut self, place: u32, key: FlowKey, cx: &mut Context<'_>) {
        let first = self.first_number(key, cx.now);
        self.past.forget(key);
        let Some(flow) = self.flow(place) else { return };
        let before = flow.key();
        flow.call_again(key, first, cx);
        self.by_key.remove(&before);
        self.by_key.insert(key, place);
        self.arm(place);
        self.mark(place);
    }

    fn remove(&mut self, place: u32, cx: &mut Context<'_>) {
        let Some(slot) = self.slots.get_mut(place as usize) else { return };
        let Some(flow) = slot.flow.take() else { return };
        slot.generation = slot.generation.wrapping_add(1) & Token::GENERATION_MASK;
        if let Some(deadline) = slot.armed.take() {
            self.timers.remove(&(deadline, place));
        }
        self.by_key.remove(&flow.key());
        self.free.push(place);
        flow.close(cx);
        if self.by_key.is_empty() && self.slots.len() > SPARE_SLOTS {
            self.give_back();
        }
    }

    /// Gives back the memory of many connections, when there are none.
    fn give_back(&mut self) {
        let last = self.slots.iter().map(|slot| slot.generation).max().unwrap_or(0);
        self.generation = last.wrapping_add(1) & Token::GENERATION_MASK;
        (self.slots, self.free, self.dirty) = (Vec::new(), Vec::new(), Vec::new());
        (self.by_key, self.half_open) = (HashMap::new(), VecDeque::new());
    }

    /// What connections keep of what came from the guest.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.slots.iter().filter_map(|slot| slot.flow.as_ref()).map(|flow| flow.receive.held_bytes()).sum()
    }

    fn flow(&mut self, place: u32) -> Option<&mut Flow> {
        self.slots.get_mut(place as usize)?.flow.as_mut()
    }

    fn mark(&mut self, place: u32) {
        if let Some(slot) = self.slots.get_mut(place as usize)
            && !slot.is_dirty
        {
            slot.is_dirty = true;
            self.dirty.push(place);
        }
    }

    /// A timer that is too early does no harm: it is looked at again then. So it is moved only when it would be late.
    fn arm(&mut self, place: u32) {
        let Some(slot) = self.slots.get_mut(place as usize) else { return };
        let Some(deadline) = slot.flow.as_ref().and_then(Flow::deadline) else { return };
        if slot.armed.is_some_and(|armed| armed <= deadline) {
            return;
        }
        if let Some(armed) = slot.armed.replace(deadline) {
            self.timers.remove(&(armed, place));
        }
        self.timers.insert((deadline, place));
    }

    /// RFC 6528: a clock of four microseconds and a keyed hash of both ends.
    fn first_number(&self, key: FlowKey, now: Millis) -> Seq {
        let mixed = self.secret.hash_one(key).wrapping_add(now.wrapping_mul(250));
        Seq(u32::try_from(mixed & u64::from(u32::MAX)).unwrap_or(0))
    }
}

/// A socket on its way to `target`.
fn connecting(target: SocketAddr, keeping: Keeping) -> io::Result<StreamSocket> {
    StreamSocket::new(connecting_to(target)?, keeping)
}

/// The same, of nobody's connection.
pub(crate) fn connecting_to(target: SocketAddr) -> io::Result<OwnedFd> {
    let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    match connect(&socket, &target) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}

/// Nobody is there: a reset, as RFC 9293 section 3.10.7.1 wants it.
fn refuse(key: FlowKey, tcp: &Tcp, payload_bytes: usize, cx: &mut Context<'_>) {
    let numbers = [TcpFlags::SYN, TcpFlags::FIN].iter().filter(|flag| tcp.flags.has(**flag)).count() + payload_bytes;
    let (seq, ack, flags) = match tcp.flags.has(TcpFlags::ACK) {
        true => (tcp.ack, Seq(0), TcpFlags::RST),
        false => {
            let ack = tcp.seq + u32::try_from(numbers).unwrap_or(u32::MAX);
            (Seq(0), ack, TcpFlags::RST | TcpFlags::ACK)
        }
    };
    let answer = Tcp {
        source_port: key.remote.port(),
        destination_port: key.guest.port(),
        seq,
        ack,
        flags,
        window: 0,
        options: TcpOptions::default(),
    };
    let ip = Ip::new(key.remote.ip(), key.guest.ip(), Protocol::TCP);
    // Lost, if there is no room: the guest asks again.
    let _ = cx.port.send(Headers::tcp(cx.macs, &ip, &answer, 0), &[]);
}

//! All connections of a guest, and whose turn it is.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use kiln_net::poll::{Owner, Poll, Ready, Token};
use rustix::net::{RecvFlags, recv};

use super::connection::{Connection, Key, Turn};
use super::guest::{Inbox, Payload};
use super::packet::{Header, op};
use super::sockets::{Sockets, Target, VsockError};
use super::words::{self, LINE_BYTES};
use crate::config::{HOST_CID, Vsock, VsockKind};

/// Most connections at once: each has a descriptor and up to [`BUFFER_BYTES`] of what its program does not read.
pub const MAX_CONNECTIONS: usize = 4096;
/// Connections that get the large buffer; with the small ones all together have 304 MiB at most.
const LARGE_BUFFERS: usize = 256;
/// Bytes of the guest's that are kept for a program that does not read.
const BUFFER_BYTES: u32 = 256 << 10;
/// The same where there are many.
const SMALL_BUFFER_BYTES: u32 = 64 << 10;
/// The same for messages: the longest that a socket takes is a little longer (Linux: `net.core.wmem_default`).
const MESSAGES_BYTES: u32 = 128 << 10;
/// Longest message of the host's that is looked at.
const MESSAGE_BYTES: usize = 256 << 10;
/// Answers to packets of no connection that wait. More make the guest wait.
const MAX_STRAYS: usize = 256;
/// Programs that have not said yet which port they want; when one more comes, the one that waits longest goes.
const MAX_ASKING: usize = 64;
/// Turns of connections after which the guest's packets are looked at.
const TURNS_AT_ONCE: usize = 256;
/// The host's ports for connections that are made there: half of those that no guest names by itself.
const FIRST_HOST_PORT: u32 = 1 << 30;
const LAST_HOST_PORT: u32 = (1 << 31) - 1;

/// The connections of a guest. One thread has it at a time.
pub struct Muxer {
    cid: u32,
    sockets: Sockets,
    poll: Poll,
    connections: HashMap<u32, Connection>,
    by_key: HashMap<Key, u32>,
    /// Who is still to say which port he wants, by his number.
    asking: BTreeMap<u32, OwnedFd>,
    /// Who has something to say to the guest.
    queue: VecDeque<u32>,
    strays: VecDeque<Header>,
    next_number: u32,
    next_port: u32,
    /// The guest has not heard that these ended.
    lost: Vec<Key>,
    carries_messages: bool,
    scratch: Vec<u8>,
}

impl Muxer {
    /// Opens all sockets. The state folder exists, and is this machine's.
    ///
    /// # Errors
    /// A socket that cannot be had.
    pub fn open(config: &Vsock, state_dir: &Path) -> Result<Self, VsockError> {
        let sockets = Sockets::open(config, state_dir)?;
        let poll = Poll::new().map_err(VsockError::Wait)?;
        for (place, listener) in (0..).zip(&sockets.listeners) {
            let token = Token { owner: Owner::Listener, place, generation: 0 };
            poll.add(listener.socket.as_fd(), token).map_err(VsockError::Wait)?;
        }
        Ok(Self {
            cid: config.cid,
            sockets,
            poll,
            connections: HashMap::new(),
            by_key: HashMap::new(),
            asking: BTreeMap::new(),
            queue: VecDeque::new(),
            strays: VecDeque::new(),
            next_number: 0,
            next_port: FIRST_HOST_PORT,
            lost: Vec::new(),
            carries_messages: false,
            scratch: vec![0; MESSAGE_BYTES],
        })
    }

    /// Readable when something happened to a socket.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.poll.fd()
    }

    /// A guest is there from now on. True if an earlier one, which may be the same, had connections: it should hear that
    /// they are gone, all at once or by [`Self::reset_lost`].
    pub fn start(&mut self, carries_messages: bool) -> bool {
        self.carries_messages = carries_messages;
        !self.lost.is_empty()
    }

    /// Tells the guest of each connection that is gone.
    pub fn reset_lost(&mut self) {
        let gone = std::mem::take(&mut self.lost);
        self.strays.extend(gone.into_iter().map(|key| key.header(self.cid, op::RESET)));
    }

    /// The guest knows that all is gone.
    pub fn forget_lost(&mut self) {
        self.lost.clear();
    }

    /// The guest is gone, and all its connections with it. Who connects from now on waits for the next guest.
    pub fn end(&mut self) {
        self.lost = self.by_key.drain().map(|(key, _)| key).collect();
        self.connections.clear();
        self.asking.clear();
        self.queue.clear();
        self.strays.clear();
    }

    /// Too much waits for the guest to take it; no more of its packets are wanted.
    pub fn is_full(&self) -> bool {
        self.strays.len() >= MAX_STRAYS
    }

    /// Looks at what happened to the sockets. False if there may be more.
    ///
    /// # Errors
    /// The host's.
    pub fn look(&mut self) -> io::Result<bool> {
        let ready = self.poll.ready()?;
        for event in &ready {
            match event.token.owner {
                Owner::Listener => {
                    let place = usize::try_from(event.token.place).unwrap_or(usize::MAX);
                    if let Some(listener) = self.sockets.listeners.get_mut(place) {
                        listener.is_pending = true;
                    }
                }
                _ => self.see(*event),
            }
        }
        self.accept();
        Ok(ready.is_empty())
    }

    fn see(&mut self, event: Ready) {
        let number = event.token.place;
        if self.asking.contains_key(&number) {
            return self.hear_name(number);
        }
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.see(event);
            self.enqueue(number);
        }
    }

    /// Lets in who waits, as long as there is room.
    fn accept(&mut self) {
        for place in 0..self.sockets.listeners.len() {
            while self.connections.len() < MAX_CONNECTIONS {
                let Some(listener) = self.sockets.listeners.get_mut(place).filter(|listener| listener.is_pending)
                else {
                    break;
                };
                let target = listener.target;
                match listener.accept() {
                    Ok(Some(socket)) => self.let_in(socket, target),
                    Ok(None) => listener.is_pending = false,
                    // Again when something else has ended.
                    Err(_) => return,
                }
            }
        }
    }

    fn let_in(&mut self, socket: OwnedFd, target: Target) {
        let number = self.number();
        let token = Token { owner: Owner::Stream, place: number, generation: 0 };
        if self.poll.add(socket.as_fd(), token).is_err() {
            return;
        }
        match target {
            Target::Port(port, kind) => self.ask_guest(number, socket, (port, kind), false),
            Target::Named => {
                if self.asking.len() >= MAX_ASKING {
                    self.asking.pop_first();
                }
                self.asking.insert(number, socket);
                self.hear_name(number);
            }
        }
    }

    /// A number that nobody has. They are counted, so that an event of somebody who is gone is nobody else's.
    fn number(&mut self) -> u32 {
        loop {
            self.next_number = self.next_number.wrapping_add(1);
            let number = self.next_number;
            if !self.connections.contains_key(&number) && !self.asking.contains_key(&number) {
                return number;
            }
        }
    }

    /// Reads which port is wanted, and not one byte more: what follows is for the guest.
    fn hear_name(&mut self, number: u32) {
        let Some(socket) = self.asking.get(&number) else { return };
        let mut line = [0; LINE_BYTES];
        let peeked = match recv(socket, &mut line[..], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((peeked, _)) => peeked,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return,
            Err(_) => 0,
        };
        let end = line.iter().take(peeked).position(|byte| *byte == b'\n');
        let is_over = peeked == 0 || peeked == LINE_BYTES;
        let Some(end) = end else {
            // It has gone, or talks of something else.
            if is_over {
                self.asking.remove(&number);
            }
            return;
        };
        let named = line.get(..end).and_then(|line| words::parse(line, self.cid));
        let Some(socket) = self.asking.remove(&number) else { return };
        let taken = line.get_mut(..=end).map(|line| recv(&socket, line, RecvFlags::DONTWAIT));
        if let (Some(named), Some(Ok(_))) = (named, taken) {
            self.ask_guest(number, socket, (named.port, VsockKind::Stream), named.wants_word);
        }
    }

    fn ask_guest(&mut self, number: u32, socket: OwnedFd, (port, kind): (u32, VsockKind), wants_word: bool) {
        if kind == VsockKind::SeqPacket && !self.carries_messages || self.connections.len() >= MAX_CONNECTIONS {
            return;
        }
        let key = loop {
            let key = Key { guest_port: port, host_port: self.next_port, kind };
            self.next_port = if self.next_port >= LAST_HOST_PORT { FIRST_HOST_PORT } else { self.next_port + 1 };
            if !self.by_key.contains_key(&key) {
                break key;
            }
        };
        let connection = Connection::to_guest(key, self.cid, socket, self.buffer_bytes(kind), wants_word);
        self.insert(number, connection);
    }

    fn buffer_bytes(&self, kind: VsockKind) -> u32 {
        match kind {
            VsockKind::SeqPacket => MESSAGES_BYTES,
            VsockKind::Stream if self.connections.len() < LARGE_BUFFERS => BUFFER_BYTES,
            VsockKind::Stream => SMALL_BUFFER_BYTES,
        }
    }

    fn insert(&mut self, number: u32, connection: Connection) {
        self.by_key.insert(connection.key, number);
        self.connections.insert(number, connection);
        self.enqueue(number);
    }

    fn remove(&mut self, number: u32) {
        if let Some(connection) = self.connections.remove(&number) {
            self.by_key.remove(&connection.key);
        }
    }

    fn enqueue(&mut self, number: u32) {
        if let Some(connection) = self.connections.get_mut(&number)
            && !std::mem::replace(&mut connection.is_queued, true)
        {
            self.queue.push_back(number);
        }
    }

    /// A packet of the guest's.
    pub fn from_guest(&mut self, header: &Header, payload: &dyn Payload) {
        if header.src_cid != u64::from(self.cid) {
            // There is nobody whom an answer could reach.
            return;
        }
        let kind = header.kind().filter(|kind| *kind == VsockKind::Stream || self.carries_messages);
        let is_host = header.dst_cid == u64::from(HOST_CID);
        let Some(kind) = kind.filter(|_| is_host) else { return self.refuse(header) };
        let key = Key { guest_port: header.src_port, host_port: header.dst_port, kind };
        match (header.op, self.by_key.get(&key).copied()) {
            (op::RESET, Some(number)) => self.remove(number),
            (_, Some(number)) => {
                let len = usize::try_from(header.len).unwrap_or(usize::MAX);
                // A length that is not true breaks the rules as much as anything.
                let header = if len == payload.len_bytes() { *header } else { Header { op: 0, ..*header } };
                if let Some(connection) = self.connections.get_mut(&number) {
                    connection.hear(&header, payload);
                }
                self.enqueue(number);
            }
            (op::REQUEST, None) => self.connect(key, header),
            (_, None) => self.refuse(header),
        }
    }

    fn connect(&mut self, key: Key, header: &Header) {
        if self.connections.len() >= MAX_CONNECTIONS {
            return self.refuse(header);
        }
        let number = self.number();
        let token = Token { owner: Owner::Stream, place: number, generation: 0 };
        let socket = self.sockets.connect(key.host_port, key.kind);
        match socket.and_then(|socket| self.poll.add(socket.as_fd(), token).map(|()| socket)) {
            Ok(socket) => {
                let buffer_bytes = self.buffer_bytes(key.kind);
                self.insert(number, Connection::from_guest(key, header, self.cid, socket, buffer_bytes));
            }
            Err(_) => self.refuse(header),
        }
    }

    /// Answers a packet of no connection. A reset is never answered.
    fn refuse(&mut self, header: &Header) {
        if header.op == op::RESET {
            return;
        }
        self.strays.push_back(header.back(op::RESET));
    }

    /// Gives the guest what there is for it. True if it stopped though the guest has buffers.
    pub fn to_guest(&mut self, inbox: &mut dyn Inbox) -> bool {
        while let Some(stray) = self.strays.front() {
            if inbox.room().is_none() {
                return false;
            }
            inbox.send(stray, &[]);
            self.strays.pop_front();
        }
        for _ in 0..TURNS_AT_ONCE {
            let Some(number) = self.queue.front().copied() else { return false };
            let Some(connection) = self.connections.get_mut(&number) else {
                self.queue.pop_front();
                continue;
            };
            match connection.turn(inbox, &mut self.scratch) {
                Turn::NoRoom => return false,
                Turn::More => self.queue.rotate_left(1),
                Turn::Idle => {
                    connection.is_queued = false;
                    self.queue.pop_front();
                }
                Turn::Over => {
                    self.queue.pop_front();
                    self.remove(number);
                }
            }
        }
        !self.queue.is_empty()
    }

    /// How many connections there are.
    #[cfg(test)]
    pub(super) fn connections(&self) -> &HashMap<u32, Connection> {
        &self.connections
    }
}

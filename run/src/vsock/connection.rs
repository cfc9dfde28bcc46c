//! One connection: a socket on the host, a port of the guest's, and what either is told of the other.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use kiln_net::poll::Ready;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown as shut_socket};

use super::backlog::Backlog;
use super::credit::Credit;
use super::guest::{Inbox, Payload, Received};
use super::packet::{END_OF_MESSAGE, HEADER_BYTES, Header, kind_number, op, shutdown};
use crate::config::{HOST_CID, VsockKind};

/// Data that one connection gives the guest before another one has its turn.
const TURN_BYTES: usize = 64 << 10;

/// What tells one connection from all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) guest_port: u32,
    pub(super) host_port: u32,
    pub(super) kind: VsockKind,
}

impl Key {
    /// The header of a packet to the guest.
    pub(super) fn header(self, cid: u32, op: u16) -> Header {
        Header {
            src_cid: HOST_CID.into(),
            dst_cid: cid.into(),
            src_port: self.host_port,
            dst_port: self.guest_port,
            kind: kind_number(self.kind),
            op,
            ..Header::default()
        }
    }
}

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The guest is to be asked.
    Asks,
    /// The guest was asked.
    Asked,
    /// The guest is to be told that its connection was taken.
    Answers,
    Open,
    /// The guest is to be told that it has ended.
    Broken,
}

/// What became of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing is left to say.
    Idle,
    /// It would go on.
    More,
    /// It would go on if the guest had a buffer.
    NoRoom,
    /// The connection has ended.
    Over,
}

pub(super) struct Connection {
    pub(super) key: Key,
    /// It stands in the queue of those that have something to say.
    pub(super) is_queued: bool,
    cid: u32,
    socket: OwnedFd,
    phase: Phase,
    credit: Credit,
    backlog: Backlog,
    /// A message for the guest, and how much of it is there.
    message: Option<(Vec<u8>, usize)>,
    /// The program on the host is told when the guest has taken the connection.
    wants_word: bool,
    /// There may be something to read.
    is_readable: bool,
    /// The socket has ended one way or both, or was broken: what is read last is the end.
    has_ended: bool,
    /// All was read that the host will ever send.
    host_ended: bool,
    /// Nothing that is written reaches anybody.
    host_refuses: bool,
    /// Nobody is at the other end of the socket: what it still holds is all.
    is_gone: bool,
    /// The program on the host was told that nothing more comes.
    is_shut: bool,
    /// What the guest has said that it does no longer, and what it was told of the host: flags of [`shutdown`].
    guest_ended: u32,
    told: u32,
    owes_update: bool,
    has_asked_for_credit: bool,
}

impl Connection {
    /// One that was made on the host. With `wants_word` the program there is told when it is open.
    pub(super) fn to_guest(key: Key, cid: u32, socket: OwnedFd, buffer_bytes: u32, wants_word: bool) -> Self {
        Self::new(key, cid, socket, (buffer_bytes, Phase::Asks, wants_word))
    }

    /// One that the guest asked for.
    pub(super) fn from_guest(key: Key, header: &Header, cid: u32, socket: OwnedFd, buffer_bytes: u32) -> Self {
        let mut connection = Self::new(key, cid, socket, (buffer_bytes, Phase::Answers, false));
        connection.credit.hear(header);
        connection
    }

    fn new(key: Key, cid: u32, socket: OwnedFd, (buffer_bytes, phase, wants_word): (u32, Phase, bool)) -> Self {
        Self {
            key,
            is_queued: false,
            cid,
            socket,
            phase,
            credit: Credit::new(buffer_bytes),
            backlog: Backlog::default(),
            message: None,
            wants_word,
            is_readable: true,
            has_ended: false,
            host_ended: false,
            host_refuses: false,
            is_gone: false,
            is_shut: false,
            guest_ended: 0,
            told: 0,
            owes_update: false,
            has_asked_for_credit: false,
        }
    }

    /// Something happened to the socket.
    pub(super) fn see(&mut self, ready: Ready) {
        self.is_readable |= ready.is_readable;
        if ready.has_ended {
            self.has_ended = true;
            if is_hung_up(&self.socket) {
                self.is_gone = true;
                self.refuse();
            }
        }
        if ready.is_writable {
            self.flush();
        }
    }

    /// The guest says something. Breaking the rules ends the connection.
    pub(super) fn hear(&mut self, header: &Header, payload: &dyn Payload) {
        self.credit.hear(header);
        self.has_asked_for_credit &= self.credit.free() == 0;
        match (header.op, self.phase) {
            (op::RESPONSE, Phase::Asked) => self.open(),
            (op::DATA, Phase::Open) if self.guest_ended & shutdown::SEND == 0 => self.take(header, payload),
            (op::SHUTDOWN, Phase::Open) => {
                self.guest_ended |= header.flags & shutdown::BOTH;
                if header.flags & shutdown::RECEIVE != 0 {
                    self.message = None;
                    // It fails for a socket that is gone, which is as good.
                    let _ = shut_socket(&self.socket, Shutdown::Read);
                }
                self.settle();
            }
            (op::CREDIT_UPDATE, Phase::Open) => {}
            (op::CREDIT_REQUEST, Phase::Open) => self.owes_update = true,
            // Said before the answer reached it.
            (op::CREDIT_UPDATE | op::CREDIT_REQUEST | op::DATA | op::SHUTDOWN, Phase::Broken) => {}
            _ => self.phase = Phase::Broken,
        }
    }

    fn open(&mut self) {
        self.phase = Phase::Open;
        if std::mem::take(&mut self.wants_word) {
            let word = format!("OK {}\n", self.key.host_port);
            // It is the first thing that is written; who does not take it has gone.
            let _ = send(&self.socket, word.as_bytes(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        }
    }

    /// Data of the guest's goes to the host, or waits.
    fn take(&mut self, header: &Header, payload: &dyn Payload) {
        let len = payload.len_bytes();
        if !self.credit.receive(len) {
            self.phase = Phase::Broken;
            return;
        }
        if self.host_refuses {
            return self.credit.forward(len);
        }
        match self.key.kind {
            VsockKind::Stream => {
                let sent = if self.backlog.is_empty() { payload.send_to(self.socket.as_fd()) } else { Ok(0) };
                match sent {
                    Ok(sent) => self.keep(sent, payload),
                    Err(error) if is_passing(&error) => self.keep(0, payload),
                    Err(_) => {
                        self.credit.forward(len);
                        self.refuse();
                    }
                }
            }
            VsockKind::SeqPacket => {
                payload.copy_to(0, self.backlog.end());
                if self.backlog.message(len, header.flags & END_OF_MESSAGE != 0) {
                    self.flush();
                } else {
                    self.phase = Phase::Broken;
                }
            }
        }
    }

    fn keep(&mut self, sent: usize, payload: &dyn Payload) {
        self.credit.forward(sent);
        if sent < payload.len_bytes() {
            payload.copy_to(sent, self.backlog.end());
        }
    }

    /// Writes what waits, as far as the socket takes it.
    fn flush(&mut self) {
        const FLAGS: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);
        loop {
            let is_stream = self.key.kind == VsockKind::Stream;
            let Some(front) = (if is_stream { self.backlog.front() } else { self.backlog.front_message() }) else {
                break;
            };
            match send(&self.socket, front, FLAGS) {
                Ok(sent) if is_stream => {
                    self.backlog.take(sent);
                    self.credit.forward(sent);
                }
                Ok(_) => self.credit.forward(self.backlog.take_message()),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => return self.refuse(),
            }
        }
        self.settle();
    }

    /// Nobody reads at the other end of the socket.
    fn refuse(&mut self) {
        self.host_refuses = true;
        self.credit.forward(self.backlog.clear());
        self.settle();
    }

    /// What has to follow when the guest has said its last and all of it was written.
    fn settle(&mut self) {
        if self.guest_ended & shutdown::SEND == 0 || !self.backlog.is_empty() {
            return;
        }
        if !std::mem::replace(&mut self.is_shut, true) {
            let _ = shut_socket(&self.socket, Shutdown::Write);
        }
        if self.guest_ended == shutdown::BOTH && self.phase == Phase::Open {
            self.phase = Phase::Broken;
        }
    }

    /// What the guest should know of the host: flags of [`shutdown`].
    fn host_shutdown(&self) -> u32 {
        let has_sent_all = self.host_ended && self.message.is_none();
        let is_read = has_sent_all || self.guest_ended & shutdown::RECEIVE != 0;
        // Of a program that has gone, the guest hears all at once, behind what it said.
        let refuses = self.host_refuses && (is_read || !self.is_gone);
        let is_over = has_sent_all && self.is_shut;
        (if has_sent_all { shutdown::SEND } else { 0 }) | (if refuses || is_over { shutdown::RECEIVE } else { 0 })
    }

    /// The next packet without data, and its flags.
    fn owed(&self) -> Option<(u16, u32)> {
        match self.phase {
            Phase::Broken => Some((op::RESET, 0)),
            Phase::Asks => Some((op::REQUEST, 0)),
            Phase::Answers => Some((op::RESPONSE, 0)),
            Phase::Asked => None,
            Phase::Open if self.owes_update || self.credit.owes_update() => Some((op::CREDIT_UPDATE, 0)),
            Phase::Open => {
                let flags = self.host_shutdown();
                (flags & !self.told != 0).then_some((op::SHUTDOWN, flags))
            }
        }
    }

    fn has_data(&self) -> bool {
        let is_wanted = self.phase == Phase::Open && self.guest_ended & shutdown::RECEIVE == 0;
        is_wanted && (self.message.is_some() || self.is_readable && !self.host_ended)
    }

    /// Tells the guest what it has to know, then gives it data. `scratch` has room for the longest message.
    pub(super) fn turn(&mut self, inbox: &mut dyn Inbox, scratch: &mut [u8]) -> Turn {
        while let Some((op, flags)) = self.owed() {
            if inbox.room().is_none() {
                return Turn::NoRoom;
            }
            self.say(op, flags, inbox);
            match self.phase {
                Phase::Broken => return Turn::Over,
                Phase::Asks => self.phase = Phase::Asked,
                Phase::Answers => self.phase = Phase::Open,
                _ => {}
            }
        }
        if !self.has_data() {
            return Turn::Idle;
        }
        let Some(room) = inbox.room() else { return Turn::NoRoom };
        let free = usize::try_from(self.credit.free()).unwrap_or(usize::MAX);
        match self.key.kind {
            VsockKind::Stream if free == 0 => self.ask_for_credit(inbox),
            VsockKind::Stream => self.send_bytes(free.min(TURN_BYTES), inbox),
            VsockKind::SeqPacket => self.send_message(room, free, inbox, scratch),
        }
    }

    fn say(&mut self, op: u16, flags: u32, inbox: &mut dyn Inbox) {
        let header = Header { flags, ..self.header(op) };
        inbox.send(&header, &[]);
        self.owes_update = false;
        if op == op::SHUTDOWN {
            self.told |= flags;
        }
    }

    /// Every packet tells how much was forwarded.
    fn header(&mut self, op: u16) -> Header {
        let mut header = self.key.header(self.cid, op);
        self.credit.stamp(&mut header);
        header
    }

    /// Once: it goes on when the guest answers.
    fn ask_for_credit(&mut self, inbox: &mut dyn Inbox) -> Turn {
        if !std::mem::replace(&mut self.has_asked_for_credit, true) {
            self.say(op::CREDIT_REQUEST, 0, inbox);
        }
        Turn::Idle
    }

    fn send_bytes(&mut self, limit: usize, inbox: &mut dyn Inbox) -> Turn {
        let header = self.header(op::DATA);
        match inbox.receive(self.socket.as_fd(), limit, &header) {
            Ok(Received { bytes: 0, .. }) => self.host_ended = true,
            Ok(Received { bytes, is_short }) => {
                self.credit.send(bytes);
                self.is_readable = !is_short || self.has_ended;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if is_passing(&error) => self.is_readable = false,
            // It was closed with something unread in it.
            Err(_) => {
                self.host_ended = true;
                self.refuse();
            }
        }
        Turn::More
    }

    fn send_message(&mut self, room: usize, free: usize, inbox: &mut dyn Inbox, scratch: &mut [u8]) -> Turn {
        if self.message.is_none() && !self.receive_message(scratch) {
            return Turn::More;
        }
        let Some((message, done)) = self.message.take() else { return Turn::More };
        let left = message.get(done..).unwrap_or_default();
        if free == 0 && !left.is_empty() {
            self.message = Some((message, done));
            return self.ask_for_credit(inbox);
        }
        let piece = left.get(..left.len().min(free).min(room)).unwrap_or_default();
        let is_end = piece.len() == left.len();
        let flags = if is_end { END_OF_MESSAGE } else { 0 };
        let header = Header { flags, len: u32::try_from(piece.len()).unwrap_or(0), ..self.header(op::DATA) };
        inbox.send(&header, piece);
        self.credit.send(piece.len());
        let done = done + piece.len();
        if !is_end {
            self.message = Some((message, done));
        }
        Turn::More
    }

    /// Receives the next message. One that the guest can never take ends the connection.
    fn receive_message(&mut self, scratch: &mut [u8]) -> bool {
        match recv(&self.socket, &mut *scratch, RecvFlags::DONTWAIT | RecvFlags::TRUNC) {
            // An empty message looks the same.
            Ok((_, 0)) if self.has_ended => self.host_ended = true,
            Ok((_, len)) => {
                let limit = usize::try_from(self.credit.guest_buffer_bytes()).unwrap_or(usize::MAX);
                match scratch.get(..len).filter(|_| len <= limit) {
                    Some(message) => self.message = Some((message.to_vec(), 0)),
                    None => self.phase = Phase::Broken,
                }
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => self.is_readable = false,
            Err(_) => {
                self.host_ended = true;
                self.refuse();
            }
        }
        self.message.is_some()
    }

    /// Bytes that wait for the host.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.backlog.len()
    }
}

/// A packet must have room for a header.
const _: () = assert!(HEADER_BYTES < TURN_BYTES);

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Whether neither way of a socket leads anywhere.
fn is_hung_up(socket: &OwnedFd) -> bool {
    let mut waits = [PollFd::new(socket, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut waits, Some(&now)).is_ok() && waits.iter().any(|wait| wait.revents().contains(PollFlags::HUP))
}

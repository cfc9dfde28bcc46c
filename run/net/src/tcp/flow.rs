//! One connection.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;

use super::receive::{Budget, Receive};
use super::send::{Acknowledged, Send};
use super::socket::StreamSocket;
use super::{Millis, WINDOW_SCALE};
use crate::port::{GuestFrame, GuestPort, Reading};
use crate::wire::{Headers, Ip, Macs, Protocol, Seq, Tcp, TcpFlags, TcpOptions, Timestamps};

/// Data that one connection may send to the guest before others have their turn, in bytes.
const TURN_BYTES: u32 = 256 << 10;

/// How long a connection is remembered that ended on our side first, for a FIN that comes again.
const TIME_WAIT_MS: Millis = 2_000;

/// Longest packet, with its IP and TCP headers (RFC 791).
const PACKET_LIMIT_BYTES: usize = 65_535;

/// Times that a SYN goes to the guest before nobody is there.
const CALLS_LIMIT: u8 = 6;

/// Both ends, as the guest sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// The guest's end.
    pub guest: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
}

/// What a connection needs of its surroundings.
pub struct Context<'a> {
    /// The clock.
    pub now: Millis,
    /// The way to the guest.
    pub port: &'a mut dyn GuestPort,
    /// Link addresses of frames to the guest.
    pub macs: Macs,
    /// Largest packet that the link carries, in bytes.
    pub link_mtu: u16,
    /// What all connections may hold.
    pub budget: &'a mut Budget,
}

impl Context<'_> {
    /// Largest segment between these ends that the link carries (RFC 6691): headers without options are counted.
    pub fn link_mss(&self, key: FlowKey) -> u16 {
        self.link_mtu.saturating_sub(if key.remote.is_ipv4() { 40 } else { 60 })
    }
}

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The host's socket connects; the guest waits for an answer to its SYN.
    Connecting,
    /// The guest was answered, or called, and has not acknowledged.
    Shaking,
    /// Data flows, at least one way.
    Open,
    /// Both ends are done.
    Waiting,
}

/// Why a connection is to be forgotten.
#[derive(Debug)]
pub enum Ending {
    /// It is over, one way or the other, and both ends know.
    Over,
    /// The host cannot reach the other end: the guest may be told (ICMP).
    Unreachable(io::Error),
}

/// A connection between the guest and a socket.
#[derive(Debug)]
pub struct Flow {
    key: FlowKey,
    socket: StreamSocket,
    stage: Stage,
    /// The guest called (true) or is called.
    is_outbound: bool,
    receive: Receive,
    send: Send,
    /// The guest's timestamp that is echoed, if it uses them.
    echo: Option<u32>,
    sack_permitted: bool,
    is_readable: bool,
    owes_ack: bool,
    calls: u8,
    /// When a connection that is over is forgotten.
    until: Option<Millis>,
}

impl Flow {
    /// The guest sent `syn`, and `socket` connects to where it wants to go. `first` is hard to guess (RFC 6528).
    pub fn outbound(key: FlowKey, syn: &Tcp, socket: StreamSocket, first: Seq, link_mss: u16) -> Self {
        let mut send = Send::new(first);
        send.learn(syn, link_mss);
        Self {
            key,
            socket,
            stage: Stage::Connecting,
            is_outbound: true,
            receive: Receive::new(syn.seq + 1, syn.options.window_scale.is_some()),
            send,
            echo: syn.options.timestamps.map(|stamps| stamps.value),
            sack_permitted: syn.options.sack_permitted,
            is_readable: false,
            owes_ack: false,
            calls: 0,
            until: None,
        }
    }

    /// Somebody connected to a published port, on `socket`: calls the guest.
    pub fn inbound(key: FlowKey, socket: StreamSocket, first: Seq, cx: &mut Context<'_>) -> Self {
        let mut flow = Self {
            key,
            socket,
            stage: Stage::Shaking,
            is_outbound: false,
            receive: Receive::new(Seq(0), true),
            send: Send::new(first),
            echo: None,
            sack_permitted: false,
            is_readable: true,
            owes_ack: false,
            calls: 0,
            until: None,
        };
        flow.shake(cx);
        flow
    }

    /// Both ends.
    pub fn key(&self) -> FlowKey {
        self.key
    }

    /// How far it is.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// The number of the guest's SYN, as long as the guest has sent nothing else.
    pub fn guest_first(&self) -> Seq {
        Seq(self.receive.next().0.wrapping_sub(1))
    }

    /// The host's socket.
    pub fn socket(&self) -> &StreamSocket {
        &self.socket
    }

    /// When [`timer`](Self::timer) is to be called.
    pub fn deadline(&self) -> Option<Millis> {
        match self.stage {
            Stage::Waiting => self.until,
            _ => self.send.deadline(),
        }
    }

    /// A segment came from the guest. [`flush`](Self::flush) is to be called soon.
    ///
    /// # Errors
    /// The connection is over.
    pub fn segment(
        &mut self,
        tcp: &Tcp,
        (frame, payload): (&dyn GuestFrame, Range<usize>),
        cx: &mut Context<'_>,
    ) -> Result<(), Ending> {
        match self.stage {
            Stage::Connecting => self.before_answer(tcp),
            Stage::Shaking if !self.is_outbound && tcp.flags.has(TcpFlags::SYN) => self.answered(tcp, cx),
            _ => self.established(tcp, (frame, payload), cx),
        }
    }

    /// The guest was not answered yet: it may give up, or ask again.
    fn before_answer(&mut self, tcp: &Tcp) -> Result<(), Ending> {
        if tcp.flags.has(TcpFlags::RST) && tcp.seq == self.receive.next() {
            self.socket.reset_on_close();
            return Err(Ending::Over);
        }
        Ok(())
    }

    /// The guest answers our SYN.
    fn answered(&mut self, tcp: &Tcp, cx: &mut Context<'_>) -> Result<(), Ending> {
        if tcp.flags.has(TcpFlags::RST) {
            return self.refused(tcp);
        }
        if !tcp.flags.has(TcpFlags::ACK) || tcp.ack != self.send.first() + 1 {
            return Ok(());
        }
        self.receive = Receive::new(tcp.seq + 1, tcp.options.window_scale.is_some());
        self.send.learn(tcp, cx.link_mss(self.key));
        self.echo = tcp.options.timestamps.map(|stamps| stamps.value);
        self.sack_permitted = tcp.options.sack_permitted;
        self.send.acknowledge(tcp, false, cx.now);
        self.stage = Stage::Open;
        self.owes_ack = true;
        Ok(())
    }

    /// Nobody listens in the guest.
    fn refused(&mut self, tcp: &Tcp) -> Result<(), Ending> {
        if tcp.flags.has(TcpFlags::ACK) && tcp.ack == self.send.first() + 1 {
            self.socket.reset_on_close();
            return Err(Ending::Over);
        }
        Ok(())
    }

    fn established(
        &mut self,
        tcp: &Tcp,
        (frame, payload): (&dyn GuestFrame, Range<usize>),
        cx: &mut Context<'_>,
    ) -> Result<(), Ending> {
        if self.stage == Stage::Shaking && !self.is_outbound {
            // Only a refusal means something before the answer.
            return if tcp.flags.has(TcpFlags::RST) { self.refused(tcp) } else { Ok(()) };
        }
        let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        if tcp.flags.has(TcpFlags::RST) {
            return self.reset_by_guest(tcp);
        }
        let numbers = len + u32::from(tcp.flags.has(TcpFlags::FIN));
        if tcp.flags.has(TcpFlags::SYN) || !self.receive.accepts(tcp.seq, numbers) {
            // A SYN that comes again, a keep-alive, or somebody who guesses: all are told where we are (RFC 5961).
            if self.stage == Stage::Shaking {
                self.shake(cx);
            }
            self.owes_ack = true;
            return Ok(());
        }
        if !tcp.flags.has(TcpFlags::ACK) {
            return Ok(());
        }
        if let Some(stamps) = tcp.options.timestamps
            && !self.receive.next().is_before(tcp.seq)
            && self.echo.is_some()
        {
            self.echo = Some(stamps.value);
        }
        self.acknowledged(tcp, len > 0, cx).map_err(|error| self.broken(&error, cx))?;
        let has_fin = tcp.flags.has(TcpFlags::FIN);
        if len > 0 || has_fin {
            let taken = self.receive.take((tcp.seq, has_fin), (frame, payload), &self.socket, cx.budget);
            let in_order = taken.map_err(|error| self.broken(&error, cx))?;
            self.owes_ack = true;
            if !in_order {
                // At once and one for each, so that the guest counts them.
                self.send_ack(cx);
            }
        }
        self.look_whether_over(cx.now)
    }

    fn acknowledged(&mut self, tcp: &Tcp, has_payload: bool, cx: &mut Context<'_>) -> io::Result<()> {
        match self.send.acknowledge(tcp, has_payload, cx.now) {
            Acknowledged::Unsent => self.owes_ack = true,
            Acknowledged::Lost => self.send_gap(tcp, cx)?,
            Acknowledged::Bytes(count) => {
                if self.stage == Stage::Shaking && !self.send.is_idle_at_first() {
                    self.stage = Stage::Open;
                }
                if count > 0 {
                    self.socket.discard(count)?;
                    if self.send.is_recovering() {
                        self.send_gap(tcp, cx)?;
                    } else {
                        self.socket.look_from(self.send.offset_bytes())?;
                    }
                }
            }
        }
        Ok(())
    }

    /// RFC 5961: only the very next number counts; others in the window are answered.
    fn reset_by_guest(&mut self, tcp: &Tcp) -> Result<(), Ending> {
        if tcp.seq == self.receive.next() {
            self.socket.reset_on_close();
            return Err(Ending::Over);
        }
        self.owes_ack |= self.receive.accepts(tcp.seq, 0);
        Ok(())
    }

    /// The host's socket can be read or written, or is broken. [`flush`](Self::flush) is to be called soon.
    ///
    /// # Errors
    /// The connection is over.
    pub fn ready(&mut self, is_readable: bool, is_writable: bool, cx: &mut Context<'_>) -> Result<(), Ending> {
        if self.stage == Stage::Connecting {
            return match self.socket.take_error() {
                Ok(()) if is_writable => {
                    self.stage = Stage::Shaking;
                    self.is_readable = is_readable;
                    self.shake(cx);
                    Ok(())
                }
                Ok(()) => Ok(()),
                Err(error) => Err(self.not_connected(error, cx)),
            };
        }
        self.is_readable |= is_readable;
        if is_writable && self.receive.is_waiting() {
            self.receive.drain(&self.socket, cx.budget).map_err(|error| self.broken(&error, cx))?;
            self.look_whether_over(cx.now)?;
        }
        Ok(())
    }

    fn not_connected(&mut self, error: io::Error, cx: &mut Context<'_>) -> Ending {
        match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => {
                self.send_plain(TcpFlags::RST | TcpFlags::ACK, Seq(0), cx);
                Ending::Over
            }
            // Like a network that lost the SYN.
            io::ErrorKind::TimedOut => Ending::Over,
            _ => Ending::Unreachable(error),
        }
    }

    /// The deadline has passed. [`flush`](Self::flush) is to be called soon.
    ///
    /// # Errors
    /// The connection is over.
    pub fn timer(&mut self, cx: &mut Context<'_>) -> Result<(), Ending> {
        if self.deadline().is_none_or(|deadline| cx.now < deadline) {
            return Ok(());
        }
        match self.stage {
            Stage::Waiting => Err(Ending::Over),
            Stage::Connecting => Ok(()),
            Stage::Shaking if self.calls >= CALLS_LIMIT => {
                self.socket.reset_on_close();
                Err(Ending::Over)
            }
            Stage::Shaking => {
                self.send.time_out(cx.now);
                self.shake(cx);
                Ok(())
            }
            Stage::Open if self.send.is_closed() => {
                self.send.time_out(cx.now);
                // One number back: an answer tells the window (as keep-alives do, RFC 9293 section 3.8.4).
                self.send_plain(TcpFlags::ACK, Seq(self.send.next().0.wrapping_sub(1)), cx);
                Ok(())
            }
            Stage::Open => {
                self.send.time_out(cx.now);
                self.socket.look_from(0).map_err(|error| self.broken(&error, cx))?;
                self.is_readable = true;
                Ok(())
            }
        }
    }

    /// Sends what can be sent, and acknowledges what is owed. True if there is more for another turn, when others had
    /// theirs or the guest has room.
    ///
    /// # Errors
    /// The connection is over.
    pub fn flush(&mut self, cx: &mut Context<'_>) -> Result<bool, Ending> {
        let more = match self.stage {
            Stage::Open => self.send_data(cx).map_err(|error| self.broken(&error, cx))?,
            _ => false,
        };
        let has_news = self.stage == Stage::Open && self.receive.has_news(cx.budget, self.send.mss());
        if (self.owes_ack || has_news) && self.stage != Stage::Connecting {
            self.send_ack(cx);
        }
        self.look_whether_over(cx.now)?;
        Ok(more)
    }

    /// Forgets it: gives back what it holds.
    pub fn close(mut self, cx: &mut Context<'_>) {
        self.receive.release(cx.budget);
    }

    fn send_data(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut turn = TURN_BYTES;
        loop {
            if self.send.is_at_fin() {
                if self.send.window_bytes() > 0 || self.send.is_idle() {
                    self.send_fin(cx);
                }
                return Ok(false);
            }
            if !self.is_readable || self.send.has_fin() && self.send.offset_is_at_end() {
                return Ok(false);
            }
            let window = self.send.window_bytes();
            if window == 0 {
                if self.send.is_closed() {
                    self.send.wait_for_window(cx.now);
                }
                return Ok(false);
            }
            if turn == 0 {
                return Ok(true);
            }
            match self.send_piece(self.send.next(), window.min(turn), cx) {
                Ok(0) => self.send.end_here(),
                Ok(count) => {
                    self.send.sent(count, cx.now);
                    turn = turn.saturating_sub(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let has_room = cx.port.room(self.header_bytes()) > 0;
                    self.is_readable = !has_room;
                    return Ok(!has_room);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends at most `limit` bytes of what the socket shows next, under number `seq`.
    fn send_piece(&mut self, seq: Seq, limit: u32, cx: &mut Context<'_>) -> io::Result<u32> {
        let header_bytes = self.header_bytes();
        let mss = usize::from(self.send.mss()).saturating_sub(self.option_bytes(header_bytes)).max(1);
        let most = match cx.port.abilities().segmentation {
            true => PACKET_LIMIT_BYTES - header_bytes,
            false => mss,
        };
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(most).min(cx.port.room(header_bytes));
        if limit == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = cx.port.receive(header_bytes, limit, self.socket.fd(), Reading::Peek)?;
        if count == 0 {
            return Ok(0);
        }
        let tcp = self.header(TcpFlags::ACK | TcpFlags::PSH, seq, cx);
        let mut headers = Headers::tcp(cx.macs, &self.ip(), &tcp, count);
        if count > mss {
            headers.set_segment_bytes(u16::try_from(mss).unwrap_or(u16::MAX));
        }
        cx.port.send_received(headers);
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// Sends again what is missing before the first piece that the guest has.
    fn send_gap(&mut self, tcp: &Tcp, cx: &mut Context<'_>) -> io::Result<()> {
        let missing = self.send.gap_bytes(&tcp.options.sack);
        self.socket.look_from(0)?;
        match self.send_piece(self.send.unacknowledged(), missing, cx) {
            // FIN alone is missing: its deadline sends it again.
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        self.socket.look_from(self.send.offset_bytes())
    }

    fn send_fin(&mut self, cx: &mut Context<'_>) {
        let tcp = self.header(TcpFlags::ACK | TcpFlags::FIN, self.send.next(), cx);
        if cx.port.send(Headers::tcp(cx.macs, &self.ip(), &tcp, 0), &[]) {
            self.owes_ack = false;
        }
        // Lost or not: if nothing comes back it is sent again.
        self.send.sent(1, cx.now);
    }

    /// SYN, or the answer to the guest's.
    fn shake(&mut self, cx: &mut Context<'_>) {
        self.calls = self.calls.saturating_add(1);
        let flags = if self.is_outbound { TcpFlags::SYN | TcpFlags::ACK } else { TcpFlags::SYN };
        let mut tcp = self.header(flags, self.send.first(), cx);
        let is_answer = self.is_outbound;
        tcp.options = TcpOptions {
            mss: Some(cx.link_mss(self.key)),
            window_scale: (!is_answer || self.receive.is_scaled()).then_some(WINDOW_SCALE),
            sack_permitted: !is_answer || self.sack_permitted,
            timestamps: (!is_answer || self.echo.is_some()).then(|| self.timestamps(cx.now)),
            ..TcpOptions::default()
        };
        // The window of a SYN is never shifted (RFC 7323 section 2.2).
        tcp.window = u16::MAX;
        cx.port.send(Headers::tcp(cx.macs, &self.ip(), &tcp, 0), &[]);
        if self.send.next() == self.send.first() {
            self.send.sent(1, cx.now);
        }
        self.owes_ack = false;
    }

    fn send_ack(&mut self, cx: &mut Context<'_>) {
        self.send_plain(TcpFlags::ACK, self.send.next(), cx);
    }

    fn send_plain(&mut self, flags: TcpFlags, seq: Seq, cx: &mut Context<'_>) {
        let tcp = self.header(flags, seq, cx);
        if cx.port.send(Headers::tcp(cx.macs, &self.ip(), &tcp, 0), &[]) {
            self.owes_ack = false;
        }
    }

    /// The socket is broken: the guest is told by a reset.
    fn broken(&mut self, _error: &io::Error, cx: &mut Context<'_>) -> Ending {
        self.send_plain(TcpFlags::RST | TcpFlags::ACK, self.send.next(), cx);
        Ending::Over
    }

    fn look_whether_over(&mut self, now: Millis) -> Result<(), Ending> {
        let both = self.send.is_done() && self.receive.is_at_end() && !self.receive.is_waiting();
        match self.stage {
            Stage::Open if both => {
                self.stage = Stage::Waiting;
                self.until = Some(now + TIME_WAIT_MS);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn header(&mut self, flags: TcpFlags, seq: Seq, cx: &Context<'_>) -> Tcp {
        let has_ack = flags.has(TcpFlags::ACK);
        self.owes_ack &= !has_ack;
        Tcp {
            source_port: self.key.remote.port(),
            destination_port: self.key.guest.port(),
            seq,
            ack: if has_ack { self.receive.next() } else { Seq(0) },
            flags,
            window: self.receive.offer(cx.budget),
            options: self.options(cx.now),
        }
    }

    fn options(&self, now: Millis) -> TcpOptions {
        TcpOptions {
            timestamps: self.echo.is_some().then(|| self.timestamps(now)),
            sack: if self.sack_permitted { self.receive.sack() } else { Default::default() },
            ..TcpOptions::default()
        }
    }

    fn timestamps(&self, now: Millis) -> Timestamps {
        // The clock may wrap around (RFC 7323 section 5.5).
        let value = u32::try_from(now & u64::from(u32::MAX)).unwrap_or(0);
        Timestamps { value, echo: self.echo.unwrap_or(0) }
    }

    fn header_bytes(&mut self) -> usize {
        let tcp = Tcp {
            source_port: 0,
            destination_port: 0,
            seq: Seq(0),
            ack: Seq(0),
            flags: TcpFlags::ACK,
            window: 0,
            options: self.options(0),
        };
        Headers::tcp_len_bytes(self.key.remote.ip(), &tcp)
    }

    /// How much of the segments' size the options take, which the guest's MSS does not tell (RFC 6691).
    fn option_bytes(&self, header_bytes: usize) -> usize {
        header_bytes.saturating_sub(if self.key.remote.is_ipv4() { 54 } else { 74 })
    }

    fn ip(&self) -> Ip {
        Ip::new(self.key.remote.ip(), self.key.guest.ip(), Protocol::TCP)
    }
}

//! One connection.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;

use super::Millis;
use super::receive::{Budget, Receive};
use super::send::{Acknowledged, Send};
use super::socket::StreamSocket;
use super::talk::Talk;
use crate::poll::Ready;
use crate::port::{GuestFrame, GuestPort};
use crate::wire::{Macs, Seq, Tcp, TcpFlags};

/// Times that a SYN goes to the guest before nobody is there.
const CALLS_LIMIT: u8 = 6;

/// Times that it goes over IPv6, where the guest can be called over IPv4 as well: within three seconds.
const CALLS_V6: u8 = 2;

/// A timestamp that is so old says nothing about those that come now (RFC 7323 section 5.5): 24 days.
const TIMESTAMP_LIMIT_MS: Millis = 24 * 24 * 3_600_000;

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
}

/// Why a connection is to be forgotten.
#[derive(Debug)]
pub enum Ending {
    /// It is over, one way or the other, and both ends know.
    Over,
    /// Both ends are done, but the guest may not know it yet.
    Done(Remembered),
    /// The host cannot reach the other end: the guest may be told (ICMP).
    Unreachable(io::Error),
    /// Not over yet: nobody is there in the guest, and it is to be called under another address of its own.
    Elsewhere(FlowKey),
}

/// What is kept of a connection that ended on our side first, for a FIN that comes again (TIME-WAIT).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remembered {
    /// Our next number.
    pub next: Seq,
    /// The guest's.
    pub ack: Seq,
    /// The guest's timestamp, if it uses them.
    pub echo: Option<u32>,
}

/// A connection between the guest and a socket.
#[derive(Debug)]
pub struct Flow {
    pub(super) key: FlowKey,
    pub(super) socket: StreamSocket,
    /// Where else it may lead, if it cannot be made where the socket connects to.
    pub(super) second: Option<SocketAddr>,
    /// Under which other ends the guest may be called, if it does not answer to these.
    pub(super) second_key: Option<FlowKey>,
    pub(super) stage: Stage,
    /// The guest called (true) or is called.
    pub(super) is_outbound: bool,
    pub(super) receive: Receive,
    pub(super) send: Send,
    /// The guest's timestamp that is echoed, if it uses them, and since when.
    pub(super) echo: Option<(u32, Millis)>,
    pub(super) sack_permitted: bool,
    pub(super) is_readable: bool,
    /// The socket's end was seen, or something else of which only reading on tells.
    pub(super) has_ended: bool,
    /// The guest ended first: it knows of our end as soon as it acknowledges it.
    guest_ended_first: bool,
    pub(super) owes_ack: bool,
    pub(super) talk: Talk,
    pub(super) calls: u8,
}

impl Flow {
    /// The guest sent `syn`, and `socket` connects to where it wants to go. `first` is hard to guess (RFC 6528).
    pub fn outbound(key: FlowKey, syn: &Tcp, socket: StreamSocket, first: Seq, (link_mss, now): (u16, Millis)) -> Self {
        let mut send = Send::new(first);
        send.learn(syn, link_mss);
        Self {
            key,
            socket,
            second: None,
            second_key: None,
            stage: Stage::Connecting,
            is_outbound: true,
            receive: Receive::new(syn.seq + 1, syn.options.window_scale.is_some()),
            send,
            echo: syn.options.timestamps.map(|stamps| (stamps.value, now)),
            sack_permitted: syn.options.sack_permitted,
            is_readable: false,
            has_ended: false,
            guest_ended_first: false,
            owes_ack: false,
            talk: Talk::default(),
            calls: 0,
        }
    }

    /// Somebody connected to a published port, on `socket`: calls the guest.
    pub fn inbound(key: FlowKey, socket: StreamSocket, first: Seq, cx: &mut Context<'_>) -> Self {
        let mut flow = Self {
            key,
            socket,
            second: None,
            second_key: None,
            stage: Stage::Shaking,
            is_outbound: false,
            receive: Receive::new(Seq(0), true),
            send: Send::new(first),
            echo: None,
            sack_permitted: false,
            is_readable: true,
            has_ended: true,
            guest_ended_first: false,
            owes_ack: false,
            talk: Talk::default(),
            calls: 0,
        };
        flow.shake(cx);
        flow
    }

    /// Nobody was there: calls the guest under other ends. Nothing was sent yet, so nothing is lost.
    pub(super) fn call_again(&mut self, key: FlowKey, first: Seq, cx: &mut Context<'_>) {
        self.key = key;
        self.send = Send::new(first);
        self.calls = 0;
        self.shake(cx);
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
        [self.send.deadline(), self.talk.deadline()].into_iter().flatten().min()
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
        self.echo = tcp.options.timestamps.map(|stamps| (stamps.value, cx.now));
        self.sack_permitted = tcp.options.sack_permitted;
        self.send.acknowledge(tcp, false, cx.now);
        self.stage = Stage::Open;
        self.owes_ack = true;
        Ok(())
    }

    /// Nobody listens in the guest.
    fn refused(&mut self, tcp: &Tcp) -> Result<(), Ending> {
        if tcp.flags.has(TcpFlags::ACK) && tcp.ack == self.send.first() + 1 {
            return Err(self.unanswered());
        }
        Ok(())
    }

    /// Nobody is there: the guest is called elsewhere, or whoever calls hears of it.
    fn unanswered(&mut self) -> Ending {
        match self.second_key.take() {
            Some(key) => Ending::Elsewhere(key),
            None => {
                self.socket.reset_on_close();
                Ending::Over
            }
        }
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
            match self.stage {
                Stage::Shaking => self.shake(cx),
                // One for each, so that the guest knows which ones it sent in vain.
                _ if self.receive.is_repeat(tcp.seq, len) => self.send_ack(cx),
                _ => self.owes_ack = true,
            }
            return Ok(());
        }
        if !tcp.flags.has(TcpFlags::ACK) {
            return Ok(());
        }
        if !self.is_of_now(tcp, cx.now) {
            self.owes_ack = true;
            return Ok(());
        }
        if !self.acknowledged(tcp, len > 0, cx).map_err(|error| self.broken(&error, cx))? {
            return Ok(());
        }
        let has_fin = tcp.flags.has(TcpFlags::FIN);
        if len > 0 || has_fin {
            let taken = self.receive.take((tcp.seq, has_fin), (frame, payload), &self.socket, cx.budget);
            let in_order = taken.map_err(|error| self.broken(&error, cx))?;
            let is_short = in_order && !has_fin && len < self.send.mss().into();
            self.owes_ack |= !self.talk.asked(is_short, cx.now);
            if !in_order {
                // At once and one for each, so that the guest counts them.
                self.send_ack(cx);
            }
        }
        self.look_whether_over()
    }

    /// Looks at a segment's timestamp; false for one that was on its way for so long that its numbers were used again
    /// since (PAWS, RFC 7323 section 5.3).
    fn is_of_now(&mut self, tcp: &Tcp, now: Millis) -> bool {
        let (Some((last, since)), Some(stamps)) = (self.echo, tcp.options.timestamps) else { return true };
        let is_older = stamps.value.wrapping_sub(last).cast_signed() < 0;
        if is_older && now.saturating_sub(since) < TIMESTAMP_LIMIT_MS {
            return false;
        }
        if !self.receive.next().is_before(tcp.seq) {
            self.echo = Some((stamps.value, now));
        }
        true
    }

    /// False if the segment says nothing more: it acknowledges what was never sent.
    fn acknowledged(&mut self, tcp: &Tcp, has_payload: bool, cx: &mut Context<'_>) -> io::Result<bool> {
        match self.send.acknowledge(tcp, has_payload, cx.now) {
            Acknowledged::Unsent => {
                self.owes_ack = true;
                return Ok(false);
            }
            Acknowledged::Lost => self.send_gap(tcp, cx)?,
            Acknowledged::Bytes(count) => {
                if self.stage == Stage::Shaking {
                    if self.send.is_idle_at_first() {
                        return Ok(false);
                    }
                    self.stage = Stage::Open;
                }
                if count > 0 {
                    self.socket.done(count, cx.budget)?;
                    if self.send.is_recovering() {
                        self.send_gap(tcp, cx)?;
                    }
                }
            }
        }
        Ok(true)
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
    pub fn ready(&mut self, ready: Ready, cx: &mut Context<'_>) -> Result<(), Ending> {
        if self.stage == Stage::Connecting {
            let made = if ready.has_ended { self.socket.take_error() } else { Ok(()) };
            made.map_err(|error| self.not_connected(error, cx))?;
            if ready.is_writable {
                self.stage = Stage::Shaking;
                self.shake(cx);
            }
        }
        self.is_readable |= ready.is_readable;
        self.has_ended |= ready.has_ended;
        if ready.is_writable && self.receive.is_waiting() {
            self.receive.drain(&self.socket, cx.budget).map_err(|error| self.broken(&error, cx))?;
            self.look_whether_over()?;
        }
        Ok(())
    }

    /// Where it is to lead now, if `ready` says that it could not be made and there is another place, and why. Told once.
    pub(super) fn next_target(&mut self, ready: Ready) -> Option<(SocketAddr, io::Error)> {
        let may_have_failed = self.stage == Stage::Connecting && ready.has_ended && self.second.is_some();
        let error = may_have_failed.then(|| self.socket.take_error().err())??;
        Some((self.second.take()?, error))
    }

    pub(super) fn not_connected(&mut self, error: io::Error, cx: &mut Context<'_>) -> Ending {
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
        self.owes_ack |= self.talk.give_up(cx.now);
        if self.send.deadline().is_none_or(|deadline| cx.now < deadline) {
            return Ok(());
        }
        match self.stage {
            Stage::Connecting => Ok(()),
            // An IPv6 address may be one that the guest had; of IPv4 it has one, or none yet.
            Stage::Shaking if self.calls >= CALLS_V6 && self.key.guest.is_ipv6() && self.second_key.is_some() => {
                Err(self.unanswered())
            }
            Stage::Shaking if self.calls >= CALLS_LIMIT => {
                self.socket.reset_on_close();
                Err(Ending::Over)
            }
            Stage::Shaking => {
                self.send.time_out(cx.now);
                self.shake(cx);
                Ok(())
            }
            Stage::Open => {
                self.send.time_out(cx.now);
                self.is_readable = true;
                if self.send.window_bytes() == 0 {
                    // A peer that is gone is not seen otherwise while nothing is read.
                    self.socket.take_error().map_err(|error| self.broken(&error, cx))?;
                    // One number back: an answer tells the window (as keep-alives do, RFC 9293 section 3.8.4).
                    self.send_plain(TcpFlags::ACK, Seq(self.send.next().0.wrapping_sub(1)), cx);
                }
                Ok(())
            }
        }
    }

    /// Forgets it: gives back what it holds.
    pub fn close(mut self, cx: &mut Context<'_>) {
        self.receive.release(cx.budget);
        self.socket.release(cx.budget);
    }

    pub(super) fn look_whether_over(&mut self) -> Result<(), Ending> {
        self.guest_ended_first |= self.receive.is_at_end() && !self.send.has_fin();
        let is_over = self.send.is_done() && self.receive.is_at_end() && !self.receive.is_waiting() && !self.owes_ack;
        if !is_over {
            return Ok(());
        }
        // If this fails, the peer sees a reset behind the end.
        let _ = self.socket.discard();
        Err(match self.guest_ended_first {
            true => Ending::Over,
            false => Ending::Done(Remembered {
                next: self.send.next(),
                ack: self.receive.next(),
                echo: self.echo.map(|(value, _)| value),
            }),
        })
    }
}

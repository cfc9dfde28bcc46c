//! What a connection sends to the guest.

use std::io;

use super::flow::{Context, Ending, Flow, Stage};
use super::kept::Looked;
use super::{Millis, WINDOW_SCALE};
use crate::port::Shape;
use crate::wire::{Headers, Ip, Protocol, Seq, Tcp, TcpFlags, TcpOptions, Timestamps};

/// Data that one connection may send to the guest before others have their turn, in bytes.
const TURN_BYTES: u32 = 256 << 10;

/// Longest packet, with its IP and TCP headers (RFC 791).
const PACKET_LIMIT_BYTES: usize = 65_535;

/// What became of a piece.
enum Piece {
    /// So many bytes went, and there may be more.
    Sent(u32),
    /// So many bytes went, which were all there are for now.
    Last(u32),
    /// There was no room for a frame.
    NoRoom,
    /// There was nothing to send.
    None(Looked),
}

impl Flow {
    /// Sends what can be sent, and acknowledges what is owed. True if there is more for another turn, when others had
    /// theirs or the guest has room.
    ///
    /// # Errors
    /// The connection is over.
    pub fn flush(&mut self, cx: &mut Context<'_>) -> Result<bool, Ending> {
        let mut more = false;
        if self.stage == Stage::Open {
            let sent = self.receive.send_put_together(&self.socket, cx.budget);
            sent.map_err(|error| self.broken(&error, cx))?;
            more = self.send_data(cx).map_err(|error| self.broken(&error, cx))?;
            self.owes_ack |= self.receive.has_news(cx.budget, self.send.mss());
        }
        if self.owes_ack && self.stage != Stage::Connecting {
            self.send_ack(cx);
        }
        self.look_whether_over()?;
        Ok(more || self.owes_ack)
    }

    fn send_data(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut turn = TURN_BYTES;
        loop {
            if self.send.is_at_fin() {
                let may_go = self.send.window_bytes() > 0 || self.send.is_idle();
                return Ok(may_go && !self.send_fin(cx));
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
            let (count, is_last) = match self.send_piece(self.send.offset_bytes(), window.min(turn), cx)? {
                Piece::Sent(count) => (count, false),
                Piece::Last(count) => (count, true),
                Piece::NoRoom => return Ok(true),
                Piece::None(Looked::End) => {
                    self.send.end_here();
                    continue;
                }
                Piece::None(Looked::Full) => return Ok(false),
                Piece::None(_) => (0, true),
            };
            if count > 0 {
                self.send.sent(count, cx.now);
                turn = turn.saturating_sub(count);
            }
            // What comes later is told; an end that was told already is not told again.
            self.is_readable = !is_last || self.has_ended && count > 0;
        }
    }

    /// Sends at most `limit` bytes, `offset_bytes` behind the oldest that the guest has not acknowledged.
    fn send_piece(&mut self, offset_bytes: u32, limit: u32, cx: &mut Context<'_>) -> io::Result<Piece> {
        let header_bytes = self.header_bytes();
        let mss = usize::from(self.send.mss()).saturating_sub(self.option_bytes(header_bytes)).max(1);
        let shape = Shape { header_bytes, segment_bytes: mss };
        let most = (PACKET_LIMIT_BYTES - header_bytes).min(cx.port.reach(shape));
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(most);
        if limit == 0 {
            return Ok(Piece::NoRoom);
        }
        let (len_bytes, is_all) = match self.socket.look(offset_bytes, (shape, limit), cx.port, cx.budget)? {
            Looked::Data { len_bytes, is_all } => (len_bytes, is_all),
            nothing => return Ok(Piece::None(nothing)),
        };
        let seq = self.send.unacknowledged() + offset_bytes;
        let tcp = self.header(TcpFlags::ACK | TcpFlags::PSH, seq, cx);
        let mut headers = Headers::tcp(cx.macs, &self.ip(), &tcp, len_bytes);
        if len_bytes > mss {
            headers.set_segment_bytes(u16::try_from(mss).unwrap_or(u16::MAX));
        }
        if !self.socket.send_looked(headers, cx.port) {
            return Ok(Piece::NoRoom);
        }
        self.owes_ack = false;
        self.talk.answered();
        self.receive.told_repeat();
        let count = u32::try_from(len_bytes).unwrap_or(u32::MAX);
        Ok(if is_all { Piece::Last(count) } else { Piece::Sent(count) })
    }

    /// Sends again what is missing before the first piece that the guest has.
    pub(super) fn send_gap(&mut self, tcp: &Tcp, cx: &mut Context<'_>) -> io::Result<()> {
        let missing = self.send.gap_bytes(&tcp.options.sack);
        // Nothing goes if FIN alone is missing, or if there is no room: then the deadline sends it again.
        self.send_piece(0, missing, cx).map(drop)
    }

    /// False if there was no room.
    fn send_fin(&mut self, cx: &mut Context<'_>) -> bool {
        let went = self.send_plain(TcpFlags::ACK | TcpFlags::FIN, self.send.next(), cx);
        if went {
            self.send.sent(1, cx.now);
        }
        went
    }

    /// SYN, or the answer to the guest's.
    pub(super) fn shake(&mut self, cx: &mut Context<'_>) {
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
        tcp.window = self.receive.offer_unscaled(cx.budget);
        // Lost or not: if nothing comes back it is sent again.
        let _ = cx.port.send(Headers::tcp(cx.macs, &self.ip(), &tcp, 0), &[]);
        if self.send.next() == self.send.first() {
            self.send.sent(1, cx.now);
        }
        self.owes_ack = false;
    }

    pub(super) fn send_ack(&mut self, cx: &mut Context<'_>) {
        self.send_plain(TcpFlags::ACK, self.send.next(), cx);
    }

    /// False if there was no room.
    pub(super) fn send_plain(&mut self, flags: TcpFlags, seq: Seq, cx: &mut Context<'_>) -> bool {
        let tcp = self.header(flags, seq, cx);
        let went = cx.port.send(Headers::tcp(cx.macs, &self.ip(), &tcp, 0), &[]);
        self.owes_ack &= !went;
        if went {
            self.talk.acknowledged();
            self.receive.told_repeat();
        }
        went
    }

    /// The socket is broken: the guest is told by a reset.
    pub(super) fn broken(&mut self, _error: &io::Error, cx: &mut Context<'_>) -> Ending {
        self.send_plain(TcpFlags::RST | TcpFlags::ACK, self.send.next(), cx);
        Ending::Over
    }

    fn header(&mut self, flags: TcpFlags, seq: Seq, cx: &Context<'_>) -> Tcp {
        Tcp {
            source_port: self.key.remote.port(),
            destination_port: self.key.guest.port(),
            seq,
            ack: if flags.has(TcpFlags::ACK) { self.receive.next() } else { Seq(0) },
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
        Timestamps { value, echo: self.echo.map_or(0, |(value, _)| value) }
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

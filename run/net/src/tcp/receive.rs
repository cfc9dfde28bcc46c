//! From the guest to the socket.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;

use super::WINDOW_SCALE;
use super::reassembly::Reassembly;
use super::socket::StreamSocket;
use crate::port::GuestFrame;
use crate::wire::{SackBlocks, Seq};

/// First window of a connection, in bytes.
const FIRST_LIMIT_BYTES: u32 = 256 << 10;
/// Largest window. It covers the way between the guest and here, not the one to the peer: 16 Gbit/s at half a
/// millisecond. Several of them have to fit into the queue of a guest's card.
const LIMIT_BYTES: u32 = 1 << 20;
/// A payload of so many bytes goes to the socket from where it is; smaller ones are put together first, because a call
/// costs more than a copy.
const DIRECT_BYTES: usize = 16 << 10;
/// What each connection may hold even when the budget is spent, so that all go on.
const LEAST_BYTES: u32 = 4 << 10;
/// What waits for the socket is kept in pieces of this size, however small the segments were that it came in.
const PIECE_BYTES: usize = 64 << 10;
/// What begins with less is a question, not the start of much: its piece grows as it needs.
const QUESTION_BYTES: usize = 1 << 10;

/// Pieces that are kept to be used again.
const SPARES_LIMIT: usize = 4;

/// What all connections of one guest may hold together, in bytes.
#[derive(Debug)]
pub struct Budget {
    limit_bytes: usize,
    /// May be more than the limit: each connection may hold a little.
    held_bytes: usize,
    spares: Vec<Vec<u8>>,
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(limit_bytes: usize) -> Self {
        Self { limit_bytes, held_bytes: 0, spares: Vec::new() }
    }

    /// A piece with nothing in it.
    fn piece(&mut self) -> Vec<u8> {
        self.spares.pop().unwrap_or_else(|| Vec::with_capacity(PIECE_BYTES))
    }

    fn put_back(&mut self, mut piece: Vec<u8>) {
        if self.spares.len() < SPARES_LIMIT && piece.capacity() == PIECE_BYTES {
            piece.clear();
            self.spares.push(piece);
        }
    }

    /// Whether it has memory that nobody uses.
    pub fn has_spares(&self) -> bool {
        !self.spares.is_empty()
    }

    /// Gives back the memory that nobody uses.
    pub fn give_back(&mut self) {
        self.spares = Vec::new();
    }

    /// How much is left.
    pub fn left_bytes(&self) -> usize {
        self.limit_bytes.saturating_sub(self.held_bytes)
    }

    /// Takes what is held more than before, or gives back.
    pub(super) fn change(&mut self, from: usize, to: usize) {
        self.held_bytes = (self.held_bytes + to).saturating_sub(from);
    }
}

/// What came from the guest.
#[derive(Debug)]
pub(super) struct Receive {
    /// The next number that is waited for.
    next: Seq,
    /// The end of the window as the guest knows it. It never moves back.
    edge: Seq,
    /// Window that is offered when nothing is kept.
    limit: u32,
    /// Accepted since the window was last made larger.
    since_growth: u32,
    scale: u8,
    /// Accepted, but the socket was full, or more may come that goes with it.
    waiting: VecDeque<Vec<u8>>,
    /// The socket took less than there was; it tells when it takes more.
    is_full: bool,
    /// How much of the first of them the socket has taken.
    sent_of_first: usize,
    waiting_bytes: usize,
    gaps: Reassembly,
    /// Came again, and the guest was not told of it yet.
    repeat: Option<(Seq, Seq)>,
    /// The number of FIN, once it came.
    fin: Option<Seq>,
    has_ended: bool,
    /// What is held of the budget.
    held_bytes: usize,
}

impl Receive {
    /// The guest's first byte has number `next`. Its windows are shifted if it can do that.
    pub(super) fn new(next: Seq, is_scaled: bool) -> Self {
        Self {
            next,
            edge: next,
            limit: FIRST_LIMIT_BYTES,
            since_growth: 0,
            scale: if is_scaled { WINDOW_SCALE } else { 0 },
            waiting: VecDeque::new(),
            is_full: false,
            sent_of_first: 0,
            waiting_bytes: 0,
            gaps: Reassembly::default(),
            repeat: None,
            fin: None,
            has_ended: false,
            held_bytes: 0,
        }
    }

    pub(super) fn next(&self) -> Seq {
        self.next
    }

    /// Whether the guest sent FIN and everything before it.
    pub(super) fn is_at_end(&self) -> bool {
        self.fin.is_some_and(|fin| fin.is_before(self.next))
    }

    /// Whether windows are shifted.
    pub(super) fn is_scaled(&self) -> bool {
        self.scale > 0
    }

    /// Whether something waits for the socket.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting_bytes > 0
    }

    /// What is held of the budget, or beyond it.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// What came again (RFC 2883), and what came behind a gap.
    pub(super) fn sack(&self) -> SackBlocks {
        let Some((start, end)) = self.repeat else { return self.gaps.sack() };
        let mut blocks = SackBlocks::default();
        blocks.push(start, end);
        self.gaps.sack().iter().for_each(|(start, end)| blocks.push(start, end));
        blocks
    }

    /// Whether a segment has bytes that came before. The next acknowledgement says which.
    pub(super) fn is_repeat(&mut self, seq: Seq, len: u32) -> bool {
        let is_repeat = len > 0 && seq.is_before(self.next);
        if is_repeat {
            let end = seq + len;
            self.repeat = Some((seq, if self.next.is_before(end) { self.next } else { end }));
        }
        is_repeat
    }

    /// The guest was told of what came again.
    pub(super) fn told_repeat(&mut self) {
        self.repeat = None;
    }

    /// Whether a segment has something to do with the window (RFC 9293 section 3.10.7.4).
    pub(super) fn accepts(&self, seq: Seq, len: u32) -> bool {
        let end = seq + len;
        match len {
            0 => !seq.is_before(self.next) && !self.edge.is_before(seq),
            _ => self.next.is_before(end) && seq.is_before(self.edge),
        }
    }

    /// The window for the next header, which the guest may rely on from then on.
    pub(super) fn offer(&mut self, budget: &Budget) -> u16 {
        let room = self.room(budget);
        let edge = self.next + room;
        if self.edge.is_before(edge) {
            self.edge = edge;
        }
        let window = (self.edge - self.next) >> self.scale;
        u16::try_from(window).unwrap_or(u16::MAX)
    }

    /// The window for a header with SYN, which is never shifted (RFC 7323 section 2.2).
    pub(super) fn offer_unscaled(&mut self, budget: &Budget) -> u16 {
        let room = self.room(budget).min(u16::MAX.into());
        self.edge = self.edge.max(self.next + room);
        u16::try_from(room).unwrap_or(u16::MAX)
    }

    /// Whether the guest should be told of a window that has become much larger than it knows (RFC 9293 section 3.8.6.2.2).
    pub(super) fn has_news(&self, budget: &Budget, mss: u16) -> bool {
        let known = self.edge - self.next;
        let news = self.room(budget).saturating_sub(known);
        let segments = 2 * u32::from(mss).max(1);
        news >= self.most() / 2 || known < segments && news >= segments.min(self.most() / 2)
    }

    fn most(&self) -> u32 {
        match self.scale {
            0 => u16::MAX.into(),
            _ => self.limit,
        }
    }

    fn room(&self, budget: &Budget) -> u32 {
        let held = u32::try_from(self.waiting_bytes).unwrap_or(u32::MAX);
        self.most().saturating_sub(held).min(self.left(budget))
    }

    /// What may be kept besides what is. Windows of several connections promise the same budget: what comes when it is
    /// spent is not accepted, and the guest sends it again.
    fn left(&self, budget: &Budget) -> u32 {
        let held = u32::try_from(self.waiting_bytes + self.gaps.len_bytes()).unwrap_or(u32::MAX);
        let spent = held.saturating_sub(u32::try_from(self.held_bytes).unwrap_or(u32::MAX));
        let left = u32::try_from(budget.left_bytes()).unwrap_or(u32::MAX).saturating_sub(spent);
        left.max(LEAST_BYTES.saturating_sub(held))
    }

    /// Takes the payload of a segment that [is accepted](Self::accepts), and its FIN. True if it came in order.
    ///
    /// # Errors
    /// The socket is broken.
    pub(super) fn take(
        &mut self,
        (seq, has_fin): (Seq, bool),
        (frame, payload): (&dyn GuestFrame, Range<usize>),
        socket: &StreamSocket,
        budget: &mut Budget,
    ) -> io::Result<bool> {
        let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let old = if self.is_repeat(seq, len) { (self.next - seq).min(len) } else { 0 };
        let fits =
            if (seq + len).is_before(self.edge) { len } else { self.edge.since(seq).max(0).cast_unsigned().min(len) };
        if has_fin && fits == len {
            self.fin.get_or_insert(seq + len);
        }
        let start = seq + old;
        let part = payload.start + index(old)..payload.start + index(fits.max(old));
        let is_next = start == self.next;
        if is_next {
            self.accept(frame, part, socket, budget)?;
            while let Some(bytes) = self.gaps.take(self.next) {
                self.waiting_bytes += bytes.len();
                self.advance(bytes.len());
                self.waiting.push_back(bytes);
            }
        } else if part.len() <= index(self.left(budget)) {
            let mut bytes = Vec::with_capacity(part.len());
            frame.copy_to(part, &mut bytes);
            self.gaps.insert(start, bytes);
        }
        if self.fin == Some(self.next) {
            self.next += 1;
        }
        self.end_if_done(socket)?;
        self.account(budget);
        Ok(is_next)
    }

    /// Gives the socket what waits for it.
    ///
    /// # Errors
    /// The socket is broken.
    pub(super) fn drain(&mut self, socket: &StreamSocket, budget: &mut Budget) -> io::Result<()> {
        self.is_full = false;
        self.send_put_together(socket, budget)
    }

    /// Gives the socket what was put together for it.
    ///
    /// # Errors
    /// The socket is broken.
    pub(super) fn send_put_together(&mut self, socket: &StreamSocket, budget: &mut Budget) -> io::Result<()> {
        if self.is_waiting() && !self.is_full {
            self.send_waiting(socket, budget)?;
            self.end_if_done(socket)?;
            self.account(budget);
        }
        Ok(())
    }

    /// Gives back what is held of the budget, when the connection is gone.
    pub(super) fn release(&mut self, budget: &mut Budget) {
        budget.change(self.held_bytes, 0);
        self.held_bytes = 0;
    }

    fn accept(
        &mut self,
        frame: &dyn GuestFrame,
        part: Range<usize>,
        socket: &StreamSocket,
        budget: &mut Budget,
    ) -> io::Result<()> {
        let len = part.len();
        if !self.is_full && self.is_waiting() && self.waiting_bytes + len > PIECE_BYTES {
            self.send_waiting(socket, budget)?;
        }
        let mut sent = 0;
        if len >= DIRECT_BYTES && !self.is_waiting() {
            sent = taken(frame.send_to(part.clone(), socket.fd()))?.min(len);
            self.is_full = sent < len;
        }
        let kept = (len - sent).min(index(self.left(budget)));
        if kept > 0 {
            let rest = part.start + sent..part.start + sent + kept;
            if self.waiting.back().is_none_or(|last| last.len() + kept > PIECE_BYTES) {
                let is_small = self.is_full || kept < QUESTION_BYTES;
                self.waiting.push_back(if is_small { Vec::new() } else { budget.piece() });
            }
            if let Some(last) = self.waiting.back_mut() {
                frame.copy_to(rest, last);
            }
            self.waiting_bytes += kept;
        }
        if self.is_full {
            // More than the socket takes is only copied once more.
            (self.limit, self.since_growth) = ((self.limit / 2).max(FIRST_LIMIT_BYTES), 0);
        }
        self.advance(sent + kept);
        Ok(())
    }

    fn send_waiting(&mut self, socket: &StreamSocket, budget: &mut Budget) -> io::Result<()> {
        while let Some(first) = self.waiting.front() {
            let rest = first.get(self.sent_of_first..).unwrap_or_default();
            let sent = if rest.is_empty() { 0 } else { taken(socket.send(rest))? };
            self.sent_of_first += sent;
            self.waiting_bytes = self.waiting_bytes.saturating_sub(sent);
            if self.sent_of_first < first.len() {
                self.is_full = true;
                break;
            }
            self.sent_of_first = 0;
            self.waiting.pop_front().into_iter().for_each(|piece| budget.put_back(piece));
        }
        if self.is_full
            && let Some(last) = self.waiting.back_mut()
        {
            // What stays holds no more memory than it has bytes.
            last.shrink_to_fit();
        }
        Ok(())
    }

    /// A connection that fills its window again and again gets a larger one, as long as its socket keeps up; one whose
    /// socket is full gets a smaller one.
    fn advance(&mut self, len: usize) {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        self.next += len;
        self.since_growth = self.since_growth.saturating_add(len);
        if self.since_growth >= self.limit && !self.is_full {
            self.limit = (self.limit * 2).min(LIMIT_BYTES);
            self.since_growth = 0;
        }
    }

    fn end_if_done(&mut self, socket: &StreamSocket) -> io::Result<()> {
        if self.is_at_end() && !self.is_waiting() && !self.has_ended {
            self.has_ended = true;
            socket.end()?;
        }
        Ok(())
    }

    fn account(&mut self, budget: &mut Budget) {
        let held = self.waiting_bytes + self.gaps.len_bytes();
        budget.change(self.held_bytes, held);
        self.held_bytes = held;
    }
}

fn index(len: u32) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

/// What a socket took; one that is full took nothing.
fn taken(sent: io::Result<usize>) -> io::Result<usize> {
    match sent {
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(0),
        other => other,
    }
}

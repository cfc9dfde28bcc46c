//! From the socket to the guest: what was sent and what of it was acknowledged. Nothing is kept here but numbers.

use super::{LEAST_MSS, Millis};
use crate::wire::{SackBlocks, Seq, Tcp};

/// Time after which something is sent again, at first. A guest is next door; it answers in microseconds if it runs.
const FIRST_TIMEOUT_MS: Millis = 200;
/// And at most: a guest that was stopped for hours goes on where it was.
const TIMEOUT_LIMIT_MS: Millis = 30_000;
/// Acknowledgements of the same byte after which it counts as lost (RFC 5681 section 3.2).
const REPEATS_OF_LOSS: u8 = 3;

/// What an acknowledgement brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Acknowledged {
    /// So many bytes of data are done, and perhaps the window changed.
    Bytes(u32),
    /// The guest lacks what comes next: it is to be sent again.
    Lost,
    /// It acknowledges what was never sent.
    Unsent,
}

/// Numbers of what was sent.
#[derive(Debug)]
pub(super) struct Send {
    /// Number of SYN.
    first: Seq,
    /// The oldest that is not acknowledged.
    unacknowledged: Seq,
    /// The next to send; goes back when something was lost.
    next: Seq,
    /// Behind all that was ever sent.
    highest: Seq,
    /// Number of FIN, once the socket is at its end.
    fin: Option<Seq>,
    window: u32,
    /// Segment and acknowledgement that the window was last taken from.
    window_from: (Seq, Seq),
    scale: u8,
    mss: u16,
    repeats: u8,
    /// Until this is acknowledged, losses belong to one event.
    recovery: Option<Seq>,
    /// After a timeout only one segment goes until something is acknowledged.
    is_probing: bool,
    timeout_ms: Millis,
    deadline: Option<Millis>,
}

impl Send {
    /// The connection's first number is `first`.
    pub(super) fn new(first: Seq) -> Self {
        Self {
            first,
            unacknowledged: first,
            next: first,
            highest: first,
            fin: None,
            window: 0,
            window_from: (Seq(0), Seq(0)),
            scale: 0,
            mss: LEAST_MSS,
            repeats: 0,
            recovery: None,
            is_probing: false,
            timeout_ms: FIRST_TIMEOUT_MS,
            deadline: None,
        }
    }

    /// What the guest's SYN says. `link_mss` is what the link carries.
    pub(super) fn learn(&mut self, syn: &Tcp, link_mss: u16) {
        self.mss = syn.options.mss.unwrap_or(LEAST_MSS).clamp(64, link_mss.max(64));
        self.scale = syn.options.window_scale.unwrap_or(0);
        self.window = syn.window.into();
        self.window_from = (syn.seq, self.unacknowledged);
    }

    pub(super) fn next(&self) -> Seq {
        self.next
    }

    pub(super) fn first(&self) -> Seq {
        self.first
    }

    pub(super) fn mss(&self) -> u16 {
        self.mss
    }

    /// How much of the socket's data lies between the oldest byte that is not acknowledged and the next to send.
    pub(super) fn offset_bytes(&self) -> u32 {
        let start = self.unacknowledged.max(self.first + 1);
        if self.next.is_before(start) { 0 } else { self.next - start }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.unacknowledged == self.highest
    }

    /// Whether FIN was sent and acknowledged.
    pub(super) fn is_done(&self) -> bool {
        self.fin.is_some_and(|fin| fin.is_before(self.unacknowledged))
    }

    /// The socket is at its end: FIN comes behind what was looked at so far.
    pub(super) fn end_here(&mut self) {
        self.fin.get_or_insert(self.next);
    }

    /// Whether FIN is what comes next.
    pub(super) fn is_at_fin(&self) -> bool {
        self.fin == Some(self.next)
    }

    /// Whether nothing but SYN was sent and acknowledged, or not even that.
    pub(super) fn is_idle_at_first(&self) -> bool {
        self.unacknowledged == self.first
    }

    /// Whether all data before FIN was sent.
    pub(super) fn offset_is_at_end(&self) -> bool {
        self.fin.is_some_and(|fin| !self.next.is_before(fin))
    }

    /// Whether data is known to end.
    pub(super) fn has_fin(&self) -> bool {
        self.fin.is_some()
    }

    /// How many bytes may go now; 0 also while a probe is on its way.
    pub(super) fn window_bytes(&self) -> u32 {
        let end = self.unacknowledged + self.window;
        let room = end.since(self.next).max(0).cast_unsigned();
        match self.is_probing {
            true if self.next == self.unacknowledged => room.min(self.mss.into()),
            true => 0,
            false => room,
        }
    }

    /// Whether the guest takes nothing at all.
    pub(super) fn is_closed(&self) -> bool {
        self.window == 0 && self.is_idle()
    }

    /// So many numbers went out.
    pub(super) fn sent(&mut self, count: u32, now: Millis) {
        self.next += count;
        self.highest = self.highest.max(self.next);
        if self.deadline.is_none() {
            self.deadline = Some(now + self.timeout_ms);
        }
    }

    /// Waits with probes until the guest opens its window.
    pub(super) fn wait_for_window(&mut self, now: Millis) {
        if self.deadline.is_none() {
            self.deadline = Some(now + self.timeout_ms);
        }
    }

    /// An acknowledgement came.
    pub(super) fn acknowledge(&mut self, tcp: &Tcp, has_payload: bool, now: Millis) -> Acknowledged {
        let ack = tcp.ack;
        if self.highest.is_before(ack) {
            return Acknowledged::Unsent;
        }
        let window = u32::from(tcp.window) << self.scale;
        let is_same_window = window == self.window;
        if !ack.is_before(self.unacknowledged) {
            let (seq, from) = self.window_from;
            if seq.is_before(tcp.seq) || (seq == tcp.seq && !ack.is_before(from)) {
                self.window = window;
                self.window_from = (tcp.seq, ack);
            }
        }
        if self.unacknowledged.is_before(ack) {
            return self.advance(ack, now);
        }
        let is_repeat = ack == self.unacknowledged && !self.is_idle() && !has_payload && is_same_window;
        if is_repeat {
            self.repeats = self.repeats.saturating_add(1);
        }
        if self.recovery.is_none()
            && (self.repeats >= REPEATS_OF_LOSS && is_repeat || self.sack_tells_loss(&tcp.options.sack))
        {
            self.recovery = Some(self.highest);
            self.repeats = 0;
            return Acknowledged::Lost;
        }
        if self.is_idle() {
            // A window that is still closed is asked for again, less and less often.
            (self.deadline, self.is_probing) = (None, false);
            if self.window > 0 {
                self.timeout_ms = FIRST_TIMEOUT_MS;
            }
        }
        Acknowledged::Bytes(0)
    }

    fn advance(&mut self, ack: Seq, now: Millis) -> Acknowledged {
        let old = self.unacknowledged;
        // SYN and FIN have numbers, but are no data.
        let syn = u32::from(old == self.first);
        let fin = u32::from(self.fin.is_some_and(|fin| fin.is_before(ack)));
        let bytes = (ack - old).saturating_sub(syn + fin);
        self.unacknowledged = ack;
        self.next = self.next.max(ack);
        (self.repeats, self.is_probing, self.timeout_ms) = (0, false, FIRST_TIMEOUT_MS);
        self.deadline = (!self.is_idle()).then_some(now + self.timeout_ms);
        if self.recovery.is_some_and(|end| !ack.is_before(end)) {
            self.recovery = None;
        }
        Acknowledged::Bytes(bytes)
    }

    /// Whether an acknowledgement fills a part of what was lost: then what comes next is lost too (RFC 6582).
    pub(super) fn is_recovering(&self) -> bool {
        self.recovery.is_some()
    }

    /// Three segments were received behind the gap (RFC 6675).
    fn sack_tells_loss(&self, sack: &SackBlocks) -> bool {
        let received: u32 = sack
            .iter()
            .filter(|(start, _)| self.unacknowledged.is_before(*start))
            .map(|(start, end)| end - start)
            .sum();
        !self.is_idle() && received >= 3 * u32::from(self.mss)
    }

    /// How much is missing before the first piece that the guest has.
    pub(super) fn gap_bytes(&self, sack: &SackBlocks) -> u32 {
        let starts = sack.iter().map(|(start, _)| start.since(self.unacknowledged));
        let gap = starts.filter(|gap| *gap > 0).min().map_or(u32::from(self.mss), i32::cast_unsigned);
        gap.min(self.highest - self.unacknowledged).min(16 * u32::from(self.mss))
    }

    /// When something is to be done if nothing happens.
    pub(super) fn deadline(&self) -> Option<Millis> {
        self.deadline
    }

    /// The deadline has passed: everything is sent again from the oldest on, a segment at first.
    pub(super) fn time_out(&mut self, now: Millis) {
        self.timeout_ms = (self.timeout_ms * 2).min(TIMEOUT_LIMIT_MS);
        self.deadline = Some(now + self.timeout_ms);
        self.next = self.unacknowledged;
        self.is_probing = true;
        self.recovery = None;
        self.repeats = 0;
    }

    /// The oldest number that is not acknowledged.
    pub(super) fn unacknowledged(&self) -> Seq {
        self.unacknowledged
    }
}

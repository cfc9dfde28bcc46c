//! Who may send how much (5.10.6.3). Counts are modulo 2^32.

use super::packet::Header;

/// The accounts of both ways of a connection.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Credit {
    /// Bytes of the guest's that are kept here at most.
    buffer_bytes: u32,
    /// Bytes that came from the guest.
    received: u32,
    /// Those of them that went on.
    forwarded: u32,
    /// What the guest was last told of that.
    told: u32,
    /// Bytes that the guest keeps at most.
    guest_buffer_bytes: u32,
    /// What it told last of those that went on there.
    guest_forwarded: u32,
    /// Bytes that went to the guest.
    sent: u32,
}

impl Credit {
    pub(super) fn new(buffer_bytes: u32) -> Self {
        Self { buffer_bytes, ..Self::default() }
    }

    /// Takes in what the guest tells in every packet.
    pub(super) fn hear(&mut self, header: &Header) {
        self.guest_buffer_bytes = header.buf_alloc;
        self.guest_forwarded = header.fwd_cnt;
    }

    /// Tells the guest the same of us.
    pub(super) fn stamp(&mut self, header: &mut Header) {
        header.buf_alloc = self.buffer_bytes;
        header.fwd_cnt = self.forwarded;
        self.told = self.forwarded;
    }

    /// Bytes that the guest can take now.
    pub(super) fn free(&self) -> u32 {
        self.guest_buffer_bytes.saturating_sub(self.sent.wrapping_sub(self.guest_forwarded))
    }

    /// Bytes that the guest can ever take at once.
    pub(super) fn guest_buffer_bytes(&self) -> u32 {
        self.guest_buffer_bytes
    }

    pub(super) fn send(&mut self, bytes: usize) {
        self.sent = self.sent.wrapping_add(modulo(bytes));
    }

    /// Data came from the guest; false if it may not have sent that much.
    pub(super) fn receive(&mut self, bytes: usize) -> bool {
        let kept = self.received.wrapping_sub(self.forwarded);
        let fits = u32::try_from(bytes).is_ok_and(|bytes| bytes <= self.buffer_bytes.saturating_sub(kept));
        self.received = self.received.wrapping_add(modulo(bytes));
        fits
    }

    pub(super) fn forward(&mut self, bytes: usize) {
        self.forwarded = self.forwarded.wrapping_add(modulo(bytes));
    }

    /// Whether the guest is told now of what went on: it must never wait for what it may send long since.
    pub(super) fn owes_update(&self) -> bool {
        self.forwarded != self.told && self.received.wrapping_sub(self.told) > self.buffer_bytes / 2
    }
}

#[expect(clippy::cast_possible_truncation, reason = "counts are modulo 2^32")]
fn modulo(bytes: usize) -> u32 {
    bytes as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_sends_more_than_it_may_is_noticed() {
        let mut credit = Credit::new(100);
        assert!(credit.receive(60) && credit.receive(40));
        assert!(!credit.receive(1));
        let mut credit = Credit::new(100);
        assert!(!credit.receive(usize::MAX));
    }

    #[test]
    fn the_guest_hears_of_room_before_it_must_wait() {
        let mut credit = Credit::new(100);
        assert!(credit.receive(50));
        credit.forward(50);
        assert!(!credit.owes_update(), "it knows of 50 more");
        assert!(credit.receive(50));
        assert!(credit.owes_update());
        let mut header = Header::default();
        credit.stamp(&mut header);
        assert_eq!((header.buf_alloc, header.fwd_cnt), (100, 50));
        assert!(!credit.owes_update(), "nothing new");
        credit.forward(1);
        assert!(!credit.owes_update(), "half is enough for now");
        assert!(credit.receive(50));
        assert!(credit.owes_update());
    }

    #[test]
    fn counts_go_on_past_their_end() {
        let mut credit = Credit::new(100);
        (credit.received, credit.forwarded, credit.told) = (u32::MAX - 10, u32::MAX - 10, u32::MAX - 10);
        assert!(credit.receive(100) && !credit.receive(1));
        (credit.sent, credit.guest_forwarded, credit.guest_buffer_bytes) = (u32::MAX, u32::MAX - 9, 30);
        assert_eq!(credit.free(), 21);
        credit.send(10);
        assert_eq!(credit.free(), 11);
        credit.hear(&Header { buf_alloc: 5, fwd_cnt: u32::MAX, ..Header::default() });
        assert_eq!(credit.free(), 0, "a buffer that has become smaller");
    }
}

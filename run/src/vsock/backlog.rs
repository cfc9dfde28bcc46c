//! What a program on the host has not taken yet.

use std::collections::VecDeque;

/// Most messages that wait, whatever their length: empty ones need no credit.
pub(super) const MAX_MESSAGES: usize = 1024;

/// Bytes of the guest's that wait for their socket. How many there may be is a matter of credit.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    bytes: VecDeque<u8>,
    /// Lengths of the messages that are whole; unused for streams.
    messages: VecDeque<usize>,
    /// Bytes of the message that is not.
    unfinished: usize,
}

impl Backlog {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.messages.is_empty()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Where bytes are put.
    pub(super) fn end(&mut self) -> &mut VecDeque<u8> {
        &mut self.bytes
    }

    /// `added` bytes of a message were put; with `is_end` it is whole. False if too many wait.
    pub(super) fn message(&mut self, added: usize, is_end: bool) -> bool {
        self.unfinished += added;
        if is_end {
            self.messages.push_back(std::mem::take(&mut self.unfinished));
        }
        self.messages.len() <= MAX_MESSAGES
    }

    /// The next bytes of a stream.
    pub(super) fn front(&self) -> Option<&[u8]> {
        let (front, _) = self.bytes.as_slices();
        (!front.is_empty()).then_some(front)
    }

    /// The next message, if there is a whole one.
    pub(super) fn front_message(&mut self) -> Option<&[u8]> {
        let len = *self.messages.front()?;
        self.bytes.make_contiguous().get(..len)
    }

    /// Bytes of a stream were taken.
    pub(super) fn take(&mut self, len: usize) {
        self.bytes.drain(..len.min(self.bytes.len()));
        if self.bytes.is_empty() {
            // Most connections never need it again.
            self.bytes = VecDeque::new();
        }
    }

    /// A message was taken; gives its length.
    pub(super) fn take_message(&mut self) -> usize {
        let len = self.messages.pop_front().unwrap_or(0);
        self.take(len);
        len
    }

    /// Nobody will take anything; gives how much there was.
    pub(super) fn clear(&mut self) -> usize {
        let len = self.bytes.len();
        *self = Self::default();
        len
    }
}

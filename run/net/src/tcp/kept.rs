//! What a peer sent and the guest has not acknowledged yet, where the kernel cannot be asked for it twice.

use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;

use rustix::net::{RecvFlags, recv};

use super::Budget;

/// Most that one connection keeps.
const LIMIT_BYTES: usize = 256 << 10;
/// What each may keep even when the budget is spent, so that all go on.
const LEAST_BYTES: usize = 16 << 10;

/// What a look found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Looked {
    /// Data, for [`StreamSocket::send_looked`](super::StreamSocket::send_looked).
    Data {
        /// How much.
        len_bytes: usize,
        /// Whether there was nothing behind it.
        is_all: bool,
    },
    /// The peer sends no more.
    End,
    /// Nothing came yet.
    Nothing,
    /// There may be more, but not before the guest has acknowledged something.
    Full,
}

/// Bytes in their order; the first is the oldest that is not acknowledged.
#[derive(Debug, Default)]
pub(super) struct Kept {
    bytes: Vec<u8>,
    /// Where the oldest is: what is in front of it is done.
    start: usize,
    looked: Range<usize>,
    /// What is held of the budget.
    held_bytes: usize,
}

impl Kept {
    /// These bytes come first, before anything that the socket brings.
    pub(super) fn beginning_with(first: Vec<u8>) -> Self {
        Self { bytes: first, ..Self::default() }
    }

    fn len(&self) -> usize {
        self.bytes.len().saturating_sub(self.start)
    }

    /// Shows at most `limit` bytes from `offset_bytes` on; reads what is not here yet.
    ///
    /// # Errors
    /// The socket's.
    pub(super) fn look(
        &mut self,
        offset_bytes: u32,
        limit: usize,
        socket: BorrowedFd<'_>,
        budget: &mut Budget,
    ) -> io::Result<Looked> {
        let offset = usize::try_from(offset_bytes).unwrap_or(usize::MAX).min(self.len());
        let mut is_all = false;
        let missing = limit.saturating_sub(self.len() - offset);
        if missing > 0 {
            let room = LIMIT_BYTES.min(budget.left_bytes().max(LEAST_BYTES)).saturating_sub(self.len());
            if room > 0 {
                match self.read(missing.min(room), socket) {
                    Ok(0) if offset == self.len() => return Ok(Looked::End),
                    Ok(count) => is_all = count < missing.min(room),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => is_all = true,
                    // Told by the next look, when what came before was seen.
                    Err(error) if offset == self.len() => return Err(error),
                    Err(_) => {}
                }
                self.account(budget);
            }
        }
        let count = (self.len() - offset).min(limit);
        self.looked = self.start + offset..self.start + offset + count;
        Ok(match count {
            0 if is_all => Looked::Nothing,
            0 => Looked::Full,
            len_bytes => Looked::Data { len_bytes, is_all },
        })
    }

    /// What was looked at last.
    pub(super) fn looked(&self) -> &[u8] {
        self.bytes.get(self.looked.clone()).unwrap_or_default()
    }

    /// The guest has the first `len_bytes`.
    pub(super) fn done(&mut self, len_bytes: u32, budget: &mut Budget) {
        self.start += usize::try_from(len_bytes).unwrap_or(usize::MAX).min(self.len());
        self.looked = 0..0;
        if self.start == self.bytes.len() {
            // A connection that is silent holds nothing.
            (self.bytes, self.start) = (Vec::new(), 0);
        }
        self.account(budget);
    }

    /// Gives back what is held of the budget.
    pub(super) fn release(&mut self, budget: &mut Budget) {
        budget.change(self.held_bytes, 0);
        self.held_bytes = 0;
    }

    fn read(&mut self, most: usize, socket: BorrowedFd<'_>) -> io::Result<usize> {
        if self.start > 0 && self.start >= self.len() {
            // No more is moved than was done.
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        let len = self.bytes.len();
        self.bytes.resize(len + most, 0);
        let read = recv(socket, self.bytes.get_mut(len..).unwrap_or_default(), RecvFlags::DONTWAIT);
        self.bytes.truncate(len + read.map_or(0, |(count, _)| count));
        Ok(read?.0)
    }

    fn account(&mut self, budget: &mut Budget) {
        budget.change(self.held_bytes, self.bytes.len());
        self.held_bytes = self.bytes.len();
    }
}

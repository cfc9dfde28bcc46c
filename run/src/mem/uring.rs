//! Moves bytes between guest memory and files without waiting for them (io_uring(7)).

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use io_uring::{IoUring, opcode, types};

use super::GuestMemory;
use super::transfer::{Span, pieces};
use crate::event::Flag;

/// Which way bytes move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// From the file to the guest.
    Read,
    /// From the guest to the file.
    Write,
}

/// Reads and writes on their way. Dropping it waits for all of them.
pub struct DataRing {
    ring: IoUring,
    memory: GuestMemory,
    /// By number.
    flights: Vec<Option<Flight>>,
    under_way: usize,
    finished: Flag,
}

/// What the kernel looks at until a move is done.
struct Flight {
    pieces: Vec<libc::iovec>,
    _file: Arc<File>,
}

// SAFETY: the pieces point into guest memory, which any thread may use.
unsafe impl Send for DataRing {}

impl DataRing {
    /// A ring for at most `most` moves at once. Fails where the host has or allows no such thing.
    pub fn new(memory: GuestMemory, most: usize) -> io::Result<Self> {
        let entries = u32::try_from(most.next_power_of_two()).map_err(io::Error::other)?;
        let ring = IoUring::builder().dontfork().build(entries)?;
        let finished = Flag::new()?;
        ring.submitter().register_eventfd(finished.as_raw_fd())?;
        let flights = (0..most).map(|_| None).collect();
        Ok(Self { ring, memory, flights, under_way: 0, finished })
    }

    /// Raised when moves have ended.
    #[must_use]
    pub fn finished(&self) -> &Flag {
        &self.finished
    }

    /// Prepares a move of all `spans` at `offset` of the file. `number` names it until it has ended.
    pub fn start(&mut self, number: usize, way: Move, file: &Arc<File>, spans: &[Span], offset: u64) -> io::Result<()> {
        let slot = self.flights.get_mut(number).filter(|slot| slot.is_none()).ok_or(io::ErrorKind::QuotaExceeded)?;
        let pieces = pieces(&self.memory, spans)?;
        let count = u32::try_from(pieces.len()).map_err(io::Error::other)?;
        let fd = types::Fd(file.as_raw_fd());
        let entry = match way {
            Move::Read => opcode::Readv::new(fd, pieces.as_ptr(), count).offset(offset).build(),
            Move::Write => opcode::Writev::new(fd, pieces.as_ptr(), count).offset(offset).build(),
        };
        let entry = entry.user_data(number as u64);
        // SAFETY: until the kernel says that the move has ended, or this value has waited for that, `flights` keeps the
        // file open and the list of pieces where it is (moving a `Vec` does not move what it holds). The pieces are guest
        // memory, which stays mapped while `memory` lives; the kernel uses it as a device would.
        unsafe { self.ring.submission().push(&entry) }.map_err(io::Error::other)?;
        *slot = Some(Flight { pieces, _file: Arc::clone(file) });
        self.under_way += 1;
        Ok(())
    }

    /// Gives the kernel what was prepared.
    pub fn submit(&mut self) -> io::Result<()> {
        if !self.ring.submission().is_empty() {
            self.ring.submit()?;
        }
        Ok(())
    }

    /// A move that has ended, and how many bytes it moved.
    pub fn next_finished(&mut self) -> Option<(usize, io::Result<u64>)> {
        if self.under_way == 0 {
            return None;
        }
        let mut completion = self.ring.completion();
        let entry = match completion.next() {
            Some(entry) => entry,
            None => {
                // What comes after this raises it again.
                self.finished.take();
                completion.sync();
                completion.next()?
            }
        };
        drop(completion);
        let number = usize::try_from(entry.user_data()).unwrap_or(usize::MAX);
        let flight = self.flights.get_mut(number).and_then(Option::take);
        debug_assert!(flight.is_some_and(|flight| !flight.pieces.is_empty()), "the kernel names what it was given");
        self.under_way -= 1;
        let moved = u64::try_from(entry.result()).map_err(|_| io::Error::from_raw_os_error(-entry.result()));
        Some((number, moved))
    }
}

impl Drop for DataRing {
    fn drop(&mut self) {
        while self.under_way > 0 {
            while self.next_finished().is_some() {}
            if self.under_way > 0
                && let Err(error) = self.ring.submit_and_wait(1)
                && error.kind() != io::ErrorKind::Interrupted
            {
                // The kernel may still use the lists: they stay for the life of the process.
                std::mem::forget(std::mem::take(&mut self.flights));
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use vm_memory::{Bytes, GuestAddress};

    use super::*;

    #[test]
    fn many_moves_end_with_what_they_moved_and_the_rest_is_waited_for() {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        let file = Arc::new(tempfile::tempfile().unwrap());
        file.write_all_at(&[7; 4096], 0).unwrap();
        // Not every place that tests run in has it.
        let Ok(mut ring) = DataRing::new(memory.clone(), 8) else { return };
        let span = |at: u64, len| Span { address: GuestAddress(at), len };
        ring.start(0, Move::Read, &file, &[span(0, 100), span(8192, 28)], 0).unwrap();
        ring.start(1, Move::Read, &file, &[span(4096, 100)], 4050).unwrap();
        ring.start(1, Move::Read, &file, &[span(0, 1)], 0).unwrap_err();
        ring.start(8, Move::Read, &file, &[span(0, 1)], 0).unwrap_err();
        ring.start(2, Move::Read, &file, &[span(1 << 20, 1)], 0).unwrap_err();
        ring.submit().unwrap();
        let mut ended = vec![];
        while ended.len() < 2 {
            ended.extend(ring.next_finished().map(|(number, moved)| (number, moved.unwrap())));
        }
        ended.sort_unstable();
        assert_eq!(ended, [(0, 128), (1, 46)]);
        assert_eq!(memory.read_obj::<u8>(GuestAddress(8192 + 27)).unwrap(), 7);
        ring.start(3, Move::Write, &file, &[span(0, 100)], 8000).unwrap();
        drop(ring);
        assert_eq!(file.metadata().unwrap().len(), 8100);
    }
}

//! Frames on their way out of a link, to one descriptor. They go at once where there is room; a few may wait.

use std::collections::VecDeque;
use std::io;

use rustix::io::Errno;

use crate::Millis;
use crate::port::{GuestFrame, Outlet};

/// With so much waiting the guest is asked to wait, too.
const FULL_BYTES: usize = 1 << 20;
/// With so much waiting frames are lost.
const LIMIT_BYTES: usize = 2 << 20;
/// Who takes nothing for so long is not waited for any more.
const PATIENCE_MS: Millis = 1_000;
/// Where nobody tells when there is room again, it is looked for after so long.
const LOOK_AGAIN_MS: Millis = 1;

/// Nobody is at the other end any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gone;

/// Frames that wait.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    frames: VecDeque<Vec<u8>>,
    bytes: usize,
    /// How much of the first one a stream has taken.
    sent: usize,
    /// Since when nothing was taken.
    stalled: Option<Millis>,
    is_stuck: bool,
    /// The host is short of memory, and does not say when that is over.
    is_short: bool,
    lost: u64,
}

enum Sent {
    Taken(usize),
    NoRoom,
    Refused,
}

fn judge(result: io::Result<usize>) -> Result<Sent, Gone> {
    let error = match result {
        Ok(len) => return Ok(Sent::Taken(len)),
        Err(error) => error,
    };
    match Errno::from_io_error(&error) {
        Some(Errno::AGAIN | Errno::NOBUFS | Errno::INTR) => Ok(Sent::NoRoom),
        Some(Errno::PIPE | Errno::CONNRESET | Errno::CONNREFUSED | Errno::NOTCONN | Errno::BADFD) => Err(Gone),
        // Too long for a datagram, a device that is down, a frame outside of the guest's memory.
        _ => Ok(Sent::Refused),
    }
}

impl Outgoing {
    /// Sends `prefix` and the frame, or keeps them.
    pub(super) fn send(
        &mut self,
        (prefix, frame): (&[u8], &dyn GuestFrame),
        to: Outlet<'_>,
        now: Millis,
    ) -> Result<(), Gone> {
        let total = prefix.len() + frame.len_bytes();
        let mut sent = 0;
        if self.frames.is_empty() {
            let result = frame.send_whole(prefix, to);
            self.is_short = matches!(&result, Err(error) if Errno::from_io_error(error) == Some(Errno::NOBUFS));
            match judge(result)? {
                Sent::Taken(len) if len >= total => return Ok(()),
                Sent::Taken(len) => sent = len,
                Sent::NoRoom => {}
                Sent::Refused => {
                    self.lost += 1;
                    return Ok(());
                }
            }
            self.sent = sent;
        }
        // What a stream has begun must be ended.
        if sent == 0 && self.bytes + total > LIMIT_BYTES {
            self.lost += 1;
            return Ok(());
        }
        let mut bytes = Vec::with_capacity(total);
        bytes.extend_from_slice(prefix);
        frame.copy_to(0..frame.len_bytes(), &mut bytes);
        bytes.resize(total, 0);
        self.bytes += total;
        self.frames.push_back(bytes);
        self.stalled.get_or_insert(now);
        Ok(())
    }

    /// Sends what there is room for.
    pub(super) fn flush(&mut self, to: Outlet<'_>, now: Millis) -> Result<(), Gone> {
        self.is_short = false;
        while let Some(frame) = self.frames.front() {
            let result = to.send(frame.get(self.sent..).unwrap_or_default());
            self.is_short = matches!(&result, Err(error) if Errno::from_io_error(error) == Some(Errno::NOBUFS));
            match judge(result)? {
                Sent::NoRoom => break,
                Sent::Taken(len) if self.sent + len < frame.len() => self.sent += len,
                Sent::Taken(_) => self.shift(),
                Sent::Refused => {
                    self.lost += 1;
                    self.shift();
                }
            }
            self.stalled = Some(now);
            self.is_stuck = false;
        }
        if self.frames.is_empty() {
            self.stalled = None;
        }
        self.is_stuck |= self.stalled.is_some_and(|stalled| now.saturating_sub(stalled) >= PATIENCE_MS);
        Ok(())
    }

    fn shift(&mut self) {
        self.sent = 0;
        self.bytes -= self.frames.pop_front().map_or(0, |frame| frame.len());
    }

    /// Nobody will take what waits.
    pub(super) fn clear(&mut self) {
        *self = Self { lost: self.lost + self.frames.len() as u64, ..Self::default() };
    }

    /// Whether the guest should wait.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= FULL_BYTES && !self.is_stuck
    }

    /// When [`flush`](Self::flush) is to be called even if nothing happens.
    pub(super) fn deadline(&self) -> Option<Millis> {
        let stalled = self.stalled?;
        if self.is_short {
            return Some(stalled + LOOK_AGAIN_MS);
        }
        self.is_full().then_some(stalled + PATIENCE_MS)
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::Shutdown;
    use std::os::fd::AsFd;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use super::*;
    use crate::memory::MemoryFrame;

    #[test]
    fn who_takes_nothing_costs_a_bounded_amount_and_is_not_waited_for() {
        let (near, far) = UnixDatagram::pair().unwrap();
        let mut outgoing = Outgoing::default();
        for _ in 0..1_000 {
            outgoing.send((b"", &MemoryFrame::whole(vec![7; 9_000])), Outlet::Socket(near.as_fd()), 5).unwrap();
        }
        assert!(outgoing.bytes <= LIMIT_BYTES && outgoing.lost() > 500, "{}", outgoing.lost());
        assert!(outgoing.is_full());
        assert_eq!(outgoing.deadline(), Some(5 + PATIENCE_MS));
        outgoing.flush(Outlet::Socket(near.as_fd()), 5 + PATIENCE_MS).unwrap();
        assert!(!outgoing.is_full(), "a second without a sign of life is enough");
        outgoing.clear();
        far.set_nonblocking(true).unwrap();
        let taken = std::iter::from_fn(|| far.recv(&mut [0; 9]).ok()).count() as u64;
        assert_eq!((outgoing.bytes, outgoing.lost()), (0, 1_000 - taken), "what the socket took is not lost");
    }

    #[test]
    fn a_stream_gets_every_frame_whole_however_little_it_takes() {
        let (near, mut far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let (mut outgoing, mut wanted, mut got) = (Outgoing::default(), Vec::new(), Vec::new());
        for number in 0..100_u8 {
            outgoing
                .send((&[number], &MemoryFrame::whole(vec![number; 9_000])), Outlet::Socket(near.as_fd()), 0)
                .unwrap();
            wanted.extend(vec![number; 9_001]);
        }
        assert!(!outgoing.frames.is_empty());
        while got.len() < wanted.len() {
            let mut some = [0; 5_000];
            let len = far.read(&mut some).unwrap();
            got.extend_from_slice(&some[..len]);
            outgoing.flush(Outlet::Socket(near.as_fd()), 0).unwrap();
        }
        assert!(got == wanted && outgoing.bytes == 0 && outgoing.lost() == 0);
        // Closing would do only where no other thread is about to start a program, which has the socket until then.
        far.shutdown(Shutdown::Both).unwrap();
        assert_eq!(outgoing.send((b"", &MemoryFrame::whole(vec![1])), Outlet::Socket(near.as_fd()), 0), Err(Gone));
    }
}

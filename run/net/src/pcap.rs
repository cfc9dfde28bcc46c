//! What passes a link, written to a file that Wireshark and tcpdump read (pcap, as libpcap's pcap-savefile(5) has it).

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::event::{PollFlags, Timespec};

use crate::Millis;
use crate::link::{Link, Woken};
use crate::port::{Abilities, GuestFrame, GuestPort, Reading, Shape};
use crate::wire::{Headers, Offload};

/// Bytes of a frame that are written, unless somebody says otherwise: all of it.
pub const WHOLE_BYTES: u32 = 262_144;

/// Microseconds, in this machine's byte order.
const MAGIC: u32 = 0xa1b2_c3d4;
/// LINKTYPE_ETHERNET.
const ETHERNET: u32 = 1;

/// A file of frames.
#[derive(Debug)]
pub struct Capture {
    file: BufWriter<File>,
    snap_bytes: u32,
    /// The clock of the file when that of the link was 0, in microseconds.
    start_us: Option<u64>,
    failed: Option<io::Error>,
}

impl Capture {
    /// Makes the file, over one that is there. Of each frame at most `snap_bytes` are written.
    ///
    /// # Errors
    /// The host's.
    pub fn create(path: &Path, snap_bytes: u32) -> io::Result<Self> {
        let mut file = BufWriter::new(File::create(path)?);
        // Version 2.4, universal time.
        file.write_all(&MAGIC.to_ne_bytes())?;
        file.write_all(&2_u16.to_ne_bytes())?;
        file.write_all(&4_u16.to_ne_bytes())?;
        for word in [0, 0, snap_bytes, ETHERNET] {
            file.write_all(&word.to_ne_bytes())?;
        }
        file.flush()?;
        Ok(Self { file, snap_bytes, start_us: None, failed: None })
    }

    /// Why nothing is written any more, if that is so: the link goes on without it.
    pub fn failed(&self) -> Option<&io::Error> {
        self.failed.as_ref()
    }

    /// A frame of two parts passes.
    fn record(&mut self, (head, rest): (&[u8], &[u8]), len_bytes: usize, now: Millis) {
        if self.failed.is_some() {
            return;
        }
        let us = self.start_us(now) + now * 1_000;
        let snap = usize::try_from(self.snap_bytes).unwrap_or(usize::MAX);
        let head = head.get(..snap).unwrap_or(head);
        let rest = rest.get(..snap - head.len()).unwrap_or(rest);
        let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        let seconds = u32::try_from(us / 1_000_000).unwrap_or(u32::MAX);
        let micros = u32::try_from(us % 1_000_000).unwrap_or(0);
        let words = [seconds, micros, number(head.len() + rest.len()), number(len_bytes)];
        let written = (|| {
            words.iter().try_for_each(|word| self.file.write_all(&word.to_ne_bytes()))?;
            self.file.write_all(head)?;
            self.file.write_all(rest)
        })();
        self.failed = written.err();
    }

    fn start_us(&mut self, now: Millis) -> u64 {
        *self.start_us.get_or_insert_with(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            u64::try_from(since.as_micros()).unwrap_or(0).saturating_sub(now * 1_000)
        })
    }

    /// Frames of one turn are in the file when it ends.
    fn flush(&mut self) {
        if self.failed.is_none() {
            self.failed = self.file.flush().err();
        }
    }
}

/// A link whose frames are written to a file.
#[derive(Debug)]
pub struct Pcap<L> {
    link: L,
    capture: Capture,
}

impl<L: Link> Pcap<L> {
    /// What passes `link` goes to `capture`, too.
    pub fn new(link: L, capture: Capture) -> Self {
        Self { link, capture }
    }
}

impl<L: Link> Link for Pcap<L> {
    fn fd(&self) -> BorrowedFd<'_> {
        self.link.fd()
    }

    fn takes(&self) -> Abilities {
        self.link.takes()
    }

    fn from_guest(&mut self, frame: &dyn GuestFrame, port: &mut dyn GuestPort, now: Millis) {
        let snap = usize::try_from(self.capture.snap_bytes).unwrap_or(usize::MAX);
        let mut bytes = Vec::new();
        frame.copy_to(0..frame.len_bytes().min(snap), &mut bytes);
        self.capture.record((&bytes, &[]), frame.len_bytes(), now);
        self.link.from_guest(frame, &mut Tapped { port, capture: &mut self.capture, now, received: Vec::new() }, now);
    }

    fn turn(&mut self, port: &mut dyn GuestPort, now: Millis) -> io::Result<bool> {
        let more = self.link.turn(&mut Tapped { port, capture: &mut self.capture, now, received: Vec::new() }, now);
        self.capture.flush();
        more
    }

    fn settle(&mut self, port: &mut dyn GuestPort, now: Millis) -> io::Result<bool> {
        let more = self.link.settle(&mut Tapped { port, capture: &mut self.capture, now, received: Vec::new() }, now);
        self.capture.flush();
        more
    }

    fn wait(&mut self, port: BorrowedFd<'_>, wanted: PollFlags, timeout: Option<&Timespec>) -> io::Result<Woken> {
        self.link.wait(port, wanted, timeout)
    }

    fn forget(&mut self, port: BorrowedFd<'_>) {
        self.link.forget(port);
    }

    fn deadline(&self) -> Option<Millis> {
        self.link.deadline()
    }

    fn change_guest(&mut self) {
        self.link.change_guest();
    }

    fn is_full(&self) -> bool {
        self.link.is_full()
    }

    fn is_up(&self) -> bool {
        self.link.is_up()
    }

    fn lost(&self) -> u64 {
        self.link.lost()
    }
}

/// A port whose frames are written down before they go. What is read from a socket goes through memory here, so that it
/// can be seen.
struct Tapped<'a> {
    port: &'a mut dyn GuestPort,
    capture: &'a mut Capture,
    now: Millis,
    received: Vec<u8>,
}

impl Tapped<'_> {
    /// As the guest gets it: with its checksum, if that costs nothing to look at.
    fn record(&mut self, headers: &Headers, payload: &[u8]) {
        let mut complete = headers.clone();
        complete.complete_checksum(payload);
        self.capture.record((complete.bytes(), payload), complete.bytes().len() + payload.len(), self.now);
    }
}

impl GuestPort for Tapped<'_> {
    fn abilities(&self) -> Abilities {
        self.port.abilities()
    }

    fn room(&mut self, header_bytes: usize) -> usize {
        self.port.room(header_bytes)
    }

    fn send(&mut self, headers: Headers, payload: &[u8]) -> bool {
        if !self.port.send(headers.clone(), payload) {
            return false;
        }
        self.record(&headers, payload);
        true
    }

    fn receive(&mut self, shape: Shape, limit: usize, socket: BorrowedFd<'_>, reading: Reading) -> io::Result<usize> {
        let room = self.reach(shape).min(limit);
        reading.into_memory(room, socket, &mut self.received)
    }

    fn send_received(&mut self, headers: Headers) {
        let payload = std::mem::take(&mut self.received);
        if !payload.is_empty() {
            self.send(headers, &payload);
        }
    }

    fn send_frame(&mut self, frame: &[u8], offload: &Offload) -> bool {
        if !self.port.send_frame(frame, offload) {
            return false;
        }
        self.capture.record((frame, &[]), frame.len(), self.now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{MemoryFrame, MemoryPort};
    use crate::stack::{Network, Stack};

    /// Asks who has the gateway's address.
    const QUESTION: [u8; 42] = [
        255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 2, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 2, 10, 0, 2, 15,
        0, 0, 0, 0, 0, 0, 10, 0, 2, 2,
    ];

    #[test]
    fn what_passes_is_in_the_file_and_no_more_of_it_than_was_wanted() {
        let folder = tempfile::tempdir().unwrap();
        for (snap_bytes, kept) in [(WHOLE_BYTES, 42), (20, 20), (0, 0)] {
            let path = folder.path().join("pcap");
            let capture = Capture::create(&path, snap_bytes).unwrap();
            let mut link = Pcap::new(Stack::new(Network::default()).unwrap(), capture);
            let mut port = MemoryPort::new(9);
            link.from_guest(&MemoryFrame::whole(QUESTION), &mut port, 5_000);
            link.turn(&mut port, 6_000).unwrap();
            let answer = port.take_frames().remove(0);
            let file = std::fs::read(&path).unwrap();
            let word = |at: usize| u32::from_ne_bytes(file[at..at + 4].try_into().unwrap());
            assert_eq!((word(0), word(16), word(20)), (MAGIC, snap_bytes, ETHERNET));
            assert_eq!((word(32), word(36)), (kept, 42));
            let kept = usize::try_from(kept).unwrap();
            assert_eq!(file[40..40 + kept], QUESTION[..kept]);
            assert_eq!(file[56 + kept..], answer[..kept]);
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
            assert!(now.abs_diff(word(24).into()) < 1_000, "by the clock on the wall");
        }
    }

    #[test]
    fn a_file_that_takes_nothing_does_not_stop_the_link() {
        let full = Path::new("/dev/full");
        assert!(Capture::create(full, WHOLE_BYTES).is_err());
        let folder = tempfile::tempdir().unwrap();
        let mut capture = Capture::create(&folder.path().join("pcap"), WHOLE_BYTES).unwrap();
        capture.file = BufWriter::new(File::options().write(true).open(full).unwrap());
        let mut link = Pcap::new(Stack::new(Network::default()).unwrap(), capture);
        let mut port = MemoryPort::new(9);
        for _ in 0..3 {
            link.from_guest(&MemoryFrame::whole(QUESTION), &mut port, 0);
            link.turn(&mut port, 0).unwrap();
        }
        assert_eq!(port.take_frames().len(), 3);
        assert!(link.capture.failed().is_some());
        // What is left in memory cannot be written either.
        std::mem::forget(link);
    }
}

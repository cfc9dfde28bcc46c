//! Carries bytes between QEMU's sockets and ours. Each function runs on a thread of its own until QEMU ends.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

use kiln_net::serve::serve;
use kiln_net::stream::{Framing, Incoming, StreamPort};
use rustix::event::{PollFd, PollFlags, poll};

use crate::cable::Cable;
use crate::console::{ConsoleInput, ConsoleSink};
use crate::event::Flag;

/// Bytes carried at once.
const CHUNK_BYTES: usize = 4096;
/// The end of what QEMU said is kept, this much of it.
const SAID_BYTES: usize = 4096;
/// Longest line of the log that is looked at; a register dump's lines have about 80.
const LOG_LINE_BYTES: u64 = 4096;

/// What the guest prints, to the sink. A sink that waits holds the guest back, as a slow terminal should.
pub(super) fn print(mut socket: UnixStream, sink: &ConsoleSink) {
    let mut chunk = [0; CHUNK_BYTES];
    while let Ok(len @ 1..) = socket.read(&mut chunk) {
        sink.write(chunk.get(..len).unwrap_or_default());
    }
}

/// What the user types, to the guest, until `stop` is raised.
pub(super) fn type_in(input: &ConsoleInput, mut socket: &UnixStream, stop: &Flag) {
    loop {
        input.ready().take();
        let typed = input.take(CHUNK_BYTES);
        if !typed.is_empty() {
            if socket.write_all(&typed).is_err() {
                return;
            }
            continue;
        }
        let mut waits = [PollFd::new(input.ready(), PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
        match poll(&mut waits, None) {
            Ok(_) if waits.iter().skip(1).any(|stop| !stop.revents().is_empty()) => return,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// Carries frames between QEMU's network card and the end of its cable, and tells when that is lost, or there again.
pub(super) fn carry_frames(cable: &Cable, socket: UnixStream, tell: impl FnMut(bool)) {
    // The cable is free: its last holder was the thread of a QEMU that has ended.
    let Some(mut link) = cable.take() else { return };
    let mut port = StreamPort::new(socket.into(), Framing::Plain);
    // Whatever ends it, QEMU or the host's sockets: the guest sees a network on which nobody answers.
    let _ended = serve(&mut *link, &mut port, &mut Incoming::new(Framing::Plain), cable.start(), tell);
}

/// Reads `from` to its end and returns the last of it.
pub(super) fn last_words(mut from: impl Read) -> String {
    let mut kept = VecDeque::with_capacity(SAID_BYTES);
    let mut chunk = [0; CHUNK_BYTES];
    while let Ok(len @ 1..) = from.read(&mut chunk) {
        kept.extend(chunk.iter().take(len));
        kept.drain(..kept.len().saturating_sub(SAID_BYTES));
    }
    String::from_utf8_lossy(kept.make_contiguous()).trim().to_owned()
}

/// Reads QEMU's log of processor resets to its end; true when the last reset came from a triple fault.
pub(super) fn saw_triple_fault(log: impl Read) -> bool {
    let mut reader = BufReader::new(log);
    let mut line = Vec::new();
    let mut seen = false;
    loop {
        line.clear();
        match reader.by_ref().take(LOG_LINE_BYTES).read_until(b'\n', &mut line) {
            Ok(1..) => seen |= line.starts_with(b"Triple fault"),
            _ => return seen,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_what_was_said_is_kept() {
        let flood = "x".repeat(3 * SAID_BYTES + 7) + "qemu: no\n";
        let kept = last_words(flood.as_bytes());
        assert!(kept.len() <= SAID_BYTES && kept.ends_with("qemu: no"), "{}", kept.len());
        assert_eq!(last_words(&b"\xff\n"[..]), "\u{fffd}");
    }

    #[test]
    fn a_triple_fault_is_a_line_of_its_own() {
        assert!(!saw_triple_fault(&b"CPU Reset (CPU 0)\nno Triple fault here\n"[..]));
        assert!(saw_triple_fault(&b"CPU Reset (CPU 0)\nTriple fault\nCPU Reset (CPU 0)\n"[..]));
    }

    #[test]
    fn typing_ends_when_it_is_told_to() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (input, stop) = (ConsoleInput::new().unwrap(), Flag::new().unwrap());
        stop.raise();
        type_in(&input, &ours, &stop);
        drop(ours);
        let mut got = Vec::new();
        theirs.read_to_end(&mut got).unwrap();
        assert_eq!(got, b"");
    }
}

//! Others who look on and type: somebody at a pseudoterminal, a client of a socket, `kiln console`. Each has two threads,
//! one for what he sees and one for what he types, so that nobody waits for anybody else.

use std::{
    fs::File,
    io::{self, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixListener,
    },
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::Builder,
    time::{Duration, Instant},
};

use kiln_abi::{FrameKind, read_frame, size_of};
use rustix::{
    event::{PollFd, PollFlags, poll},
    net::{Shutdown, shutdown},
};

use super::{ConsoleInput, TerminalSize, history::History, size_of_terminal};
use crate::event::Flag;

/// Most who look on at once: each has two threads.
const MAX_ONLOOKERS: usize = 16;
/// Typed bytes read at once.
const CHUNK_BYTES: usize = 1024;

/// How somebody who looks on types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Types {
    /// Every byte is for the guest.
    Plainly,
    /// Every byte too, and the stream is a terminal. Nobody tells of another size of its window: it is looked at when
    /// something is typed.
    AtTerminal,
    /// In frames of [`kiln_abi`]: `Input` and `Size`.
    InFrames,
}

/// Where one begins who looks on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BeginsWith {
    /// With the end of what was printed before.
    Scrollback,
    /// With what is printed from now on.
    WhatComes,
}

/// Those who look on. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Onlookers {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    history: Arc<History>,
    input: ConsoleInput,
    size: TerminalSize,
    /// Raised, never taken down: all threads are to end.
    stop: Flag,
    /// How many have not seen the end yet.
    seeing: Mutex<usize>,
    seen: Condvar,
}

impl Onlookers {
    pub(super) fn new(history: Arc<History>, input: ConsoleInput, size: TerminalSize) -> io::Result<Self> {
        let stop = Flag::new()?;
        let shared = Shared { history, input, size, stop, seeing: Mutex::new(0), seen: Condvar::new() };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Shows everything to `stream`, a socket or a terminal, and takes what comes from it, until it ends.
    ///
    /// # Errors
    /// `QuotaExceeded` when there are too many already; the host's.
    pub fn add(&self, stream: OwnedFd, types: Types, begin: BeginsWith) -> io::Result<()> {
        let (sees, gone) = self.show(stream, begin)?;
        let shared = Arc::clone(&self.shared);
        Builder::new().name("console-typed".into()).spawn(move || {
            read_typed(&shared, sees, types);
            shared.leave(&gone);
        })?;
        Ok(())
    }

    /// Serves one client of `listener` after the other, for as long as the console is there.
    pub(super) fn serve(&self, listener: UnixListener) -> io::Result<()> {
        let onlookers = self.clone();
        Builder::new().name("console-socket".into()).spawn(move || {
            while onlookers.shared.readable(&listener) {
                let Ok((client, _)) = listener.accept() else { continue };
                // A client that cannot be served sees his connection end.
                let Ok((sees, gone)) = onlookers.show(client.into(), BeginsWith::Scrollback) else { continue };
                read_typed(&onlookers.shared, sees, Types::Plainly);
                onlookers.shared.leave(&gone);
            }
        })?;
        Ok(())
    }

    /// The thread for what is seen. Returns the other half of `stream`, and what to set when that ends.
    fn show(&self, stream: OwnedFd, begin: BeginsWith) -> io::Result<(File, Arc<AtomicBool>)> {
        let typed = File::from(stream.try_clone()?);
        let gone = Arc::new(AtomicBool::new(false));
        let seat = Seat::take(&self.shared)?;
        let place = self.shared.history.begin(begin == BeginsWith::Scrollback);
        let (shared, left) = (Arc::clone(&self.shared), Arc::clone(&gone));
        Builder::new().name("console-seen".into()).spawn(move || {
            let mut stream = File::from(stream);
            // Whoever cannot be written to has gone.
            let _gone = show_all(&shared, &mut stream, place, &left);
            // The other half ends too. It is no socket: then it ends with the console.
            let _no_socket = shutdown(&stream, Shutdown::Both);
            drop(seat);
        })?;
        Ok((typed, gone))
    }

    /// No more will be printed: waits until all have seen it, but no longer than `patience`, and sends them away.
    pub(super) fn finish(&self, patience: Duration) {
        self.shared.history.close();
        let deadline = Instant::now() + patience;
        let mut seeing = self.shared.seeing.lock().unwrap_or_else(PoisonError::into_inner);
        while *seeing > 0 {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { break };
            seeing = self.shared.seen.wait_timeout(seeing, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(seeing);
        self.shared.stop.raise();
        self.shared.input.close();
    }
}

/// Somebody's place among those who see.
struct Seat(Arc<Shared>);

impl Seat {
    fn take(shared: &Arc<Shared>) -> io::Result<Self> {
        let mut seeing = shared.seeing.lock().unwrap_or_else(PoisonError::into_inner);
        if *seeing >= MAX_ONLOOKERS {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        *seeing += 1;
        Ok(Self(Arc::clone(shared)))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        *self.0.seeing.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.seen.notify_all();
    }
}

impl Shared {
    /// Waits until `descriptor` can be read; false when the console ends before.
    fn readable(&self, descriptor: &impl AsFd) -> bool {
        self.ready(descriptor, PollFlags::IN)
    }

    fn ready(&self, descriptor: &impl AsFd, what: PollFlags) -> bool {
        loop {
            let mut waits = [PollFd::new(&self.stop, PollFlags::IN), PollFd::new(descriptor, what)];
            match poll(&mut waits, None) {
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return false,
                Ok(_) => return waits.first().is_some_and(|stop| stop.revents().is_empty()),
            }
        }
    }

    /// Whoever typed has gone: he sees no more either.
    fn leave(&self, gone: &AtomicBool) {
        gone.store(true, Ordering::SeqCst);
        self.history.wake();
    }
}

/// Writes all that is printed, until the end of it or of the stream.
fn show_all(shared: &Shared, stream: &mut File, mut place: u64, gone: &AtomicBool) -> io::Result<()> {
    let mut chunk = Vec::new();
    while let Some(missed) = shared.history.next(&mut place, gone, &mut chunk) {
        if missed > 0 {
            write_all(shared, stream, format!("\r\n[{missed} bytes are not shown]\r\n").as_bytes())?;
        }
        write_all(shared, stream, &chunk)?;
    }
    Ok(())
}

/// Writes all of `bytes`, waiting before each write so that the end of the console ends it.
fn write_all(shared: &Shared, stream: &mut File, bytes: &[u8]) -> io::Result<()> {
    let mut left = bytes;
    while !left.is_empty() {
        if !shared.ready(stream, PollFlags::OUT) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        match stream.write(left) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(len) => left = left.get(len..).unwrap_or_default(),
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Passes on what is typed, until there is no more.
fn read_typed(shared: &Shared, stream: File, types: Types) {
    let mut typed = Waited { shared, stream };
    match types {
        Types::Plainly | Types::AtTerminal => {
            let mut chunk = [0; CHUNK_BYTES];
            while let Ok(len @ 1..) = io::Read::read(&mut typed, &mut chunk) {
                if types == Types::AtTerminal
                    && let Some((columns @ 1.., rows @ 1..)) = size_of_terminal(&typed.stream)
                {
                    shared.size.set(columns, rows);
                }
                if !shared.input.put_all(chunk.get(..len).unwrap_or_default()) {
                    return;
                }
            }
        }
        Types::InFrames => {
            let mut contents = Vec::new();
            // Whoever says what means nothing here is sent away.
            while let Ok(Some(kind)) = read_frame(&mut typed, &mut contents) {
                match (kind, size_of(&contents)) {
                    (FrameKind::Input, _) if shared.input.put_all(&contents) => {}
                    (FrameKind::Size, Some((columns, rows))) => shared.size.set(columns, rows),
                    _ => break,
                }
            }
        }
    }
}

/// A stream that ends when the console does.
struct Waited<'a> {
    shared: &'a Shared,
    stream: File,
}

impl io::Read for Waited<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.shared.readable(&self.stream) {
                return Ok(0);
            }
            match self.stream.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read, os::unix::net::UnixStream, thread};

    use kiln_abi::{frame, size_contents};
    use rustix::termios::{Winsize, tcsetwinsize};

    use super::super::pty::Pty;
    use super::*;

    struct Rig {
        history: Arc<History>,
        input: ConsoleInput,
        size: TerminalSize,
        onlookers: Onlookers,
    }

    fn rig() -> Rig {
        let (history, input) = (Arc::new(History::default()), ConsoleInput::new().unwrap());
        let size = TerminalSize::new(0, 0).unwrap();
        let onlookers = Onlookers::new(Arc::clone(&history), input.clone(), size.clone()).unwrap();
        Rig { history, input, size, onlookers }
    }

    impl Rig {
        fn join(&self, types: Types) -> UnixStream {
            let (ours, theirs) = UnixStream::pair().unwrap();
            self.onlookers.add(theirs.into(), types, BeginsWith::Scrollback).unwrap();
            ours
        }

        fn typed(&self, len: usize) -> Vec<u8> {
            let mut all = vec![];
            while all.len() < len {
                poll(&mut [PollFd::new(self.input.ready(), PollFlags::IN)], None).unwrap();
                self.input.ready().take();
                all.extend(self.input.take(len - all.len()));
            }
            all
        }
    }

    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn who_says_what_means_nothing_is_sent_away() {
        let rig = rig();
        for bad in [&b"\x07\0\0\0\0"[..], &frame(FrameKind::Exit, b""), &frame(FrameKind::Size, b"abc")] {
            let mut ours = rig.join(Types::InFrames);
            ours.write_all(bad).unwrap();
            assert_eq!(ours.read_to_end(&mut vec![]).unwrap(), 0);
        }
    }

    #[test]
    fn one_more_than_there_may_be_is_refused_until_another_goes() {
        let rig = rig();
        let mut there: Vec<_> = (0..MAX_ONLOOKERS).map(|_| rig.join(Types::Plainly)).collect();
        let (_ours, theirs) = UnixStream::pair().unwrap();
        let again = theirs.try_clone().unwrap();
        let error = rig.onlookers.add(theirs.into(), Types::Plainly, BeginsWith::WhatComes).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::QuotaExceeded);
        drop(there.pop());
        let mut seeing = rig.onlookers.shared.seeing.lock().unwrap();
        while *seeing == MAX_ONLOOKERS {
            seeing = rig.onlookers.shared.seen.wait(seeing).unwrap();
        }
        drop(seeing);
        rig.onlookers.add(again.into(), Types::Plainly, BeginsWith::WhatComes).unwrap();
        rig.onlookers.finish(Duration::ZERO);
    }

    #[test]
    fn all_see_and_all_type_and_a_window_has_a_size() {
        let rig = rig();
        rig.history.add(b"before ");
        let (mut plain, mut framed) = (rig.join(Types::Plainly), rig.join(Types::InFrames));
        rig.history.add(b"after");
        plain.write_all(b"ls\n").unwrap();
        assert_eq!(rig.typed(3), b"ls\n");
        framed.write_all(&frame(FrameKind::Size, &size_contents(132, 43))).unwrap();
        framed.write_all(&frame(FrameKind::Input, b"pwd\n")).unwrap();
        assert_eq!((rig.typed(4), rig.size.get()), (b"pwd\n".to_vec(), (132, 43)));
        rig.onlookers.finish(LONG);
        for mut stream in [plain, framed] {
            let mut seen = String::new();
            stream.read_to_string(&mut seen).unwrap();
            assert_eq!(seen, "before after");
        }
    }

    #[test]
    fn the_window_of_a_terminal_is_looked_at_when_something_is_typed() {
        let rig = rig();
        rig.size.set(80, 24);
        let folder = tempfile::tempdir().unwrap();
        let pty = Pty::open(&folder.path().join("tty")).unwrap();
        let mut slave = File::options().read(true).write(true).open(pty.path()).unwrap();
        rig.onlookers.add(pty.master().unwrap(), Types::AtTerminal, BeginsWith::WhatComes).unwrap();
        slave.write_all(b"a").unwrap();
        assert_eq!((rig.typed(1), rig.size.get()), (b"a".to_vec(), (80, 24)), "it knows none");
        let size = Winsize { ws_row: 43, ws_col: 132, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&slave, size).unwrap();
        slave.write_all(b"b").unwrap();
        assert_eq!((rig.typed(1), rig.size.get()), (b"b".to_vec(), (132, 43)));
        rig.onlookers.finish(Duration::ZERO);
    }

    #[test]
    fn much_that_is_typed_waits_for_the_guest() {
        let rig = rig();
        let mut ours = rig.join(Types::Plainly);
        let much: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        let sent = much.clone();
        let writer = thread::spawn(move || ours.write_all(&sent).map(|()| ours));
        assert!(rig.typed(much.len()) == much);
        writer.join().unwrap().unwrap();
    }

    #[test]
    fn one_who_does_not_read_or_types_to_nobody_holds_up_nothing() {
        let rig = rig();
        let ours = rig.join(Types::Plainly);
        let mut types = ours.try_clone().unwrap();
        types.set_nonblocking(true).unwrap();
        while types.write(&[b'x'; 1024]).is_ok() {}
        (0..1000).for_each(|_| rig.history.add(&[b'y'; 1024]));
        rig.onlookers.finish(Duration::from_millis(1));
        // Both threads have let go: the stream ends.
        let mut ours = ours;
        ours.set_nonblocking(false).unwrap();
        let _all_that_was_on_its_way = ours.read_to_end(&mut vec![]);
    }

    #[test]
    fn a_socket_has_one_client_at_a_time() {
        let rig = rig();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console.sock");
        rig.onlookers.serve(UnixListener::bind(&path).unwrap()).unwrap();
        rig.history.add(b"hello");
        let read = |mut stream: &UnixStream| {
            let mut five = [0; 5];
            stream.read_exact(&mut five).map(|()| five)
        };
        let first = UnixStream::connect(&path).unwrap();
        assert_eq!(&read(&first).unwrap(), b"hello");
        let second = UnixStream::connect(&path).unwrap();
        second.set_nonblocking(true).unwrap();
        assert_eq!(read(&second).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        second.set_nonblocking(false).unwrap();
        drop(first);
        assert_eq!(&read(&second).unwrap(), b"hello");
        rig.onlookers.finish(LONG);
    }
}

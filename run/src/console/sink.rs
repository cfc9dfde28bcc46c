//! Where the guest's output goes: a bounded buffer that one thread writes out.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Write},
    os::fd::OwnedFd,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{Builder, JoinHandle},
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, poll};

use super::{history::History, log::Log, tail::Tail};
use crate::event::Flag;

/// Output held for a slow reader, in bytes: some screens full. When it is full the device that prints has to wait.
const CAPACITY_BYTES: usize = 64 * 1024;

/// Written at once, in bytes: a pipe that is ready takes this much without blocking (`PIPE_BUF` on Linux).
const CHUNK_BYTES: usize = 4096;

/// How long an abandoned writer is waited for. It can only be inside one write of [`CHUNK_BYTES`].
const ABANDON_LIMIT: Duration = Duration::from_millis(500);

/// The guest's output. Cheap to clone; every clone feeds the same buffer, in the order of the calls.
#[derive(Debug, Clone)]
pub struct ConsoleSink {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// The writer waits here for bytes or for the end.
    filled: Condvar,
    /// Devices wait here for room, [`OutputThread`] for the end.
    drained: Condvar,
    /// Signalled when room appeared after [`ConsoleSink::write_some`] took less than it was given.
    room: Flag,
    /// Ends the writer's wait for a reader that does not read.
    abandon: Flag,
    /// Raised when the last line of a kernel's panic was printed.
    panic_said: Flag,
}

#[derive(Debug, Default)]
struct State {
    bytes: VecDeque<u8>,
    /// What was printed last, written out or not.
    tail: Tail,
    /// No more will come: the writer ends when all is written.
    closed: bool,
    /// Nothing can be written any more: all that comes is thrown away.
    broken: bool,
    /// The first error of a write.
    error: Option<io::Error>,
    /// The writer waits on `filled`.
    writer_waits: bool,
    /// Somebody was refused and waits for the `room` event.
    refused: bool,
    /// The writer's thread has ended.
    ended: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConsoleSink {
    /// Takes all of `bytes`. Waits while the buffer is full, for as long as the reader takes: use it where the device can
    /// do nothing else, as a serial port on its vCPU's thread. Never waits for a reader that is gone.
    pub fn write(&self, bytes: &[u8]) {
        let mut left = bytes;
        let mut state = self.shared.state();
        loop {
            left = self.push(&mut state, left);
            if left.is_empty() {
                return;
            }
            state = self.shared.drained.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes what there is room for, and returns how many bytes that was. If it was not all, [`Self::room`] is signalled
    /// when there is room again.
    #[must_use]
    pub fn write_some(&self, bytes: &[u8]) -> usize {
        let mut state = self.shared.state();
        let left = self.push(&mut state, bytes).len();
        state.refused |= left > 0;
        bytes.len().saturating_sub(left)
    }

    /// Signalled when there is room after a [`Self::write_some`] that did not take all.
    #[must_use]
    pub fn room(&self) -> &Flag {
        &self.shared.room
    }

    /// At most so many lines, the last that were printed.
    #[must_use]
    pub fn last_lines(&self, most: usize) -> Vec<String> {
        self.shared.state().tail.last_lines(most)
    }

    /// Why the guest's kernel panicked, if it printed that since the last [`Self::machine_starts`].
    #[must_use]
    pub fn panic(&self) -> Option<String> {
        self.shared.state().tail.panic().map(str::to_owned)
    }

    /// A machine starts: what was printed before is another kernel's.
    pub fn machine_starts(&self) {
        self.shared.state().tail.start();
    }

    /// Raised when the last line of a kernel's panic was printed.
    pub(super) fn panic_said(&self) -> &Flag {
        &self.shared.panic_said
    }

    /// Whether that line is still the last.
    pub(super) fn ends_with_panic(&self) -> bool {
        self.shared.state().tail.ends_with_panic()
    }

    /// Puts the first part of `bytes` into the buffer, wakes the writer and returns the rest.
    fn push<'a>(&self, state: &mut State, bytes: &'a [u8]) -> &'a [u8] {
        if state.broken {
            self.remember(state, bytes);
            return &[];
        }
        let room = CAPACITY_BYTES.saturating_sub(state.bytes.len());
        let (taken, left) = bytes.split_at(room.min(bytes.len()));
        state.bytes.extend(taken);
        self.remember(state, taken);
        if state.writer_waits && !taken.is_empty() {
            self.shared.filled.notify_one();
        }
        left
    }

    fn remember(&self, state: &mut State, bytes: &[u8]) {
        if !bytes.is_empty() && state.tail.add(bytes) {
            self.shared.panic_said.raise();
        }
    }
}

impl Write for ConsoleSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        ConsoleSink::write(self, bytes);
        Ok(bytes.len())
    }

    /// Does nothing: the bytes are on their way.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where output is written, and waited for.
#[derive(Debug)]
pub(super) enum Outlet {
    /// A terminal, pipe, socket or file, in blocking mode or not.
    Descriptor(File),
    /// A log of this machine's.
    Log(Log),
    /// Nowhere: only those who look on see it.
    Nowhere,
}

/// The thread that writes what a [`ConsoleSink`] collects.
#[derive(Debug)]
pub struct OutputThread {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl OutputThread {
    /// Starts a thread that writes to `output`: a terminal, pipe, socket or file, in blocking mode or not.
    pub fn start(output: OwnedFd) -> io::Result<(Self, ConsoleSink)> {
        Self::start_with(Outlet::Descriptor(output.into()), Arc::default())
    }

    /// Starts a thread that shows to those who look on what it writes.
    pub(super) fn start_with(output: Outlet, history: Arc<History>) -> io::Result<(Self, ConsoleSink)> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            filled: Condvar::new(),
            drained: Condvar::new(),
            room: Flag::new()?,
            abandon: Flag::new()?,
            panic_said: Flag::new()?,
        });
        let writer = Arc::clone(&shared);
        let thread = Builder::new().name("console-out".into()).spawn(move || write_out(&writer, output, &history))?;
        let sink = ConsoleSink { shared: Arc::clone(&shared) };
        Ok((Self { shared, thread: Some(thread) }, sink))
    }

    /// Waits until all output is written, for as long as the reader takes, and ends the thread.
    ///
    /// Fails with the first error of a write, from which on output was lost.
    pub fn finish(mut self) -> io::Result<()> {
        self.close();
        if let Some(thread) = self.thread.take() {
            // A panic of the writer is our own mistake; the panic hook has told of it.
            let _ = thread.join();
        }
        self.shared.state().error.take().map_or(Ok(()), Err)
    }

    /// A cut that any thread may use to end [`Self::finish`] and every waiting device at once: what is not written by
    /// then is lost. For a user who asks a second time, while nobody reads the output.
    #[must_use]
    pub fn abandon_handle(&self) -> AbandonOutput {
        AbandonOutput { shared: Arc::clone(&self.shared) }
    }

    fn close(&self) {
        self.shared.state().closed = true;
        self.shared.filled.notify_all();
    }
}

impl Drop for OutputThread {
    /// Writes out what the reader takes at once, and ends the thread.
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.close();
        let deadline = Instant::now() + ABANDON_LIMIT;
        if self.wait_for_end(deadline) || {
            AbandonOutput { shared: Arc::clone(&self.shared) }.abandon();
            self.wait_for_end(deadline + ABANDON_LIMIT)
        } {
            let _ = thread.join();
        }
    }
}

impl OutputThread {
    fn wait_for_end(&self, deadline: Instant) -> bool {
        let mut state = self.shared.state();
        while !state.ended {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return false };
            state = self.shared.drained.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

/// Ends a wait for output that nobody reads.
#[derive(Debug, Clone)]
pub struct AbandonOutput {
    shared: Arc<Shared>,
}

impl AbandonOutput {
    /// Throws away what is not written yet and all that comes.
    pub fn abandon(&self) {
        break_off(&self.shared, io::ErrorKind::TimedOut.into());
        self.shared.abandon.raise();
    }
}

/// The writer's thread: until the sink is closed and empty, or broken.
fn write_out(shared: &Shared, mut output: Outlet, history: &History) {
    let mut chunk = Vec::with_capacity(CHUNK_BYTES);
    while next_chunk(shared, &mut chunk) {
        history.add(&chunk);
        let written = match &mut output {
            Outlet::Descriptor(file) => write_chunk(shared, file, &chunk),
            Outlet::Log(log) => log.write(&chunk),
            Outlet::Nowhere => Ok(()),
        };
        if let Err(error) = written {
            // Nobody is there any more but those who look on.
            shared.state().error.get_or_insert(error);
            output = Outlet::Nowhere;
        }
    }
    let mut state = shared.state();
    state.ended = true;
    // Nobody writes from now on, so nobody may wait either.
    state.broken = true;
    drop(state);
    shared.drained.notify_all();
}

/// Moves the next bytes into `chunk`; false when there will be none.
fn next_chunk(shared: &Shared, chunk: &mut Vec<u8>) -> bool {
    let mut state = shared.state();
    while state.bytes.is_empty() && !state.closed && !state.broken {
        state.writer_waits = true;
        state = shared.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
    state.writer_waits = false;
    chunk.clear();
    if state.broken {
        return false;
    }
    let len = state.bytes.len().min(CHUNK_BYTES);
    chunk.extend(state.bytes.drain(..len));
    tell_room(shared, &mut state);
    !chunk.is_empty()
}

/// Writes all of `chunk`, waiting for the reader before each write so that [`AbandonOutput`] can end it.
fn write_chunk(shared: &Shared, output: &mut File, chunk: &[u8]) -> io::Result<()> {
    let mut left = chunk;
    while !left.is_empty() {
        let mut ready = [PollFd::new(&*output, PollFlags::OUT), PollFd::new(&shared.abandon, PollFlags::IN)];
        match poll(&mut ready, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if shared.state().broken {
            return Ok(());
        }
        match output.write(left) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(len) => left = left.get(len..).unwrap_or_default(),
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// From now on output is thrown away, and nobody waits for room.
fn break_off(shared: &Shared, error: io::Error) {
    let mut state = shared.state();
    state.broken = true;
    state.error.get_or_insert(error);
    state.bytes = VecDeque::new();
    tell_room(shared, &mut state);
    drop(state);
    shared.filled.notify_all();
}

fn tell_room(shared: &Shared, state: &mut State) {
    shared.drained.notify_all();
    if std::mem::take(&mut state.refused) {
        shared.room.raise();
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read, thread};

    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;

    fn pipe() -> (File, OwnedFd) {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        (File::from(read), write)
    }

    /// More than the buffer and the pipe hold together.
    fn much() -> Vec<u8> {
        (0..1_000_000_u32).flat_map(|n| n.to_le_bytes()).collect()
    }

    #[test]
    fn a_reader_that_went_away_loses_output_but_stops_nobody() {
        let (read, write) = pipe();
        let (output, sink) = OutputThread::start(write).unwrap();
        drop(read);
        sink.write(&much());
        assert_eq!(sink.write_some(b"more"), 4);
        assert_eq!(output.finish().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        sink.write(&much());
    }

    #[test]
    fn a_full_disk_is_told_of() {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let (output, sink) = OutputThread::start(full.into()).unwrap();
        sink.write(b"lost");
        assert_eq!(output.finish().unwrap_err().kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn nothing_is_lost_to_a_slow_reader() {
        let (mut read, write) = pipe();
        let (output, sink) = OutputThread::start(write).unwrap();
        let reader = thread::spawn(move || {
            let (mut all, mut piece) = (Vec::<u8>::new(), [0; 777]);
            while let Ok(len @ 1..) = read.read(&mut piece) {
                all.extend(&piece[..len]);
                thread::yield_now();
            }
            all
        });
        for piece in much().chunks(1000) {
            sink.write(piece);
        }
        output.finish().unwrap();
        assert_eq!(reader.join().unwrap(), much());
    }

    #[test]
    fn a_full_sink_refuses_and_tells_when_there_is_room() {
        let (mut read, write) = pipe();
        let (output, sink) = OutputThread::start(write).unwrap();
        let much = much();
        let mut sent = 0;
        loop {
            sink.room().take();
            let taken = sink.write_some(&much[sent..]);
            sent += taken;
            if taken == 0 {
                break;
            }
        }
        read.read_exact(&mut vec![0; sent]).unwrap();
        let mut ready = [PollFd::new(sink.room(), PollFlags::IN)];
        poll(&mut ready, None).unwrap();
        let taken = sink.write_some(&much[sent..]);
        assert!(taken > 0);
        let mut rest = vec![0; taken];
        read.read_exact(&mut rest).unwrap();
        assert_eq!(rest, much[sent..sent + taken]);
        output.finish().unwrap();
    }

    #[test]
    fn abandoned_output_ends_all_waits() {
        let (_read, write) = pipe();
        let (output, sink) = OutputThread::start(write).unwrap();
        let abandon = output.abandon_handle();
        let writer = thread::spawn(move || sink.write(&much()));
        let finisher = thread::spawn(move || output.finish());
        abandon.abandon();
        writer.join().unwrap();
        assert_eq!(finisher.join().unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}

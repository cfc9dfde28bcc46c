//! An active console: two rings, the typed input, and the sink that may be full.

use std::{io, sync::Arc};

use crate::{
    console::{ConsoleInput, ConsoleSink, TerminalSize},
    event::{EventHandler, Interest},
    mem::{
        GuestMemory,
        transfer::{copy_from_guest, copy_to_guest, part, total_len},
    },
    virtio::{Chain, Misuse, Ring, Signal},
};

/// Bytes moved at once.
const CHUNK_BYTES: usize = 4096;
/// Chunks after which the thread serves other devices.
const CHUNKS_PER_TURN: u32 = 64;
/// Chunks that are still printed when the device stops: more than any driver leaves behind that waits for its output.
const CHUNKS_AT_END: u32 = 1024;

const RECEIVE: u32 = 0;
const TRANSMIT: u32 = 1;
const TYPED: u32 = 2;
const ROOM: u32 = 3;
const RESIZED: u32 = 4;

/// An active console.
pub(super) struct Worker {
    memory: GuestMemory,
    signal: Arc<dyn Signal>,
    receive: Option<Ring>,
    input: Option<ConsoleInput>,
    transmit: Option<Ring>,
    sink: ConsoleSink,
    size: Option<TerminalSize>,
    received: Chain,
    transmitted: Chain,
    /// How much of `transmitted` is printed, while it is not all.
    printed: Option<u64>,
}

/// How a turn ended.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    /// Nothing is left to do until an event.
    Idle,
    /// Others first, then more.
    More,
}

impl Worker {
    pub fn new(
        memory: GuestMemory,
        signal: Arc<dyn Signal>,
        (receive, input): (Option<Ring>, Option<ConsoleInput>),
        (transmit, sink): (Option<Ring>, ConsoleSink),
        size: Option<TerminalSize>,
    ) -> Self {
        let (received, transmitted) = (Chain::default(), Chain::default());
        Self { memory, signal, receive, input, transmit, sink, size, received, transmitted, printed: None }
    }

    /// Hands typed bytes to the driver's buffers, as long as there are both.
    fn receive(&mut self) -> Result<(), Misuse> {
        let (Some(ring), Some(input)) = (&mut self.receive, &self.input) else { return Ok(()) };
        let mut used = false;
        loop {
            if input.is_empty() {
                break;
            }
            if !ring.pop(&self.memory, &mut self.received)? {
                if ring.enable_doorbell(&self.memory)? {
                    continue;
                }
                break;
            }
            let room = usize::try_from(total_len(self.received.writable())).unwrap_or(usize::MAX);
            let typed = input.take(room.min(CHUNK_BYTES));
            let filled = copy_to_guest(&self.memory, self.received.writable(), &typed);
            ring.push(&self.memory, self.received.head(), u32::try_from(filled).unwrap_or(0))?;
            used = true;
        }
        if used {
            ring.tell(&self.memory, &*self.signal)?;
        }
        Ok(())
    }

    /// Prints what the driver sent, until there is no more or no room in the sink.
    fn transmit(&mut self, chunks: u32, put: impl Fn(&ConsoleSink, &[u8]) -> usize) -> Result<Turn, Misuse> {
        let Some(ring) = &mut self.transmit else { return Ok(Turn::Idle) };
        for _ in 0..chunks {
            let Some(start) = self.printed else {
                if ring.pop(&self.memory, &mut self.transmitted)? {
                    self.printed = Some(0);
                    continue;
                }
                return Ok(if ring.enable_doorbell(&self.memory)? { Turn::More } else { Turn::Idle });
            };
            let mut chunk = [0; CHUNK_BYTES];
            let spans = part(self.transmitted.readable(), start, CHUNK_BYTES as u64);
            let len = copy_from_guest(&self.memory, &spans, &mut chunk);
            let taken = put(&self.sink, chunk.get(..len).unwrap_or_default());
            let printed = start + taken as u64;
            if len > 0 && printed < total_len(self.transmitted.readable()) {
                self.printed = Some(printed);
                if taken < len {
                    return Ok(Turn::Idle);
                }
                continue;
            }
            self.printed = None;
            ring.push(&self.memory, self.transmitted.head(), 0)?;
            ring.tell(&self.memory, &*self.signal)?;
        }
        Ok(Turn::More)
    }

    fn serve(&mut self, token: u32) -> Result<(), Misuse> {
        match token {
            RECEIVE => {
                quiet(self.receive.as_ref());
                self.receive()
            }
            TYPED => {
                self.input.as_ref().map(|input| input.ready().take());
                self.receive()
            }
            RESIZED => {
                self.size.as_ref().map(|size| size.changed().take());
                self.signal.config_changed();
                Ok(())
            }
            _ => {
                if token == ROOM {
                    self.sink.room().take();
                } else {
                    quiet(self.transmit.as_ref());
                }
                let turn = self.transmit(CHUNKS_PER_TURN, ConsoleSink::write_some)?;
                if let (Turn::More, Some(ring)) = (turn, &self.transmit) {
                    ring.ring_again();
                }
                Ok(())
            }
        }
    }

    /// Waits for nothing any more: the driver broke the rules.
    fn stop(&mut self, interest: &mut Interest<'_>) {
        for ring in [self.receive.take(), self.transmit.take()].into_iter().flatten() {
            interest.ignore(ring.doorbell());
        }
        if let Some(input) = &self.input {
            interest.ignore(input.ready());
        }
        interest.ignore(self.sink.room());
        self.signal.needs_reset();
    }
}

/// Takes a doorbell down; reading fails when it is down already.
fn quiet(ring: Option<&Ring>) {
    if let Some(ring) = ring {
        let _ = ring.doorbell().read();
    }
}

impl EventHandler for Worker {
    fn start(&mut self, interest: &mut Interest<'_>) -> io::Result<()> {
        if let Some(ring) = &self.receive {
            interest.watch(ring.doorbell(), RECEIVE)?;
            if let Some(input) = &self.input {
                interest.watch(input.ready(), TYPED)?;
                // What was typed before the driver came.
                input.ready().raise();
            }
        }
        if let Some(ring) = &self.transmit {
            interest.watch(ring.doorbell(), TRANSMIT)?;
            interest.watch(self.sink.room(), ROOM)?;
        }
        if let Some(size) = &self.size {
            interest.watch(size.changed(), RESIZED)?;
        }
        Ok(())
    }

    fn ready(&mut self, token: u32, interest: &mut Interest<'_>) {
        if self.serve(token).is_err() {
            self.stop(interest);
        }
    }
}

impl Drop for Worker {
    /// What the driver has sent is printed, even if nobody rang the doorbell for it. Waits for the reader.
    fn drop(&mut self) {
        let all = |sink: &ConsoleSink, bytes: &[u8]| {
            sink.write(bytes);
            bytes.len()
        };
        // A driver that broke the rules gets no more than this.
        let _ = self.transmit(CHUNKS_AT_END, all);
    }
}

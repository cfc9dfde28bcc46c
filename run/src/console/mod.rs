//! The machine's console on the host's side: what the guest prints goes to a [`ConsoleSink`], what the user types comes
//! out of a [`ConsoleInput`], and a terminal is raw for exactly as long as the machine runs.
//!
//! Nothing that the guest printed is lost: a slow reader holds the printing device back ([`ConsoleSink::write`] waits),
//! and [`Console::finish`] returns only when all of it was written. Where the reader is gone for good (a closed pipe, a
//! full disk), the machine runs on, the rest is thrown away, and `finish` says so.
//!
//! Devices see the sink and the input only; they never learn whether a terminal, a pipe or a file is behind them. One
//! device gets the input: the one that the machine's kernel has as its console.

mod escape;
mod input;
mod last_words;
mod pump;
mod sink;
mod size;
mod tail;
mod terminal;
mod watch;

pub use input::ConsoleInput;
pub use last_words::LastWords;
pub use sink::{AbandonOutput, ConsoleSink, OutputThread};
pub use size::TerminalSize;
pub use terminal::RawTerminal;
pub use watch::watch_if_asked;

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::termios::{isatty, tcgetwinsize};

use crate::event::{Events, Flag, HandlerId};

/// What can go wrong with the console.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    /// The host has no more descriptors or threads.
    #[error("cannot set up the console")]
    Open(#[source] io::Error),
    /// The terminal refused raw mode.
    #[error("cannot make the terminal raw")]
    Terminal(#[source] io::Error),
    /// Output could not be written; the machine ran on without it.
    #[error("the end of the guest's output was lost")]
    Lost(#[source] io::Error),
}

/// The console of one machine.
#[derive(Debug)]
pub struct Console {
    output: OutputThread,
    sink: ConsoleSink,
    input: ConsoleInput,
    stdin: File,
    is_terminal: bool,
    size: Option<TerminalSize>,
    quit: Flag,
    running: Option<(Events, HandlerId)>,
    terminal: Option<RawTerminal>,
}

impl Console {
    /// A console on this process's standard input and output. The terminal is left as it is until [`Self::start`].
    pub fn stdio() -> Result<Self, ConsoleError> {
        let stdin = io::stdin().as_fd().try_clone_to_owned().map_err(ConsoleError::Open)?;
        let stdout = io::stdout().as_fd().try_clone_to_owned().map_err(ConsoleError::Open)?;
        Self::open(stdin, stdout).map_err(ConsoleError::Open)
    }

    /// A console that reads `stdin` and writes `stdout`: terminals, pipes, sockets or files.
    pub fn open(stdin: OwnedFd, stdout: OwnedFd) -> io::Result<Self> {
        let is_terminal = isatty(&stdin);
        let size = if is_terminal {
            // A terminal that knows no size says zeros; so does one that is gone.
            let (columns, rows) = tcgetwinsize(&stdin).map_or((0, 0), |size| (size.ws_col, size.ws_row));
            Some(TerminalSize::new(columns, rows)?)
        } else {
            None
        };
        let (output, sink) = OutputThread::start(stdout)?;
        Ok(Self {
            output,
            sink,
            input: ConsoleInput::new()?,
            stdin: File::from(stdin),
            is_terminal,
            size,
            quit: Flag::new()?,
            running: None,
            terminal: None,
        })
    }

    /// Where devices print.
    #[must_use]
    pub fn sink(&self) -> ConsoleSink {
        self.sink.clone()
    }

    /// What was typed, for the one device that is the console.
    #[must_use]
    pub fn input(&self) -> ConsoleInput {
        self.input.clone()
    }

    /// The terminal's size, if input is a terminal.
    #[must_use]
    pub fn size(&self) -> Option<TerminalSize> {
        self.size.clone()
    }

    /// Raised when the user typed Ctrl-A x: the machine is to end at once.
    #[must_use]
    pub fn quit(&self) -> &Flag {
        &self.quit
    }

    /// Ends waits for a reader that does not read, from any thread.
    #[must_use]
    pub fn abandon_handle(&self) -> AbandonOutput {
        self.output.abandon_handle()
    }

    /// The machine starts: the terminal becomes raw, and input is read on the thread of `events`. The end of the input
    /// ends nothing.
    pub fn start(&mut self, events: &Events) -> Result<(), ConsoleError> {
        self.terminal = RawTerminal::enter(self.stdin.as_fd()).map_err(ConsoleError::Terminal)?;
        let pump = || {
            let quit = if self.is_terminal { Some(self.quit.try_clone()?) } else { None };
            pump::Pump::new(self.stdin.try_clone()?, self.input.clone(), quit, self.size.clone())
        };
        let pump = pump().map_err(ConsoleError::Open)?;
        self.running = Some((events.clone(), events.add(Box::new(pump)).map_err(ConsoleError::Open)?));
        Ok(())
    }

    /// The machine has ended: waits until its output is written, and gives the terminal back. Call it when no device is
    /// left that prints.
    pub fn finish(mut self) -> Result<(), ConsoleError> {
        self.stop_input();
        let result = self.output.finish().map_err(ConsoleError::Lost);
        drop(self.terminal.take());
        result
    }

    fn stop_input(&mut self) {
        if let Some((events, pump)) = self.running.take() {
            events.remove(pump);
        }
    }
}

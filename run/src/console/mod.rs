//! The machine's console on the host's side: what the guest prints goes to a [`ConsoleSink`], what the user types comes
//! out of a [`ConsoleInput`], and a terminal is raw for exactly as long as the machine runs.
//!
//! Nothing that the guest printed is lost: a slow reader holds the printing device back ([`ConsoleSink::write`] waits),
//! and [`Console::finish`] returns only when all of it was written. Where the reader is gone for good (a closed pipe, a
//! full disk), the machine runs on, the rest is thrown away, and `finish` says so.
//!
//! Devices see the sink and the input only; they never learn whether a terminal, a pipe or a file is behind them. One
//! device gets the input: the one that the machine's kernel has as its console.

mod end;
mod escape;
mod history;
mod input;
mod last_words;
mod log;
mod modes;
mod onlooker;
mod pty;
mod pump;
mod sink;
mod size;
mod tail;
mod terminal;
mod watch;

pub use end::{ConsoleEnd, NoConsoleEnd};
pub use history::SCROLLBACK_BYTES;
pub use input::ConsoleInput;
pub use last_words::LastWords;
pub use log::{CONSOLE_LOG, LOG_BYTES, log_before};
pub use onlooker::{BeginsWith, Onlookers, Types};
pub use pty::TTY_LINK;
pub use sink::{AbandonOutput, ConsoleSink, OutputThread};
pub use size::TerminalSize;
pub use terminal::{RawTerminal, size_of_terminal};
pub use watch::watch_if_asked;

use std::{
    fs::{File, OpenOptions},
    io,
    os::fd::{AsFd, OwnedFd},
    os::unix::{fs::OpenOptionsExt, net::UnixListener},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use kiln_net::publish::{SocketFile, listen_at};
use rustix::net::SocketType;
use rustix::termios::isatty;

use self::{history::History, log::Log, pty::Pty, sink::Outlet};
use crate::event::{Events, Flag, HandlerId};

/// How long those who look on may take to see the end.
const LAST_LOOK: Duration = Duration::from_secs(1);

/// What can go wrong with the console.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    /// The host has no more descriptors or threads.
    #[error("cannot set up the console")]
    Open(#[source] io::Error),
    /// The terminal refused raw mode.
    #[error("cannot make the terminal raw")]
    Terminal(#[source] io::Error),
    /// The file, socket or pseudoterminal that is to be the console.
    #[error("cannot use `{}` as the console", path.display())]
    End {
        /// Which.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
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
    onlookers: Onlookers,
    /// What is read on the event thread, if it is this process's own input.
    stdin: Option<File>,
    is_terminal: bool,
    size: TerminalSize,
    quit: Flag,
    running: Option<(Events, HandlerId)>,
    terminal: Option<RawTerminal>,
    pty: Option<Pty>,
    _socket: Option<SocketFile>,
}

impl Console {
    /// A console at `end`. The terminal is left as it is until [`Self::start`]. With `detached` nobody has this process's
    /// standard input and output: what would go there goes to [`CONSOLE_LOG`] in the state folder, where a pseudoterminal
    /// has its link, too.
    pub fn open(end: &ConsoleEnd, state_dir: &Path, detached: bool) -> Result<Self, ConsoleError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            |source| ConsoleError::End { path, source }
        };
        let log = |or: Outlet| {
            let path = state_dir.join(CONSOLE_LOG);
            if detached { Log::create(&path, LOG_BYTES).map(Outlet::Log).map_err(at(&path)) } else { Ok(or) }
        };
        let (mut stdin, mut pty, mut socket) = (None, None, None);
        let outlet = match end {
            ConsoleEnd::None => Outlet::Nowhere,
            ConsoleEnd::File(path) => {
                let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path).map_err(at(path))?;
                Outlet::Descriptor(file)
            }
            ConsoleEnd::Stdio if detached => log(Outlet::Nowhere)?,
            ConsoleEnd::Stdio => {
                stdin = Some(io::stdin().as_fd().try_clone_to_owned().map_err(ConsoleError::Open)?);
                Outlet::Descriptor(io::stdout().as_fd().try_clone_to_owned().map_err(ConsoleError::Open)?.into())
            }
            ConsoleEnd::Pty => {
                let link = state_dir.join(TTY_LINK);
                pty = Some(Pty::open(&link).map_err(at(&link))?);
                log(Outlet::Nowhere)?
            }
            ConsoleEnd::Unix(path) => {
                socket = Some(listen_at(path, SocketType::STREAM).map_err(at(path))?);
                log(Outlet::Nowhere)?
            }
        };
        let mut console = Self::new(stdin, outlet).map_err(ConsoleError::Open)?;
        if let Some(pty) = &pty {
            let master = pty.master().map_err(ConsoleError::Open)?;
            console.onlookers.add(master, Types::AtTerminal, BeginsWith::Scrollback).map_err(ConsoleError::Open)?;
        }
        if let Some((listener, file)) = socket {
            console.onlookers.serve(UnixListener::from(listener)).map_err(ConsoleError::Open)?;
            console._socket = Some(file);
        }
        console.pty = pty;
        Ok(console)
    }

    /// A console that reads `stdin` and writes `stdout`.
    #[cfg(test)]
    pub(crate) fn over(stdin: OwnedFd, stdout: OwnedFd) -> io::Result<Self> {
        Self::new(Some(stdin), Outlet::Descriptor(stdout.into()))
    }

    fn new(stdin: Option<OwnedFd>, outlet: Outlet) -> io::Result<Self> {
        let is_terminal = stdin.as_ref().is_some_and(isatty);
        let (columns, rows) = stdin.as_ref().and_then(size_of_terminal).unwrap_or_default();
        let size = TerminalSize::new(columns, rows)?;
        let (input, history) = (ConsoleInput::new()?, Arc::<History>::default());
        let (output, sink) = OutputThread::start_with(outlet, Arc::clone(&history))?;
        let onlookers = Onlookers::new(history, input.clone(), size.clone())?;
        Ok(Self {
            output,
            sink,
            input,
            onlookers,
            stdin: stdin.map(File::from),
            is_terminal,
            size,
            quit: Flag::new()?,
            running: None,
            terminal: None,
            pty: None,
            _socket: None,
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

    /// The size of the terminal, or of the window of one who looks on; zeros as long as nobody tells one.
    #[must_use]
    pub fn size(&self) -> TerminalSize {
        self.size.clone()
    }

    /// Those who look on, whatever the console is.
    #[must_use]
    pub fn onlookers(&self) -> Onlookers {
        self.onlookers.clone()
    }

    /// The pseudoterminal, if that is the console.
    #[must_use]
    pub fn pty(&self) -> Option<&Path> {
        self.pty.as_ref().map(Pty::path)
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
        let Some(stdin) = &self.stdin else { return Ok(()) };
        self.terminal = RawTerminal::enter(stdin.as_fd()).map_err(ConsoleError::Terminal)?;
        let pump = || {
            let quit = if self.is_terminal { Some(self.quit.try_clone()?) } else { None };
            let size = self.is_terminal.then(|| self.size.clone());
            pump::Pump::new(stdin.try_clone()?, self.input.clone(), quit, size)
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
        self.onlookers.finish(LAST_LOOK);
        drop(self.terminal.take());
        result
    }

    fn stop_input(&mut self) {
        if let Some((events, pump)) = self.running.take() {
            events.remove(pump);
        }
    }
}

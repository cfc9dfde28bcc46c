//! Those who read the log.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::event::{PollFd, PollFlags};

use super::Line;

/// Most readers at a time.
const READER_LIMIT: usize = 64;
/// Most lines that wait for one who does not read them, besides those that were there when it came.
const BEHIND_LIMIT: usize = 5000;

/// What a reader asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Dump,
    Follow,
    DumpAndFollow,
}

#[derive(Debug)]
struct Reader {
    stream: UnixStream,
    /// `None` until it has said so.
    mode: Option<Mode>,
    /// What it has not read yet.
    waiting: VecDeque<Line>,
    /// How much of the first one it has.
    sent: usize,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Readers {
    all: Vec<Reader>,
}

impl Readers {
    /// What is waited for.
    pub fn waited(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.all.iter().map(|reader| {
            let out = if reader.waiting.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            PollFd::new(&reader.stream, PollFlags::IN | out)
        })
    }

    /// Takes those who came; one too many is sent away.
    pub fn take_new(&mut self, listener: &UnixListener) {
        while let Ok((stream, _)) = listener.accept() {
            if self.all.len() < READER_LIMIT && stream.set_nonblocking(true).is_ok() {
                self.all.push(Reader { stream, mode: None, waiting: VecDeque::new(), sent: 0 });
            }
        }
    }

    /// A line for those who follow. Who is too far behind does not get it.
    pub fn tell(&mut self, line: &Line) {
        for reader in self.all.iter_mut().filter(|reader| reader.follows() && reader.waiting.len() < BEHIND_LIMIT) {
            reader.waiting.push_back(line.clone());
        }
    }

    /// Hears what they want and gives them what waits for them; `there` are the lines that there are.
    pub fn serve(&mut self, there: &VecDeque<Line>) {
        self.all.retain_mut(|reader| reader.serve(there).is_ok());
    }
}

impl Reader {
    fn follows(&self) -> bool {
        matches!(self.mode, Some(Mode::Follow | Mode::DumpAndFollow))
    }

    /// An error when it is to go.
    fn serve(&mut self, there: &VecDeque<Line>) -> io::Result<()> {
        if self.mode.is_none() && !self.hear(there)? {
            return Ok(());
        }
        while let Some(line) = self.waiting.front() {
            match self.stream.write(line.get(self.sent..).unwrap_or_default()) {
                Ok(len) => self.sent += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
            if self.sent >= line.len() {
                self.waiting.pop_front();
                self.sent = 0;
            }
        }
        if self.follows() { self.still_there() } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Whether it has said by now what it wants.
    fn hear(&mut self, there: &VecDeque<Line>) -> io::Result<bool> {
        let mut byte = [0; 1];
        let mode = match self.stream.read(&mut byte) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => match byte[0] {
                0 => Mode::Dump,
                1 => Mode::Follow,
                2 => Mode::DumpAndFollow,
                _ => return Err(io::ErrorKind::InvalidData.into()),
            },
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        self.mode = Some(mode);
        if mode != Mode::Follow {
            self.waiting.extend(there.iter().cloned());
        }
        Ok(true)
    }

    /// Who has nothing more to say has not gone; what it says means nothing.
    fn still_there(&mut self) -> io::Result<()> {
        match self.stream.read(&mut [0; 64]) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Err(error),
            _ => Ok(()),
        }
    }
}

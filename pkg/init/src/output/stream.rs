//! One output of one container: from its pipe to the console and to its log.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::lines::Lines;
use crate::boot::Console;
use crate::cmdline::Verbosity;
use kiln_guest::external_log;
use kiln_guest::log_file::LogFile;

/// Bytes that are taken from one container before the others have their turn.
const TURN_BYTES: usize = 64 << 10;

/// Which output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Which {
    /// `NAME.out.log`.
    Out,
    /// `NAME.log`.
    Error,
}

/// The log files, by path.
#[derive(Debug, Default)]
pub struct Log {
    files: HashMap<PathBuf, LogFile>,
}

impl Log {
    fn write(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.files.entry(path.to_owned()).or_insert_with(|| LogFile::new(path.to_owned())).write(bytes)
    }
}

/// The reading end of a container's output.
#[derive(Debug)]
pub struct Stream {
    /// Whose output, as the caller counts tasks.
    pub task: usize,
    name: String,
    pipe: OwnedFd,
    lines: Lines,
    file: Option<PathBuf>,
    /// What takes the file's place while memlogd is there.
    external: Option<File>,
    log_fails: bool,
}

/// What is left in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// More may come.
    Open,
    /// Nobody has the other end any more.
    Closed,
}

impl Stream {
    /// A pipe: this end for PID 1, the other for the process.
    pub fn open(task: usize, name: String, file: Option<PathBuf>) -> io::Result<(Self, OwnedFd)> {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&read, true)?;
        // Named like the file: `web`, `web.out`. Mostly there is none.
        let log_name = file.as_deref().and_then(Path::file_stem).map(|name| name.to_string_lossy().into_owned());
        let external = log_name.and_then(|name| external_log::hand_over(Path::new(external_log::SOCKET), &name).ok());
        Ok((Self { task, name, pipe: read, lines: Lines::default(), file, external, log_fails: false }, write))
    }

    /// Moves what is there now to the console and the log.
    pub fn drain(&mut self, now: Duration, console: &mut Console, log: &mut Log) -> Drained {
        let mut buffer = [0; 8192];
        let mut taken = 0;
        while taken < TURN_BYTES {
            match rustix::io::read(&self.pipe, &mut buffer) {
                Ok(0) => {
                    self.flush(console);
                    return Drained::Closed;
                }
                Ok(len) => {
                    let bytes = buffer.get(..len).unwrap_or_default();
                    taken += len;
                    self.keep(bytes, console, log);
                    let name = &self.name;
                    self.lines.take(now, bytes, |line| console.line(name, line));
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return Drained::Open,
            }
        }
        Drained::Open
    }

    fn keep(&mut self, bytes: &[u8], console: &mut Console, log: &mut Log) {
        match self.external.as_mut().map(|external| external.write(bytes)) {
            // What it has no room for is lost to it: PID 1 waits for nobody.
            Some(Ok(_)) => return,
            Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => return,
            // It is gone.
            Some(Err(_)) => self.external = None,
            None => {}
        }
        let Some(file) = &self.file else { return };
        match log.write(file, bytes) {
            Ok(()) => self.log_fails = false,
            Err(error) if !self.log_fails => {
                self.log_fails = true;
                console.say(Verbosity::Quiet, &format!("cannot write `{}`: {error}", file.display()));
            }
            // Said once.
            Err(_) => {}
        }
    }

    /// When [`Self::flush`] is due.
    pub fn deadline(&self) -> Option<Duration> {
        self.lines.deadline()
    }

    /// Shows the begin of a line.
    pub fn flush(&mut self, console: &mut Console) {
        if let Some(text) = self.lines.flush() {
            console.line(&self.name, &text);
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

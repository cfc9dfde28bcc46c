//! The other end: asks a running machine.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::sockopt::socket_peercred;
use rustix::process::Pid;

use super::words::{Answer, Port, Request};
use super::{LINE_BYTES, SOCKET};
use crate::hands::MemoryUse;
use crate::host::Folder;

/// How long a machine may take to answer: it opens sockets, and others may ask before.
const PATIENCE: Duration = Duration::from_secs(10);

/// A machine does not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody has the state folder.
    #[error("no machine runs with the state folder `{}`", state_dir.display())]
    NotRunning {
        /// The folder.
        state_dir: PathBuf,
    },
    /// The socket cannot be used.
    #[error("cannot talk to the machine with the state folder `{}`", state_dir.display())]
    Talk {
        /// The folder.
        state_dir: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// It says why.
    #[error("{0}")]
    Refused(String),
}

/// Somebody who asks a machine.
#[derive(Debug)]
pub struct Client {
    state_dir: PathBuf,
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the machine that has this state folder.
    ///
    /// # Errors
    /// None runs there, or it is another user's.
    pub fn connect(state_dir: &Path) -> Result<Self, AskError> {
        let connect = || -> io::Result<UnixStream> {
            let folder = Folder::open(state_dir)?;
            let stream = UnixStream::connect(folder.file(SOCKET))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(stream)
        };
        let state_dir = state_dir.to_owned();
        match connect() {
            Ok(stream) => Ok(Self { state_dir, stream: BufReader::new(stream) }),
            Err(error) => Err(match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory => {
                    AskError::NotRunning { state_dir }
                }
                _ => AskError::Talk { state_dir, source: error },
            }),
        }
    }

    /// The process of the machine.
    ///
    /// # Errors
    /// The host's.
    pub fn pid(&self) -> Result<Pid, AskError> {
        let failed = |source: io::Error| AskError::Talk { state_dir: self.state_dir.clone(), source };
        Ok(socket_peercred(self.stream.get_ref().as_fd()).map_err(|error| failed(error.into()))?.pid)
    }

    /// Asks for the console. What comes out of the stream is what the guest prints; `kiln_abi` has the frames that go in.
    ///
    /// # Errors
    /// The machine says why not, or went away.
    pub fn console(mut self, scrollback: bool) -> Result<BufReader<UnixStream>, AskError> {
        self.ask(&Request::Console { scrollback })?;
        let failed = |source| AskError::Talk { state_dir: self.state_dir.clone(), source };
        let stream = self.stream.get_ref();
        stream.set_read_timeout(None).and_then(|()| stream.set_write_timeout(None)).map_err(failed)?;
        Ok(self.stream)
    }

    /// Asks, and waits for the answer: the ports that it is about.
    ///
    /// # Errors
    /// The machine says why not, or went away.
    pub fn ask(&mut self, request: &Request) -> Result<Vec<Port>, AskError> {
        Ok(self.answer(request)?.ports)
    }

    /// Asks what the machine's memory takes.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn memory(&mut self) -> Result<MemoryUse, AskError> {
        let memory = self.answer(&Request::Memory {})?.memory;
        memory.ok_or_else(|| self.failed(io::ErrorKind::InvalidData.into()))
    }

    fn answer(&mut self, request: &Request) -> Result<Answer, AskError> {
        let answer = self.talk(request).map_err(|source| self.failed(source))?;
        match answer.error {
            Some(error) => Err(AskError::Refused(error)),
            None => Ok(answer),
        }
    }

    fn failed(&self, source: io::Error) -> AskError {
        AskError::Talk { state_dir: self.state_dir.clone(), source }
    }

    fn talk(&mut self, request: &Request) -> io::Result<Answer> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line)?;
        line.clear();
        self.stream.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line)?;
        if !line.ends_with(b"\n") {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_slice(&line)?)
    }
}

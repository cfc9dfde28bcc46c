//! The host's side of the agent in the guest (`pkg/agent`): one connection, one request, over the machine's vsock.

use std::io::{self, BufReader, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kiln_abi::{
    AGENT_PORT, AgentRequest, FRAME_BYTES, FrameKind, INPUT_WINDOW_BYTES, frame, read_frame, size_contents,
};

use crate::vsock::connect_to_guest;

/// How long the guest may take to answer that somebody listens, before it counts as having no agent.
const PATIENCE: Duration = Duration::from_secs(10);

/// The agent does not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Nobody has the state folder, or its machine has no vsock.
    #[error("the machine with the state folder `{}` cannot be reached over vsock", state_dir.display())]
    Unreachable {
        /// The folder.
        state_dir: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// Nobody listens in the guest.
    #[error("no agent answers in the guest")]
    NoAgent,
    /// The request cannot be sent.
    #[error("the request is longer than {FRAME_BYTES} bytes")]
    TooLong,
    /// It says why.
    #[error("{0}")]
    Refused(String),
    /// The connection.
    #[error("the connection to the agent broke off")]
    Talk(#[source] io::Error),
    /// It ended without a last word.
    #[error("the guest ended the connection before the program ended")]
    Ended,
}

/// A request on its way.
#[derive(Debug)]
pub struct Session {
    stream: BufReader<UnixStream>,
    sender: Sender,
}

/// What goes to the program. Cheap to clone; its clones share one window.
#[derive(Debug, Clone)]
pub struct Sender {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    stream: Mutex<UnixStream>,
    window: Mutex<Window>,
    changed: Condvar,
}

#[derive(Debug)]
struct Window {
    room: usize,
    /// The program has ended: nobody takes input.
    closed: bool,
}

impl Session {
    /// Connects to the agent of the machine that has this state folder, and asks it.
    ///
    /// # Errors
    /// No such machine runs, or its guest has no agent.
    pub fn start(state_dir: &Path, request: &AgentRequest) -> Result<Self, AgentError> {
        // Before anybody is bothered with it.
        let request = encoded(request)?;
        let stream = connect_to_guest(state_dir, AGENT_PORT, PATIENCE).map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                AgentError::NoAgent
            }
            _ => AgentError::Unreachable { state_dir: state_dir.to_owned(), source },
        })?;
        Self::over(stream, &request).map_err(AgentError::Talk)
    }

    fn over(stream: UnixStream, request: &[u8]) -> io::Result<Self> {
        let shared = Shared {
            stream: Mutex::new(stream.try_clone()?),
            window: Mutex::new(Window { room: INPUT_WINDOW_BYTES, closed: false }),
            changed: Condvar::new(),
        };
        let sender = Sender { shared: Arc::new(shared) };
        // An agent that does not want it has said why, which is heard.
        let _refused = sender.send(FrameKind::Request, request);
        Ok(Self { stream: BufReader::new(stream), sender })
    }

    /// The way to the program.
    #[must_use]
    pub fn sender(&self) -> Sender {
        self.sender.clone()
    }

    /// Hears the program to its end, and returns its exit code.
    ///
    /// # Errors
    /// The agent refuses, the connection breaks off, or `output` or `errors` cannot be written.
    pub fn hear(mut self, output: &mut impl Write, errors: &mut impl Write) -> Result<i32, AgentError> {
        let end = self.hear_all(output, errors);
        self.sender.close();
        // The agent waits for it.
        let _gone = self.stream.get_ref().shutdown(Shutdown::Both);
        end
    }

    fn hear_all(&mut self, output: &mut impl Write, errors: &mut impl Write) -> Result<i32, AgentError> {
        let mut contents = Vec::new();
        loop {
            let kind = match read_frame(&mut self.stream, &mut contents) {
                Ok(kind) => kind.ok_or(AgentError::Ended)?,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(AgentError::Ended),
                Err(error) => return Err(AgentError::Talk(error)),
            };
            let number = <[u8; 4]>::try_from(contents.as_slice()).ok();
            match (kind, number) {
                (FrameKind::Output, _) => output.write_all(&contents).and_then(|()| output.flush()),
                (FrameKind::Errors, _) => errors.write_all(&contents).and_then(|()| errors.flush()),
                (FrameKind::Taken, Some(taken)) => {
                    self.sender.took(u32::from_le_bytes(taken));
                    Ok(())
                }
                (FrameKind::Exit, Some(code)) => return Ok(i32::from_le_bytes(code)),
                (FrameKind::Refused, _) => {
                    return Err(AgentError::Refused(String::from_utf8_lossy(&contents).into_owned()));
                }
                _ => Err(io::ErrorKind::InvalidData.into()),
            }
            .map_err(AgentError::Talk)?;
        }
    }
}

/// The request as it is sent.
fn encoded(request: &AgentRequest) -> Result<Vec<u8>, AgentError> {
    let request = serde_json::to_vec(request).map_err(|error| AgentError::Talk(error.into()))?;
    if request.len() > FRAME_BYTES { Err(AgentError::TooLong) } else { Ok(request) }
}

impl Sender {
    /// Sends input, as fast as the program takes it.
    ///
    /// # Errors
    /// `BrokenPipe` when the program has ended; the connection's.
    pub fn input(&self, bytes: &[u8]) -> io::Result<()> {
        for chunk in bytes.chunks(FRAME_BYTES) {
            let mut window = self.window();
            while window.room < chunk.len() && !window.closed {
                window = self.shared.changed.wait(window).unwrap_or_else(PoisonError::into_inner);
            }
            if window.closed {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            window.room -= chunk.len();
            drop(window);
            self.send(FrameKind::Input, chunk)?;
        }
        Ok(())
    }

    /// There is no more input.
    ///
    /// # Errors
    /// The connection's.
    pub fn end_of_input(&self) -> io::Result<()> {
        self.send(FrameKind::Input, &[])
    }

    /// Sends a signal to the program and its children.
    ///
    /// # Errors
    /// The connection's.
    pub fn signal(&self, number: u8) -> io::Result<()> {
        self.send(FrameKind::Signal, &[number])
    }

    /// The program's terminal has another size.
    ///
    /// # Errors
    /// The connection's.
    pub fn size(&self, columns: u16, rows: u16) -> io::Result<()> {
        self.send(FrameKind::Size, &size_contents(columns, rows))
    }

    fn send(&self, kind: FrameKind, contents: &[u8]) -> io::Result<()> {
        self.shared.stream.lock().unwrap_or_else(PoisonError::into_inner).write_all(&frame(kind, contents))
    }

    fn took(&self, bytes: u32) {
        let mut window = self.window();
        // The guest can claim to have taken more than it was sent; it gets no more than the window for that.
        window.room = window.room.saturating_add(usize::try_from(bytes).unwrap_or(usize::MAX)).min(INPUT_WINDOW_BYTES);
        drop(window);
        self.shared.changed.notify_all();
    }

    fn close(&self) {
        self.window().closed = true;
        self.shared.changed.notify_all();
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.shared.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = bytes.len().min(FRAME_BYTES);
        self.input(bytes.get(..len).unwrap_or_default())?;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use kiln_abi::{AGENT_VERSION, AgentTask};

    use super::*;

    fn request() -> AgentRequest {
        AgentRequest { version: AGENT_VERSION, service: None, task: AgentTask::Look { path: "/".into() } }
    }

    /// A session with a guest that says `said` after it was asked.
    fn heard(said: Vec<u8>) -> (Result<i32, AgentError>, Vec<u8>, Vec<u8>) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let guest = thread::spawn(move || {
            let mut asked = BufReader::new(theirs.try_clone().unwrap());
            let mut contents = vec![];
            assert_eq!(read_frame(&mut asked, &mut contents).unwrap(), Some(FrameKind::Request));
            theirs.write_all(&said).unwrap();
        });
        let (mut output, mut errors) = (vec![], vec![]);
        let session = Session::over(ours, &encoded(&request()).unwrap()).unwrap();
        let end = session.hear(&mut output, &mut errors);
        guest.join().unwrap();
        (end, output, errors)
    }

    #[test]
    fn a_guest_that_lies_and_a_request_that_is_too_long_are_told_of() {
        assert!(matches!(heard(vec![]).0, Err(AgentError::Ended)));
        assert!(matches!(heard(vec![16, 9, 0]).0, Err(AgentError::Ended)));
        assert!(matches!(heard(frame(FrameKind::Exit, b"xyz")).0, Err(AgentError::Talk(_))));
        assert!(matches!(heard(frame(FrameKind::Signal, b"x")).0, Err(AgentError::Talk(_))));
        assert!(matches!(heard(vec![18, 255, 255, 255, 255]).0, Err(AgentError::Talk(_))));
        assert!(matches!(heard(frame(FrameKind::Refused, b"no")).0, Err(AgentError::Refused(why)) if why == "no"));
        let mut long = request();
        long.service = Some("x".repeat(FRAME_BYTES));
        assert!(matches!(encoded(&long), Err(AgentError::TooLong)));
    }

    #[test]
    fn a_machine_that_does_not_run_is_told_from_a_guest_without_an_agent() {
        let folder = tempfile::tempdir().unwrap();
        let start = || Session::start(folder.path(), &request()).map(drop);
        assert!(matches!(start(), Err(AgentError::Unreachable { .. })));
        let listener = std::os::unix::net::UnixListener::bind(folder.path().join(crate::vsock::CONNECT)).unwrap();
        let guest = thread::spawn(move || drop(listener.accept().unwrap()));
        assert!(matches!(start(), Err(AgentError::NoAgent)));
        guest.join().unwrap();
    }

    #[test]
    fn what_is_said_is_passed_on_until_the_exit_code() {
        let said = [
            frame(FrameKind::Output, b"out"),
            frame(FrameKind::Taken, &u32::MAX.to_le_bytes()),
            frame(FrameKind::Errors, b"err"),
            frame(FrameKind::Exit, &7_i32.to_le_bytes()),
            frame(FrameKind::Output, b"late"),
        ];
        let (end, output, errors) = heard(said.concat());
        assert_eq!((end.unwrap(), output, errors), (7, b"out".to_vec(), b"err".to_vec()));
    }
}

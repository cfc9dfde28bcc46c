//! One connection of the host's: a request, the process that does it, and what goes to and fro until that ends. Threads
//! share one end: whoever waits, waits for it too.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use kiln_abi::{AGENT_VERSION, AgentRequest, AgentTask, FRAME_BYTES, FrameKind, frame, read_frame, size_of};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::ioctl_fionbio;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::enter::ENTER;
use crate::feed::Feed;
use crate::target;

/// How long the host may take to send its request, and to close its end after the last frame.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a program whose user has gone may take to end after SIGHUP.
const FAREWELL: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };
/// Exit code of a program whose end is not known.
const UNKNOWN: i32 = 255;

/// Where requests are done.
#[derive(Clone, Debug)]
pub struct Place {
    /// The agent's own program.
    pub own: PathBuf,
    /// A process in the machine's own root.
    pub machine: u32,
}

impl Place {
    /// As it is in a machine: its first process is in its root.
    pub fn of_machine() -> Self {
        Self { own: "/proc/self/exe".into(), machine: 1 }
    }
}

/// Serves one connection to its end.
pub fn serve(stream: UnixStream, place: &Place) {
    // Whoever has gone can be told nothing.
    let _gone = attend(&stream, place);
}

/// Serves nobody, and says why. Does not wait.
pub fn refuse(stream: &UnixStream, why: &str) {
    // It was not asked yet: what comes is not read, and the few bytes find room.
    let _gone =
        stream.set_nonblocking(true).and_then(|()| (&*stream).write_all(&frame(FrameKind::Refused, why.as_bytes())));
    let _gone = stream.shutdown(std::net::Shutdown::Write);
}

fn attend(stream: &UnixStream, place: &Place) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut contents = Vec::new();
    let Some(FrameKind::Request) = read_frame(&mut &*stream, &mut contents)? else { return Ok(()) };
    stream.set_read_timeout(None)?;
    match start(&contents, place) {
        Ok(started) => converse(stream, started),
        Err(why) => {
            (&*stream).write_all(&frame(FrameKind::Refused, why.as_bytes()))?;
            stream.shutdown(std::net::Shutdown::Write)?;
            wait_for_close(stream);
            Ok(())
        }
    }
}

/// A process at work, and our ends.
struct Started {
    child: Child,
    input: File,
    outputs: Vec<(FrameKind, File)>,
    terminal: Option<OwnedFd>,
}

/// Starts the process, or says why not.
fn start(request: &[u8], place: &Place) -> Result<Started, String> {
    let asked: AgentRequest =
        serde_json::from_slice(request).map_err(|error| format!("this is no request: {error}"))?;
    if asked.version != AGENT_VERSION {
        return Err(format!("the agent speaks version {AGENT_VERSION}, and not {}", asked.version));
    }
    let pid = target::process(asked.service.as_deref(), place.machine).map_err(|error| error.to_string())?;
    let mut command = Command::new(&place.own);
    command.arg0("kiln-agent").arg(ENTER).arg(pid.to_string()).arg(String::from_utf8_lossy(request).as_ref());
    let size = match &asked.task {
        AgentTask::Run(program) => program.terminal,
        _ => None,
    };
    let started = match size {
        Some(size) => on_terminal(command, pid, size),
        None => on_pipes(command),
    };
    started.map_err(|error| format!("cannot start a process: {error}"))
}

fn on_pipes(mut command: Command) -> io::Result<Started> {
    // A group of its own gets the signals.
    command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(input), Some(output), Some(errors)) = pipes else { return Err(io::ErrorKind::BrokenPipe.into()) };
    let file = |pipe: OwnedFd| File::from(pipe);
    let outputs = vec![(FrameKind::Output, file(output.into())), (FrameKind::Errors, file(errors.into()))];
    Ok(Started { child, input: file(input.into()), outputs, terminal: None })
}

/// The terminal is one of the place that is entered, where it has such; else one of the agent's.
fn on_terminal(mut command: Command, pid: u32, (columns, rows): (u16, u16)) -> io::Result<Started> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let theirs = format!("/proc/{pid}/root/dev/pts/ptmx");
    let master = rustix::fs::open(theirs, flags, Mode::empty())
        .or_else(|_| rustix::fs::open("/dev/ptmx", flags, Mode::empty()))?;
    unlockpt(&master)?;
    let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    set_size(&master, columns, rows);
    command.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave);
    let child = command.spawn()?;
    // The command holds the other end: then our end never ends.
    drop(command);
    let (input, output) = (File::from(master.try_clone()?), File::from(master.try_clone()?));
    Ok(Started { child, input, outputs: vec![(FrameKind::Output, output)], terminal: Some(master) })
}

fn set_size(terminal: &OwnedFd, columns: u16, rows: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // A size is no reason not to run.
    let _unsized = tcsetwinsize(terminal, size);
}

/// Raised once and for ever.
struct End(OwnedFd);

impl End {
    fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    fn raise(&self) {
        // It fails only when it was raised very often.
        let _raised = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Waits until `descriptor` is ready; false when there is an end and it is not.
    fn ready(&self, descriptor: &impl AsFd, what: PollFlags) -> bool {
        loop {
            let mut waits = [PollFd::new(descriptor, what), PollFd::new(&self.0, PollFlags::IN)];
            match poll(&mut waits, None) {
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return false,
                Ok(_) => return waits.first().is_some_and(|ready| !ready.revents().is_empty()),
            }
        }
    }
}

/// Carries everything to and fro until the process has ended, and tells how.
fn converse(stream: &UnixStream, started: Started) -> io::Result<()> {
    let Started { mut child, input, outputs, terminal } = started;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let (ended, said, feed) = (End::new()?, Mutex::new(stream.try_clone()?), Feed::default());
    let (ended, said, feed) = (&ended, &said, &feed);
    thread::scope(|scope| {
        let typed = scope.spawn(|| write_input(feed, input, terminal.is_some(), said, ended));
        let printed: Vec<_> =
            outputs.into_iter().map(|(kind, from)| scope.spawn(move || carry(kind, from, said, ended))).collect();
        let waits = scope.spawn(|| {
            let status = child.wait();
            ended.raise();
            feed.close();
            for thread in printed {
                // A panic of the thread is our own mistake; what it carried is lost.
                let _broke_down = thread.join();
            }
            let code = status.ok().and_then(|status| status.code().or_else(|| Some(128 + status.signal()?)));
            let _gone = tell(said, FrameKind::Exit, &code.unwrap_or(UNKNOWN).to_le_bytes());
            let _gone = stream.shutdown(std::net::Shutdown::Write);
        });
        let left = listen(stream, feed, pid, terminal.as_ref(), ended);
        if left == Left::Before {
            // What it still prints goes nowhere.
            let _gone = stream.shutdown(std::net::Shutdown::Both);
            feed.close();
            end_by_force(pid, ended);
        }
        let _broke_down = (typed.join(), waits.join());
    });
    Ok(())
}

/// Who ended first.
#[derive(Debug, PartialEq, Eq)]
enum Left {
    /// The host, or it said what means nothing.
    Before,
    /// The process.
    After,
}

/// Hears the host until the process has ended and the host has closed its end.
fn listen(stream: &UnixStream, feed: &Feed, pid: Option<Pid>, terminal: Option<&OwnedFd>, ended: &End) -> Left {
    let mut contents = Vec::new();
    while ended.ready(stream, PollFlags::IN) {
        let Ok(Some(kind)) = read_frame(&mut &*stream, &mut contents) else {
            let is_over = poll(&mut [PollFd::new(&ended.0, PollFlags::IN)], Some(&Timespec::default()));
            return if is_over.is_ok_and(|ready| ready > 0) { Left::After } else { Left::Before };
        };
        match (kind, contents.as_slice()) {
            (FrameKind::Input, bytes) if feed.put(bytes).is_ok() => {}
            (FrameKind::Signal, [number]) => send(pid, i32::from(*number)),
            (FrameKind::Size, bytes) => match (size_of(bytes), terminal) {
                (Some((columns, rows)), Some(terminal)) => set_size(terminal, columns, rows),
                (Some(_), None) => {}
                (None, _) => return Left::Before,
            },
            _ => return Left::Before,
        }
    }
    wait_for_close(stream);
    Left::After
}

/// The host may not have read everything yet.
fn wait_for_close(stream: &UnixStream) {
    let _patience = stream.set_read_timeout(Some(PATIENCE));
    while let Ok(1..) = (&*stream).read(&mut [0; 4096]) {}
}

fn send(pid: Option<Pid>, number: i32) {
    if let (Some(pid), Some(signal)) = (pid, Signal::from_named_raw(number)) {
        // It is in no group of its own before it has taken its terminal, and may have ended.
        let _ended = kill_process_group(pid, signal).or_else(|_| kill_process(pid, signal));
    }
}

/// Its user has gone: it hangs up, and ends.
fn end_by_force(pid: Option<Pid>, ended: &End) {
    send(pid, Signal::HUP.as_raw());
    if poll(&mut [PollFd::new(&ended.0, PollFlags::IN)], Some(&FAREWELL)) == Ok(0) {
        send(pid, Signal::KILL.as_raw());
    }
}

fn tell(said: &Mutex<UnixStream>, kind: FrameKind, contents: &[u8]) -> io::Result<()> {
    said.lock().unwrap_or_else(PoisonError::into_inner).write_all(&frame(kind, contents))
}

/// From the process to the host, until there is no more.
fn carry(kind: FrameKind, mut from: File, said: &Mutex<UnixStream>, ended: &End) {
    let mut chunk = vec![0; FRAME_BYTES];
    while ended.ready(&from, PollFlags::IN) {
        match from.read(&mut chunk) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // A terminal that nobody has open any more is an error.
            Ok(0) | Err(_) => return,
            Ok(len) => {
                if tell(said, kind, chunk.get(..len).unwrap_or_default()).is_err() {
                    return;
                }
            }
        }
    }
}

/// From the host to the process, until there is no more or nobody reads it.
fn write_input(feed: &Feed, mut to: File, is_terminal: bool, said: &Mutex<UnixStream>, ended: &End) {
    // A terminal's two directions are one: the other one waits.
    let _blocks = (!is_terminal).then(|| ioctl_fionbio(&to, true));
    while let Some(bytes) = feed.take() {
        let mut left = &bytes[..];
        while !left.is_empty() {
            if !ended.ready(&to, PollFlags::OUT) {
                return feed.close();
            }
            match to.write(left) {
                Ok(len @ 1..) => left = left.get(len..).unwrap_or_default(),
                Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
                Ok(_) | Err(_) => return feed.close(),
            }
        }
        let taken = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        if tell(said, FrameKind::Taken, &taken.to_le_bytes()).is_err() {
            return feed.close();
        }
    }
}

//! `memlogd`: keeps the last lines of every log in memory, and tells them to who asks. LinuxKit's protocol:
//!
//! - Who has a log sends a datagram to the first socket: the log's name, and with it (`SCM_RIGHTS`) what it is read from.
//! - Who wants to read connects to the second one and sends a byte: 0 for the lines that there are, 1 for those that come, 2 for
//!   both. Each line is JSON: `{"time":…,"source":…,"msg":…}`.
//!
//! Called as `002-logging`, in `/etc/init.d`, it goes on by itself in the background.

mod readers;
mod sources;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kiln_abi::date_and_time;
use kiln_guest::socket;
use rustix::event::{PollFd, PollFlags, poll};

use crate::arguments::{Flags, WrongUse};
use crate::{Failure, Voice};

use readers::Readers;
use sources::Sources;

/// What it takes.
pub const USAGE: &str = "[-daemonize] [-socket-log PATH] [-socket-query PATH] [-max-lines N] [-max-line-len BYTES]";

/// `inherited` is what it calls itself with: both sockets are there already, as standard input and output.
const FLAGS: Flags =
    Flags { valued: &["socket-log", "socket-query", "max-lines", "max-line-len"], alone: &["daemonize", "inherited"] };
const SOCKET_LOG: &str = "/var/run/linuxkit-external-logging.sock";
const SOCKET_QUERY: &str = "/var/run/memlogdq.sock";
const LINES: u64 = 5000;
const LINE_BYTES: u64 = 1024;
/// More of either would take the machine's memory.
const LINES_LIMIT: u64 = 100_000;
const LINE_BYTES_LIMIT: u64 = 16 << 10;

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
enum MemlogdError {
    #[error("cannot listen at `{}`", path.display())]
    Listen {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot go on in the background")]
    Background(#[source] io::Error),
    #[error("cannot wait for what comes")]
    Wait(#[source] io::Error),
}

/// A line of a log, as it is told.
type Line = Rc<[u8]>;

/// The last lines.
#[derive(Debug)]
struct Ring {
    lines: VecDeque<Line>,
    limit: usize,
}

impl Ring {
    fn push(&mut self, line: Line) {
        while self.lines.len() >= self.limit {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }
}

/// Runs the program, until the process is ended or in the background.
///
/// # Errors
/// A socket cannot be made.
pub fn run(arguments: &[String], _say: Voice<'_>) -> Result<(), Failure> {
    let given = FLAGS.read(arguments)?;
    if let Some(more) = given.words.first() {
        return Err(WrongUse::TooMuch(more.clone()).into());
    }
    let lines = given.number("max-lines", LINES)?.clamp(1, LINES_LIMIT);
    let line_bytes = given.number("max-line-len", LINE_BYTES)?.clamp(1, LINE_BYTES_LIMIT);
    let [lines, line_bytes] = [lines, line_bytes].map(|number| usize::try_from(number).unwrap_or(usize::MAX));
    let (log, query) = if given.has("inherited") {
        inherited().map_err(|source| Failure::of(MemlogdError::Background(source)))?
    } else {
        let path = |flag: &str, default: &str| PathBuf::from(given.value(flag).unwrap_or(default));
        let log = bound(path("socket-log", SOCKET_LOG), socket::receive)?;
        (log, bound(path("socket-query", SOCKET_QUERY), socket::listen)?)
    };
    if given.has("daemonize") {
        let words = [("-max-lines", lines), ("-max-line-len", line_bytes)];
        return background(log, query, &words).map_err(|source| Failure::of(MemlogdError::Background(source)));
    }
    serve(&log, &query, lines, line_bytes).map_err(|error| Failure::of(MemlogdError::Wait(error)))
}

/// The same, in the background whatever it is told.
///
/// # Errors
/// As [`run`].
pub fn run_in_background(arguments: &[String], say: Voice<'_>) -> Result<(), Failure> {
    run(&[arguments, &["-daemonize".to_owned()]].concat(), say)
}

fn bound<S>(path: PathBuf, bind: fn(&Path) -> io::Result<S>) -> Result<S, Failure> {
    bind(&path).map_err(|source| Failure::of(MemlogdError::Listen { path, source }))
}

fn inherited() -> io::Result<(UnixDatagram, UnixListener)> {
    let log = io::stdin().as_fd().try_clone_to_owned()?;
    Ok((log.into(), io::stdout().as_fd().try_clone_to_owned()?.into()))
}

fn background(log: UnixDatagram, query: UnixListener, words: &[(&str, usize)]) -> io::Result<()> {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("memlogd").arg("-inherited");
    for (word, number) in words {
        command.args([*word, &number.to_string()]);
    }
    let (log, query): (OwnedFd, OwnedFd) = (log.into(), query.into());
    // Not the caller's group: signals for it are not for this process.
    command.stdin(log).stdout(query).stderr(Stdio::null()).process_group(0).spawn().map(drop)
}

fn serve(log: &UnixDatagram, query: &UnixListener, lines: usize, line_bytes: usize) -> io::Result<()> {
    log.set_nonblocking(true)?;
    query.set_nonblocking(true)?;
    let mut ring = Ring { lines: VecDeque::new(), limit: lines };
    let (mut sources, mut readers) = (Sources::new(line_bytes), Readers::default());
    ring.push(line(now(), "memlogd", "memlogd started"));
    loop {
        {
            let mut waited = vec![readable(log), readable(query)];
            waited.extend(sources.waited());
            waited.extend(readers.waited());
            match poll(&mut waited, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        // Everything is looked at: each of them says by itself that there is nothing.
        sources.take_new(log);
        readers.take_new(query);
        sources.drain(|source, text| {
            let line = line(now(), source, text);
            readers.tell(&line);
            ring.push(line);
        });
        readers.serve(&ring.lines);
    }
}

fn readable(descriptor: &impl AsFd) -> PollFd<'_> {
    PollFd::new(descriptor, PollFlags::IN)
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn line(time: Duration, source: &str, text: &str) -> Line {
    let value = serde_json::json!({"time": utc(time), "source": source, "msg": text});
    format!("{value}\n").into_bytes().into()
}

/// As RFC 3339 has it.
fn utc(time: Duration) -> String {
    format!("{}.{:09}Z", date_and_time(time.as_secs()), time.subsec_nanos())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_time_has_all_its_nanoseconds() {
        assert_eq!(utc(Duration::new(951_782_400, 7)), "2000-02-29T00:00:00.000000007Z");
    }

    #[test]
    fn a_ring_keeps_the_newest() {
        let mut ring = Ring { lines: VecDeque::new(), limit: 2 };
        for text in ["a", "b", "c"] {
            ring.push(text.as_bytes().into());
        }
        assert_eq!(ring.lines, [Line::from(&b"b"[..]), Line::from(&b"c"[..])]);
    }

    #[test]
    fn lines_of_logs_reach_who_asks_and_nonsense_harms_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let [log, query] = ["log", "query"].map(|name| folder.path().join(name));
        let (datagrams, listener) = (UnixDatagram::bind(&log).unwrap(), UnixListener::bind(&query).unwrap());
        std::thread::spawn(move || serve(&datagrams, &listener, 3, 8));
        // No descriptor; a byte that means nothing; nothing at all.
        UnixDatagram::unbound().unwrap().send_to(b"nothing", &log).unwrap();
        UnixStream::connect(&query).unwrap().write_all(&[9]).unwrap();
        drop(UnixStream::connect(&query).unwrap());
        let ask = |mode: u8| {
            let mut stream = UnixStream::connect(&query).unwrap();
            stream.write_all(&[mode]).unwrap();
            BufReader::new(stream)
        };
        let mut both = ask(2);
        let mut next = || {
            let mut line = String::new();
            both.read_line(&mut line).unwrap();
            let value: serde_json::Value = serde_json::from_str(&line).unwrap();
            format!("{}: {}", value["source"].as_str().unwrap(), value["msg"].as_str().unwrap())
        };
        assert_eq!(next(), "memlogd: memlogd started");
        let mut web = kiln_guest::external_log::hand_over(&log, "web.out").unwrap();
        // Longer than a line may be, bytes that are no text, and one that has no end until the log has.
        web.write_all(b"0123456789\n\xff\nno ").unwrap();
        assert_eq!([next(), next()], ["web.out: 01234567", "web.out: \u{fffd}"]);
        web.write_all(b"end").unwrap();
        drop(web);
        assert_eq!(next(), "web.out: no end");
        let there: Vec<String> = ask(0).lines().map(Result::unwrap).collect();
        assert_eq!(there.len(), 3, "{there:?}");
        assert!(there[2].contains("no end"));
    }
}

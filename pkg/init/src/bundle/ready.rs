//! A service's readiness check: tried again and again in a process of its own, until it succeeds or its time is over.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use kiln_abi::{AnnotationError, ReadyCheck, StartConditions};
use pathrs::Root;
use pathrs::error::ErrorKind;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::{Value, json};

use super::configuration::annotations;
use super::{Bundle, BundleError, read_json, runtime};

/// A connection within one machine is accepted or refused at once. One that is neither is tried anew after this time.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// The process for a program that is started in the container, in the state folder.
const PROCESS_FILE: &str = "check.json";

/// Why a service is not ready.
#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    /// Its configuration.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// Its annotations.
    #[error(transparent)]
    Annotation(#[from] AnnotationError),
    /// It has no check.
    #[error("it has no readiness check")]
    Unchecked,
    /// Its network cannot be entered.
    #[error("cannot enter the network of process {pid}")]
    Network {
        /// The container's first process.
        pid: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Nobody answers.
    #[error("cannot connect to `{address}`")]
    Connect {
        /// The address, or the socket's path.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not there.
    #[error("`{0}` is not there")]
    Missing(String),
    /// The program cannot be started in the container.
    #[error("cannot start `{program}` in the container")]
    Start {
        /// Which.
        program: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It says no.
    #[error("`{program}` ended with {code}")]
    Failed {
        /// Which.
        program: String,
        /// Exit code, or 128 + signal.
        code: i32,
    },
    /// It says nothing.
    #[error("`{program}` did not end in time")]
    Hung {
        /// Which.
        program: String,
    },
}

/// Waits until the service in `bundle`, whose first process is `pid`, is ready: for at most `limit`.
///
/// # Errors
/// What was missing the last time.
pub fn wait_ready(bundle: &Bundle, pid: u32, limit: Duration) -> Result<(), NotReady> {
    let end = Instant::now() + limit;
    let ready = StartConditions::from_annotations(&annotations(&bundle.folder)?)?.ready.ok_or(NotReady::Unchecked)?;
    if let ReadyCheck::Tcp(_) = ready.check {
        enter_network(pid).map_err(|source| NotReady::Network { pid, source })?;
    }
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let tried = match &ready.check {
            ReadyCheck::Exec(command) => run(bundle, command, left),
            ReadyCheck::Tcp(address) => connect(address, left),
            ReadyCheck::Unix(path) => connect_unix(pid, path),
            ReadyCheck::File(path) => find(pid, path).map(drop).map_err(|_| NotReady::Missing(path.clone())),
        };
        let left = end.saturating_duration_since(Instant::now());
        if tried.is_ok() || left.is_zero() {
            return tried;
        }
        std::thread::sleep(ready.interval.min(left));
    }
}

/// For the whole of this process, which has one thread.
fn enter_network(pid: u32) -> io::Result<()> {
    let namespace = fs::File::open(format!("/proc/{pid}/ns/net"))?;
    let kind = Some(LinkNameSpaceType::Network);
    Ok(move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), kind)?)
}

fn connect(address: &SocketAddr, left: Duration) -> Result<(), NotReady> {
    let limit = left.clamp(Duration::from_millis(1), CONNECT_LIMIT);
    let connected = TcpStream::connect_timeout(address, limit);
    connected.map(drop).map_err(|source| NotReady::Connect { address: address.to_string(), source })
}

fn connect_unix(pid: u32, path: &str) -> Result<(), NotReady> {
    // The way to an open file is short enough for a socket's address, whatever the path in the container.
    let connected = find(pid, path).and_then(|found| UnixStream::connect(crate::descriptor_path(&found)));
    connected.map(drop).map_err(|source| NotReady::Connect { address: path.to_owned(), source })
}

/// The file as the container sees it: its links cannot lead out of it.
fn find(pid: u32, path: &str) -> io::Result<pathrs::Handle> {
    let root = Root::from_fd(fs::File::open(format!("/proc/{pid}/root"))?);
    root.resolve(path).map_err(|error| match error.kind() {
        ErrorKind::OsError(Some(number)) => io::Error::from_raw_os_error(number),
        _ => io::Error::other(error),
    })
}

/// Runs a program in the container, as its own process is run: same user, environment and rights.
fn run(bundle: &Bundle, command: &[String], left: Duration) -> Result<(), NotReady> {
    let program = command.first().cloned().unwrap_or_default();
    let state = bundle.state();
    let process = state.join(PROCESS_FILE);
    write_process(&state, &process, command)?;
    let start = runtime::run_inside(bundle, &process);
    let pid = start.map_err(|source| NotReady::Start { program: program.clone(), source: Box::new(source) })?;
    match wait(pid, left) {
        Ok(Some(0)) => Ok(()),
        Ok(Some(code)) => Err(NotReady::Failed { program, code }),
        Ok(None) => Err(NotReady::Hung { program }),
        Err(source) => Err(NotReady::Start { program, source: Box::new(source) }),
    }
}

fn write_process(state: &Path, path: &Path, command: &[String]) -> Result<(), NotReady> {
    let mut config: Value = read_json(&state.join(kiln_abi::BUNDLE_CONFIG))?;
    let mut process = config.get_mut("process").map(Value::take).unwrap_or_default();
    if let Some(fields) = process.as_object_mut() {
        fields.insert("args".to_owned(), json!(command));
        fields.insert("terminal".to_owned(), json!(false));
    }
    let written = fs::write(path, process.to_string());
    Ok(written.map_err(|source| BundleError::Write { path: path.to_owned(), source })?)
}

/// Waits for a child's end and gives its code; [`None`] if it had to be killed.
fn wait(pid: Pid, left: Duration) -> io::Result<Option<i32>> {
    let descriptor = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    let time =
        Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX), tv_nsec: i64::from(left.subsec_nanos()) };
    let ended = poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&time))?;
    if ended == 0 {
        rustix::process::kill_process(pid, Signal::KILL)?;
    }
    let status = rustix::process::waitpid(Some(pid), WaitOptions::empty())?.map(|(_, status)| status);
    Ok(status.filter(|_| ended > 0).map(|status| {
        status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal)).unwrap_or(255)
    }))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use super::*;

    /// This process as if it were a container.
    fn outcome(check: Value, limit: Duration) -> Result<(), NotReady> {
        let folder = tempfile::tempdir().unwrap();
        let config = json!({"annotations": {"org.kiln.ready": check.to_string()}});
        fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        wait_ready(&Bundle::new(folder.path().to_owned()), std::process::id(), limit)
    }

    #[test]
    fn what_is_missing_is_named_when_the_time_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let limit = Duration::from_millis(30);
        for (check, text) in [
            (json!({"file": path, "interval": "10ms"}), format!("`{}` is not there", path.display())),
            (json!({"unix": path, "interval": "10ms"}), format!("cannot connect to `{}`", path.display())),
        ] {
            let before = Instant::now();
            assert_eq!(outcome(check, limit).unwrap_err().to_string(), text);
            assert!(before.elapsed() >= limit);
        }
        // Somebody has bound it, and is gone.
        drop(UnixListener::bind(&path).unwrap());
        assert!(outcome(json!({"unix": path}), Duration::ZERO).is_err());
        assert!(outcome(json!({"tcp": "nowhere"}), Duration::ZERO).unwrap_err().to_string().contains("nowhere"));
    }

    #[test]
    fn what_comes_later_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let check = json!({"unix": path, "interval": "10ms"});
        let waiting = std::thread::spawn(move || outcome(check, Duration::from_secs(30)));
        let _listener = UnixListener::bind(&path).unwrap();
        waiting.join().unwrap().unwrap();
        outcome(json!({"file": path}), Duration::ZERO).unwrap();
    }

    #[test]
    fn a_port_is_ready_when_somebody_listens() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        connect(&address, Duration::from_secs(5)).unwrap();
        drop(listener);
        assert!(matches!(connect(&address, Duration::from_secs(5)), Err(NotReady::Connect { .. })));
    }

    #[test]
    fn a_program_that_hangs_is_killed() {
        #[expect(clippy::zombie_processes, reason = "it is waited for by its number")]
        let child = |seconds: &str| {
            let child = std::process::Command::new("sleep").arg(seconds).spawn().unwrap();
            Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap()
        };
        assert_eq!(wait(child("1000"), Duration::from_millis(20)).unwrap(), None);
        assert_eq!(wait(child("0"), Duration::from_secs(60)).unwrap(), Some(0));
    }
}

//! Other people's programs: cargo, git, apt-get, depmod and builders of Dockerfiles. Nothing else of a build starts any.
//!
//! Each runs in a process group of its own: Ctrl-C is for us to see, and we end the program with all that it started.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::cancel::{Cancel, Cancelled};

/// How much of a failed program's messages is shown.
const TAIL_LINES: usize = 20;
/// Longest line of a program's messages that is shown as one, in bytes.
const LINE_BYTES_MAX: u64 = 4096;
/// System administrators' programs such as `depmod` are here, and not in everybody's `PATH`.
const SYSTEM_FOLDERS: [&str; 2] = ["/usr/sbin", "/sbin"];
/// How often a running program is asked whether it is still wanted.
const CANCEL_INTERVAL: Duration = Duration::from_millis(50);
/// How long a program that was told to end may tidy up before it is killed.
const GRACE: Duration = Duration::from_secs(2);

/// One call of a program.
#[derive(Debug)]
pub(super) struct Program {
    command: Command,
    name: String,
    package: &'static str,
    cancel: Cancel,
}

/// Why a program gave no result.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It is not installed.
    #[error("program `{name}` is missing; install it, on Debian with `apt-get install {package}`")]
    Missing {
        /// Its name.
        name: String,
        /// Debian's package that has it.
        package: &'static str,
    },
    /// It could not be started.
    #[error("cannot start `{name}`")]
    Start {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not known how it ended.
    #[error("cannot wait for the end of `{name}`")]
    Wait {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It failed.
    #[error("`{call}` failed ({status}){}{tail}", if tail.is_empty() { "" } else { "; it said:\n" })]
    Failed {
        /// The program and its arguments.
        call: String,
        /// How it ended.
        status: ExitStatus,
        /// The last lines of its messages.
        tail: String,
    },
    /// It was ended, because somebody cancelled.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl Program {
    /// `name`, which Debian has in `package`. It speaks English and reads nothing.
    pub fn new(name: impl AsRef<OsStr>, package: &'static str) -> Self {
        let name = name.as_ref();
        let mut command = Command::new(find(name));
        command.env("LC_ALL", "C").stdin(Stdio::null());
        Self { command, name: name.to_string_lossy().into_owned(), package, cancel: Cancel::default() }
    }

    /// It is ended, with all that it started, when somebody cancels.
    pub fn until(mut self, cancel: &Cancel) -> Self {
        self.cancel = cancel.clone();
        self
    }

    /// One more argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// More arguments.
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets a variable of its environment.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Takes a variable out of its environment.
    pub fn without_env(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// The folder that it starts in.
    pub fn folder(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// Runs it to its end and returns what it wrote to stdout.
    ///
    /// Errors: [`ProgramError`] with the last lines of stderr.
    pub fn run(mut self) -> Result<Vec<u8>, ProgramError> {
        self.cancel.check()?;
        let child = self.start()?;
        let output = output(child, &self.cancel, &drained);
        let output = output.map_err(|source| ProgramError::Wait { name: self.name.clone(), source })?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        self.cancel.check()?;
        Err(ProgramError::Failed { call: self.call(), status: output.status, tail: tail(&output.stderr) })
    }

    /// Runs it to its end and gives every line that it writes to `say`, without what could move the terminal's cursor.
    ///
    /// Errors: [`ProgramError`] with the last lines of both its outputs.
    pub fn show(mut self, say: &(dyn Fn(&str) + Sync)) -> Result<(), ProgramError> {
        self.cancel.check()?;
        let child = self.start()?;
        let last = Mutex::new(VecDeque::new());
        let keep = |line: &str| {
            say(line);
            let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
            last.push_back(line.to_owned());
            if last.len() > TAIL_LINES {
                last.pop_front();
            }
        };
        let read = |pipe: Box<dyn Read + Send>| lines(pipe, &keep).map(|()| Vec::new());
        let ended = output(child, &self.cancel, &read);
        let ended = ended.map_err(|source| ProgramError::Wait { name: self.name.clone(), source })?;
        if ended.status.success() {
            return Ok(());
        }
        self.cancel.check()?;
        let last = last.into_inner().unwrap_or_else(PoisonError::into_inner);
        let tail = Vec::from(last).join("\n");
        Err(ProgramError::Failed { call: self.call(), status: ended.status, tail })
    }

    fn start(&mut self) -> Result<Child, ProgramError> {
        let started = self.command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).spawn();
        started.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ProgramError::Missing { name: self.name.clone(), package: self.package },
            _ => ProgramError::Start { name: self.name.clone(), source },
        })
    }

    fn call(&self) -> String {
        let words: Vec<_> = self.command.get_args().map(|word| word.to_string_lossy()).collect();
        format!("{} {}", self.name, words.join(" ")).trim_end().to_owned()
    }
}

/// Reads all of a pipe.
type Reader<'a> = &'a (dyn Fn(Box<dyn Read + Send>) -> io::Result<Vec<u8>> + Sync);

/// What `read` makes of the process's outputs, and how it ends, by itself or because somebody cancelled.
fn output(mut child: Child, cancel: &Cancel, read: Reader<'_>) -> io::Result<Output> {
    let group = Pid::from_child(&child);
    let out = child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>);
    let err = child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>);
    let (sender, ended) = mpsc::channel::<()>();
    let (stdout, stderr) = thread::scope(|scope| {
        let (for_stdout, for_stderr) = (sender.clone(), sender.clone());
        // Each holds its sender until the other end of its pipe is closed.
        let stdout = scope.spawn(move || (out.map_or(Ok(vec![]), read), for_stdout).0);
        let stderr = scope.spawn(move || (err.map_or(Ok(vec![]), read), for_stderr).0);
        scope.spawn(move || {
            // Not reaped here: as long as it is not, nobody else can get its number.
            let _seen_by_the_wait_below = waitid(WaitId::Pid(group), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
            drop(sender);
        });
        end_when_cancelled(group, &ended, cancel);
        let joined =
            |text: thread::ScopedJoinHandle<'_, io::Result<Vec<u8>>>| text.join().unwrap_or_else(|_| Ok(vec![]));
        (joined(stdout), joined(stderr))
    });
    Ok(Output { status: child.wait()?, stdout: stdout?, stderr: stderr? })
}

/// All of a pipe.
fn drained(mut pipe: Box<dyn Read + Send>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    pipe.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Gives every line of a pipe to `say`; of longer ones pieces of [`LINE_BYTES_MAX`].
fn lines(pipe: Box<dyn Read + Send>, say: &dyn Fn(&str)) -> io::Result<()> {
    let mut reader = BufReader::new(pipe);
    let mut line = Vec::new();
    while reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? > 0 {
        // A line that is written over again and again, such as a bar, counts as its last state.
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end().rsplit('\r').next().unwrap_or_default();
        if !text.is_empty() {
            say(&printable(text));
        }
        line.clear();
    }
    Ok(())
}

/// Returns when nobody holds the other end of `ended` any more. Sees to it when somebody cancels.
fn end_when_cancelled(group: Pid, ended: &Receiver<()>, cancel: &Cancel) {
    let mut told: Option<Instant> = None;
    while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(CANCEL_INTERVAL) {
        let signal = match told {
            _ if cancel.check().is_ok() => continue,
            None => Signal::TERM,
            Some(told) if told.elapsed() < GRACE => continue,
            Some(_) => Signal::KILL,
        };
        told.get_or_insert_with(Instant::now);
        // A group that is gone already is what was wanted.
        let _ = kill_process_group(group, signal);
    }
}

/// The program's path where `PATH` does not lead to it.
fn find(name: &OsStr) -> OsString {
    let found = if is_in_path(name) { None } else { in_system_folders(name) };
    found.map_or_else(|| name.into(), PathBuf::into_os_string)
}

fn is_in_path(name: &OsStr) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).any(|folder| folder.join(name).is_file())
}

fn in_system_folders(name: &OsStr) -> Option<PathBuf> {
    SYSTEM_FOLDERS.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.is_file())
}

/// The last lines, fit for a terminal.
fn tail(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<&str> = text.trim_end().lines().collect();
    let shown = lines.get(lines.len().saturating_sub(TAIL_LINES)..).unwrap_or_default().join("\n");
    printable(&shown)
}

/// `text` with what could move the terminal's cursor replaced.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// Whether a program of this name can be started.
pub(super) fn is_installed(name: &str) -> bool {
    is_in_path(OsStr::new(name)) || in_system_folders(OsStr::new(name)).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_names_the_package_that_has_it() {
        let error = Program::new("kiln-no-such-program", "kmod").run().unwrap_err();
        assert!(error.to_string().contains("apt-get install kmod"), "{error}");
    }

    #[test]
    fn a_failed_program_shows_its_last_words() {
        let script = "for n in $(seq 50); do printf 'line %s\\033[2J\\n' $n >&2; done; exit 3";
        let error = Program::new("sh", "dash").arg("-c").arg(script).run().unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("line 31\u{fffd}[2J\n"), "{error}");
        assert!(!error.contains("line 30\u{fffd}"), "{error}");
    }

    #[test]
    fn a_cancelled_program_ends_with_all_that_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        // The grandchild ignores the polite signal, holds our pipes open and the FIFO's writing end.
        let script = "(trap '' TERM; exec 3>pipe; echo up >&3; sleep 600) & wait";
        let cancel = Cancel::default();
        let call = Program::new("sh", "dash").args(["-c", script]).folder(folder.path()).until(&cancel);
        let run = thread::spawn(|| call.run());
        let mut reader = BufReader::new(std::fs::File::open(&pipe).unwrap());
        let mut line = String::new();
        BufRead::read_line(&mut reader, &mut line).unwrap();
        cancel.cancel();
        assert!(matches!(run.join().unwrap(), Err(ProgramError::Cancelled(_))));
        // Ends only when nobody holds it any more.
        assert_eq!(reader.read_to_end(&mut Vec::new()).unwrap(), 0);
    }

    #[test]
    fn a_shown_program_is_heard_line_by_line_and_its_last_words_are_kept() {
        let heard = Mutex::new(Vec::new());
        let say = |line: &str| heard.lock().unwrap().push(line.to_owned());
        let script = "printf '1%%\\r2%%\\n\\n'; for n in $(seq 30); do echo out$n; done; head -c 5000 /dev/zero | tr '\\0' x; exit 1";
        let error = Program::new("sh", "dash").args(["-c", script]).show(&say).unwrap_err().to_string();
        let heard = heard.into_inner().unwrap();
        assert_eq!((heard[0].as_str(), heard.len()), ("2%", 33), "{heard:?}");
        assert!(error.contains("out30\nxxx") && !error.contains("out12\n"), "{error}");
    }

    #[test]
    fn stdout_is_the_result() {
        assert_eq!(Program::new("sh", "dash").args(["-c", "echo $A"]).env("A", "7").run().unwrap(), b"7\n");
    }
}

//! A run that its user does not wait for: this very program, started once more, in a session of its own. The first
//! process waits until the machine runs; the second one says so, and only then lets go of the terminal, so that
//! everything that goes wrong before is told where the user is.

use std::{
    env,
    fs::File,
    io::{self, Read, Write},
    os::unix::process::CommandExt,
    process::{Command, ExitStatus, Stdio},
    sync::Mutex,
};

use rustix::{
    process::setsid,
    stdio::{dup2_stderr, dup2_stdout},
};

/// Longest name that the second process tells, in bytes.
const NAME_BYTES: u64 = 4096;

/// What became of the second process.
#[derive(Debug)]
pub enum Detached {
    /// It runs a machine of this name.
    Runs(String),
    /// It ended before there was one, and has told why.
    Ended(ExitStatus),
}

/// Starts this program once more with `flag` before the words that it was given, and waits until it calls
/// [`let_go`] or ends.
///
/// # Errors
/// The host's: there are no more processes.
pub fn start_again(flag: &str) -> io::Result<Detached> {
    let mut words = env::args_os();
    let mut start = Command::new("/proc/self/exe");
    if let Some(name) = words.next() {
        start.arg0(name);
    }
    let mut child = start.arg(flag).args(words).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut name = String::new();
    if let Some(told) = child.stdout.take() {
        told.take(NAME_BYTES).read_to_string(&mut name)?;
    }
    match name.trim_end() {
        "" => Ok(Detached::Ended(child.wait()?)),
        name => Ok(Detached::Runs(name.to_owned())),
    }
}

/// The second process, until its machine runs.
#[derive(Debug)]
pub struct Terminal {
    errors: Mutex<Option<(File, File)>>,
}

impl Terminal {
    /// From [`Self::let_go`] on this process's own errors go to `errors`.
    ///
    /// # Errors
    /// The host's.
    pub fn hold(errors: File) -> io::Result<Self> {
        let nowhere = File::options().write(true).open("/dev/null")?;
        Ok(Self { errors: Mutex::new(Some((errors, nowhere))) })
    }

    /// The machine runs: leaves the session and the terminal, and tells the first process its name.
    pub fn let_go(&self, name: &str) {
        let held = self.errors.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let Some((errors, nowhere)) = held else { return };
        // It is nobody's leader, so it can; and whoever waits need not know if it could not.
        let _session = setsid();
        let _errors = dup2_stderr(&errors);
        // Nobody waits any more, or he reads it.
        let _told = writeln!(io::stdout(), "{name}").and_then(|()| io::stdout().flush());
        let _output = dup2_stdout(&nowhere);
    }
}

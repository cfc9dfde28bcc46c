//! A small child process that outlives this one by a moment: it holds the terminal and the reading end of a pipe. When
//! the pipe ends without a farewell, its parent died without tidying up, and the child restores the terminal.
//!
//! The child is this very program, started with a word of its own: see [`watch_if_asked`].

use std::{
    env,
    ffi::OsStr,
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::process::CommandExt,
    },
    process::{Child, ChildStdin, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::{
    process::setsid,
    termios::{OptionalActions, tcgetattr, tcsetattr},
};

use super::modes::is_raw;

/// The word that turns this program into the watching child.
const WORD: &str = "__watch-terminal";
/// Sent by a parent that has restored the terminal itself.
const FAREWELL: u8 = b'.';

/// The program's `main` calls [`watch_if_asked`]. Another one (a test, say) would run itself once more.
static AVAILABLE: AtomicBool = AtomicBool::new(false);

/// Call this first in `main`, before any thread and before arguments are read. If this process was started to watch a
/// terminal it does that, and true is returned when it is done: `main` returns at once then.
#[must_use]
pub fn watch_if_asked() -> bool {
    if env::args_os().nth(1).as_deref() == Some(OsStr::new(WORD)) {
        // Nobody is left who could be told of an error.
        let _ = watch();
        return true;
    }
    AVAILABLE.store(true, Ordering::SeqCst);
    false
}

/// The watching child, seen from its parent.
#[derive(Debug)]
pub(super) struct Watch {
    child: Child,
    pipe: Option<ChildStdin>,
}

impl Watch {
    /// Starts the child and waits until it knows the terminal's modes. `None` if the program does not offer itself.
    pub fn start(terminal: BorrowedFd<'_>) -> io::Result<Option<Self>> {
        if !AVAILABLE.load(Ordering::SeqCst) {
            return Ok(None);
        }
        let mut child = Command::new("/proc/self/exe")
            .arg0("kiln-terminal")
            .arg(WORD)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(terminal.try_clone_to_owned()?)
            .stderr(Stdio::piped())
            .spawn()?;
        let pipe = child.stdin.take();
        let ready = child.stderr.take().map_or(Ok(0), |mut ready| ready.read(&mut [0]));
        let watch = Self { child, pipe };
        match ready {
            Ok(1) => Ok(Some(watch)),
            _ => {
                watch.dismiss();
                Ok(None)
            }
        }
    }

    /// The terminal is as it was: the child ends, and leaves it alone.
    pub fn dismiss(mut self) {
        if let Some(mut pipe) = self.pipe.take() {
            // Fails if the child is gone already.
            let _ = pipe.write_all(&[FAREWELL]);
        }
        let _ = self.child.wait();
    }
}

/// The child: terminal on standard output, pipe on standard input.
fn watch() -> io::Result<()> {
    // Out of the parent's process group and session: what ends those must not end the watch.
    setsid()?;
    let terminal = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let modes = tcgetattr(&terminal)?;
    io::stderr().write_all(&[FAREWELL])?;
    let mut farewell = [0];
    let len = io::stdin().read(&mut farewell)?;
    // A shell that has already set its own modes keeps them.
    if len == 0 && is_raw(&tcgetattr(&terminal)?, &modes) {
        tcsetattr(&terminal, OptionalActions::Now, &modes)?;
    }
    Ok(())
}

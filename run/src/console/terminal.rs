//! A terminal in raw mode, and its way back.
//!
//! The modes are restored when the [`RawTerminal`] is dropped, when the program panics, and by a watching child process
//! when the program ends in any other way: an unhandled signal, an abort, `kill -9`.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    panic,
    sync::{Mutex, Once, PoisonError},
};

use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

use super::modes::raw;
use super::watch::Watch;

/// The terminal that is raw now, for the panic hook: there is one terminal and one guard at a time.
static SAVED: Mutex<Option<Saved>> = Mutex::new(None);

#[derive(Debug)]
struct Saved {
    terminal: OwnedFd,
    modes: Termios,
}

/// Keeps a terminal raw: every key goes to the guest as it is, Ctrl-C too. Output modes stay, so that messages of our own
/// still begin at the left.
#[derive(Debug)]
pub struct RawTerminal {
    watch: Option<Watch>,
}

impl RawTerminal {
    /// Makes `terminal` raw; `None` if it is no terminal. Fails with `ResourceBusy` while another terminal is raw.
    pub fn enter(terminal: BorrowedFd<'_>) -> io::Result<Option<Self>> {
        if !isatty(terminal) {
            return Ok(None);
        }
        let modes = tcgetattr(terminal)?;
        let raw = raw(&modes);
        {
            let mut saved = SAVED.lock().unwrap_or_else(PoisonError::into_inner);
            if saved.is_some() {
                return Err(io::ErrorKind::ResourceBusy.into());
            }
            *saved = Some(Saved { terminal: terminal.try_clone_to_owned()?, modes });
        }
        restore_on_panic();
        // From here on the guard's drop cleans up. Without a watch the other ways back remain.
        let guard = Self { watch: Watch::start(terminal).unwrap_or(None) };
        tcsetattr(terminal, OptionalActions::Now, &raw)?;
        Ok(Some(guard))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        restore(SAVED.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(watch) = self.watch.take() {
            watch.dismiss();
        }
    }
}

fn restore(saved: Option<Saved>) {
    if let Some(Saved { terminal, modes }) = saved {
        // Fails only if the terminal is gone.
        let _ = tcsetattr(terminal.as_fd(), OptionalActions::Now, &modes);
    }
}

/// The message of a panic is readable, and the shell after it usable.
fn restore_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            // Whoever holds the lock is restoring it, or is not raw yet.
            restore(SAVED.try_lock().ok().and_then(|mut saved| saved.take()));
            before(info);
        }));
    });
}

/// Columns and rows of a terminal. One that knows no size says zeros; so does one that is gone.
#[must_use]
pub fn size_of_terminal(terminal: impl AsFd) -> Option<(u16, u16)> {
    let terminal = terminal.as_fd();
    isatty(terminal).then(|| tcgetwinsize(terminal).map_or((0, 0), |size| (size.ws_col, size.ws_row)))
}

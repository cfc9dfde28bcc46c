//! How a command fails: the error with its causes, what the user can do about it, and the exit status.

use std::error::Error;

use kiln_build::cancel::Cancel;

/// Exit status of work that failed.
pub const FAILED: u8 = 1;
/// Exit status of wrong usage.
pub const USAGE: u8 = 2;
/// Exit status of a build that SIGINT ended: what shells report of a program that such a signal ended.
pub const INTERRUPTED: u8 = 130;

/// Any error of any room.
pub type AnyError = Box<dyn Error + Send + Sync>;

/// Why a command did not do its work.
#[derive(Debug)]
pub struct Failure {
    /// What went wrong; its sources are the causes.
    pub error: AnyError,
    /// What the user can do, one line each.
    pub hints: Vec<String>,
    /// Exit status of the program.
    pub status: u8,
    /// Its user has been told already, by another process.
    pub is_told: bool,
}

impl Failure {
    /// Work that failed; of work that was cancelled only that is told, whatever it made fail.
    pub fn unless_interrupted(error: impl Into<AnyError>, cancel: &Cancel) -> Self {
        match cancel.check() {
            Ok(()) => Self::new(error),
            Err(cancelled) => Self { status: INTERRUPTED, ..Self::new(cancelled) },
        }
    }

    /// Work that failed.
    pub fn new(error: impl Into<AnyError>) -> Self {
        Self { error: error.into(), hints: Vec::new(), status: FAILED, is_told: false }
    }

    /// What another process, that has told why, ended with.
    pub fn told(status: u8) -> Self {
        Self { status, is_told: true, ..Self::new("told already") }
    }

    /// A command line that cannot be meant.
    pub fn usage(error: impl Into<AnyError>) -> Self {
        Self { status: USAGE, ..Self::new(error) }
    }

    /// Adds what the user can do.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Adds all of what the user can do.
    pub fn hints(mut self, hints: impl IntoIterator<Item = String>) -> Self {
        self.hints.extend(hints);
        self
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(error)
    }
}

//! Ties a program's life to its parent's. `SIGKILL` gives a process no chance to stop what it started; the kernel does,
//! when the started one has asked for it (`PR_SET_PDEATHSIG`) before it became the program.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

/// First argument of a program that calls [`exec_tied`] with the arguments that follow: the parent's process id, then
/// the program and its arguments.
pub const TIED_COMMAND: &str = "__tied";

/// Why a program could not be tied and started.
#[derive(Debug, thiserror::Error)]
pub enum TiedError {
    /// The parent was gone before this process could ask to die with it.
    #[error("the parent, process {0}, is gone")]
    Orphaned(i32),
    /// The kernel refused.
    #[error("cannot ask to die with the parent")]
    Ask(#[source] io::Error),
    /// No program was named.
    #[error("no program to start")]
    NoProgram,
    /// The program does not start.
    #[error("cannot start `{}`", program.to_string_lossy())]
    Exec {
        /// The program.
        program: OsString,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Turns this process into `words`, to be killed when the thread of `parent` that started it ends. Returns only when that
/// fails.
pub fn exec_tied(parent: i32, words: &[OsString]) -> TiedError {
    let Some((program, arguments)) = words.split_first() else { return TiedError::NoProgram };
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return TiedError::Ask(error.into());
    }
    // Asked too late if the parent died before: then this process has another parent now.
    if getppid().map(Pid::as_raw_pid) != Some(parent) {
        return TiedError::Orphaned(parent);
    }
    let source = Command::new(program).args(arguments).exec();
    TiedError::Exec { program: program.clone(), source }
}

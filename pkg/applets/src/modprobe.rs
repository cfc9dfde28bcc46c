//! `modprobe [-a] NAME…`: loads modules with all that they need, from `/lib/modules`.

use kiln_guest::modules::{LoadError, modprobe};

use crate::{Failure, Voice};

/// What it takes.
pub const USAGE: &str = "[-a] [-q] NAME [PARAMETER=VALUE…]";

/// Some modules are not there.
#[derive(Debug, thiserror::Error)]
#[error("{0} of the modules are not loaded")]
struct ModprobeError(usize);

/// Runs the program.
///
/// # Errors
/// depmod's files cannot be read, or a module is not loaded.
pub fn run(arguments: &[String], say: Voice<'_>) -> Result<(), Failure> {
    let asked = modprobe::Asked::read(arguments);
    let failures: Vec<LoadError> = match asked.load() {
        Ok(failures) => failures,
        Err(error) => return Err(Failure::of(error)),
    };
    if failures.is_empty() {
        return Ok(());
    }
    for failure in failures.iter().filter(|_| !asked.is_quiet()) {
        say(&crate::chain(failure));
    }
    Err(Failure::of(ModprobeError(failures.len())))
}

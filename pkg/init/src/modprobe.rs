//! The program `modprobe`, as the kernel calls it.

use std::process::ExitCode;

use kiln_guest::modules::modprobe::Asked;

use crate::{chain, fail};

/// Loads what the arguments name.
pub fn main(arguments: impl Iterator<Item = String>) -> ExitCode {
    let asked = Asked::read(&arguments.collect::<Vec<_>>());
    let problem = match asked.load() {
        Ok(failures) => failures.first().map(|failure| chain(failure)),
        Err(error) => Some(chain(&error)),
    };
    match problem {
        None => ExitCode::SUCCESS,
        Some(_) if asked.is_quiet() => ExitCode::FAILURE,
        Some(problem) => fail(&problem),
    }
}

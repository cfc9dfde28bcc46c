//! The program `modprobe`, as the kernel calls it: `modprobe -q -- NAME`.

use std::process::ExitCode;

use crate::cmdline::Cmdline;
use crate::modules::Loader;
use crate::{chain, fail};

/// Loads what the arguments name; options are passed over.
pub fn main(arguments: impl Iterator<Item = String>) -> ExitCode {
    let (options, names): (Vec<String>, Vec<String>) = arguments.partition(|word| word.starts_with('-'));
    let quiet = options.iter().any(|option| !option.starts_with("--") && option.contains('q'));
    let cmdline = Cmdline::of_kernel();
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let problem = match Loader::new(&release, &cmdline).load(&names) {
        Ok((_, failures)) => failures.first().map(|failure| chain(failure)),
        Err(error) => Some(chain(&error)),
    };
    match problem {
        None => ExitCode::SUCCESS,
        Some(_) if quiet => ExitCode::FAILURE,
        Some(problem) => fail(&problem),
    }
}

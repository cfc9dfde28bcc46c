//! The small programs of the classic sections of a machine's YAML. Each is a module with a function `run`, which is given
//! its arguments and a voice; none ends the process or keeps anything between two runs, and only `logread`, which is there to
//! show something, prints.

use std::error::Error;

pub mod acpid;
pub mod arguments;
pub mod disk;
pub mod extend;
pub mod format;
pub mod kmsg;
pub mod logread;
pub mod logwrite;
pub mod memlogd;
pub mod metadata;
pub mod modprobe;
pub mod mount;
pub mod rngd;
pub mod swap;
pub mod sysctl;
pub mod timesync;

/// What a program says while it runs: whole lines, for standard error.
pub type Voice<'v> = &'v mut dyn FnMut(&str);

/// Why a program ends with a status that is not zero.
#[derive(Debug)]
pub enum Failure {
    /// It was called wrongly (status 2).
    Use(arguments::WrongUse),
    /// It could not do what it was asked for (status 1).
    Failed(Box<dyn Error>),
}

impl From<arguments::WrongUse> for Failure {
    fn from(wrong: arguments::WrongUse) -> Self {
        Self::Use(wrong)
    }
}

impl Failure {
    fn of(error: impl Error + 'static) -> Self {
        Self::Failed(Box::new(error))
    }
}

/// One of the programs.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// What it is called, its own name first; the others are LinuxKit's.
    pub names: &'static [&'static str],
    /// Its arguments, for who calls it wrongly.
    pub usage: &'static str,
    /// The program.
    pub run: fn(&[String], Voice<'_>) -> Result<(), Failure>,
}

/// All of them.
pub const PROGRAMS: &[Program] = &[
    Program { names: &["acpid"], usage: "", run: acpid::run },
    Program { names: &["extend"], usage: extend::USAGE, run: extend::run },
    Program { names: &["format"], usage: format::USAGE, run: format::run },
    Program { names: &["kmsg"], usage: "", run: kmsg::run },
    Program { names: &["logwrite"], usage: logwrite::USAGE, run: logwrite::run },
    Program { names: &["logread"], usage: logread::USAGE, run: logread::run },
    Program { names: &["memlogd"], usage: memlogd::USAGE, run: memlogd::run },
    Program { names: &["002-logging"], usage: memlogd::USAGE, run: memlogd::run_in_background },
    Program { names: &["metadata"], usage: metadata::USAGE, run: metadata::run },
    Program { names: &["modprobe"], usage: modprobe::USAGE, run: modprobe::run },
    Program { names: &["mount", "mountie", "mount.sh"], usage: mount::USAGE, run: mount::run },
    Program { names: &["rngd"], usage: "[-1]", run: rngd::run },
    Program { names: &["swap", "swap.sh"], usage: swap::USAGE, run: swap::run },
    Program { names: &["sysctl"], usage: "[FILE…]", run: sysctl::run },
    Program { names: &["sysfs"], usage: "[FILE…]", run: sysctl::run_for_sysfs },
    Program { names: &["timesync", "host-timesync-daemon"], usage: timesync::USAGE, run: timesync::run },
];

/// An error with all its causes in one line.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_programs_have_the_same_name() {
        let names: Vec<&str> = PROGRAMS.iter().flat_map(|program| program.names).copied().collect();
        let different: BTreeSet<&str> = names.iter().copied().collect();
        assert_eq!(names.len(), different.len(), "{names:?}");
    }
}

//! What of the kernel's command line is meant for PID 1.

pub use kiln_guest::cmdline::Cmdline;

/// How much PID 1 says of itself. What containers print is not touched by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Failures only (`quiet`).
    Quiet,
    /// One line a container.
    Normal,
    /// Also mounts, modules, workers (`kiln.verbose`).
    Verbose,
}

impl Verbosity {
    /// What `quiet` and `kiln.verbose` ask for; the latter wins.
    pub fn of(cmdline: &Cmdline) -> Self {
        if cmdline.has("kiln.verbose") {
            Self::Verbose
        } else if cmdline.has("quiet") {
            Self::Quiet
        } else {
            Self::Normal
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_that_says_more_wins() {
        for (text, verbosity) in
            [("quietly", Verbosity::Normal), ("x quiet", Verbosity::Quiet), ("kiln.verbose quiet", Verbosity::Verbose)]
        {
            assert_eq!(Verbosity::of(&Cmdline::parse(text)), verbosity, "{text}");
        }
    }
}

//! A tree to bytes. Pure: the same tree gives the same bytes, whatever the clock, the folder or the number of cores.

use std::fmt;
use std::str::FromStr;

/// What a build can write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// The whole root as one tar: `NAME.tar`, or a stream.
    Tar,
    /// `NAME-kernel`, `NAME-initrd.img` and `NAME-cmdline`, for a boot loader or `kiln run`.
    KernelInitrd,
}

/// No format has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no output format is called `{name}`; there are {}", Format::names())]
pub struct UnknownFormat {
    /// As the user wrote it.
    pub name: String,
}

impl Format {
    /// All of them, in the order of the help.
    pub const ALL: [Self; 2] = [Self::KernelInitrd, Self::Tar];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tar => "tar",
            Self::KernelInitrd => "kernel+initrd",
        }
    }

    /// Whether it is one file, so that it can go to standard output.
    pub fn is_stream(self) -> bool {
        matches!(self, Self::Tar)
    }

    fn names() -> String {
        Self::ALL.map(|format| format!("`{format}`")).join(", ")
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<Self, UnknownFormat> {
        let found = Self::ALL.into_iter().find(|format| format.name() == name);
        found.ok_or_else(|| UnknownFormat { name: name.into() })
    }
}

//! Whose result a build gives where LinuxKit's is a defect or an accident that somebody may depend on. The list is
//! docs/compatibility.md.

use std::str::FromStr;

/// Whose result is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compat {
    /// The right one.
    #[default]
    Right,
    /// LinuxKit's, except where it is dangerous.
    Linuxkit,
}

/// No program of this name is imitated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is nothing to be compatible with; there is `linuxkit`")]
pub struct UnknownCompat(String);

impl Compat {
    /// Whether LinuxKit's result is wanted.
    pub fn is_linuxkit(self) -> bool {
        self == Self::Linuxkit
    }
}

impl FromStr for Compat {
    type Err = UnknownCompat;

    fn from_str(name: &str) -> Result<Self, UnknownCompat> {
        match name {
            "linuxkit" => Ok(Self::Linuxkit),
            other => Err(UnknownCompat(other.into())),
        }
    }
}

//! What the console can be, as it is written.

use std::{path::PathBuf, str::FromStr};

/// Where a machine's console is. Whatever it is, others may look on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ConsoleEnd {
    /// Standard input and output of this process.
    #[default]
    Stdio,
    /// A pseudoterminal of its own.
    Pty,
    /// A file that output is added to; there is no input.
    File(PathBuf),
    /// A socket; one client at a time.
    Unix(PathBuf),
    /// Nothing.
    None,
}

/// A word that is none of these.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no console; there are stdio, pty, file:PATH, unix:PATH and none")]
pub struct NoConsoleEnd(String);

impl FromStr for ConsoleEnd {
    type Err = NoConsoleEnd;

    fn from_str(text: &str) -> Result<Self, NoConsoleEnd> {
        match (text, text.split_once(':')) {
            ("stdio", _) => Ok(Self::Stdio),
            ("pty", _) => Ok(Self::Pty),
            ("none", _) => Ok(Self::None),
            (_, Some(("file", path))) if !path.is_empty() => Ok(Self::File(path.into())),
            (_, Some(("unix", path))) if !path.is_empty() => Ok(Self::Unix(path.into())),
            _ => Err(NoConsoleEnd(text.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_console_is_refused_by_name() {
        for text in ["", "tty", "file", "file:", "unix:", "none:x", "pty:1", "Stdio"] {
            let error = text.parse::<ConsoleEnd>().unwrap_err();
            assert!(error.to_string().starts_with(&format!("`{text}` is no console")), "{error}");
        }
    }

    #[test]
    fn a_path_may_hold_anything() {
        assert_eq!("file:a:b".parse(), Ok(ConsoleEnd::File("a:b".into())));
        assert_eq!("unix:./c.sock".parse(), Ok(ConsoleEnd::Unix("./c.sock".into())));
        assert_eq!("stdio".parse(), Ok(ConsoleEnd::default()));
    }
}

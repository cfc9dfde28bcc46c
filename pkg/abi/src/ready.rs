//! How to find out that a service is ready.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::{parse_duration, write_duration};

/// A readiness check, repeated until it succeeds once. All that it names is meant as the container sees it: its network,
/// its files.
///
/// As JSON: one of `exec`, `tcp`, `unix` and `file`, and if they differ from the default `interval` and `timeout`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Fields", into = "Fields")]
pub struct Ready {
    /// What is tried.
    pub check: ReadyCheck,
    /// Time from the end of one try to the begin of the next. At most [`Ready::LIMIT`].
    pub interval: Duration,
    /// Time from the start of the service after which nobody waits for it any longer. At most [`Ready::LIMIT`].
    pub timeout: Duration,
}

/// What is tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadyCheck {
    /// This program, started in the container, exits with 0. Never empty.
    Exec(Vec<String>),
    /// Somebody accepts a TCP connection.
    Tcp(SocketAddr),
    /// Somebody accepts a connection on the Unix socket of this absolute path.
    Unix(String),
    /// This absolute path exists.
    File(String),
}

impl Ready {
    /// The interval when nothing is said.
    pub const INTERVAL_DEFAULT: Duration = Duration::from_millis(500);
    /// The time when nothing is said.
    pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
    /// The shortest interval.
    pub const INTERVAL_FLOOR: Duration = Duration::from_millis(10);
    /// The longest interval and time.
    pub const LIMIT: Duration = Duration::from_secs(3600);
}

/// Why fields are no readiness check.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ReadyError {
    /// None or several ways to check.
    #[error("give exactly one of `exec`, `tcp`, `unix` and `file`")]
    NotOne,
    /// No command.
    #[error("`exec` is empty; write the program and its arguments as a list")]
    NoCommand,
    /// No address.
    #[error("`{0}` is no address; write `127.0.0.1:80` or `[::1]:80`")]
    Address(String),
    /// No absolute path.
    #[error("`{0}` is no absolute path")]
    Path(String),
    /// No time.
    #[error("`{0}` is no time; write up to one hour such as `500ms`, `10s` or `2m`")]
    Time(String),
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Fields {
    #[serde(skip_serializing_if = "Option::is_none")]
    exec: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unix: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interval: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<String>,
}

impl ReadyCheck {
    /// A program with its arguments.
    ///
    /// # Errors
    /// [`ReadyError::NoCommand`].
    pub fn exec(command: Vec<String>) -> Result<Self, ReadyError> {
        let named = command.first().is_some_and(|program| !program.is_empty());
        if named { Ok(Self::Exec(command)) } else { Err(ReadyError::NoCommand) }
    }

    /// An address, `127.0.0.1:80` or `[::1]:80`.
    ///
    /// # Errors
    /// [`ReadyError::Address`].
    pub fn tcp(text: &str) -> Result<Self, ReadyError> {
        text.parse().map(Self::Tcp).map_err(|_error| ReadyError::Address(text.into()))
    }

    /// A Unix socket's absolute path.
    ///
    /// # Errors
    /// [`ReadyError::Path`].
    pub fn unix(path: String) -> Result<Self, ReadyError> {
        absolute(path).map(Self::Unix)
    }

    /// An absolute path.
    ///
    /// # Errors
    /// [`ReadyError::Path`].
    pub fn file(path: String) -> Result<Self, ReadyError> {
        absolute(path).map(Self::File)
    }
}

fn absolute(path: String) -> Result<String, ReadyError> {
    if path.starts_with('/') && !path.contains('\0') { Ok(path) } else { Err(ReadyError::Path(path)) }
}

impl TryFrom<Fields> for Ready {
    type Error = ReadyError;

    fn try_from(fields: Fields) -> Result<Self, ReadyError> {
        let Fields { exec, tcp, unix, file, interval, timeout } = fields;
        let check = match (exec, tcp, unix, file) {
            (Some(command), None, None, None) => ReadyCheck::exec(command)?,
            (None, Some(address), None, None) => ReadyCheck::tcp(&address)?,
            (None, None, Some(path), None) => ReadyCheck::unix(path)?,
            (None, None, None, Some(path)) => ReadyCheck::file(path)?,
            _ => return Err(ReadyError::NotOne),
        };
        let time = |word: Option<String>, usual: Duration, floor: Duration| {
            let Some(word) = word else { return Ok(usual) };
            let time = parse_duration(&word).filter(|time| (floor..=Self::LIMIT).contains(time));
            time.ok_or(ReadyError::Time(word))
        };
        let interval = time(interval, Self::INTERVAL_DEFAULT, Self::INTERVAL_FLOOR)?;
        let timeout = time(timeout, Self::TIMEOUT_DEFAULT, Duration::ZERO)?;
        Ok(Self { check, interval, timeout })
    }
}

impl From<Ready> for Fields {
    fn from(ready: Ready) -> Self {
        let mut fields = Self::default();
        match ready.check {
            ReadyCheck::Exec(command) => fields.exec = Some(command),
            ReadyCheck::Tcp(address) => fields.tcp = Some(address.to_string()),
            ReadyCheck::Unix(path) => fields.unix = Some(path),
            ReadyCheck::File(path) => fields.file = Some(path),
        }
        let other = |time: Duration, usual: Duration| (time != usual).then(|| write_duration(time));
        fields.interval = other(ready.interval, Ready::INTERVAL_DEFAULT);
        fields.timeout = other(ready.timeout, Ready::TIMEOUT_DEFAULT);
        fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_one_thing_with_sound_times() {
        for (text, expected) in [
            ("{}", "exactly one"),
            (r#"{"file":"/a","unix":"/b"}"#, "exactly one"),
            (r#"{"exec":[]}"#, "`exec` is empty"),
            (r#"{"exec":[""]}"#, "`exec` is empty"),
            (r#"{"tcp":"localhost:80"}"#, "no address"),
            (r#"{"unix":"run/x"}"#, "no absolute path"),
            (r#"{"file":"/a","interval":"1ms"}"#, "no time"),
            (r#"{"file":"/a","timeout":"2h"}"#, "no time"),
            (r#"{"http":"/"}"#, "unknown field"),
        ] {
            let error = serde_json::from_str::<Ready>(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_check_is_written_as_it_is_read() {
        for text in [
            r#"{"exec":["/bin/check","now"]}"#,
            r#"{"tcp":"[::1]:80","interval":"50ms"}"#,
            r#"{"unix":"/run/x.sock","timeout":"5s"}"#,
            r#"{"file":"/run/x"}"#,
        ] {
            let ready: Ready = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&ready).unwrap(), text);
        }
    }
}

//! The command line: LinuxKit's words.

use std::net::SocketAddr;
use std::path::PathBuf;

/// What is printed for wrong words.
pub const USAGE: &str =
    "usage: vsudd [-inport PORT:unix:PATH] [-inport PORT:tcp:ADDRESS:PORT] [-outport PORT:unix:PATH] ...";

/// A socket in this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A path.
    Unix(PathBuf),
    /// An address and a port.
    Tcp(SocketAddr),
}

/// Who connects to one side reaches the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forward {
    /// From a vsock port of this machine to a socket.
    In(u32, Place),
    /// From a socket to a vsock port of the host.
    Out(u32, Place),
}

/// What is wrong with the words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentError {
    /// A word that means nothing.
    #[error("`{0}` is unknown; known are `-inport`, `-outport` and `-syslog`")]
    Unknown(String),
    /// Nothing behind the last one.
    #[error("`{0}` needs `PORT:unix:PATH` or `PORT:tcp:ADDRESS:PORT`")]
    Missing(String),
    /// Something else behind it.
    #[error("`{0}` is no forward: give `PORT:unix:PATH` or `PORT:tcp:ADDRESS:PORT`")]
    Forward(String),
    /// Nothing to do.
    #[error("nothing to forward")]
    Nothing,
}

/// Reads the words behind the program's name. One dash or two, and `=` or the next word, mean the same.
///
/// # Errors
/// The first word that cannot be.
pub fn read(words: impl IntoIterator<Item = String>) -> Result<Vec<Forward>, ArgumentError> {
    let mut words = words.into_iter();
    let mut forwards = Vec::new();
    while let Some(word) = words.next() {
        let plain = word.strip_prefix("--").or_else(|| word.strip_prefix('-')).unwrap_or_default();
        let (name, value) = match plain.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (plain, None),
        };
        let make = match name {
            "inport" => Forward::In,
            "outport" => Forward::Out,
            "syslog" => continue,
            _ => return Err(ArgumentError::Unknown(word)),
        };
        let value = value.or_else(|| words.next()).ok_or_else(|| ArgumentError::Missing(word.clone()))?;
        let (port, place) = parse(&value).ok_or(ArgumentError::Forward(value))?;
        forwards.push(make(port, place));
    }
    if forwards.is_empty() { Err(ArgumentError::Nothing) } else { Ok(forwards) }
}

fn parse(value: &str) -> Option<(u32, Place)> {
    let (port, place) = value.split_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0 && *port != u32::MAX)?;
    let place = match place.split_once(':')? {
        ("unix", path) if !path.is_empty() => Place::Unix(path.into()),
        ("tcp", address) => Place::Tcp(address.parse().ok()?),
        _ => return None,
    };
    Some((port, place))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_words(words: &str) -> Result<Vec<Forward>, ArgumentError> {
        read(words.split_whitespace().map(Into::into))
    }

    #[test]
    fn words_that_mean_nothing_are_refused() {
        assert_eq!(read_words(""), Err(ArgumentError::Nothing));
        assert_eq!(read_words("-syslog"), Err(ArgumentError::Nothing));
        assert_eq!(read_words("-inport"), Err(ArgumentError::Missing("-inport".into())));
        for word in ["-port", "inport", "-", "--"] {
            assert_eq!(read_words(word), Err(ArgumentError::Unknown(word.into())));
        }
        for value in ["1", "1:unix", "1:unix:", "0:unix:/a", "x:unix:/a", "4294967295:unix:/a", "1:udp:/a", "1:tcp:a:1"]
        {
            assert_eq!(read_words(&format!("-inport {value}")), Err(ArgumentError::Forward(value.into())));
        }
    }

    #[test]
    fn each_forward_is_understood() {
        let unix = |path: &str| Place::Unix(path.into());
        assert_eq!(
            read_words("-syslog -inport 2374:unix:/run/a:b -inport=7:tcp:[::1]:80 --outport 9:unix:/run/c"),
            Ok(vec![
                Forward::In(2374, unix("/run/a:b")),
                Forward::In(7, Place::Tcp("[::1]:80".parse().unwrap())),
                Forward::Out(9, unix("/run/c")),
            ])
        );
    }
}

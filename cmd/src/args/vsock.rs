//! `-vsock-ports 2374,5000/seqpacket` and `-vsock-cid 3`.

use clap::Args;
use kiln_run::config;
use kiln_run::config::{VsockKind, VsockPort};

/// What is said of sockets between host and guest.
#[derive(Debug, Clone, Args)]
pub struct Vsock {
    /// Ports of the guest's that are reached through a socket in the state folder: 2374 through guest.00000946. With
    /// /seqpacket the socket is one of messages. Repeatable
    #[arg(long, value_name = "PORT[/seqpacket],...", value_delimiter = ',', value_parser = port)]
    pub vsock_ports: Vec<VsockPort>,
    /// The guest's number among vsock addresses, from 3 on
    #[arg(long, value_name = "N", default_value_t = config::DEFAULT_CID, value_parser = cid)]
    pub vsock_cid: u32,
}

impl Default for Vsock {
    fn default() -> Self {
        Self { vsock_ports: Vec::new(), vsock_cid: config::DEFAULT_CID }
    }
}

impl Vsock {
    /// The device that is meant.
    ///
    /// # Errors
    /// A port that stands there twice.
    pub fn machine(&self) -> Result<config::Vsock, VsockWordError> {
        for (at, VsockPort { port, .. }) in self.vsock_ports.iter().enumerate() {
            if self.vsock_ports.iter().take(at).any(|earlier| earlier.port == *port) {
                return Err(VsockWordError::Twice(*port));
            }
        }
        Ok(config::Vsock { cid: self.vsock_cid, to_guest: self.vsock_ports.clone(), to_host: Vec::new() })
    }
}

/// What is wrong with a port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VsockWordError {
    /// It is no number.
    #[error("`{0}` is no vsock port: give a number from 1 to {max}, or several: `2374,2376`", max = u32::MAX - 1)]
    Port(String),
    /// What follows it means nothing.
    #[error("`{0}` is unknown behind a vsock port; `2374` is one of bytes, `2374/seqpacket` one of messages")]
    Kind(String),
    /// It has a socket already.
    #[error("vsock port `{0}` stands twice in `-vsock-ports`")]
    Twice(u32),
    /// It is no number of a guest's.
    #[error("`{0}` is no number of a guest: give one from 3 to {max}", max = u32::MAX - 1)]
    Cid(String),
}

fn port(word: &str) -> Result<VsockPort, VsockWordError> {
    let (number, kind) = match word.split_once('/') {
        None => (word, VsockKind::Stream),
        Some((number, "stream")) => (number, VsockKind::Stream),
        Some((number, "seqpacket")) => (number, VsockKind::SeqPacket),
        Some((_, kind)) => return Err(VsockWordError::Kind(kind.into())),
    };
    let port = decimal(number).filter(|port| *port != 0).ok_or_else(|| VsockWordError::Port(number.into()))?;
    Ok(VsockPort { port, kind, path: None })
}

fn cid(word: &str) -> Result<u32, VsockWordError> {
    decimal(word).filter(|cid| *cid >= config::DEFAULT_CID).ok_or_else(|| VsockWordError::Cid(word.into()))
}

/// A number below the largest one, which means any.
fn decimal(word: &str) -> Option<u32> {
    let is_number = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    word.parse().ok().filter(|number| is_number && *number != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_port_is_refused_by_its_word() {
        for word in ["", "0", "-1", "+1", "x", "4294967295", "4294967296", "0x946", " 1"] {
            assert_eq!(port(word), Err(VsockWordError::Port(word.into())), "{word}");
        }
        assert_eq!(port("1/tcp"), Err(VsockWordError::Kind("tcp".into())));
        let twice = Vsock { vsock_ports: vec![port("7").unwrap(), port("7/seqpacket").unwrap()], ..Vsock::default() };
        assert_eq!(twice.machine(), Err(VsockWordError::Twice(7)));
        for word in ["", "2", "4294967295", "host"] {
            assert_eq!(cid(word), Err(VsockWordError::Cid(word.into())), "{word}");
        }
    }

    #[test]
    fn a_port_carries_bytes_unless_messages_are_asked_for() {
        let kind = |word: &str| port(word).map(|port| (port.port, port.kind));
        assert_eq!(kind("2374"), Ok((2374, VsockKind::Stream)));
        assert_eq!(kind("4294967294/stream"), Ok((u32::MAX - 1, VsockKind::Stream)));
        assert_eq!(kind("1/seqpacket"), Ok((1, VsockKind::SeqPacket)));
    }
}

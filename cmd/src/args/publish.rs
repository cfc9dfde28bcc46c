//! `-publish [IP:]HOST:GUEST[/tcp|udp][,proxy]`, as Podman and LinuxKit write it.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

use kiln_run::config::{HostPort, Publish};
use kiln_run::net::publish::Transport;

/// One `-publish`, as typed: a port, or a range of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishSpec(pub Vec<Publish>);

/// What is wrong with a `-publish`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishSpecError {
    /// Nothing was said.
    #[error("a port of the guest is missing: write HOST:GUEST, such as 8080:80")]
    Empty,
    /// One port, and nothing says whose.
    #[error("`{0}` names one port: write HOST:GUEST, such as 8080:{0}, or :{0} for a free port of the host")]
    Alone(String),
    /// A number that no port has.
    #[error("`{0}` is no port: write a number from {1} to 65535, or a range such as 8000-8010")]
    Port(String, u16),
    /// A range that goes backwards.
    #[error("the range `{0}` ends before it begins")]
    Backwards(String),
    /// As many ports here as there.
    #[error("{host} ports of the host cannot lead to {guest} of the guest: give as many of each")]
    Lengths {
        /// Ports of the host.
        host: usize,
        /// Ports of the guest.
        guest: usize,
    },
    /// No address.
    #[error("`{0}` is no address of this machine: write it as 127.0.0.1:8080:80 or [::1]:8080:80")]
    Address(String),
    /// Neither TCP nor UDP.
    #[error("`/{0}` is unknown behind a port; there are `/tcp` and `/udp`")]
    Transport(String),
    /// A word that means nothing here.
    #[error("`{0}` is unknown behind a port; known is `proxy`")]
    Word(String),
    /// A socket's file is one, and carries a stream.
    #[error("`{0}` cannot be published: a socket's path leads to one TCP port of the guest")]
    Unix(String),
    /// Only connections have a beginning.
    #[error("`proxy` is for TCP: its first bytes tell who called")]
    ProxyUdp,
}

impl FromStr for PublishSpec {
    type Err = PublishSpecError;

    fn from_str(text: &str) -> Result<Self, PublishSpecError> {
        let (ports, tells_caller) = match text.rsplit_once(',') {
            None => (text, false),
            Some((ports, "proxy")) => (ports, true),
            Some((_, word)) => return Err(PublishSpecError::Word(word.into())),
        };
        let (host, guest) = ports.rsplit_once(':').map_or((None, ports), |(host, guest)| (Some(host), guest));
        let (guest, transport) = match guest.split_once('/') {
            None | Some((_, "tcp")) => (guest.split('/').next().unwrap_or_default(), Transport::Tcp),
            Some((guest, "udp")) => (guest, Transport::Udp),
            Some((_, other)) => return Err(PublishSpecError::Transport(other.into())),
        };
        if tells_caller && transport == Transport::Udp {
            return Err(PublishSpecError::ProxyUdp);
        }
        if guest.is_empty() {
            return Err(PublishSpecError::Empty);
        }
        let Some(host) = host else {
            range(guest, 1)?;
            return Err(PublishSpecError::Alone(guest.into()));
        };
        let guest = range(guest, 1)?;
        let publish = |host, guest_port| Publish { host, guest_port, transport, tells_caller };
        if host.starts_with(['/', '.']) {
            let (true, Transport::Tcp) = (guest.len() == 1, transport) else {
                return Err(PublishSpecError::Unix(text.into()));
            };
            return Ok(Self(vec![publish(HostPort::Unix(PathBuf::from(host)), *guest.start())]));
        }
        let (ip, host) = match host.rsplit_once(':') {
            Some((ip, port)) => (Some(address(ip)?), port),
            None => (None, host),
        };
        let host = if host.is_empty() { 0..=0 } else { range(host, 0)? };
        let is_chosen = host == (0..=0);
        if !is_chosen && host.len() != guest.len() {
            return Err(PublishSpecError::Lengths { host: host.len(), guest: guest.len() });
        }
        let ports = guest.enumerate().map(|(at, guest_port)| {
            let port = if is_chosen { 0 } else { host.clone().nth(at).unwrap_or(0) };
            let host = ip.map_or(HostPort::Loopback(port), |ip| HostPort::At(SocketAddr::new(ip, port)));
            publish(host, guest_port)
        });
        Ok(Self(ports.collect()))
    }
}

fn address(text: &str) -> Result<IpAddr, PublishSpecError> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address = match bare {
        Some(v6) => v6.parse().map(IpAddr::V6),
        None => text.parse().map(IpAddr::V4),
    };
    address.map_err(|_| PublishSpecError::Address(text.into()))
}

fn range(text: &str, least: u16) -> Result<RangeInclusive<u16>, PublishSpecError> {
    let port = |word: &str| {
        let is_number = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
        let port = word.parse().ok().filter(|port| is_number && *port >= least);
        port.ok_or_else(|| PublishSpecError::Port(word.into(), least))
    };
    let Some((first, last)) = text.split_once('-') else {
        let port = port(text)?;
        return Ok(port..=port);
    };
    let range = port(first)?..=port(last)?;
    if range.is_empty() { Err(PublishSpecError::Backwards(text.into())) } else { Ok(range) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, u16, Transport)> {
        let PublishSpec(ports) = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        let told = |publish: Publish| {
            let host = match publish.host {
                HostPort::Loopback(port) => format!("*:{port}"),
                HostPort::At(address) => address.to_string(),
                HostPort::Unix(path) => path.display().to_string(),
            };
            (host, publish.guest_port, publish.transport)
        };
        ports.into_iter().map(told).collect()
    }

    #[test]
    fn a_port_that_cannot_be_meant_is_refused_by_name() {
        for (text, wanted) in [
            ("", "a port of the guest is missing"),
            ("80:", "a port of the guest is missing"),
            ("22", "`22` names one port: write HOST:GUEST, such as 8080:22, or :22 for a free port"),
            ("22/udp", "`22` names one port"),
            ("99999:1", "`99999` is no port: write a number from 0 to 65535"),
            ("1:99999", "`99999` is no port: write a number from 1 to 65535"),
            ("1:0", "`0` is no port"),
            ("x:80", "`x` is no port"),
            ("+1:80", "`+1` is no port"),
            ("-1:80", "`` is no port"),
            ("8010-8000:80-90", "the range `8010-8000` ends before it begins"),
            ("8000-8010:80-89", "11 ports of the host cannot lead to 10 of the guest"),
            ("8000:80-81", "1 ports of the host cannot lead to 2"),
            ("localhost:80:80", "`localhost` is no address of this machine"),
            ("::1:80:80", "`::1` is no address of this machine: write it as 127.0.0.1:8080:80 or [::1]:8080:80"),
            ("80:80/sctp", "`/sctp` is unknown behind a port"),
            ("80:80,tls", "`tls` is unknown behind a port"),
            ("80:80/udp,proxy", "`proxy` is for TCP"),
            ("/a.sock:80/udp", "cannot be published: a socket's path leads to one TCP port"),
            ("/a.sock:80-81", "cannot be published: a socket's path leads to one TCP port"),
        ] {
            let error = text.parse::<PublishSpec>().expect_err(text).to_string();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }

    #[test]
    fn ports_addresses_ranges_and_paths_are_read() {
        let one = |text: &str, host: &str, guest| {
            assert_eq!(read(text), [(host.to_owned(), guest, Transport::Tcp)], "{text}")
        };
        one("8080:80", "*:8080", 80);
        one("8080:80/tcp", "*:8080", 80);
        one("0:22", "*:0", 22);
        one(":22", "*:0", 22);
        one("0.0.0.0:8080:80", "0.0.0.0:8080", 80);
        one("127.0.0.1::80", "127.0.0.1:0", 80);
        one("[::1]:8080:80", "[::1]:8080", 80);
        one("./web.sock:80", "./web.sock", 80);
        one("/run/a:b.sock:80", "/run/a:b.sock", 80);
        assert_eq!(read("53:53/udp"), [("*:53".to_owned(), 53, Transport::Udp)]);
        assert_eq!(
            read("8000-8001:80-81").into_iter().map(|(host, guest, _)| (host, guest)).collect::<Vec<_>>(),
            [("*:8000".to_owned(), 80), ("*:8001".to_owned(), 81)]
        );
        assert_eq!(read("0:80-82").len(), 3);
        let PublishSpec(ports) = "8080:80,proxy".parse().unwrap();
        assert!(ports[0].tells_caller);
    }
}

//! `kiln port`: the published ports of a running machine.

use std::path::{Path, PathBuf};

use kiln_run::config::{HostPort, Publish};
use kiln_run::control::{Carries, Port, PortHost, Request};

use crate::args;
use crate::failure::Failure;
use crate::machines::connect;
use crate::printer::Printer;

/// Does what was asked.
pub fn port(asked: &args::Port, printer: &Printer) -> Result<(), Failure> {
    match asked {
        args::Port::Add(asked) => {
            let mut machine = connect(&asked.name)?;
            for publish in asked.ports.iter().flat_map(|spec| &spec.0) {
                let opened = machine.ask(&Request::add(&absolute(publish)?))?;
                printer.data(lines(&opened).as_bytes())?;
            }
            Ok(())
        }
        args::Port::Rm(asked) => {
            let mut machine = connect(&asked.name)?;
            for word in &asked.ports {
                let ports = machine.ask(&Request::PortList {})?;
                let meant: Vec<&Port> = ports.iter().filter(|port| is_meant(port, word)).collect();
                if meant.is_empty() {
                    let text = format!("`{word}` is no published port of this machine");
                    return Err(Failure::new(text).hint("`kiln port ls NAME` lists them"));
                }
                for Port { card, number, .. } in meant {
                    machine.ask(&Request::PortRemove { card: *card, number: *number })?;
                }
            }
            Ok(())
        }
        args::Port::Ls(asked) => {
            let ports = connect(&asked.name)?.ask(&Request::PortList {})?;
            if asked.json {
                let mut text = serde_json::to_vec_pretty(&ports)?;
                text.push(b'\n');
                return Ok(printer.data(&text)?);
            }
            Ok(printer.data(lines(&ports).as_bytes())?)
        }
    }
}

/// The machine may run in another folder: its paths are not ours.
fn absolute(publish: &Publish) -> Result<Publish, Failure> {
    let mut publish = publish.clone();
    if let HostPort::Unix(path) = &mut publish.host {
        *path = std::path::absolute(&*path)?;
    }
    Ok(publish)
}

fn lines(ports: &[Port]) -> String {
    ports.iter().map(|port| format!("{} -> {}\n", host(port), guest(port))).collect()
}

fn host(port: &Port) -> String {
    match &port.host {
        PortHost::Address(address) => address.to_string(),
        PortHost::Path(path) => path.display().to_string(),
        PortHost::Loopback(port) => port.to_string(),
    }
}

fn guest(port: &Port) -> String {
    format!("{}/{}", port.guest_port, transport(port))
}

fn transport(port: &Port) -> &'static str {
    match port.transport {
        Carries::Tcp => "tcp",
        Carries::Udp => "udp",
    }
}

/// Whether a port is the one that `word` names: by number, address and number, or path; of either kind unless one is named.
fn is_meant(port: &Port, word: &str) -> bool {
    let (place, kind) = word
        .rsplit_once('/')
        .filter(|(_, kind)| ["tcp", "udp"].contains(kind))
        .map_or((word, None), |(place, kind)| (place, Some(kind)));
    if kind.is_some_and(|kind| kind != transport(port)) {
        return false;
    }
    match &port.host {
        PortHost::Address(address) => place == address.to_string() || place.parse() == Ok(address.port()),
        PortHost::Path(path) => {
            std::path::absolute(place).is_ok_and(|place: PathBuf| place == *path) || path == Path::new(place)
        }
        PortHost::Loopback(number) => place.parse() == Ok(*number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_named_by_its_number_its_address_or_its_path() {
        let port = |host, transport| Port { card: 0, number: 1, host, guest_port: 80, transport };
        let tcp = port(PortHost::Address("[::1]:8080".parse().unwrap()), Carries::Tcp);
        for (word, expected) in [
            ("8080", true),
            ("8080/tcp", true),
            ("[::1]:8080/tcp", true),
            ("8080/udp", false),
            ("80", false),
            ("127.0.0.1:8080", false),
            ("", false),
            ("8080:80", false),
        ] {
            assert_eq!(is_meant(&tcp, word), expected, "{word}");
        }
        let path = port(PortHost::Path("/run/tcp".into()), Carries::Tcp);
        assert!(is_meant(&path, "/run/tcp/tcp") && !is_meant(&path, "8080"));
    }
}

//! Where a reference's registry is reached.

use std::net::IpAddr;

use super::Mirror;
use crate::oci::Reference;

/// A registry's address and one repository of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub tls: bool,
    /// Host and port to connect to.
    pub host: String,
    /// The name under which credentials are kept.
    pub login: String,
    pub repository: String,
}

impl Endpoint {
    /// A mirror wins; programs on this machine are asked over http; all others over https.
    pub(super) fn of(reference: &Reference, mirrors: &[Mirror]) -> Self {
        let repository = reference.repository().to_owned();
        let registry = reference.registry();
        if let Some(mirror) = mirrors.iter().find(|mirror| mirror.serves(registry)) {
            return Self { tls: mirror.tls, host: mirror.host.clone(), login: mirror.host.clone(), repository };
        }
        let host = match registry {
            "docker.io" | "index.docker.io" => "registry-1.docker.io",
            other => other,
        };
        Self { tls: !is_loopback(host), host: host.to_owned(), login: registry.to_owned(), repository }
    }

    /// `kind` is `manifests` or `blobs`; `name` a tag or a digest.
    pub(super) fn url(&self, kind: &str, name: &str) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}/v2/{}/{kind}/{name}", self.host, self.repository)
    }

    pub(super) fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }
}

fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(reference: &str, mirrors: &[&str]) -> String {
        let mirrors: Vec<Mirror> = mirrors.iter().map(|mirror| mirror.parse().unwrap()).collect();
        Endpoint::of(&reference.parse().unwrap(), &mirrors).url("manifests", "1")
    }

    #[test]
    fn only_this_machine_is_asked_over_http() {
        assert_eq!(url("localhost:5000/a:1", &[]), "http://localhost:5000/v2/a/manifests/1");
        assert_eq!(url("127.0.0.1:5000/a:1", &[]), "http://127.0.0.1:5000/v2/a/manifests/1");
        assert_eq!(url("127.1.2.3/a:1", &[]), "http://127.1.2.3/v2/a/manifests/1");
        assert_eq!(url("[::1]:5000/a:1", &[]), "http://[::1]:5000/v2/a/manifests/1");
        assert_eq!(url("127.0.0.1.example/a:1", &[]), "https://127.0.0.1.example/v2/a/manifests/1");
        assert_eq!(url("192.168.0.1:5000/a:1", &[]), "https://192.168.0.1:5000/v2/a/manifests/1");
        assert_eq!(url("a:1", &[]), "https://registry-1.docker.io/v2/library/a/manifests/1");
    }

    #[test]
    fn the_first_mirror_that_fits_is_asked() {
        let mirrors = ["quay.io=https://q.example", "docker.io=http://d.example:80", "https://all.example"];
        assert_eq!(url("a:1", &mirrors), "http://d.example:80/v2/library/a/manifests/1");
        assert_eq!(url("quay.io/a:1", &mirrors), "https://q.example/v2/a/manifests/1");
        assert_eq!(url("ghcr.io/a:1", &mirrors), "https://all.example/v2/a/manifests/1");
    }
}

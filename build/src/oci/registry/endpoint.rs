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
    pub access: Access,
}

/// What is done there, and so what a login must allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Access {
    Pull,
    Push,
}

/// What one login is good for: host, repository, access.
pub(super) type LoginKey = (String, String, Access);

impl Endpoint {
    /// A mirror wins; programs on this machine are asked over http; all others over https.
    pub(super) fn of(reference: &Reference, mirrors: &[Mirror]) -> Self {
        let (repository, access) = (reference.repository().to_owned(), Access::Pull);
        let registry = reference.registry();
        if let Some(mirror) = mirrors.iter().find(|mirror| mirror.serves(registry)) {
            let (host, login) = (mirror.host.clone(), mirror.host.clone());
            let repository = format!("{}{repository}", mirror.prefix);
            return Self { tls: mirror.tls, host, login, repository, access };
        }
        let host = match registry {
            "docker.io" | "index.docker.io" => "registry-1.docker.io",
            other => other,
        };
        Self { tls: !is_loopback(host), host: host.to_owned(), login: registry.to_owned(), repository, access }
    }

    /// To write to. Mirrors are for reading.
    pub(super) fn to_push(reference: &Reference) -> Self {
        Self { access: Access::Push, ..Self::of(reference, &[]) }
    }

    pub(super) fn login_key(&self) -> LoginKey {
        (self.host.clone(), self.repository.clone(), self.access)
    }

    /// The scope of a token for what is done here.
    pub(super) fn scope(&self) -> String {
        let actions = match self.access {
            Access::Pull => "pull",
            Access::Push => "pull,push",
        };
        format!("repository:{}:{actions}", self.repository)
    }

    /// Whether `url` leads to this registry, so that its login may go along.
    pub(super) fn owns(&self, url: &str) -> bool {
        let scheme = if self.tls { "https" } else { "http" };
        let rest = url.strip_prefix(scheme).and_then(|url| url.strip_prefix("://")?.strip_prefix(self.host.as_str()));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
    }

    /// Where an upload goes on: the `Location` of the answer to `asked`. A proxy in front may have told the registry
    /// another scheme than it is reached by.
    pub(super) fn location(&self, asked: &str, location: &str) -> Option<String> {
        let mut url = reqwest::Url::parse(asked).ok()?.join(location).ok()?;
        let same_host = |url: &reqwest::Url| {
            let own = reqwest::Url::parse(&self.url("blobs", "x")).ok();
            own.is_some_and(|own| own.host_str() == url.host_str())
        };
        if self.tls && url.scheme() == "http" && same_host(&url) {
            url.set_scheme("https").ok()?;
        }
        let allowed = url.scheme() == "https" || (!self.tls && url.scheme() == "http");
        allowed.then(|| url.to_string())
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
        let mirrors = ["docker.io=https://h.example/hub/", "https://h.example/v2/other"];
        assert_eq!(url("a:1", &mirrors), "https://h.example/v2/hub/library/a/manifests/1");
        assert_eq!(url("quay.io/a:1", &mirrors), "https://h.example/v2/other/a/manifests/1");
    }

    #[test]
    fn a_login_stays_with_its_registry() {
        let endpoint = Endpoint::of(&"r.example:1/a".parse().unwrap(), &[]);
        assert!(endpoint.owns("https://r.example:1/v2/a") && endpoint.owns("https://r.example:1"));
        for url in
            ["http://r.example:1/v2", "https://r.example:11/v2", "https://r.example/v2", "https://x/r.example:1/"]
        {
            assert!(!endpoint.owns(url), "{url}");
        }
        let to = |location: &str| endpoint.location("https://r.example:1/v2/a/blobs/uploads/", location);
        assert_eq!(to("x?y=1").as_deref(), Some("https://r.example:1/v2/a/blobs/uploads/x?y=1"));
        assert_eq!(to("http://r.example:1/z").as_deref(), Some("https://r.example:1/z"), "a proxy hid the scheme");
        assert_eq!(to("https://other.example/z").as_deref(), Some("https://other.example/z"));
        assert_eq!((to("http://other.example/z"), to("file:///etc/passwd")), (None, None));
    }
}

//! How registries are reached: mirrors, certificates, credentials and limits.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::oci::reference::{is_host, is_path_part};

/// How registries are reached.
#[derive(Debug, Clone)]
pub struct RegistryOptions {
    /// Whether no registry may be asked at all: then everything that would is refused.
    pub offline: bool,
    /// Asked instead of the registry that a reference names. The first that fits is used.
    pub mirrors: Vec<Mirror>,
    /// PEM files with certificates that are trusted besides the system's.
    pub certificates: Vec<PathBuf>,
    /// Docker's configuration file with credentials; `None`: every registry is asked without any.
    pub docker_config: Option<PathBuf>,
    /// A registry that sends nothing for this long hangs.
    pub idle_limit: Duration,
    /// How often one document or blob is asked for before giving up; at least 1.
    pub attempts: u32,
    /// The first pause before asking again; every further one is twice as long, up to [`RegistryOptions::pause_max`].
    pub pause: Duration,
    /// The longest pause, also when a registry asks for a longer one.
    pub pause_max: Duration,
    /// Blobs that are fetched at the same time.
    pub parallel: usize,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self {
            offline: false,
            mirrors: Vec::new(),
            certificates: Vec::new(),
            docker_config: None,
            idle_limit: Duration::from_secs(30),
            attempts: 5,
            pause: Duration::from_millis(500),
            pause_max: Duration::from_secs(30),
            parallel: 4,
        }
    }
}

/// A registry that answers for another one, or for all: `[REGISTRY=]URL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// The registry it stands for; `None`: all of them.
    pub registry: Option<String>,
    /// Whether it is reached over https, else over http.
    pub tls: bool,
    /// Its host with an optional port.
    pub host: String,
    /// What stands in front of repositories there: `PATH/` for `https://HOST/PATH`; empty for none.
    pub prefix: String,
}

/// Why a text is no mirror.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no mirror; write `[REGISTRY=]http://HOST[:PORT][/PATH]`, or the same with https")]
pub struct MirrorError(String);

impl Mirror {
    /// Whether this mirror answers for `registry`. Docker's registry has three names.
    pub fn serves(&self, registry: &str) -> bool {
        let plain = |name: &str| match name {
            "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
            name => name.to_owned(),
        };
        self.registry.as_deref().is_none_or(|served| plain(served) == plain(registry))
    }
}

impl FromStr for Mirror {
    type Err = MirrorError;

    fn from_str(text: &str) -> Result<Self, MirrorError> {
        let refuse = || MirrorError(text.chars().take(200).collect());
        let (registry, url) = match text.split_once('=') {
            Some((registry, url)) => (Some(registry), url),
            None => (None, text),
        };
        let (scheme, rest) = url.split_once("://").ok_or_else(refuse)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let known = matches!(scheme, "http" | "https");
        if !known || !is_host(host) || !registry.is_none_or(is_host) {
            return Err(refuse());
        }
        // Some write the API's own path too.
        let path = path.strip_prefix("v2").filter(|rest| rest.is_empty() || rest.starts_with('/')).unwrap_or(path);
        let path = path.trim_start_matches('/');
        if !path.is_empty() && !path.split('/').all(is_path_part) {
            return Err(refuse());
        }
        let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
        Ok(Self { registry: registry.map(String::from), tls: scheme == "https", host: host.to_owned(), prefix })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_mirror_is_refused() {
        for text in [
            "",
            "host",
            "docker.io=host",
            "ftp://host",
            "http://",
            "http://a b",
            "http://host/Path",
            "http://host/a/../b",
            "=http://h",
            "http://u@h",
        ] {
            assert!(text.parse::<Mirror>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_mirror_for_docker_serves_all_of_its_names() {
        let mirror: Mirror = "docker.io=http://127.0.0.1:5000/".parse().unwrap();
        assert_eq!((mirror.tls, mirror.host.as_str()), (false, "127.0.0.1:5000"));
        assert!(mirror.serves("docker.io") && mirror.serves("index.docker.io") && !mirror.serves("quay.io"));
        assert!("https://m.example".parse::<Mirror>().unwrap().serves("quay.io"));
    }
}

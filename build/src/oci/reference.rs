//! Image references as a YAML writes them, and the one full spelling that stores and registries use.
//!
//! Grammar: `[HOST[:PORT]/]PATH[:TAG][@sha256:HEX]` (OCI distribution specification, "Pulling manifests"). A first part
//! with `.` or `:` in it, or `localhost`, is a registry; everything else lives on `docker.io`, and a single word in its
//! `library`. No tag is added: [`Reference::names`] knows that no tag and `latest` mean the same.

use std::fmt;
use std::str::FromStr;

use super::Digest;

/// The registry of references that name none.
const DEFAULT_REGISTRY: &str = "docker.io";
/// Registries take no longer repository names; Docker's grammar says so too.
const REPOSITORY_BYTES_MAX: usize = 255;
/// The distribution specification's limit.
const TAG_BYTES_MAX: usize = 128;
/// A DNS name's limit.
const HOST_BYTES_MAX: usize = 253;

/// A full, checked image reference. It prints as the full spelling.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is no image reference.
#[derive(Debug, thiserror::Error)]
#[error("`{text}` is no image reference: {fault}")]
pub struct ReferenceError {
    /// The text, cut to a length that fits a message.
    text: String,
    fault: Fault,
}

#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("it is empty")]
    Empty,
    #[error("registry `{0}` is no host name with an optional port")]
    Registry(String),
    #[error("it has upper-case letters before the tag; write `{0}`")]
    UpperCase(String),
    #[error("`{0}` may hold only a-z, 0-9 and, between those, `.`, `_`, `__` and `-`")]
    Path(String),
    #[error("its repository has {0} characters, {REPOSITORY_BYTES_MAX} are allowed")]
    LongRepository(usize),
    #[error("tag `{0}` is not 1 to {TAG_BYTES_MAX} of A-Z, a-z, 0-9, `_`, `.`, `-`, the first none of `.` and `-`")]
    Tag(String),
    #[error("{0}")]
    Digest(super::DigestError),
}

impl Reference {
    /// Host and port as written, such as `docker.io` or `127.0.0.1:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Path in the registry, such as `library/busybox`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, if one was written.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one was written; it wins over the tag.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Every full spelling under which a store may know this image, the best first.
    pub fn names(&self) -> Vec<String> {
        let full = self.to_string();
        let other = match (&self.tag, self.digest) {
            (None, None) => Some(format!("{full}:latest")),
            (Some(tag), None) if tag == "latest" => full.strip_suffix(":latest").map(String::from),
            _ => None,
        };
        let mut names = vec![full];
        names.extend(other);
        // linuxkit keeps a name of three or more parts as it was written.
        if self.registry == DEFAULT_REGISTRY && self.repository.matches('/').count() > 1 {
            let bare: Vec<_> =
                names.iter().filter_map(|name| name.split_once('/')).map(|(_, n)| n.to_owned()).collect();
            names.extend(bare);
        }
        names
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        parse(text).map_err(|fault| ReferenceError { text: short(text), fault })
    }
}

fn parse(text: &str) -> Result<Reference, Fault> {
    let (name, digest) = match text.split_once('@') {
        Some((name, digest)) => (name, Some(digest.parse().map_err(Fault::Digest)?)),
        None => (text, None),
    };
    let (registry, rest) = match name.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
        _ => (DEFAULT_REGISTRY, name),
    };
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (rest, None),
    };
    if !is_host(registry) {
        return Err(Fault::Registry(short(registry)));
    }
    check_path(path, text)?;
    if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
        return Err(Fault::Tag(short(tag)));
    }
    let library = registry == DEFAULT_REGISTRY && !path.contains('/');
    let repository = if library { format!("library/{path}") } else { path.to_owned() };
    if repository.len() > REPOSITORY_BYTES_MAX {
        return Err(Fault::LongRepository(repository.len()));
    }
    Ok(Reference { registry: registry.to_owned(), repository, tag: tag.map(String::from), digest })
}

fn check_path(path: &str, text: &str) -> Result<(), Fault> {
    if path.is_empty() {
        return Err(Fault::Empty);
    }
    if path.split('/').all(is_path_part) {
        return Ok(());
    }
    let lower = path.to_ascii_lowercase();
    if lower != path && lower.split('/').all(is_path_part) {
        return Err(Fault::UpperCase(short(&text.replacen(path, &lower, 1))));
    }
    let bad = path.split('/').find(|part| !is_path_part(part)).unwrap_or(path);
    Err(Fault::Path(short(bad)))
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
pub(super) fn is_path_part(part: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mut separator = String::new();
    let mut words = 0;
    for byte in part.bytes() {
        if !is_word(byte) {
            separator.push(char::from(byte));
            continue;
        }
        let separated = matches!(separator.as_str(), "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-');
        if !separated || (words == 0 && !separator.is_empty()) {
            return false;
        }
        separator.clear();
        words += 1;
    }
    words > 0 && separator.is_empty()
}

fn is_tag(tag: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.len() <= TAG_BYTES_MAX && tag.starts_with(is_word) && tag.chars().all(|c| is_word(c) || c == '.' || c == '-')
}

/// A host name or address with an optional port; an IPv6 address stands in brackets.
pub(super) fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port_fits = port.is_none_or(|port| {
        port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let host_fits = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.len() <= HOST_BYTES_MAX && host.split('.').all(is_label),
    };
    port_fits && host_fits
}

/// `text` at a length that fits a message.
fn short(text: &str) -> String {
    const SHOWN: usize = 100;
    match text.chars().count() > SHOWN {
        true => text.chars().take(SHOWN).chain("...".chars()).collect(),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn what_is_no_reference_is_refused_with_its_fault() {
        let long = "a".repeat(300);
        let long_tag = format!("a:{}", "t".repeat(129));
        let cases = [
            ("", "it is empty"),
            ("docker.io/", "it is empty"),
            (":tag", "it is empty"),
            ("a/../b", "`..` may hold only"),
            ("../../etc/passwd", "registry `..`"),
            ("a//b", "`` may hold only"),
            ("a/", "`` may hold only"),
            ("-a", "`-a` may hold only"),
            ("a-", "`a-` may hold only"),
            ("a___b", "may hold only"),
            ("a b", "`a b` may hold only"),
            ("ä", "may hold only"),
            ("a\0b", "may hold only"),
            ("a?x=1", "may hold only"),
            ("Foo/Bar:Tag", "upper-case letters before the tag; write `foo/bar:Tag`"),
            ("a:", "tag ``"),
            ("a:-x", "tag `-x`"),
            (&long_tag, "tag `ttt"),
            (&long, "has 308 characters"),
            ("ho_st.x/a", "registry `ho_st.x`"),
            ("host.x:0/a", "registry `host.x:0`"),
            ("host.x:99999/a", "registry `host.x:99999`"),
            ("host.x:+5/a", "registry `host.x:+5`"),
            ("user@host.x/a", "is no digest"),
            ("[::1/a", "registry `[::1`"),
            ("a@sha256:12", "is no digest"),
            ("https://host.x/a", "registry `https:`"),
        ];
        for (text, fault) in cases {
            let error = text.parse::<Reference>().expect_err(text).to_string();
            assert!(error.contains(fault), "{text}: {error}");
        }
    }

    #[test]
    fn a_reference_gets_its_full_spelling() {
        let digest = format!("a/b@sha256:{HEX}");
        let full_digest = format!("docker.io/{digest}");
        let cases = [
            ("busybox", "docker.io/library/busybox"),
            ("busybox:1.36", "docker.io/library/busybox:1.36"),
            ("a/b:1", "docker.io/a/b:1"),
            ("a/b/c", "docker.io/a/b/c"),
            ("localhost/a", "localhost/a"),
            ("localhost:5000/a:1", "localhost:5000/a:1"),
            ("127.0.0.1:5000/golden/base:1", "127.0.0.1:5000/golden/base:1"),
            ("[::1]:5000/a", "[::1]:5000/a"),
            ("quay.io/x/y__z.a--b", "quay.io/x/y__z.a--b"),
            ("docker.io/busybox", "docker.io/library/busybox"),
            (&digest, &full_digest),
        ];
        for (text, full) in cases {
            assert_eq!(text.parse::<Reference>().expect(text).to_string(), full);
        }
    }

    #[test]
    fn no_tag_and_latest_are_the_same_name() {
        let names = |text: &str| text.parse::<Reference>().unwrap().names();
        assert_eq!(names("x"), ["docker.io/library/x", "docker.io/library/x:latest"]);
        assert_eq!(names("x:latest"), ["docker.io/library/x:latest", "docker.io/library/x"]);
        assert_eq!(names("x:1"), ["docker.io/library/x:1"]);
        assert_eq!(names("a/b/c:1"), ["docker.io/a/b/c:1", "a/b/c:1"]);
    }
}

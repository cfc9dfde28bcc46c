//! Package URLs (the purl specification, ECMA-427): `pkg:TYPE/NAMESPACE/NAME@VERSION?KEY=VALUE&KEY=VALUE`.

use crate::oci::{Digest, Reference};

/// A package of a distribution.
pub(super) fn distribution(
    kind: &str,
    namespace: &str,
    name: &str,
    version: &str,
    architecture: &str,
    distro: &str,
) -> String {
    let qualifiers = [("arch", architecture), ("distro", distro)];
    let path = format!("pkg:{kind}/{}/{}@{}", encoded(namespace), encoded(name), encoded(version));
    with_qualifiers(path, &qualifiers)
}

/// An image. Its name is the repository's last part.
pub(super) fn oci(reference: &str, manifest: &Digest, architecture: &str) -> String {
    let parsed: Option<Reference> = reference.parse().ok();
    let (repository, tag) = match &parsed {
        Some(parsed) => (format!("{}/{}", parsed.registry(), parsed.repository()), parsed.tag().unwrap_or_default()),
        None => (reference.to_owned(), ""),
    };
    let name = repository.rsplit('/').next().unwrap_or_default();
    let path = format!("pkg:oci/{}@{}", encoded(name), encoded(&manifest.to_string()));
    with_qualifiers(path, &[("arch", architecture), ("repository_url", &repository), ("tag", tag)])
}

/// Keys are given in their order; empty values are left out.
fn with_qualifiers(path: String, qualifiers: &[(&str, &str)]) -> String {
    let given = qualifiers.iter().filter(|(_, value)| !value.is_empty());
    let text: Vec<String> = given.map(|(key, value)| format!("{key}={}", encoded(value))).collect();
    if text.is_empty() { path } else { format!("{path}?{}", text.join("&")) }
}

/// Percent-encoded, all but letters, digits and `.-_~`. A colon and, in values, a slash may stay; so does the slash here.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' | b'/' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_url_is_encoded() {
        let url = distribution("deb", "debian", "libstdc++6", "1:12.2.0-14+b1?x#y@z&", "amd64", "debian-12");
        let expected = "pkg:deb/debian/libstdc%2B%2B6@1%3A12.2.0-14%2Bb1%3Fx%23y%40z%26?arch=amd64&distro=debian-12";
        assert_eq!(url, expected);
    }

    #[test]
    fn an_image_is_named_by_its_digest_and_place() {
        let digest = Digest::from_bytes([0xab; 32]);
        let hex = "ab".repeat(32);
        let url = |reference: &str| oci(reference, &digest, "amd64");
        let expected = format!("pkg:oci/b@sha256%3A{hex}?arch=amd64&repository_url=127.0.0.1%3A5000/a/b&tag=1.0");
        assert_eq!(url("127.0.0.1:5000/a/b:1.0"), expected);
        assert_eq!(url("b"), format!("pkg:oci/b@sha256%3A{hex}?arch=amd64&repository_url=docker.io/library/b"));
    }
}

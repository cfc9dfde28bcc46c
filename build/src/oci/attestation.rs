//! What an image's index says about the image: BuildKit's attestations ("Attestation storage" of its documentation).
//!
//! An index has, beside an image's manifest, one of a platform that does not exist; annotations tell which manifest it
//! is about. Its layers are in-toto statements, each a JSON document; the annotation of a layer tells what it states.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Digest;

/// The longest statement that is read: lists of packages of the largest images have some megabytes.
pub(super) const STATEMENT_BYTES_MAX: u64 = 32 << 20;
/// Statements that are read about one image; builders write one or two.
pub(super) const STATEMENTS_MAX: usize = 4;

const STATEMENT_TYPE: &str = "application/vnd.in-toto+json";
const SPDX_PREDICATE: &str = "https://spdx.dev/Document";

#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Entry>,
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    layers: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "mediaType", default)]
    media_type: String,
    digest: String,
    annotations: Option<BTreeMap<String, String>>,
}

impl Entry {
    fn says(&self, key: &str, value: &str) -> bool {
        self.annotations.as_ref().and_then(|all| all.get(key)).is_some_and(|known| known == value)
    }
}

/// The manifests in `index` that hold attestations about the manifest `about`. None in what cannot be read.
pub(super) fn manifests(index: &[u8], about: &Digest) -> Vec<Digest> {
    let Ok(index) = serde_json::from_slice::<Index>(index) else { return Vec::new() };
    let about = about.to_string();
    let is_about = |entry: &&Entry| {
        entry.says("vnd.docker.reference.type", "attestation-manifest")
            && entry.says("vnd.docker.reference.digest", &about)
    };
    let digests = index.manifests.iter().filter(is_about).filter_map(|entry| entry.digest.parse().ok());
    digests.take(STATEMENTS_MAX).collect()
}

/// The indexes in `index`.
pub(super) fn indexes(index: &[u8]) -> Vec<Digest> {
    let Ok(index) = serde_json::from_slice::<Index>(index) else { return Vec::new() };
    let nested = |entry: &&Entry| entry.media_type.ends_with("index.v1+json") || entry.media_type.contains("list.v2");
    index.manifests.iter().filter(nested).filter_map(|entry| entry.digest.parse().ok()).collect()
}

/// The statements in `manifest` that list packages as SPDX does.
pub(super) fn statements(manifest: &[u8]) -> Vec<Digest> {
    let Ok(manifest) = serde_json::from_slice::<Manifest>(manifest) else { return Vec::new() };
    let lists_packages =
        |entry: &&Entry| entry.media_type == STATEMENT_TYPE && entry.says("in-toto.io/predicate-type", SPDX_PREDICATE);
    let digests = manifest.layers.iter().filter(lists_packages).filter_map(|entry| entry.digest.parse().ok());
    digests.take(STATEMENTS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_no_attestation_about_the_image_is_passed_over() {
        let (about, other) = (Digest::from_bytes([1; 32]), Digest::from_bytes([2; 32]));
        let entry = |about: &Digest, kind: &str| {
            json!({"digest": Digest::from_bytes([3; 32]).to_string(), "size": 1,
                "annotations": {"vnd.docker.reference.type": kind, "vnd.docker.reference.digest": about.to_string()}})
        };
        let list = |entries: serde_json::Value| manifests(json!({"manifests": entries}).to_string().as_bytes(), &about);
        assert!(list(json!([entry(&other, "attestation-manifest"), entry(&about, "other")])).is_empty());
        assert!(list(json!([{"digest": "x", "annotations": null}])).is_empty());
        assert_eq!(list(json!([entry(&about, "attestation-manifest")])), [Digest::from_bytes([3; 32])]);
        let many = vec![entry(&about, "attestation-manifest"); 1000];
        assert_eq!(list(json!(many)).len(), STATEMENTS_MAX);
        for text in ["", "[]", r#"{"manifests":7}"#, r#"{"layers":[{"digest":7}]}"#] {
            assert!(manifests(text.as_bytes(), &about).is_empty() && statements(text.as_bytes()).is_empty(), "{text}");
        }
    }
}

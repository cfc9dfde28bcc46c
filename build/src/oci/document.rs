//! The three documents of an image (OCI image specification: `image-index.md`, `manifest.md`, `config.md`; Docker's
//! manifest version 2, schema 2). Only what a build needs is read; unknown fields are skipped.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use super::{Digest, DigestError, ImageConfig, Layer, Platform};

/// Registries refuse longer manifests and indexes; the distribution specification asks for at least this much.
pub(super) const MANIFEST_BYTES_MAX: u64 = 4 << 20;
/// Histories and labels of real images stay far below.
pub(super) const CONFIG_BYTES_MAX: u64 = 8 << 20;
/// Overlay file systems and Docker stop at 127 or 128 layers.
const LAYERS_MAX: usize = 1024;

pub(super) const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// What a manifest's URL or an index entry leads to.
pub(super) enum Document {
    /// Entries, one for each platform.
    Index(Vec<Descriptor>),
    /// One platform's image: its configuration and its layers, lowest first.
    Manifest(Descriptor, Vec<Layer>),
}

/// Points at a blob (OCI image specification, `descriptor.md`).
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    /// As written: an entry of another platform may use an algorithm that is unknown here.
    pub digest: String,
    pub size: u64,
    pub platform: Option<PlatformEntry>,
}

/// An index entry's or a configuration's platform.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct PlatformEntry {
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub variant: String,
}

/// Why the bytes of a blob are not the document that they should be.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// No JSON, or a field is missing or of a wrong type.
    #[error("it is no image document")]
    Json(#[source] serde_json::Error),
    /// Neither an index nor a manifest.
    #[error("it has neither `manifests` nor `config` and `layers`")]
    Neither,
    /// Both at once, so that two readers can see two images in it.
    #[error("it has both `manifests` and `layers`")]
    Both,
    /// Docker's first schema, which signs its own bytes and was given up.
    #[error("it has schema version {0}; only 2 is supported, push the image again with a current tool")]
    Schema(u64),
    /// A digest that is none, or of another algorithm.
    #[error("it points at no SHA-256 digest")]
    Digest(#[source] DigestError),
    /// Indexes in indexes in indexes.
    #[error("its indexes are nested too deep")]
    Nested,
    /// A `docker save` archive whose list and configuration disagree.
    #[error("it lists {diff_ids} layers by digest, `manifest.json` lists {layers} files")]
    DiffIds {
        /// Files listed.
        layers: usize,
        /// Digests listed.
        diff_ids: usize,
    },
    /// More layers than any image has.
    #[error("it lists {0} layers, {LAYERS_MAX} are allowed")]
    Layers(usize),
}

impl Descriptor {
    pub(super) fn digest(&self) -> Result<Digest, DocumentError> {
        self.digest.parse().map_err(DocumentError::Digest)
    }
}

impl PlatformEntry {
    pub(super) fn to_platform(&self) -> Platform {
        Platform { os: self.os.clone(), architecture: self.architecture.clone(), variant: self.variant.clone() }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Loose {
    schema_version: Option<u64>,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
}

/// Reads an index or a manifest; which one it is follows from what it holds, not from what anybody calls it.
pub(super) fn parse_document(bytes: &[u8]) -> Result<Document, DocumentError> {
    let loose: Loose = serde_json::from_slice(bytes).map_err(DocumentError::Json)?;
    if let Some(version) = loose.schema_version.filter(|version| *version != 2) {
        return Err(DocumentError::Schema(version));
    }
    match (loose.manifests, loose.config, loose.layers) {
        (Some(manifests), None, None) => Ok(Document::Index(manifests)),
        (None, Some(config), Some(layers)) if layers.len() <= LAYERS_MAX => {
            let layers = layers.into_iter().map(layer).collect::<Result<_, _>>()?;
            Ok(Document::Manifest(config, layers))
        }
        (None, Some(_), Some(layers)) => Err(DocumentError::Layers(layers.len())),
        (Some(_), ..) => Err(DocumentError::Both),
        _ => Err(DocumentError::Neither),
    }
}

fn layer(descriptor: Descriptor) -> Result<Layer, DocumentError> {
    Ok(Layer { digest: descriptor.digest()?, size_bytes: descriptor.size, media_type: descriptor.media_type })
}

/// The media type of an index or a manifest: what it says of itself, or what it must be.
pub(super) fn media_type(bytes: &[u8]) -> String {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Named {
        media_type: Option<String>,
        manifests: Option<serde::de::IgnoredAny>,
    }
    let Ok(named) = serde_json::from_slice::<Named>(bytes) else { return String::new() };
    let implied = if named.manifests.is_some() { INDEX_TYPE } else { MANIFEST_TYPE };
    named.media_type.unwrap_or_else(|| implied.to_owned())
}

#[derive(Deserialize)]
struct LooseConfig {
    #[serde(flatten)]
    platform: PlatformEntry,
    #[serde(default, deserialize_with = "null_is_default")]
    config: LooseProcess,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct LooseProcess {
    #[serde(deserialize_with = "null_is_default")]
    entrypoint: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    cmd: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    env: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    working_dir: String,
    #[serde(deserialize_with = "null_is_default")]
    user: String,
    #[serde(deserialize_with = "null_is_default")]
    stop_signal: String,
    #[serde(deserialize_with = "null_is_default")]
    labels: BTreeMap<String, String>,
}

/// Go writes `null` for an empty list.
fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// Reads a configuration and the platform that it is for.
pub(super) fn parse_config(bytes: &[u8]) -> Result<(PlatformEntry, ImageConfig), DocumentError> {
    let loose: LooseConfig = serde_json::from_slice(bytes).map_err(DocumentError::Json)?;
    let LooseProcess { entrypoint, cmd, env, working_dir, user, stop_signal, labels } = loose.config;
    Ok((loose.platform, ImageConfig { entrypoint, cmd, env, working_dir, user, stop_signal, labels }))
}

/// The entry to use for `wanted`, and whether any entry is for it. Entries that only describe another one
/// (`unknown/unknown`: attestations) are passed over.
pub(super) fn select<'a>(entries: &'a [Descriptor], wanted: &Platform) -> Option<&'a Descriptor> {
    let fits = |entry: &&Descriptor| entry.platform.as_ref().is_some_and(|platform| runs_on(platform, wanted));
    let same_variant =
        |entry: &&Descriptor| entry.platform.as_ref().is_some_and(|platform| platform.variant == wanted.variant);
    entries.iter().filter(fits).find(same_variant).or_else(|| entries.iter().find(fits))
}

/// Whether an image for `image` runs on `wanted`. An image that names no variant is for all of them.
pub(super) fn runs_on(image: &PlatformEntry, wanted: &Platform) -> bool {
    let variant = |architecture: &str, variant: &str| match (architecture, variant) {
        ("arm64", "v8") => String::new(), // every arm64 is v8
        _ => variant.to_owned(),
    };
    let (has, wants) = (variant(&image.architecture, &image.variant), variant(&wanted.architecture, &wanted.variant));
    image.os == wanted.os
        && image.architecture == wanted.architecture
        && (has.is_empty() || wants.is_empty() || has == wants)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> String {
        parse_document(text.as_bytes()).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn what_is_no_document_is_refused() {
        assert!(fault("").contains("no image document"));
        assert!(fault("[]").contains("no image document"));
        assert!(fault("{}").contains("neither"));
        assert!(fault(r#"{"schemaVersion":1}"#).contains("schema version 1"));
        assert!(fault(r#"{"manifests":[{"digest":"x","size":-1}]}"#).contains("no image document"));
        let both = r#"{"manifests":[],"config":{"digest":"x","size":1},"layers":[]}"#;
        assert!(fault(both).contains("both"));
        let no_digest = r#"{"config":{"digest":"x","size":1},"layers":[{"digest":"md5:1","size":1}]}"#;
        assert!(fault(no_digest).contains("no SHA-256"));
        let layer = format!(r#"{{"digest":"sha256:{}","size":1}},"#, "0".repeat(64)).repeat(LAYERS_MAX + 1);
        let many = format!(r#"{{"config":{{"digest":"x","size":1}},"layers":[{}]}}"#, layer.trim_end_matches(','));
        assert!(fault(&many).contains("1025 layers"));
    }

    #[test]
    fn deep_nesting_is_refused_and_does_not_overflow_the_stack() {
        assert!(fault(&"[".repeat(1 << 20)).contains("no image document"));
        assert!(fault(&format!("{{\"a\":{}", "[".repeat(1 << 20))).contains("no image document"));
    }

    #[test]
    fn a_variant_is_preferred_but_not_needed() {
        let entry = |digest: &str, architecture: &str, variant: &str| Descriptor {
            media_type: String::new(),
            digest: digest.into(),
            size: 1,
            platform: Some(PlatformEntry {
                os: "linux".into(),
                architecture: architecture.into(),
                variant: variant.into(),
            }),
        };
        let entries = [
            entry("attestation", "unknown", ""),
            entry("v6", "arm", "v6"),
            entry("v7", "arm", "v7"),
            entry("v8", "arm64", "v8"),
            entry("v3", "amd64", "v3"),
            entry("plain", "amd64", ""),
        ];
        let selected = |architecture: &str, variant: &str| {
            let wanted = Platform { variant: variant.into(), ..Platform::linux(architecture) };
            select(&entries, &wanted).map(|entry| entry.digest.clone())
        };
        assert_eq!(selected("arm", "v7").as_deref(), Some("v7"));
        assert_eq!(selected("arm", "").as_deref(), Some("v6"));
        assert_eq!(selected("arm", "v5"), None);
        assert_eq!(selected("arm64", "").as_deref(), Some("v8"));
        assert_eq!(selected("amd64", "").as_deref(), Some("plain"));
        assert_eq!(selected("riscv64", ""), None);
    }

    #[test]
    fn null_lists_in_a_configuration_are_empty_lists() {
        let text = r#"{"os":"linux","architecture":"amd64","config":{"Cmd":null,"Env":["A=1"],"Labels":null}}"#;
        let (platform, config) = parse_config(text.as_bytes()).unwrap();
        assert_eq!((platform.os.as_str(), config.cmd.len(), config.env.len()), ("linux", 0, 1));
    }
}

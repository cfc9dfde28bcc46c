//! From a name to one platform's image: `index.json` → index → manifest → configuration, each verified.

use serde_json::Value;

use super::index::entry_name;
use super::{BlobKind, Store, StoreError};
use crate::oci::document::{
    CONFIG_BYTES_MAX, Descriptor, Document, MANIFEST_BYTES_MAX, PlatformEntry, parse_config, parse_document, runs_on,
    select,
};
use crate::oci::{Digest, Image, Platform, Reference};

/// Real images have one index, multi-platform artifacts two.
const NESTING_MAX: usize = 4;

impl Store {
    /// The image of this name for `platform`, with all its blobs in the store, or `None` if the name is unknown.
    ///
    /// Errors: [`StoreError::Missing`] and [`StoreError::Damaged`] name the first blob that must be fetched (again);
    /// [`StoreError::Platform`] when the name is known, but not for this platform.
    pub fn find(&self, reference: &Reference, platform: &Platform) -> Result<Option<Image>, StoreError> {
        let Some(root) = self.root_digest(reference)? else { return Ok(None) };
        let image = self.resolve(reference, root, platform)?;
        match self.missing_layers(&image.layers).first() {
            Some(layer) => self.open_layer(layer).map(|_| Some(image.clone())),
            None => Ok(Some(image)),
        }
    }

    /// What the name points at: the digest of an index or a manifest. A digest in the reference is its own answer, if
    /// its blob is here, whatever its name.
    pub fn root_digest(&self, reference: &Reference) -> Result<Option<Digest>, StoreError> {
        if let Some(digest) = reference.digest() {
            return Ok(self.blob_path(&digest).exists().then_some(digest));
        }
        Ok(named(&self.read_index_shared()?, reference))
    }

    /// The image for `platform` below `root`, an index or a manifest. The layers' blobs are not looked at.
    ///
    /// Errors: as [`Store::find`].
    pub fn resolve(&self, reference: &Reference, root: Digest, platform: &Platform) -> Result<Image, StoreError> {
        self.resolve_root(&reference.to_string(), root, platform)
    }

    /// As [`Store::resolve`], for an image that has no name in the store: `reference` says where it comes from.
    pub fn resolve_root(&self, reference: &str, root: Digest, platform: &Platform) -> Result<Image, StoreError> {
        let mut digest = root;
        for _ in 0..NESTING_MAX {
            let kind = BlobKind::Manifest;
            let bytes = self.read_document(kind, &digest, MANIFEST_BYTES_MAX)?;
            let fail = |source| StoreError::Document { kind, digest, source };
            match parse_document(&bytes).map_err(fail)? {
                Document::Index(entries) => {
                    let entry = select(&entries, platform).ok_or_else(|| unavailable(reference, platform, &entries))?;
                    digest = entry.digest().map_err(fail)?;
                }
                Document::Manifest(config, layers) => {
                    let config_digest = config.digest().map_err(fail)?;
                    let (found, config) = self.read_config(&config_digest)?;
                    // A configuration made by hand may name no platform; there is nothing to compare then.
                    let is_any = digest == root && self.compat.is_linuxkit();
                    if !found.architecture.is_empty() && !is_any && !runs_on(&found, platform) {
                        let (reference, wanted) = (reference.to_string(), platform.clone());
                        let found = found.to_platform().to_string();
                        return Err(StoreError::Platform { reference, wanted, found });
                    }
                    return Ok(Image { reference: reference.to_string(), manifest: digest, config, layers });
                }
            }
        }
        Err(StoreError::TooDeep { reference: reference.to_string(), limit: NESTING_MAX })
    }

    pub(super) fn read_config(&self, digest: &Digest) -> Result<(PlatformEntry, crate::oci::ImageConfig), StoreError> {
        let kind = BlobKind::Config;
        let bytes = self.read_document(kind, digest, CONFIG_BYTES_MAX)?;
        parse_config(&bytes).map_err(|source| StoreError::Document { kind, digest: *digest, source })
    }
}

pub(super) fn unavailable(reference: &str, wanted: &Platform, entries: &[Descriptor]) -> StoreError {
    const SHOWN: usize = 12;
    let known = |entry: &&PlatformEntry| entry.os != "unknown" && !entry.os.is_empty();
    let platforms = entries.iter().filter_map(|entry| entry.platform.as_ref()).filter(known);
    let found: Vec<_> = platforms.take(SHOWN).map(|entry| entry.to_platform().to_string()).collect();
    let found = if found.is_empty() { "no platform".to_owned() } else { found.join(", ") };
    StoreError::Platform { reference: reference.to_string(), wanted: wanted.clone(), found }
}

/// The digest that `index`, the content of `index.json`, has for a name.
pub(super) fn named(index: &Value, reference: &Reference) -> Option<Digest> {
    let entries = index.get("manifests").and_then(Value::as_array);
    let by_name = |name: &String| {
        let mut entries = entries.into_iter().flatten();
        entries.find(|entry| entry_name(entry) == Some(name.as_str()))?.get("digest")?.as_str()?.parse().ok()
    };
    reference.names().iter().find_map(by_name)
}

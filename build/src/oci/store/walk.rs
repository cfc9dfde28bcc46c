//! What the names of a store reach.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::index::entry_name;
use super::{BlobKind, Store, StoreError};
use crate::oci::document::{Descriptor, Document, MANIFEST_BYTES_MAX, PlatformEntry, parse_document};
use crate::oci::{Digest, Reference};

impl Store {
    /// Blobs of images from other repositories of `reference`'s registry, each with one repository that has it.
    pub(in crate::oci) fn repositories(&self, reference: &Reference) -> Result<HashMap<Digest, String>, StoreError> {
        let index = self.read_index_shared()?;
        let mut found = HashMap::new();
        for entry in index.get("manifests").and_then(Value::as_array).into_iter().flatten() {
            let Some(name) = entry_name(entry).and_then(|name| name.parse::<Reference>().ok()) else { continue };
            let digest = entry.get("digest").and_then(Value::as_str).and_then(|digest| digest.parse().ok());
            let Some(root) = digest else { continue };
            if name.registry() == reference.registry() && name.repository() != reference.repository() {
                let blobs = self.reached(root).into_iter();
                found.extend(blobs.map(|digest| (digest, name.repository().to_owned())));
            }
        }
        Ok(found)
    }

    /// The root and every blob that it leads to and that its documents here tell of. Documents that are missing or damaged
    /// lead nowhere.
    pub(in crate::oci) fn reached(&self, root: Digest) -> HashSet<Digest> {
        self.reach(root).blobs.into_keys().collect()
    }

    /// As [`Store::reached`], with what is told of each blob.
    pub(super) fn reach(&self, root: Digest) -> Reach {
        let mut found = Reach::default();
        let mut open = vec![(root, None)];
        while let Some((digest, platform)) = open.pop() {
            if found.blobs.insert(digest, None).is_some() {
                continue;
            }
            let bytes = match self.read_document(BlobKind::Manifest, &digest, MANIFEST_BYTES_MAX) {
                Ok(bytes) => bytes,
                Err(error) => {
                    found.damaged |= !matches!(error, StoreError::Missing { .. });
                    continue;
                }
            };
            found.documents.push(digest);
            match parse_document(&bytes) {
                Ok(Document::Index(entries)) => {
                    let below = |entry: &Descriptor| Some((entry.digest().ok()?, entry.platform.clone()));
                    open.extend(entries.iter().filter_map(below));
                }
                Ok(Document::Manifest(config, layers)) => {
                    if let Ok(digest) = config.digest() {
                        found.blobs.insert(digest, Some(config.size));
                        found.platforms.extend(platform.or_else(|| Some(self.read_config(&digest).ok()?.0)));
                    }
                    found.blobs.extend(layers.into_iter().map(|layer| (layer.digest, Some(layer.size_bytes))));
                }
                Err(_) => found.damaged = true,
            }
        }
        found
    }

    /// Every entry of `index.json` with a digest: its name, if it has one.
    pub(super) fn roots(&self) -> Result<Vec<(Option<String>, Digest)>, StoreError> {
        let index = self.read_index_shared()?;
        let entries = index.get("manifests").and_then(Value::as_array).into_iter().flatten();
        let root = |entry: &Value| {
            let digest = entry.get("digest")?.as_str()?.parse().ok()?;
            Some((entry_name(entry).map(str::to_owned), digest))
        };
        Ok(entries.filter_map(root).collect())
    }
}

/// What a root leads to.
#[derive(Debug, Default)]
pub(super) struct Reach {
    /// Every blob, and how long it should be where that is told.
    pub blobs: HashMap<Digest, Option<u64>>,
    /// Indexes and manifests that are here, outer ones first.
    pub documents: Vec<Digest>,
    /// What the manifests that are here are for.
    pub platforms: Vec<PlatformEntry>,
    /// A document is here and cannot be read, so there may be more.
    pub damaged: bool,
}

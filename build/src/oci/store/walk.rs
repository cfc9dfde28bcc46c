//! What the names of a store reach.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::index::entry_name;
use super::{BlobKind, Store, StoreError};
use crate::oci::document::{Document, MANIFEST_BYTES_MAX, parse_document};
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
        let mut found = HashSet::new();
        let mut open = vec![root];
        while let Some(digest) = open.pop() {
            if !found.insert(digest) {
                continue;
            }
            let Ok(bytes) = self.read_document(BlobKind::Manifest, &digest, MANIFEST_BYTES_MAX) else { continue };
            match parse_document(&bytes) {
                Ok(Document::Index(entries)) => open.extend(entries.iter().filter_map(|entry| entry.digest().ok())),
                Ok(Document::Manifest(config, layers)) => {
                    found.extend(config.digest());
                    found.extend(layers.into_iter().map(|layer| layer.digest));
                }
                Err(_) => {}
            }
        }
        found
    }
}

//! Names for blobs: what pulls and the package builder write into `index.json`, and images made here.

use serde_json::{Value, json};

use super::find::named;
use super::index::{NAME_ANNOTATION, entries_mut, entry_name};
use super::{BlobKind, Store, StoreError};
use crate::oci::document::{DocumentError, INDEX_TYPE, MANIFEST_BYTES_MAX, MANIFEST_TYPE, media_type};
use crate::oci::{Digest, Image, Layer, Platform, Reference};

const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";

/// What a name points at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagEntry {
    /// Media type of the manifest or index.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// Set for a single manifest only.
    pub platform: Option<Platform>,
}

impl Store {
    /// Makes `reference` the name of `entry`, in the place of what had the name before.
    pub fn tag(&self, reference: &Reference, entry: &TagEntry) -> Result<(), StoreError> {
        let _lock = self.lock_exclusive()?;
        self.tag_locked(reference, entry)
    }

    /// Makes `reference` the name of an index or a manifest that is in the store.
    pub fn tag_stored(&self, reference: &Reference, digest: Digest) -> Result<(), StoreError> {
        let bytes = self.read_document(BlobKind::Manifest, &digest, MANIFEST_BYTES_MAX)?;
        let size_bytes = bytes.len() as u64;
        self.tag(reference, &TagEntry { media_type: media_type(&bytes), digest, size_bytes, platform: None })
    }

    /// Writes an image of one platform and names it. Other platforms under the same name stay. The same input gives the
    /// same bytes. `layers` are in the store already.
    ///
    /// Errors: [`StoreError::Missing`] for a layer that is not; [`StoreError::Document`] for a `config_json` that is no
    /// configuration.
    pub fn put_image(
        &self,
        reference: &Reference,
        platform: &Platform,
        config_json: &[u8],
        layers: Vec<Layer>,
    ) -> Result<Image, StoreError> {
        if let Some(layer) = self.missing_layers(&layers).first() {
            self.open_layer(layer)?;
        }
        let config = self.put_blob(config_json)?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": CONFIG_TYPE, "digest": config.to_string(), "size": config_json.len()},
            "layers": layers.iter().map(layer_json).collect::<Vec<_>>(),
        })
        .to_string();
        let digest = self.put_blob(manifest.as_bytes())?;
        let image = self.resolve(reference, digest, platform)?;
        let entry = json!({
            "mediaType": MANIFEST_TYPE,
            "digest": digest.to_string(),
            "size": manifest.len(),
            "platform": platform_json(platform),
        });
        let _lock = self.lock_exclusive()?;
        let mut entries = self.other_platforms(reference, &entry)?;
        entries.push(entry);
        entries.sort_by_key(|entry| entry.get("platform").map(Value::to_string));
        let index = json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": entries}).to_string();
        let digest = self.put_blob(index.as_bytes())?;
        let size_bytes = index.len() as u64;
        self.tag_locked(reference, &TagEntry { media_type: INDEX_TYPE.into(), digest, size_bytes, platform: None })?;
        Ok(image)
    }

    fn tag_locked(&self, reference: &Reference, entry: &TagEntry) -> Result<(), StoreError> {
        let name = reference.to_string();
        let mut new = json!({
            "mediaType": entry.media_type,
            "digest": entry.digest.to_string(),
            "size": entry.size_bytes,
            "annotations": {NAME_ANNOTATION: name},
        });
        if let (Some(platform), Some(object)) = (&entry.platform, new.as_object_mut()) {
            object.insert("platform".into(), platform_json(platform));
        }
        let mut index = self.read_index()?;
        let Some(entries) = entries_mut(&mut index) else {
            let source = serde::de::Error::custom("`manifests` is no list");
            return Err(StoreError::Index { path: self.index_path(), source });
        };
        let place = entries.iter().position(|entry| entry_name(entry) == Some(&name)).unwrap_or(entries.len());
        let digest = |entry: &Value| entry.get("digest").cloned();
        if entries.get(place).is_some_and(|known| digest(known) == digest(&new)) {
            return Ok(()); // what others noted beside it stays
        }
        entries.retain(|entry| entry_name(entry) != Some(&name));
        entries.insert(place.min(entries.len()), new);
        self.write_index(&index)
    }

    /// The entries to keep beside `new` from the index that has the name now.
    fn other_platforms(&self, reference: &Reference, new: &Value) -> Result<Vec<Value>, StoreError> {
        let Some(root) = named(&self.read_index()?, reference) else { return Ok(Vec::new()) };
        let kind = BlobKind::Manifest;
        let bytes = match self.read_document(kind, &root, MANIFEST_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(StoreError::Missing { .. } | StoreError::Damaged { .. }) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let index: Value = serde_json::from_slice(&bytes).map_err(|error| StoreError::Document {
            kind,
            digest: root,
            source: DocumentError::Json(error),
        })?;
        let entries = index.get("manifests").and_then(Value::as_array).cloned().unwrap_or_default();
        let same_platform = |entry: &Value| entry.get("platform") == new.get("platform");
        let replaced: Vec<Value> =
            entries.iter().filter(|entry| same_platform(entry)).filter_map(|e| e.get("digest").cloned()).collect();
        let describes_replaced = |entry: &Value| {
            let about = entry.get("annotations").and_then(|notes| notes.get("vnd.docker.reference.digest"));
            about.is_some_and(|digest| replaced.contains(digest))
        };
        Ok(entries.into_iter().filter(|entry| !same_platform(entry) && !describes_replaced(entry)).collect())
    }
}

fn layer_json(layer: &Layer) -> Value {
    json!({"mediaType": layer.media_type, "digest": layer.digest.to_string(), "size": layer.size_bytes})
}

fn platform_json(platform: &Platform) -> Value {
    let mut json = json!({"architecture": platform.architecture, "os": platform.os});
    if let (false, Some(object)) = (platform.variant.is_empty(), json.as_object_mut()) {
        object.insert("variant".into(), platform.variant.clone().into());
    }
    json
}

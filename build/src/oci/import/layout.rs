//! Images of an OCI image layout (`image-layout.md`), and blobs on their way into the store.

use std::io::{self, Read};

use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::files::Opened;
use super::{ImportError, Importer};
use crate::oci::document::{
    CONFIG_BYTES_MAX, Descriptor, Document, INDEX_TYPE, MANIFEST_BYTES_MAX, media_type, parse_document, select,
};
use crate::oci::{Digest, DocumentError, Layer, TagEntry};

/// An index in an index; more is an attack.
const NESTING_MAX: usize = 4;
/// The index of a layout; a store with ten thousand images stays below.
const INDEX_BYTES_MAX: u64 = 32 << 20;

/// One image of a layout: what its index says of it.
pub struct Listed {
    /// Names by its annotations, the best first: containerd's is always complete.
    pub names: Vec<String>,
    /// One entry, or one for each platform.
    pub entries: Vec<Value>,
}

#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Value>,
}

/// The images of a layout, in its order. Entries of one name (or without any) are one image for several platforms.
pub fn listed(importer: &Importer<'_>) -> Result<Option<Vec<Listed>>, ImportError> {
    let name = "index.json";
    let Some(bytes) = importer.small(name, INDEX_BYTES_MAX)? else { return Ok(None) };
    let index: Index =
        serde_json::from_slice(&bytes).map_err(|error| importer.document(name, DocumentError::Json(error)))?;
    let mut images: Vec<Listed> = Vec::new();
    for entry in index.manifests {
        let names = names(&entry);
        match images.iter_mut().find(|image| image.names == names && entry.get("platform").is_some()) {
            Some(image) => image.entries.push(entry),
            None => images.push(Listed { names, entries: vec![entry] }),
        }
    }
    Ok(Some(images))
}

fn names(entry: &Value) -> Vec<String> {
    let annotation = |key: &str| entry.get("annotations")?.get(key)?.as_str().map(str::to_owned);
    let keys = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];
    keys.iter().filter_map(|key| annotation(key)).filter(|name| !name.is_empty()).collect()
}

/// Takes an image over; returns what it is called by.
pub fn take(importer: &Importer<'_>, image: &Listed) -> Result<TagEntry, ImportError> {
    let mut taken = Vec::new();
    for entry in &image.entries {
        let descriptor: Descriptor = serde_json::from_value(entry.clone())
            .map_err(|error| importer.document("index.json", DocumentError::Json(error)))?;
        let digest = descriptor.digest().map_err(|source| importer.document("index.json", source))?;
        let only_one = image.entries.len() == 1;
        let wanted = importer.platform.is_none_or(|wanted| select(std::slice::from_ref(&descriptor), wanted).is_some());
        if only_one || wanted {
            taken.push((document(importer, digest, &platform(&descriptor), 0)?, entry));
        }
    }
    match taken.as_slice() {
        [(entry, _)] => Ok(entry.clone()),
        _ => {
            let entries: Vec<Value> = image.entries.iter().map(without_annotations).collect();
            let index = json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": entries}).to_string();
            let digest = importer.store.put_blob(index.as_bytes())?;
            let size_bytes = index.len() as u64;
            Ok(TagEntry { media_type: INDEX_TYPE.into(), digest, size_bytes, platform: None })
        }
    }
}

fn without_annotations(entry: &Value) -> Value {
    let mut entry = entry.clone();
    if let Some(entry) = entry.as_object_mut() {
        entry.remove("annotations");
    }
    entry
}

fn platform(descriptor: &Descriptor) -> String {
    descriptor.platform.as_ref().map(|entry| format!(", for {}", entry.to_platform())).unwrap_or_default()
}

/// Takes over an index or a manifest with all that it needs. Of an index only what is there, and what is wanted.
fn document(
    importer: &Importer<'_>,
    digest: Digest,
    platform_text: &str,
    depth: usize,
) -> Result<TagEntry, ImportError> {
    let name = blob_name(&digest);
    let bytes = match importer.small(&name, MANIFEST_BYTES_MAX)? {
        Some(bytes) => bytes,
        None => return Err(importer.missing(name, platform_text)),
    };
    let found = Digest::from_bytes(Sha256::digest(&bytes).into());
    if found != digest {
        return Err(ImportError::Damaged { what: importer.what.clone(), name, expected: digest, found });
    }
    match parse_document(&bytes).map_err(|source| importer.document(&name, source))? {
        Document::Index(_) if depth >= NESTING_MAX => return Err(importer.document(&name, DocumentError::Nested)),
        Document::Index(entries) => {
            let selected = importer.platform.and_then(|wanted| select(&entries, wanted));
            for entry in &entries {
                let below = entry.digest().map_err(|source| importer.document(&name, source))?;
                let is_selected = selected.is_some_and(|selected| selected.digest == entry.digest);
                let is_there = importer.has(&blob_name(&below))?;
                if is_selected || (importer.platform.is_none() && is_there) {
                    document(importer, below, &platform(entry), depth + 1)?;
                }
            }
        }
        Document::Manifest(config, layers) => {
            let config_digest = config.digest().map_err(|source| importer.document(&name, source))?;
            if config.size > CONFIG_BYTES_MAX {
                let (name, what) = (blob_name(&config_digest), importer.what.clone());
                return Err(ImportError::TooLong { what, name, found: config.size, limit: CONFIG_BYTES_MAX });
            }
            let config = Layer { digest: config_digest, size_bytes: config.size, media_type: String::new() };
            for layer in [&config].into_iter().chain(&layers) {
                blob(importer, layer, platform_text)?;
            }
        }
    }
    importer.store.put_blob(&bytes)?;
    Ok(TagEntry { media_type: media_type(&bytes), digest, size_bytes: bytes.len() as u64, platform: None })
}

fn blob(importer: &Importer<'_>, layer: &Layer, platform: &str) -> Result<(), ImportError> {
    if importer.store.missing_layers(std::slice::from_ref(layer)).is_empty() {
        return Ok(());
    }
    let name = blob_name(&layer.digest);
    let Some((mut from, found)) = importer.open(&name)? else { return Err(importer.missing(name, platform)) };
    if found != layer.size_bytes {
        return Err(ImportError::Length { what: importer.what.clone(), name, expected: layer.size_bytes, found });
    }
    // A file that grows meanwhile must not fill the store.
    let (found, _) = importer.keep(&name, &mut from.by_ref().take(found), Some(layer.digest))?;
    debug_assert_eq!(found, layer.digest);
    Ok(())
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

impl Importer<'_> {
    /// All of a document; `None` if there is none of this name.
    pub fn small(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, ImportError> {
        let Some((from, found)) = self.open(name)? else { return Ok(None) };
        let mut bytes = Vec::new();
        from.take(limit + 1).read_to_end(&mut bytes).map_err(|source| self.read_error(source))?;
        if bytes.len() as u64 > limit {
            return Err(ImportError::TooLong { what: self.what.clone(), name: name.into(), found, limit });
        }
        Ok(Some(bytes))
    }

    pub fn open(&self, name: &str) -> Result<Option<Opened<'_>>, ImportError> {
        self.files.open(name).map_err(|source| self.read_error(source))
    }

    fn has(&self, name: &str) -> Result<bool, ImportError> {
        Ok(self.open(name)?.is_some())
    }

    pub fn read_error(&self, source: io::Error) -> ImportError {
        match self.cancel.check() {
            Ok(()) => ImportError::Read { what: self.what.clone(), source },
            Err(_) => ImportError::Cancelled,
        }
    }

    pub fn document(&self, name: &str, source: DocumentError) -> ImportError {
        ImportError::Document { what: self.what.clone(), name: name.into(), source }
    }

    pub fn missing(&self, name: String, platform: &str) -> ImportError {
        ImportError::Missing { what: self.what.clone(), name, platform: platform.into() }
    }

    /// Writes a blob into the store, if it is what it should be. Returns its digest and length.
    pub fn keep(
        &self,
        name: &str,
        from: &mut dyn Read,
        expected: Option<Digest>,
    ) -> Result<(Digest, u64), ImportError> {
        let mut writer = self.store.blob_writer()?;
        super::files::copy(from, &mut writer, self.cancel, self.meter).map_err(|source| self.read_error(source))?;
        let bytes = writer.len_bytes();
        let found = writer.commit_if(|found| expected.is_none_or(|expected| expected == found))?;
        match expected {
            Some(expected) if expected != found => {
                Err(ImportError::Damaged { what: self.what.clone(), name: name.into(), expected, found })
            }
            _ => Ok((found, bytes)),
        }
    }
}

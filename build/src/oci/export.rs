//! Images out of the store into one tar archive, as OCI and Docker tools read it. The same image gives the same bytes.

use std::io::{self, Read, Write};

use serde_json::{Value, json};

use super::document::{CONFIG_BYTES_MAX, Document, MANIFEST_BYTES_MAX, media_type, parse_document};
use super::{BlobKind, Digest, DocumentError, Layer, Platform, Reference, Store, StoreError};
use crate::cancel::Cancel;
use crate::progress::{Meter, Progress};

const PIECE_BYTES: usize = 1 << 20;
/// Indexes in indexes.
const NESTING_MAX: usize = 4;

/// What an archive is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveKind {
    /// An OCI image layout: everything that the name reaches, or one platform.
    Oci,
    /// What `docker load` reads, whatever its version: one platform.
    Docker,
}

/// Why an image cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The store does not have all of it.
    #[error("`{name}` cannot be read from the store; `kiln cache pull {name}` gets it anew")]
    Store {
        /// The image.
        name: String,
        /// Why.
        #[source]
        source: Box<StoreError>,
    },
    /// The archive cannot be written.
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
    /// The user stopped it.
    #[error("interrupted")]
    Cancelled,
}

/// What to export.
#[derive(Debug, Clone, Copy)]
pub struct ExportRequest<'a> {
    /// The image in the store.
    pub image: &'a Reference,
    /// What it is called in the archive.
    pub name: &'a Reference,
    /// Only this platform; `None`: all that are here. Docker's archive needs one.
    pub platform: Option<&'a Platform>,
    /// What the archive is for.
    pub kind: ArchiveKind,
}

/// Writes an image as an archive. Every blob is verified while it is written, so a failed archive must be thrown away.
pub fn export(
    request: &ExportRequest<'_>,
    store: &Store,
    to: &mut dyn Write,
    cancel: &Cancel,
    progress: &dyn Progress,
) -> Result<(), ExportError> {
    let fail = |error| ExportError::Store { name: request.image.to_string(), source: Box::new(error) };
    let root = store.root_digest(request.image).map_err(fail)?;
    let root = root.ok_or_else(|| fail(StoreError::Unnamed { reference: request.image.to_string() }))?;
    let root = match (request.platform, request.kind) {
        (Some(platform), _) => store.resolve(request.image, root, platform).map_err(fail)?.manifest,
        (None, _) => root,
    };
    let mut contents = Contents::default();
    contents.collect(store, root, 0).map_err(fail)?;
    let total = contents.blobs.iter().fold(0_u64, |sum, blob| sum.saturating_add(blob.size_bytes));
    let meter = progress.begin(&format!("export {}", request.name), Some(total));
    let mut archive = Archive { tar: tar::Builder::new(to), cancel, meter: meter.as_ref() };
    archive.tar.mode(tar::HeaderMode::Deterministic);
    archive.bytes("oci-layout", br#"{"imageLayoutVersion": "1.0.0"}"#)?;
    archive.bytes("index.json", index(&contents, request).to_string().as_bytes())?;
    if request.kind == ArchiveKind::Docker {
        let list = contents.docker_list(request.name).map_err(fail)?;
        archive.bytes("manifest.json", list.to_string().as_bytes())?;
    }
    for (digest, bytes) in &contents.documents {
        archive.bytes(&blob_name(digest), bytes)?;
    }
    for blob in &contents.blobs {
        let mut from = store.open_layer(blob).map_err(fail)?;
        archive.blob(blob, &mut from).map_err(|error| match error {
            ExportError::Write(source) if source.kind() == io::ErrorKind::InvalidData => {
                fail(StoreError::of_read(source, store.blob_path(&blob.digest)))
            }
            error => error,
        })?;
    }
    archive.tar.finish().map_err(ExportError::Write)
}

/// The layout's index: both annotations, as there are tools that read only one of them.
fn index(contents: &Contents, request: &ExportRequest<'_>) -> Value {
    let (digest, bytes) = contents.documents.first().cloned().unwrap_or((Digest::from_bytes([0; 32]), Vec::new()));
    let mut entry = json!({
        "mediaType": media_type(&bytes),
        "digest": digest.to_string(),
        "size": bytes.len(),
        "annotations": {
            "io.containerd.image.name": complete(request.name),
            "org.opencontainers.image.ref.name": complete(request.name),
        },
    });
    if let (Some(platform), Some(entry)) = (request.platform, entry.as_object_mut()) {
        entry.insert("platform".into(), json!({"architecture": platform.architecture, "os": platform.os}));
    }
    json!({"schemaVersion": 2, "mediaType": super::document::INDEX_TYPE, "manifests": [entry]})
}

/// A name with a tag: other tools insist on one.
fn complete(name: &Reference) -> String {
    match (name.tag(), name.digest()) {
        (None, None) => format!("{name}:latest"),
        _ => name.to_string(),
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// What an archive holds: documents, the root first, and blobs.
#[derive(Default)]
struct Contents {
    documents: Vec<(Digest, Vec<u8>)>,
    blobs: Vec<Layer>,
}

impl Contents {
    fn collect(&mut self, store: &Store, digest: Digest, depth: usize) -> Result<(), StoreError> {
        let kind = BlobKind::Manifest;
        let bytes = store.read_document(kind, &digest, MANIFEST_BYTES_MAX)?;
        let fail = |source| StoreError::Document { kind, digest, source };
        self.documents.push((digest, bytes.clone()));
        match parse_document(&bytes).map_err(fail)? {
            Document::Index(_) if depth >= NESTING_MAX => return Err(fail(DocumentError::Nested)),
            Document::Index(entries) => {
                for entry in entries {
                    let below = entry.digest().map_err(fail)?;
                    let is_known = self.documents.iter().any(|(known, _)| *known == below);
                    // Platforms that were never pulled are not here.
                    if !is_known && store.blob_path(&below).exists() {
                        self.collect(store, below, depth + 1)?;
                    }
                }
            }
            Document::Manifest(config, layers) => {
                let config_digest = config.digest().map_err(fail)?;
                let (kind, bytes) = (BlobKind::Config, config.size);
                if bytes > CONFIG_BYTES_MAX {
                    return Err(StoreError::TooLarge { kind, digest: config_digest, bytes, limit: CONFIG_BYTES_MAX });
                }
                let config = Layer { digest: config_digest, size_bytes: bytes, media_type: config.media_type };
                for blob in [config].into_iter().chain(layers) {
                    if !self.blobs.iter().any(|known| known.digest == blob.digest) {
                        self.blobs.push(blob);
                    }
                }
            }
        }
        Ok(())
    }

    /// `manifest.json` of the root, which is one platform's manifest.
    fn docker_list(&self, name: &Reference) -> Result<Value, StoreError> {
        let kind = BlobKind::Manifest;
        let Some((digest, bytes)) = self.documents.first() else { return Ok(json!([])) };
        let fail = |source| StoreError::Document { kind, digest: *digest, source };
        let Document::Manifest(config, layers) = parse_document(bytes).map_err(fail)? else {
            return Err(fail(DocumentError::Neither));
        };
        let tags = name.digest().is_none().then(|| complete(name));
        Ok(json!([{
            "Config": blob_name(&config.digest().map_err(fail)?),
            "RepoTags": tags.into_iter().collect::<Vec<_>>(),
            "Layers": layers.iter().map(|layer| blob_name(&layer.digest)).collect::<Vec<_>>(),
        }]))
    }
}

struct Archive<'a> {
    tar: tar::Builder<&'a mut dyn Write>,
    cancel: &'a Cancel,
    meter: &'a dyn Meter,
}

impl Archive<'_> {
    fn bytes(&mut self, name: &str, bytes: &[u8]) -> Result<(), ExportError> {
        let mut header = header(bytes.len() as u64);
        self.tar.append_data(&mut header, name, bytes).map_err(ExportError::Write)
    }

    fn blob(&mut self, blob: &Layer, from: &mut dyn Read) -> Result<(), ExportError> {
        let mut header = header(blob.size_bytes);
        let counted = Counted { from, cancel: self.cancel, meter: self.meter };
        let written = self.tar.append_data(&mut header, blob_name(&blob.digest), counted);
        written.map_err(|error| match self.cancel.check() {
            Ok(()) => ExportError::Write(error),
            Err(_) => ExportError::Cancelled,
        })
    }
}

fn header(bytes: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes);
    header.set_mode(0o644);
    header.set_mtime(0);
    header
}

struct Counted<'a> {
    from: &'a mut dyn Read,
    cancel: &'a Cancel,
    meter: &'a dyn Meter,
}

impl Read for Counted<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.cancel.check().map_err(io::Error::other)?;
        let wanted = out.len().min(PIECE_BYTES);
        let (out, _) = out.split_at_mut(wanted);
        let count = self.from.read(out)?;
        self.meter.advance(count as u64);
        Ok(count)
    }
}

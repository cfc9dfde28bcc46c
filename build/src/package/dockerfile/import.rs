//! The builder's result, an OCI image layout, into the store.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use serde::Deserialize;

use crate::cancel::Cancel;
use crate::oci::{Digest, Image, Platform, Reference, Store, StoreError};
use crate::package::PackageError;
use crate::package::error::io_error;

/// Longest document that is read, in bytes; a store takes none that is longer.
const DOCUMENT_BYTES_MAX: u64 = 8 << 20;
/// How much of a layer is copied between two looks at whether it is still wanted.
const PIECE_BYTES: u64 = 1 << 20;

/// What is used of an index or a manifest.
#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    manifests: Vec<Descriptor>,
    config: Option<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
}

/// Copies the one image of the layout in `folder` into the store, under `reference`. Everything is verified on the way.
///
/// Errors: a layout without an image for the platform, or one that is not what its digests say.
pub(super) fn import(
    folder: &Path,
    reference: &Reference,
    platform: &Platform,
    store: &Store,
    cancel: &Cancel,
) -> Result<Image, PackageError> {
    let path = folder.join("index.json");
    let broken = |source| io_error("read", &path, source);
    let nothing = || broken(io::Error::new(io::ErrorKind::InvalidData, "it names no image"));
    let index: Document = serde_json::from_slice(&document(&path).map_err(broken)?).map_err(|e| broken(e.into()))?;
    let root: Option<Digest> = index.manifests.first().and_then(|entry| entry.digest.parse().ok());
    let built = Store::open(folder)?;
    let image = built.resolve(reference, root.ok_or_else(nothing)?, platform)?;
    for layer in store.missing_layers(&image.layers) {
        let mut content = built.open_layer(layer)?;
        let mut blob = store.blob_writer()?;
        let failed = |source| io_error("copy a layer into", store.root(), source);
        while io::copy(&mut content.by_ref().take(PIECE_BYTES), &mut blob).map_err(failed)? > 0 {
            cancel.check()?;
        }
        blob.commit(Some(layer.digest), Some(layer.size_bytes))?;
    }
    let (_, config) = config_of(&built, &image)?;
    Ok(store.put_image(reference, platform, &config, image.layers)?)
}

/// The configuration of an image, byte for byte, and its digest.
pub(super) fn config_of(store: &Store, image: &Image) -> Result<(Digest, Vec<u8>), StoreError> {
    let read = |digest: &Digest| {
        let path = store.blob_path(digest);
        document(&path).map_err(|source| StoreError::Io { action: "read", path, source })
    };
    let refuse = |source: io::Error| {
        let path = store.blob_path(&image.manifest);
        StoreError::Io { action: "understand", path, source }
    };
    let manifest: Document = serde_json::from_slice(&read(&image.manifest)?).map_err(|error| refuse(error.into()))?;
    let digest = manifest.config.and_then(|config| config.digest.parse().ok());
    let digest =
        digest.ok_or_else(|| refuse(io::Error::new(io::ErrorKind::InvalidData, "it names no configuration")))?;
    Ok((digest, read(&digest)?))
}

pub(super) fn document(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > DOCUMENT_BYTES_MAX {
        true => Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is longer than 8 MiB")),
        false => Ok(bytes),
    }
}

/// Writes a layout in `folder` with the blobs of `store` and the names of `roots`, for builders to read base images from.
pub(super) fn layout_of(roots: &[(String, Digest)], store: &Store, folder: &Path) -> Result<(), PackageError> {
    let mut manifests = Vec::new();
    for (name, digest) in roots {
        let path = store.blob_path(digest);
        let bytes = document(&path).map_err(|source| io_error("read", &path, source))?;
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let media_type = value.get("mediaType").and_then(serde_json::Value::as_str).unwrap_or({
            match value.get("manifests") {
                Some(_) => "application/vnd.oci.image.index.v1+json",
                None => "application/vnd.oci.image.manifest.v1+json",
            }
        });
        manifests.push(serde_json::json!({
            "mediaType": media_type,
            "digest": digest.to_string(),
            "size": bytes.len(),
            "annotations": {"org.opencontainers.image.ref.name": name},
        }));
    }
    let index = serde_json::json!({"schemaVersion": 2, "manifests": manifests}).to_string();
    let failed = |source| io_error("write a layout in", folder, source);
    let blobs = fs::canonicalize(store.root().join("blobs")).map_err(failed)?;
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#)
        .and_then(|()| fs::write(folder.join("index.json"), index))
        .and_then(|()| std::os::unix::fs::symlink(blobs, folder.join("blobs")))
        .map_err(failed)
}

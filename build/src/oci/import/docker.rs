//! Images of a `docker save` archive (Docker's image specification 1.2: `manifest.json`, a configuration and a tar file for
//! each layer).

use std::io::{self, BufReader, Read};

use serde::Deserialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{ImportError, Importer};
use crate::oci::document::{CONFIG_BYTES_MAX, MANIFEST_TYPE, parse_document};
use crate::oci::{Digest, DocumentError, Layer, TagEntry};

const INDEX_BYTES_MAX: u64 = 4 << 20;
/// What a compressed layer may unpack to while it is compared with its configuration.
const UNPACKED_BYTES_MAX: u64 = 256 << 30;

/// One image of the archive.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Saved {
    config: String,
    /// Go writes `null` for none.
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Option<Vec<String>>,
}

impl Saved {
    /// Its names, `NAME:TAG` each.
    pub fn names(&self) -> Vec<String> {
        self.repo_tags.clone().unwrap_or_default()
    }
}

/// The images of the archive, in its order.
pub fn listed(importer: &Importer<'_>) -> Result<Option<Vec<Saved>>, ImportError> {
    let name = "manifest.json";
    let Some(bytes) = importer.small(name, INDEX_BYTES_MAX)? else { return Ok(None) };
    let images = serde_json::from_slice(&bytes);
    images.map(Some).map_err(|error| importer.document(name, DocumentError::Json(error)))
}

/// Takes an image over. The same archive gives the same manifest each time.
pub fn take(importer: &Importer<'_>, image: &Saved) -> Result<TagEntry, ImportError> {
    let name = &image.config;
    let config_bytes = importer.small(name, CONFIG_BYTES_MAX)?.ok_or_else(|| importer.missing(name.clone(), ""))?;
    let config: Config =
        serde_json::from_slice(&config_bytes).map_err(|error| importer.document(name, DocumentError::Json(error)))?;
    let diff_ids = config.rootfs.diff_ids.unwrap_or_default();
    let files = image.layers.clone().unwrap_or_default();
    if diff_ids.len() != files.len() {
        let (layers, diff_ids) = (files.len(), diff_ids.len());
        return Err(importer.document(name, DocumentError::DiffIds { layers, diff_ids }));
    }
    let mut layers = Vec::new();
    for (file, diff_id) in files.iter().zip(&diff_ids) {
        let diff_id = diff_id.parse().map_err(|source| importer.document(name, DocumentError::Digest(source)))?;
        layers.push(layer(importer, file, diff_id)?);
    }
    let config = importer.store.put_blob(&config_bytes)?;
    let layer_json = |layer: &Layer| json!({"mediaType": layer.media_type, "digest": layer.digest.to_string(), "size": layer.size_bytes});
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": config.to_string(),
            "size": config_bytes.len(),
        },
        "layers": layers.iter().map(layer_json).collect::<Vec<_>>(),
    })
    .to_string();
    parse_document(manifest.as_bytes()).map_err(|source| importer.document(name, source))?;
    let digest = importer.store.put_blob(manifest.as_bytes())?;
    let size_bytes = manifest.len() as u64;
    Ok(TagEntry { media_type: MANIFEST_TYPE.into(), digest, size_bytes, platform: None })
}

/// Takes over the layer that unpacks to `diff_id`.
fn layer(importer: &Importer<'_>, name: &str, diff_id: Digest) -> Result<Layer, ImportError> {
    let Some((mut from, bytes)) = importer.open(name)? else { return Err(importer.missing(name.to_owned(), "")) };
    let mut start = Vec::new();
    from.by_ref().take(4).read_to_end(&mut start).map_err(|source| importer.read_error(source))?;
    let compression = match start.as_slice() {
        [0x1f, 0x8b, ..] => "+gzip",
        [0x28, 0xb5, 0x2f, 0xfd] => "+zstd",
        _ => "",
    };
    let media_type = format!("application/vnd.oci.image.layer.v1.tar{compression}");
    let plain = Layer { digest: diff_id, size_bytes: bytes, media_type };
    if compression.is_empty() {
        if importer.store.missing_layers(std::slice::from_ref(&plain)).is_empty() {
            return Ok(plain);
        }
        importer.keep(name, &mut io::Cursor::new(start).chain(from), Some(diff_id))?;
        return Ok(plain);
    }
    let (digest, size_bytes) = importer.keep(name, &mut io::Cursor::new(start).chain(from), None)?;
    let packed = Layer { digest, size_bytes, ..plain };
    let found = unpacked_digest(importer, &packed).map_err(|source| importer.read_error(source))?;
    match found == diff_id {
        true => Ok(packed),
        false => Err(ImportError::Damaged { what: importer.what.clone(), name: name.into(), expected: diff_id, found }),
    }
}

fn unpacked_digest(importer: &Importer<'_>, layer: &Layer) -> io::Result<Digest> {
    let packed = BufReader::new(importer.store.open_layer(layer).map_err(io::Error::other)?);
    let mut hash = Sha256::new();
    let unpacked: &mut dyn Read = match layer.media_type.ends_with("+zstd") {
        true => &mut zstd::stream::read::Decoder::new(packed)?,
        false => &mut flate2::read::MultiGzDecoder::new(packed),
    };
    let meter = crate::progress::Silent;
    super::files::copy(&mut unpacked.take(UNPACKED_BYTES_MAX), &mut hash, importer.cancel, &meter)?;
    Ok(Digest::from_bytes(hash.finalize().into()))
}

//! Images as `docker save` writes them and `docker load` reads them: `manifest.json`, configurations, plain layers.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

use serde_json::json;
use tar::{Builder, Header};

use super::import::config_of;
use crate::layer::decompress;
use crate::oci::{Image, Reference, Store};

/// An image to save.
#[derive(Debug)]
pub(super) struct Saved {
    /// What Docker is to call it.
    pub names: Vec<String>,
    /// The image; the store has all of it.
    pub image: Image,
    /// What it was asked for by.
    pub reference: Reference,
}

/// Writes all images into one archive. Layers are unpacked in the folder `temporary` on the way.
pub(super) fn save(images: &[Saved], store: &Store, temporary: &Path, out: impl Write) -> io::Result<()> {
    let mut archive = Builder::new(out);
    let mut listed = Vec::new();
    let mut written = std::collections::BTreeSet::new();
    for Saved { names, image, .. } in images {
        let (config, bytes) = config_of(store, image).map_err(io::Error::other)?;
        let config = format!("{}.json", config.hex());
        if written.insert(config.clone()) {
            append(&mut archive, &config, bytes.len() as u64, &bytes[..])?;
        }
        let mut layers = Vec::new();
        for layer in &image.layers {
            let path = format!("{}/layer.tar", layer.digest.hex());
            if written.insert(path.clone()) {
                let mut plain: File = tempfile::tempfile_in(temporary)?;
                let content = store.open_layer(layer).map_err(io::Error::other)?;
                io::copy(&mut decompress(content)?, &mut plain)?;
                let bytes = plain.stream_position()?;
                plain.seek(SeekFrom::Start(0))?;
                append(&mut archive, &path, bytes, plain)?;
            }
            layers.push(path);
        }
        listed.push(json!({"Config": config, "RepoTags": names, "Layers": layers}));
    }
    let manifest = serde_json::to_vec(&listed)?;
    append(&mut archive, "manifest.json", manifest.len() as u64, &manifest[..])?;
    archive.into_inner()?.flush()
}

fn append<W: Write>(archive: &mut Builder<W>, name: &str, bytes: u64, content: impl io::Read) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(bytes);
    header.set_mtime(0);
    archive.append_data(&mut header, name, content)
}

//! A tree as a tar archive, and as the one layer of an image. The same tree gives the same bytes.

use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use super::error::{PackageError, io_error};
use super::recipe::Recipe;
use crate::config::LABEL;
use crate::oci::{Digest, Layer, Platform, Store};
use crate::progress::Meter;
use crate::tree::{Attributes, Kind, NodeId, Tree, TreePath};

/// linuxkit reads no other compression of images without an index.
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// What gzip itself takes: near its best size, at a third of that level's time.
const GZIP_LEVEL: u32 = 6;

/// Writes `tree` as a layer into the store. Returns it with the digest of the archive inside.
pub(super) fn write_layer(tree: &Tree, store: &Store, meter: &dyn Meter) -> Result<(Layer, Digest), PackageError> {
    let failed = |source| io_error("write a layer in", store.root(), source);
    let blob = Counting { inner: store.blob_writer()?, bytes: 0 };
    let gzip = GzEncoder::new(blob, Compression::new(GZIP_LEVEL));
    let mut archive = Hashing { inner: gzip, hash: Sha256::new(), meter };
    write_tar(tree, &mut archive).map_err(failed)?;
    let diff_id = Digest::from_bytes(archive.hash.finalize().into());
    let blob = archive.inner.finish().map_err(failed)?;
    let size_bytes = blob.bytes;
    let digest = blob.inner.commit(None, Some(size_bytes))?;
    Ok((Layer { digest, size_bytes, media_type: LAYER_TYPE.into() }, diff_id))
}

/// The image configuration (OCI image specification, `config.md`).
pub(super) fn image_config(
    recipe: &Recipe,
    platform: &Platform,
    diff_id: Digest,
) -> Result<Vec<u8>, serde_json::Error> {
    let mut config = Map::new();
    let process = &recipe.process;
    for (key, words) in [("Entrypoint", &process.entrypoint), ("Cmd", &process.cmd), ("Env", &process.env)] {
        if !words.is_empty() {
            config.insert(key.into(), json!(words));
        }
    }
    if !process.workdir.is_empty() {
        config.insert("WorkingDir".into(), json!(process.workdir));
    }
    let labels = labels(recipe)?;
    if !labels.is_empty() {
        config.insert("Labels".into(), labels.into_iter().map(|(name, value)| (name, Value::from(value))).collect());
    }
    let mut image = json!({
        "architecture": platform.architecture,
        "os": platform.os,
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [diff_id.to_string()]},
        "history": [{"created_by": "kiln pkg build"}],
    });
    if let (false, Some(object)) = (platform.variant.is_empty(), image.as_object_mut()) {
        object.insert("variant".into(), Value::from(platform.variant.as_str()));
    }
    serde_json::to_vec(&image)
}

/// The labels of the image: `config`, as LinuxKit reads it.
pub(super) fn labels(recipe: &Recipe) -> Result<Vec<(String, String)>, serde_json::Error> {
    let label = |options| Ok((LABEL.to_owned(), serde_json::to_string(options)?));
    recipe.config.iter().map(label).collect()
}

/// Writes `tree` as an uncompressed tar archive, every folder before what is in it.
pub(super) fn write_tar(tree: &Tree, out: &mut dyn Write) -> io::Result<()> {
    let mut builder = Builder::new(out);
    let mut named: std::collections::HashMap<NodeId, TreePath> = std::collections::HashMap::new();
    for (path, id) in tree.walk() {
        if path == TreePath::root() {
            continue;
        }
        let node = tree.node(id);
        if let Some(first) = named.get(&id) {
            let mut header = header(EntryType::Link, &node.attributes);
            builder.append_link(&mut header, host(&path), host(first))?;
            continue;
        }
        append_xattrs(&mut builder, &node.attributes)?;
        append(&mut builder, &path, &node.kind, &node.attributes)?;
        if !matches!(node.kind, Kind::Directory(_)) {
            named.insert(id, path);
        }
    }
    builder.finish()
}

fn append<W: Write>(builder: &mut Builder<W>, path: &TreePath, kind: &Kind, of: &Attributes) -> io::Result<()> {
    let (entry_type, device) = match kind {
        Kind::Directory(_) => {
            let mut name = path.as_bytes().to_vec();
            name.push(b'/');
            let mut header = header(EntryType::Directory, of);
            return builder.append_data(&mut header, Path::new(std::ffi::OsStr::from_bytes(&name)), io::empty());
        }
        Kind::File(body) => {
            let mut header = header(EntryType::Regular, of);
            header.set_size(body.len());
            return builder.append_data(&mut header, host(path), body.reader());
        }
        Kind::Symlink(target) => {
            let mut header = header(EntryType::Symlink, of);
            return builder.append_link(&mut header, host(path), Path::new(std::ffi::OsStr::from_bytes(target)));
        }
        Kind::CharDevice { major, minor } => (EntryType::Char, Some((*major, *minor))),
        Kind::BlockDevice { major, minor } => (EntryType::Block, Some((*major, *minor))),
        Kind::Fifo => (EntryType::Fifo, None),
    };
    let mut header = header(entry_type, of);
    if let Some((major, minor)) = device {
        header.set_device_major(major)?;
        header.set_device_minor(minor)?;
    }
    builder.append_data(&mut header, host(path), io::empty())
}

fn append_xattrs<W: Write>(builder: &mut Builder<W>, of: &Attributes) -> io::Result<()> {
    let key = |name: &[u8]| Some(format!("SCHILY.xattr.{}", std::str::from_utf8(name).ok()?));
    let pairs: Vec<_> = of.xattrs.iter().filter_map(|(name, value)| Some((key(name)?, value))).collect();
    if pairs.is_empty() {
        return Ok(());
    }
    builder.append_pax_extensions(pairs.iter().map(|(name, value)| (name.as_str(), &value[..])))
}

fn header(entry_type: EntryType, of: &Attributes) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(entry_type);
    header.set_mode(of.mode);
    header.set_uid(of.uid.into());
    header.set_gid(of.gid.into());
    header.set_mtime(u64::try_from(of.mtime_s).unwrap_or_default());
    header.set_size(0);
    header
}

fn host(path: &TreePath) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(path.as_bytes()))
}

struct Counting<W> {
    inner: W,
    bytes: u64,
}

impl<W: Write> Write for Counting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

struct Hashing<'a, W> {
    inner: W,
    hash: Sha256,
    meter: &'a dyn Meter,
}

impl<W: Write> Write for Hashing<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hash.update(bytes.get(..count).unwrap_or_default());
        self.meter.advance(count as u64);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

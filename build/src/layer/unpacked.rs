//! All layers of a build: each unpacked once, several at the same time, whatever number of images share it.

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use super::{Archive, ArchiveFault, LayerError, LayerLimits, kept, newest_first};
use crate::cache::Cache;
use crate::cancel::Cancel;
use crate::oci::{Digest, Image, Layer};
use crate::progress::Meter;
use crate::tree::Tree;

/// Layers that are unpacked at the same time: more need more memory (zstd's windows) and keep no disk busier.
const AT_ONCE: usize = 4;

/// How layers are unpacked.
pub struct Unpacking<'a> {
    /// Where contents go.
    pub folder: &'a Path,
    /// Where layers are that were unpacked before, and where they stay.
    pub cache: &'a Cache,
    /// What layers may do.
    pub limits: &'a LayerLimits,
    /// Stops it.
    pub cancel: &'a Cancel,
    /// Counts packed bytes.
    pub meter: &'a dyn Meter,
}

/// Unpacked layers by digest.
#[derive(Debug, Default)]
pub struct UnpackedLayers(pub(super) HashMap<Digest, Archive>);

impl UnpackedLayers {
    /// Unpacks `layers`, each of which is named once; `open` gives the blob of one.
    ///
    /// Errors: what is wrong with one of the layers; the others are given up.
    pub fn unpack<R: Read + Send>(
        mut layers: Vec<Layer>,
        open: impl Fn(&Layer) -> io::Result<R> + Sync,
        unpacking: &Unpacking<'_>,
    ) -> Result<Self, LayerError> {
        // The longest first, so that no thread is left alone with it at the end.
        layers.sort_by_key(|layer| std::cmp::Reverse(layer.size_bytes));
        let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let work = || {
            let mut done = Vec::new();
            while let Some(layer) = layers.get(next.fetch_add(1, Ordering::Relaxed)) {
                if failed.load(Ordering::Relaxed) {
                    break;
                }
                let archive =
                    unpack_one(layer, &open, unpacking).inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
                done.push((layer.digest, archive));
            }
            Ok(done)
        };
        let threads = thread::available_parallelism().map_or(1, usize::from).min(AT_ONCE).min(layers.len());
        let mut unpacked = HashMap::new();
        thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            for thread in threads {
                match thread.join() {
                    Ok(done) => unpacked.extend(done?),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            Ok(Self(unpacked))
        })
    }

    /// Reads all that comes from the cache and was not read yet, and is an error if it is damaged.
    pub fn check(&self) -> io::Result<()> {
        self.0.values().try_for_each(Archive::check)
    }

    /// The tree of `image`, with `mtime_s` as the time of parents that no layer has.
    ///
    /// Panics when a layer of `image` was not among those unpacked.
    pub fn tree(&self, image: &Image, mtime_s: i64) -> Result<Tree, LayerError> {
        let mut tree = Tree::new(mtime_s);
        for layer in &image.layers {
            let digest = layer.digest;
            self.0[&digest].apply(&mut tree).map_err(|fault| LayerError { digest, fault })?;
        }
        Ok(tree)
    }

    /// The same as LinuxKit flattens it: see docs/compatibility.md.
    pub fn linuxkit_tree(&self, image: &Image, mtime_s: i64) -> Result<Tree, LayerError> {
        let layers: Vec<_> = image.layers.iter().map(|layer| (layer.digest, &self.0[&layer.digest])).collect();
        newest_first::flatten(&layers, mtime_s)
    }
}

fn unpack_one<R: Read + Send>(
    layer: &Layer,
    open: &impl Fn(&Layer) -> io::Result<R>,
    unpacking: &Unpacking<'_>,
) -> Result<Archive, LayerError> {
    let digest = layer.digest;
    if let Some(archive) = kept::find(unpacking.cache, digest) {
        unpacking.meter.advance(layer.size_bytes);
        return Ok(archive);
    }
    let blob = open(layer).map_err(|error| LayerError { digest, fault: ArchiveFault::Read(error) })?;
    let blob = Counted { blob, meter: unpacking.meter };
    Archive::unpack_layer(layer, blob, unpacking)
}

struct Counted<'a, R> {
    blob: R,
    meter: &'a dyn Meter,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.blob.read(buffer)?;
        self.meter.advance(len as u64);
        Ok(len)
    }
}

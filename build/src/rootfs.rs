//! One image's files as they are in a container: all layers flattened into one tar archive.

use std::io::{self, BufWriter, Write};

use crate::cache::Cache;
use crate::cancel::Cancel;
use crate::format::{self, FormatError, Part, StreamSink, Watch};
use crate::layer::{LayerError, LayerLimits, UnpackedLayers, Unpacking};
use crate::oci::{Image, Layer, Store};
use crate::progress::Progress;

/// Why an image's files cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    /// A layer cannot be unpacked.
    #[error("cannot unpack image `{image}`")]
    Layer {
        /// The image.
        image: String,
        /// Which layer, and why.
        #[source]
        source: LayerError,
    },
    /// The archive cannot be written.
    #[error("cannot write the archive")]
    Write(#[source] FormatError),
}

/// Writes the files of an image in the store as a tar archive. Folders that no layer has get the time `mtime_s`, in seconds
/// since 1970.
pub fn write_rootfs(
    image: &Image,
    store: &Store,
    to: &mut dyn Write,
    mtime_s: i64,
    cancel: &Cancel,
    progress: &dyn Progress,
) -> Result<(), RootfsError> {
    let fail = |source| RootfsError::Layer { image: image.reference.clone(), source };
    let mut layers: Vec<Layer> = image.layers.clone();
    layers.sort_by_key(|layer| layer.digest);
    layers.dedup_by_key(|layer| layer.digest);
    let packed_bytes = layers.iter().map(|layer| layer.size_bytes).sum();
    let meter = progress.begin("unpack layers", Some(packed_bytes));
    let (limits, cache) = (LayerLimits::default(), Cache::in_store(store.root()));
    let unpacking = Unpacking { folder: store.root(), cache: &cache, limits: &limits, cancel, meter: meter.as_ref() };
    let open = |layer: &Layer| store.open_layer(layer).map_err(io::Error::other);
    let layers = UnpackedLayers::unpack(layers, open, &unpacking).map_err(fail)?;
    let tree = layers.tree(image, mtime_s).map_err(fail)?;
    let mut sink = StreamSink(BufWriter::with_capacity(256 << 10, to));
    let content_bytes = Part::Tar.content_bytes(&tree);
    let meter = progress.begin("write archive", Some(content_bytes));
    let watch = Watch { cancel, meter: meter.as_ref(), folder: store.root() };
    format::write_tar(&tree, &mut sink, watch).map_err(RootfsError::Write)?;
    sink.0.flush().map_err(|error| RootfsError::Write(FormatError::Io(error)))
}

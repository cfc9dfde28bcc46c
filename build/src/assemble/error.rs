//! Why there is no tree.

use std::io;
use std::path::PathBuf;

use super::KernelPacking;
use crate::cancel::Cancelled;
use crate::config::{Place, Role};
use crate::layer::{ArchiveFault, LayerError};
use crate::oci::Digest;
use crate::tree::TreeError;

/// Why images and files do not come together.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// An image was used that the plan does not have: a fault of this crate.
    #[error("image `{image}` of {role} was not planned")]
    NotPlanned {
        /// Where it is used.
        role: Role,
        /// As it is written.
        image: String,
    },
    /// A layer cannot be applied.
    #[error("cannot unpack image `{image}` of {role}")]
    Layer {
        /// Where it is used.
        role: Role,
        /// Its full reference.
        image: String,
        /// Why.
        #[source]
        source: Box<LayerError>,
    },
    /// The kernel's image lacks a file.
    #[error("kernel image `{image}` has no file `{file}`; name the right one with `{field}:` of `kernel:`")]
    KernelFile {
        /// Its full reference.
        image: String,
        /// What was looked for.
        file: String,
        /// The YAML's key for it.
        field: &'static str,
    },
    /// The kernel cannot be unpacked.
    #[error("cannot decompress `{file}` of kernel image `{image}`")]
    KernelPacking {
        /// Its full reference.
        image: String,
        /// The kernel.
        file: String,
        /// Why.
        #[source]
        source: Box<KernelPacking>,
    },
    /// The kernel's tar is none.
    #[error("cannot unpack `{file}` of kernel image `{image}`; with `tar: none` of `kernel:` it is left out")]
    KernelTar {
        /// Its full reference.
        image: String,
        /// The tar.
        file: String,
        /// Why.
        #[source]
        source: Box<ArchiveFault>,
    },
    /// Something cannot be where it belongs.
    #[error("cannot add {what} to the root")]
    Tree {
        /// What: `services[0]`, `files[3]`.
        what: String,
        /// Why.
        #[source]
        source: TreeError,
    },
    /// A blob of an OCI volume cannot be read from the store.
    #[error("cannot read {digest} of image `{image}`, which is in a volume")]
    LayoutBlob {
        /// The image.
        image: String,
        /// The blob.
        digest: Digest,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A blob of an OCI volume cannot be kept on disk.
    #[error("cannot keep an image in `{}`; free some space there or choose another `--cache`", folder.display())]
    SpoolBlob {
        /// Where to.
        folder: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file of the host that `files:` wants is not there.
    #[error("`source: {}` is not there; relative paths start at `{}`, and `optional: true` makes it no error\n{}", written, working_folder.display(), place.excerpt())]
    SourceMissing {
        /// As it is written.
        written: String,
        /// What relative paths are relative to.
        working_folder: PathBuf,
        /// Where it is written.
        place: Place,
    },
    /// A file of the host that `files:` wants cannot be read.
    #[error("cannot read `{}`\n{}", path.display(), place.excerpt())]
    Source {
        /// The file.
        path: PathBuf,
        /// Where it is written.
        place: Place,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file's content cannot be kept on disk.
    #[error(
        "cannot keep the content of `{}` in `{}`; free some space there or choose another `--cache`",
        path.display(),
        folder.display()
    )]
    Spool {
        /// The file.
        path: PathBuf,
        /// Where to.
        folder: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The configuration cannot be written out.
    #[error("cannot write out the configuration for `metadata:`\n{}", place.excerpt())]
    Metadata {
        /// Where it is asked for.
        place: Place,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// An owner or group that is no container's name.
    #[error("{field} `{name}` is no container's name; for a number write it without quotes\n{}", place.excerpt())]
    UnknownId {
        /// `uid` or `gid`.
        field: &'static str,
        /// The name.
        name: String,
        /// Where it is written.
        place: Place,
    },
    /// A content that was unpacked cannot be read back.
    #[error("cannot read back what was unpacked")]
    ReadBack(#[source] io::Error),
    /// Somebody cancelled.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

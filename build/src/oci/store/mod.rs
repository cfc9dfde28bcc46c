//! The content store: an OCI image layout (`image-layout.md` of the OCI image specification) on disk, laid out as
//! linuxkit's cache is, so that either program can use the other's.
//!
//! `index.json` names images in the annotation `org.opencontainers.image.ref.name`, always by their full spelling. It is
//! only changed under an exclusive lock of `.lock` and replaced as a whole. Blobs are written to `tmp/`, verified, synced
//! and renamed, so that whatever carries a digest as its name was that digest once. Disks rot and other programs write
//! here too: every document is verified when it is read, and every layer while it is read.

mod attestation;
mod blob;
mod collect;
mod find;
mod index;
mod layout;
mod names;
mod put;
mod verify;
mod walk;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use blob::{BlobFault, BlobWriter, DamagedBlob, VerifiedReader};
pub use collect::Freed;
pub use names::{Stored, StoredImage};
pub use put::TagEntry;
pub use verify::{Verified, WrongBlob};

use self::index::Lock;
use super::document::DocumentError;
use super::{Digest, Platform};
use crate::compat::Compat;

/// Locked by everybody who has the store open: shared, or alone to remove blobs.
const USERS_FILE: &str = ".kiln-users";

/// A content store in a folder. Cloning it is cheap and gives the same store. As long as one of the clones lives, no other
/// process removes blobs that no name reaches.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
    _users: Arc<Lock>,
    compat: Compat,
}

/// What a blob is, and so where a registry keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlobKind {
    /// A manifest or an index.
    Manifest,
    /// An image configuration.
    Config,
    /// A layer.
    Layer,
    /// What somebody states about an image.
    Statement,
}

/// What can be wrong with a store or with what is asked of it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The host's file system refused.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// Such as `write`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another program kept the store locked for longer than any work under the lock takes.
    #[error("`{}` stayed locked by another program for {waited_s} s; end that program and try again", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// Seconds waited.
        waited_s: u64,
    },
    /// Blobs cannot be removed while others may need them.
    #[error(
        "`{}` is in use by another kiln: a build, a pull, or a machine that runs from it; try again when that has ended",
        path.display()
    )]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// A document that says what else is needed is damaged.
    #[error(
        "a document of `{name}` is damaged, so nobody can tell what it needs; `kiln cache verify --fix` removes it"
    )]
    Unreadable {
        /// The name that reaches it.
        name: String,
    },
    /// The folder holds something else.
    #[error("`{}` is no OCI image layout of version 1; name another folder with `--cache`", path.display())]
    NoLayout {
        /// The file that tells.
        path: PathBuf,
    },
    /// `index.json` cannot be read.
    #[error("`{}` is damaged; remove it, and images are fetched again as they are needed", path.display())]
    Index {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A blob is named but not there.
    #[error("{kind} {digest} is not in the store (`{}`)", path.display())]
    Missing {
        /// What it is.
        kind: BlobKind,
        /// Which it is.
        digest: Digest,
        /// Where it should be.
        path: PathBuf,
    },
    /// A blob is there and is not what its name says.
    #[error("a {kind} in the store is damaged")]
    Damaged {
        /// What it is.
        kind: BlobKind,
        /// Which it is, and how it is damaged.
        #[source]
        source: Box<DamagedBlob>,
    },
    /// A document is longer than any real one.
    #[error("{kind} {digest} has {bytes} bytes, {limit} are allowed")]
    TooLarge {
        /// What it is.
        kind: BlobKind,
        /// Which it is.
        digest: Digest,
        /// Its length in bytes.
        bytes: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// A verified blob does not hold what it should.
    #[error("{kind} {digest} cannot be used")]
    Document {
        /// What it should be.
        kind: BlobKind,
        /// Which it is.
        digest: Digest,
        /// Why not.
        #[source]
        source: DocumentError,
    },
    /// The image does not exist for this platform.
    #[error("image `{reference}` is not for {wanted}, it is for {found}")]
    Platform {
        /// The image.
        reference: String,
        /// What it should run on.
        wanted: Platform,
        /// What it runs on.
        found: String,
    },
    /// A name that means one platform's image, where an index is needed.
    #[error(
        "image `{reference}` is one platform's image without an index, and only an index makes a layout; push it as an index, or leave out `format: oci`"
    )]
    NoIndex {
        /// The image.
        reference: String,
    },
    /// A name that the store does not have.
    #[error("image `{reference}` is not in the store")]
    Unnamed {
        /// The image.
        reference: String,
    },
    /// Indexes point at indexes without end.
    #[error("image `{reference}` has indexes nested more than {limit} deep")]
    TooDeep {
        /// The image.
        reference: String,
        /// The limit.
        limit: usize,
    },
}

impl Store {
    /// Opens the store in the folder `root` and makes it if there is none. Removes what killed processes left half
    /// written. A store that may not be written can still be read.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        Self::open_as(root, index::shared)
    }

    /// As [`Store::open`], when nobody else has it open, and keeps others out: for removing blobs.
    ///
    /// Errors: [`StoreError::InUse`] if a build, a pull or a machine that runs from the store does not end soon.
    pub fn open_alone(root: &Path) -> Result<Self, StoreError> {
        Self::open_as(root, index::alone)
    }

    fn open_as(root: &Path, lock: impl Fn(&Path) -> Result<Lock, StoreError>) -> Result<Self, StoreError> {
        fs::create_dir_all(root).map_err(|source| StoreError::Io {
            action: "make folder",
            path: root.into(),
            source,
        })?;
        let store =
            Self { root: root.to_owned(), _users: Arc::new(lock(&root.join(USERS_FILE))?), compat: Compat::Right };
        store.prepare()?;
        store.remove_stale_temps();
        Ok(store)
    }

    /// The same; to LinuxKit an image without an index is for any machine.
    pub fn like(self, compat: Compat) -> Self {
        Self { compat, ..self }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The file of a blob, whether it is there or not.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    fn prepare(&self) -> Result<(), StoreError> {
        const LAYOUT: &str = r#"{"imageLayoutVersion": "1.0.0"}"#;
        let file = self.root.join("oci-layout");
        match fs::read_to_string(&file) {
            Ok(text) => return check_layout(&text, &file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(StoreError::Io { action: "read", path: file, source }),
        }
        let blobs = self.root.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(|source| StoreError::Io { action: "make folder", path: blobs, source })?;
        let _lock = self.lock_exclusive()?;
        if !self.index_path().exists() {
            self.write_index(&serde_json::json!({"schemaVersion": 2, "manifests": []}))?;
        }
        self.replace_file(&file, LAYOUT.as_bytes())
    }
}

impl StoreError {
    /// What an error of a [`VerifiedReader`] tells.
    pub(in crate::oci) fn of_read(error: io::Error, path: PathBuf) -> Self {
        match error.downcast::<DamagedBlob>() {
            Ok(damaged) => Self::Damaged { kind: BlobKind::Layer, source: Box::new(damaged) },
            Err(source) => Self::Io { action: "read", path, source },
        }
    }
}

fn check_layout(text: &str, path: &Path) -> Result<(), StoreError> {
    let version = serde_json::from_str::<serde_json::Value>(text).ok();
    let version = version.as_ref().and_then(|layout| layout.get("imageLayoutVersion")).and_then(|v| v.as_str());
    match version {
        Some(version) if version.starts_with("1.") => Ok(()),
        _ => Err(StoreError::NoLayout { path: path.to_owned() }),
    }
}

impl std::fmt::Display for BlobKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Manifest => "manifest",
            Self::Config => "image configuration",
            Self::Layer => "layer",
            Self::Statement => "attestation",
        })
    }
}

#[cfg(test)]
mod tests;

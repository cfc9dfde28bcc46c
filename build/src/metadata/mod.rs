//! The CD by which a machine is told of itself: one ISO 9660 volume that every reader understands. Its label is `cidata`, and
//! `user-data` and `meta-data` are on it, for cloud-init (its data source NoCloud) and what is like it; `config` is the same
//! data under the name that LinuxKit gives it.

mod folder;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use sha2::{Digest, Sha256};

use crate::format::IsoError;
use crate::format::iso::{IsoOptions, volume};
use crate::tree::{Attributes, Kind, PathFault, Tree, TreeError, TreePath};

/// What cloud-init looks for.
const LABEL: &str = "cidata";

/// What there is for the machine.
const USER_DATA: &str = "user-data";
/// The same, as LinuxKit calls it.
const CONFIG: &str = "config";
/// Which machine it is.
const META_DATA: &str = "meta-data";

/// Most bytes of all files: more than any cloud takes, and little enough to be held in memory.
pub const MAX_BYTES: u64 = 16 << 20;
/// Most files of a folder.
pub const MAX_FILES: usize = 1000;

/// Why there is no CD.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// A file or folder cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Neither a file nor a folder.
    #[error("`{}` is neither a file nor a folder", path.display())]
    Kind {
        /// Which.
        path: PathBuf,
    },
    /// A name that cannot stand on a CD.
    #[error("`{}` cannot be on the metadata CD", path.display())]
    Name {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: PathFault,
    },
    /// Too much.
    #[error("`{}` has more than {MAX_FILES} files or {} MiB, which is more than metadata may be", path.display(), MAX_BYTES >> 20)]
    TooMuch {
        /// The file or folder.
        path: PathBuf,
    },
    /// Text that is too long.
    #[error("metadata of {bytes} bytes is longer than {} MiB", MAX_BYTES >> 20)]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// A folder without the one file that is needed.
    #[error("`{}` has neither `{USER_DATA}` nor `{CONFIG}`", path.display())]
    NoUserData {
        /// The folder.
        path: PathBuf,
    },
    /// It cannot be put onto a volume.
    #[error("cannot make the metadata CD")]
    Tree(#[from] TreeError),
    /// It cannot be put onto a volume.
    #[error("cannot make the metadata CD")]
    Iso(#[from] IsoError),
    /// Its bytes cannot be had.
    #[error("cannot make the metadata CD")]
    Bytes(#[source] io::Error),
}

/// The files of a CD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// What is in them, by path.
    files: BTreeMap<TreePath, Vec<u8>>,
}

impl Metadata {
    /// Data for one machine, under both its names.
    ///
    /// # Errors
    /// It is too long.
    pub fn of_data(data: &[u8]) -> Result<Self, MetadataError> {
        if data.len() as u64 > MAX_BYTES {
            return Err(MetadataError::TooLong { bytes: data.len() });
        }
        Ok(Self::whole(BTreeMap::from([(name(USER_DATA), data.to_vec())])))
    }

    /// What is missing is added: the other name of the data, and a number of the machine that changes with what it is told.
    fn whole(mut files: BTreeMap<TreePath, Vec<u8>>) -> Self {
        for (there, missing) in [(USER_DATA, CONFIG), (CONFIG, USER_DATA)] {
            if let (Some(data), false) = (files.get(&name(there)).cloned(), files.contains_key(&name(missing))) {
                files.insert(name(missing), data);
            }
        }
        if !files.contains_key(&name(META_DATA)) {
            let id = format!("instance-id: kiln-{}\n", fingerprint(&files));
            files.insert(name(META_DATA), id.into_bytes());
        }
        Self { files }
    }

    /// The bytes of the CD: the same for the same files.
    ///
    /// # Errors
    /// What has no place on a CD.
    pub fn iso(&self) -> Result<Vec<u8>, MetadataError> {
        let mut tree = Tree::new(0);
        for (path, content) in &self.files {
            let attributes = Attributes { mode: 0o644, ..Attributes::default() };
            tree.put(path, attributes, Kind::file(content))?;
        }
        let extents = volume(&tree, &IsoOptions { label: LABEL, is_bootable: false, elsewhere: &[] })?;
        let mut bytes = vec![0; usize::try_from(extents.len_bytes()).unwrap_or(usize::MAX)];
        extents.read_at(&mut bytes, 0).map_err(MetadataError::Bytes)?;
        Ok(bytes)
    }
}

fn name(text: &str) -> TreePath {
    TreePath::root().join(text.as_bytes())
}

/// Sixteen digits that stand for all the files.
fn fingerprint(files: &BTreeMap<TreePath, Vec<u8>>) -> String {
    let mut hash = Sha256::new();
    for (path, content) in files {
        for part in [path.as_bytes(), content] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;

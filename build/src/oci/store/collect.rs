//! Removing what nobody needs. Only whoever has the store alone may.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::{Store, StoreError};
use crate::oci::Digest;

/// Folders beside the blobs that hold only what can be made again.
const REMAKABLE: &[&str] = &["kiln-stamps", "kiln-cache"];
/// Entries there that were not touched for so long will hardly be needed.
const STALE_AFTER: Duration = Duration::from_secs(14 * 24 * 3600);
/// Folders in folders there.
const DEPTH_MAX: usize = 4;

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Freed {
    /// Blobs.
    pub blobs: usize,
    /// Bytes of those.
    pub blob_bytes: u64,
    /// Files that builds kept to be faster.
    pub kept: usize,
    /// Bytes of those.
    pub kept_bytes: u64,
}

impl Store {
    /// Removes every blob that no name reaches, and what builds kept and have not used for two weeks. The store must have
    /// been opened with [`Store::open_alone`].
    ///
    /// Errors: [`StoreError::Unreadable`] when a document is damaged, so that nobody can tell what it needs.
    pub fn collect_garbage(&self) -> Result<Freed, StoreError> {
        let mut needed: HashSet<Digest> = HashSet::new();
        for (name, root) in self.roots()? {
            let reach = self.reach(root);
            if reach.damaged {
                return Err(StoreError::Unreadable { name: name.unwrap_or_else(|| root.to_string()) });
            }
            needed.extend(reach.blobs.into_keys());
        }
        let mut freed = Freed::default();
        self.remove_blobs(|digest| !needed.contains(digest), &mut freed)?;
        self.remove_kept(Some(STALE_AFTER), &mut freed)?;
        Ok(freed)
    }

    /// Removes all names, all blobs and all that builds kept. The store must have been opened with [`Store::open_alone`].
    pub fn clear(&self) -> Result<Freed, StoreError> {
        {
            let _lock = self.lock_exclusive()?;
            self.write_index(&serde_json::json!({"schemaVersion": 2, "manifests": []}))?;
        }
        let mut freed = Freed::default();
        self.remove_blobs(|_| true, &mut freed)?;
        self.remove_kept(None, &mut freed)?;
        Ok(freed)
    }

    fn remove_blobs(&self, goes: impl Fn(&Digest) -> bool, freed: &mut Freed) -> Result<(), StoreError> {
        for (digest, bytes) in self.blob_sizes()? {
            if goes(&digest) {
                remove(&self.blob_path(&digest))?;
                freed.blobs += 1;
                freed.blob_bytes += bytes;
            }
        }
        Ok(())
    }

    fn remove_kept(&self, stale_after: Option<Duration>, freed: &mut Freed) -> Result<(), StoreError> {
        let now = SystemTime::now();
        for folder in REMAKABLE {
            for (path, meta) in files(&self.root.join(folder), DEPTH_MAX)? {
                let age = meta.modified().ok().and_then(|time| now.duration_since(time).ok());
                if stale_after.is_none_or(|limit| age.is_some_and(|age| age > limit)) {
                    remove(&path)?;
                    freed.kept += 1;
                    freed.kept_bytes += meta.len();
                }
            }
        }
        Ok(())
    }
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done.map_err(|source| StoreError::Io { action: "remove", path: path.into(), source }),
    }
}

fn files(folder: &Path, depth: usize) -> Result<Vec<(PathBuf, fs::Metadata)>, StoreError> {
    let fail = |source| StoreError::Io { action: "list", path: folder.to_owned(), source };
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(fail)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(fail)?;
        match entry.metadata() {
            Ok(meta) if meta.is_dir() && depth > 0 => found.extend(files(&entry.path(), depth - 1)?),
            Ok(meta) if !meta.is_dir() => found.push((entry.path(), meta)),
            _ => {}
        }
    }
    Ok(found)
}

//! A folder for one build, with the builder's storage in it. Removed with its owner; of an owner that was killed, by the
//! next build.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::package::PackageError;
use crate::package::error::io_error;
use crate::package::program::Program;

use super::builder::Builder;

/// What these folders' names begin with.
const PREFIX: &str = "dockerfile-";
/// Held for as long as the owner lives.
const LOCK: &str = "lock";

/// A folder that is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Scratch {
    folder: PathBuf,
    builder: Builder,
    _lock: File,
}

impl Scratch {
    /// A new one below `parent`, which is made if it is missing. Removes what killed owners left there.
    pub fn new(parent: &Path, builder: Builder) -> Result<Self, PackageError> {
        let failed = |source| io_error("make a folder in", parent, source);
        fs::create_dir_all(parent).map_err(failed)?;
        sweep(parent, builder);
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent).map_err(failed)?.keep();
        let path = folder.join(LOCK);
        let lock = File::create(&path).and_then(|file| file.lock().map(|()| file));
        let lock = lock.map_err(|source| io_error("lock", &path, source))?;
        Ok(Self { folder, builder, _lock: lock })
    }

    /// It.
    pub fn root(&self) -> &Path {
        &self.folder
    }

    /// A new folder in it.
    pub fn folder(&self, name: &str) -> Result<PathBuf, PackageError> {
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder).map_err(|source| io_error("make folder", &folder, source))?;
        Ok(folder)
    }

    /// A path in it, where nothing is yet.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(&self.folder, self.builder);
    }
}

/// Removes what has no living owner. What cannot be removed now is tried again by the next build.
fn sweep(parent: &Path, builder: Builder) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes());
        // Between its making and its locking a folder has no lock file: its owner lives.
        let Some(lock) = File::open(entry.path().join(LOCK)).ok().filter(|_| is_ours) else { continue };
        if lock.try_lock().is_ok() {
            remove(&entry.path(), builder);
        }
    }
}

fn remove(folder: &Path, builder: Builder) {
    // The storage first: the lock file says until the end whose it is.
    let storage = folder.join(super::STORAGE);
    if storage.exists() && fs::remove_dir_all(&storage).is_err() && builder != Builder::Docker {
        // Without root its files belong to ids that only the builder's own user namespace has.
        let unshare = Program::new(builder.name(), builder.debian_package());
        let _tried_again_by_the_next = unshare.args(["unshare", "rm", "-rf"]).arg(&storage).run();
    }
    let _tried_again_by_the_next = fs::remove_dir_all(folder);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_owner_left_is_removed_and_what_a_living_one_has_is_not() {
        let parent = tempfile::tempdir().unwrap();
        let left = parent.path().join("dockerfile-left");
        fs::create_dir_all(left.join(super::super::STORAGE).join("vfs")).unwrap();
        fs::write(left.join(LOCK), "").unwrap();
        let other = parent.path().join("other");
        fs::create_dir(&other).unwrap();
        fs::write(other.join(LOCK), "").unwrap();
        let living = Scratch::new(parent.path(), Builder::Docker).unwrap();
        assert!(!left.exists() && other.exists());
        let second = Scratch::new(parent.path(), Builder::Docker).unwrap();
        assert!(living.folder("x").unwrap().is_dir());
        drop((living, second));
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1, "only `other` stays");
    }
}

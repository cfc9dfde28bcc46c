//! What builds keep to be faster the next time: unpacked layers, and pieces of initrds as they were packed.
//!
//! All of it is in the folder `kiln-cache` of the store and can be removed at any time. An entry is written to a file
//! that has no name and gets its name when it is complete, so a build that is killed leaves nothing, and two builds at
//! once do not get in each other's way. Who reads an entry checks it; a damaged one is as good as none. No output
//! depends on what is here.

mod trim;

use std::fs::{self, File, FileTimes};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD, linkat, statvfs};

/// Its folder in the store's.
pub const FOLDER: &str = "kiln-cache";

/// Most bytes in the folder after a build: room for the layers of a few large systems.
pub const LIMIT_BYTES: u64 = 8 << 30;

/// The part of the file system that stays free: one of this many.
const FREE_PART: u64 = 10;

/// Longest entry that is read into memory.
const SMALL_LIMIT_BYTES: u64 = 64 << 20;

/// An entry that is used says so this often at most; its age decides what is removed first.
const TOUCH_AFTER: Duration = Duration::from_secs(3600);

/// What kind of entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shelf {
    /// Unpacked layers, by the digest of their blob.
    Layers,
    /// Pieces of packed initrds, by a digest of what is in them.
    Packed,
}

/// What an entry is found by: a digest of everything that it depends on.
pub type Key = [u8; 32];

/// The cache of one store, or none. Clones are the same cache.
#[derive(Debug, Clone, Default)]
pub struct Cache(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    limit_bytes: u64,
    grown: AtomicBool,
}

impl Cache {
    /// The cache in the folder of a store. Where nothing can be written, what is there is still read.
    pub fn in_store(store: &Path) -> Self {
        Self::with_limit(store, LIMIT_BYTES)
    }

    /// A cache that has nothing and keeps nothing.
    pub fn none() -> Self {
        Self(None)
    }

    fn with_limit(store: &Path, limit_bytes: u64) -> Self {
        let folder = store.join(FOLDER);
        for shelf in [Shelf::Layers, Shelf::Packed] {
            // A store that cannot be written is a cache that does not grow.
            let _read_only = fs::create_dir_all(folder.join(shelf.name()));
        }
        Self(Some(Arc::new(Inner { folder, limit_bytes, grown: AtomicBool::new(false) })))
    }

    /// Where an entry is or would be.
    pub fn path(&self, shelf: Shelf, key: &Key) -> Option<PathBuf> {
        let inner = self.0.as_ref()?;
        let name: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        Some(inner.folder.join(shelf.name()).join(name))
    }

    /// The file of an entry, if there is one.
    pub fn file(&self, shelf: Shelf, key: &Key) -> Option<File> {
        let file = File::open(self.path(shelf, key)?).ok()?;
        let metadata = file.metadata().ok().filter(fs::Metadata::is_file)?;
        if metadata.modified().ok()?.elapsed().is_ok_and(|age| age > TOUCH_AFTER) {
            // Only its age is wrong then.
            let _read_only = file.set_times(FileTimes::new().set_modified(SystemTime::now()));
        }
        Some(file)
    }

    /// Gives `file`, which has no name and is on the store's file system, the name of an entry. Returns whether there is
    /// such an entry now.
    pub fn keep_file(&self, shelf: Shelf, key: &Key, file: &File) -> bool {
        let (Some(inner), Some(path)) = (&self.0, self.path(shelf, key)) else { return false };
        let len_bytes = file.metadata().map_or(u64::MAX, |metadata| metadata.len());
        if len_bytes > inner.limit_bytes / 4 * 3 || !leaves_room(&inner.folder) {
            return false;
        }
        inner.grown.store(true, Ordering::Relaxed);
        let from = format!("/proc/self/fd/{}", file.as_raw_fd());
        let linked = linkat(CWD, from, CWD, path, AtFlags::SYMLINK_FOLLOW);
        matches!(linked, Ok(()) | Err(rustix::io::Errno::EXIST))
    }

    /// The bytes of a small entry, if it is there and whole.
    pub fn get(&self, shelf: Shelf, key: &Key) -> Option<Vec<u8>> {
        let mut file = self.file(shelf, key)?;
        let mut bytes = Vec::new();
        let len = file.metadata().ok()?.len();
        bytes.try_reserve_exact(usize::try_from(len.min(SMALL_LIMIT_BYTES)).ok()?).ok()?;
        (&mut file).take(SMALL_LIMIT_BYTES).read_to_end(&mut bytes).ok()?;
        match bytes.split_last_chunk::<CHECK_BYTES>() {
            Some((content, end)) if *end == check(key, content) => {
                bytes.truncate(content.len());
                Some(bytes)
            }
            _ => {
                self.forget(shelf, key);
                None
            }
        }
    }

    /// Keeps a small entry, if there is room and the disk has no objection.
    pub fn put(&self, shelf: Shelf, key: &Key, bytes: &[u8]) {
        let Some(inner) = &self.0 else { return };
        let written = || -> io::Result<()> {
            let mut file = tempfile::tempfile_in(inner.folder.join(shelf.name()))?;
            file.write_all(bytes)?;
            file.write_all(&check(key, bytes))?;
            self.keep_file(shelf, key, &file);
            Ok(())
        };
        // The next build does the work again.
        let _not_kept = written();
    }

    /// Removes an entry, which is damaged.
    pub fn forget(&self, shelf: Shelf, key: &Key) {
        if let Some(path) = self.path(shelf, key) {
            let _read_only = fs::remove_file(path);
        }
    }

    /// Removes what was used least lately until all is within its limit. Does nothing if this cache kept nothing.
    pub fn trim(&self) {
        if let Some(inner) = &self.0
            && inner.grown.swap(false, Ordering::Relaxed)
        {
            trim::trim(&inner.folder, inner.limit_bytes);
        }
    }
}

impl Shelf {
    const ALL: [Self; 2] = [Self::Layers, Self::Packed];

    fn name(self) -> &'static str {
        match self {
            Self::Layers => "layers",
            Self::Packed => "packed",
        }
    }
}

const CHECK_BYTES: usize = 4;

/// Covers the key too: an entry under another's name is damaged.
fn check(key: &Key, bytes: &[u8]) -> [u8; CHECK_BYTES] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(bytes);
    hasher.finalize().to_le_bytes()
}

/// Whether the file system of `folder` has a tenth of its blocks left.
fn leaves_room(folder: &Path) -> bool {
    statvfs(folder).is_ok_and(|fs| fs.f_bavail >= fs.f_blocks / FREE_PART)
}

#[cfg(test)]
mod tests;

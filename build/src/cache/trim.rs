//! Keeping the cache within its limit.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{Shelf, leaves_room};

/// Entries that are removed before the file system is asked again whether there is room.
const STEP: usize = 64;

/// Removes the oldest entries until at most `limit_bytes` are left and the file system has room. What cannot be removed
/// stays for the next time.
pub(super) fn trim(folder: &Path, limit_bytes: u64) {
    let mut entries = entries(folder);
    let mut total: u64 = entries.iter().map(|entry| entry.len_bytes).sum();
    entries.sort_by_key(|entry| entry.used);
    let mut has_room = leaves_room(folder);
    for (number, entry) in entries.iter().enumerate() {
        if number % STEP == STEP - 1 {
            has_room = leaves_room(folder);
        }
        if total <= limit_bytes && has_room {
            return;
        }
        if fs::remove_file(&entry.path).is_ok() {
            total -= entry.len_bytes;
        }
    }
}

struct Entry {
    used: SystemTime,
    len_bytes: u64,
    path: PathBuf,
}

fn entries(folder: &Path) -> Vec<Entry> {
    let files = Shelf::ALL.into_iter().filter_map(|shelf| fs::read_dir(folder.join(shelf.name())).ok());
    let entry = |entry: fs::DirEntry| {
        let metadata = entry.metadata().ok().filter(fs::Metadata::is_file)?;
        Some(Entry { used: metadata.modified().ok()?, len_bytes: metadata.len(), path: entry.path() })
    };
    files.flatten().flatten().filter_map(entry).collect()
}

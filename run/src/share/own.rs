//! What the guest itself changed a moment ago: its own programs were told of that by its own kernel.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::nodes::FileId;

/// How long after a request the host may tell of what it did. A change by the host, of the same name and in this time,
/// is taken for the guest's.
const MOMENT: Duration = Duration::from_millis(300);
/// Most names that are remembered; beyond that, the guest is told of changes of its own.
const NAMES_LIMIT: usize = 4_096;

/// Names, each in its folder, and when something was done to them.
#[derive(Debug, Default)]
pub(super) struct OwnChanges(Mutex<HashMap<(FileId, CString), Instant>>);

impl OwnChanges {
    fn names(&self) -> MutexGuard<'_, HashMap<(FileId, CString), Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The guest is about to change what has this name.
    pub(super) fn note(&self, folder: FileId, name: &CStr) {
        let mut names = self.names();
        if names.len() >= NAMES_LIMIT {
            names.retain(|_, at| at.elapsed() < MOMENT);
        }
        if names.len() < NAMES_LIMIT {
            names.insert((folder, name.to_owned()), Instant::now());
        }
    }

    /// Whether it was the guest who changed this.
    pub(super) fn has(&self, folder: FileId, name: &CStr) -> bool {
        self.names().get(&(folder, name.to_owned())).is_some_and(|at| at.elapsed() < MOMENT)
    }
}

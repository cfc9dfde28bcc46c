//! What the guest has open.

use std::collections::HashMap;
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

/// Most files and folders that one guest has open at once.
const OPEN_LIMIT: usize = 65_536;

/// A file or a folder that is open.
#[derive(Debug)]
pub(super) enum Handle {
    File(File),
    /// One reads at a time: a folder's descriptor has one position.
    Folder(Mutex<OpenFolder>),
}

/// A folder whose names are read.
#[derive(Debug)]
pub(super) struct OpenFolder {
    pub(super) file: File,
    /// Where the descriptor is, if that is where the guest was told that it is.
    pub(super) next: Option<u64>,
}

#[derive(Debug, Default)]
struct Table {
    open: HashMap<u64, Arc<Handle>>,
    last: u64,
}

/// All that one guest has open, by number.
#[derive(Debug, Default)]
pub(super) struct Handles(Mutex<Table>);

impl Handles {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Errors
    /// [`Errno::NFILE`] if too many are open.
    pub(super) fn add(&self, handle: Handle) -> Result<u64, Errno> {
        let mut table = self.table();
        if table.open.len() >= OPEN_LIMIT {
            return Err(Errno::NFILE);
        }
        table.last += 1;
        let number = table.last;
        table.open.insert(number, Arc::new(handle));
        Ok(number)
    }

    /// # Errors
    /// [`Errno::BADF`] if there is none of this number.
    pub(super) fn get(&self, number: u64) -> Result<Arc<Handle>, Errno> {
        self.table().open.get(&number).cloned().ok_or(Errno::BADF)
    }

    pub(super) fn remove(&self, number: u64) {
        let removed = self.table().open.remove(&number);
        // Closing can take its time; nobody waits for it here.
        drop(removed);
    }

    pub(super) fn clear(&self) {
        let all = std::mem::take(&mut self.table().open);
        drop(all);
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.table().open.len()
    }
}

impl Handle {
    /// # Errors
    /// [`Errno::BADF`] for a folder.
    pub(super) fn file(&self) -> Result<&File, Errno> {
        match self {
            Self::File(file) => Ok(file),
            Self::Folder(_) => Err(Errno::BADF),
        }
    }

    /// # Errors
    /// [`Errno::NOTDIR`] for a file.
    pub(super) fn folder(&self) -> Result<MutexGuard<'_, OpenFolder>, Errno> {
        match self {
            Self::Folder(folder) => Ok(folder.lock().unwrap_or_else(PoisonError::into_inner)),
            Self::File(_) => Err(Errno::NOTDIR),
        }
    }
}

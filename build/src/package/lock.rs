//! Files that one build at a time may hold.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::error::{PackageError, io_error};
use crate::cancel::Cancel;
use crate::progress::Progress;

/// How often a file that somebody else holds is tried again: a lock that is waited for cannot be cancelled.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Locks the file at `path`, which is made if it is missing, for as long as the result lives. Says what it waits for.
pub(super) fn wait(path: &Path, what: &str, cancel: &Cancel, progress: &dyn Progress) -> Result<File, PackageError> {
    let failed = |source| io_error("lock", path, source);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|source| io_error("make folder", folder, source))?;
    }
    let file = File::options().create(true).truncate(false).write(true).open(path).map_err(failed)?;
    let mut said = false;
    loop {
        cancel.check()?;
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
            Err(TryLockError::WouldBlock) if said => {}
            Err(TryLockError::WouldBlock) => progress.note(&format!("waiting for another build to finish with {what}")),
        }
        said = true;
        thread::sleep(RETRY_INTERVAL);
    }
}

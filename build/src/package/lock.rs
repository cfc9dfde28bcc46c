//! Files that one build at a time may hold.

use std::fs::{File, TryLockError};
use std::path::Path;

use super::error::{PackageError, io_error};
use crate::progress::Progress;

/// Locks the file at `path`, which is made if it is missing, for as long as the result lives. Says what it waits for.
pub(super) fn wait(path: &Path, what: &str, progress: &dyn Progress) -> Result<File, PackageError> {
    let failed = |source| io_error("lock", path, source);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|source| io_error("make folder", folder, source))?;
    }
    let file = File::options().create(true).truncate(false).write(true).open(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::Error(source)) => return Err(failed(source)),
        Err(TryLockError::WouldBlock) => progress.note(&format!("waiting for another build to finish with {what}")),
    }
    file.lock().map_err(failed)?;
    Ok(file)
}

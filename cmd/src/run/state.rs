//! The state folder of a machine: one run at a time has it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// File in the folder that a running machine holds a lock on. The lock ends with the process, however that ends, so a
/// file that a killed run left locks nothing.
const LOCK_FILE: &str = "lock";

/// A state folder that is this process's while the value lives.
#[derive(Debug)]
pub struct StateFolder {
    _lock: File,
}

/// Why the folder cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another run has it.
    #[error("`{}` is in use by another machine{}", folder.display(), process(pid))]
    InUse {
        /// The folder.
        folder: PathBuf,
        /// The other process, as it named itself.
        pid: Option<u32>,
    },
    /// It cannot be made or locked.
    #[error("cannot use `{}` as the state folder", folder.display())]
    Unusable {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

fn process(pid: &Option<u32>) -> String {
    pid.map(|pid| format!(", process {pid}")).unwrap_or_default()
}

/// Makes the folder if it is missing, and takes it.
pub fn take(folder: &Path) -> Result<StateFolder, StateError> {
    let unusable = |source| StateError::Unusable { folder: folder.into(), source };
    fs::create_dir_all(folder).map_err(unusable)?;
    let path = folder.join(LOCK_FILE);
    let mut lock =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(unusable)?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = String::new();
            // A number of ten digits at most; a file that holds anything else names nobody.
            let read = (&lock).take(16).read_to_string(&mut text);
            let pid = read.ok().and_then(|_| text.trim().parse().ok());
            return Err(StateError::InUse { folder: folder.into(), pid });
        }
        Err(error) => return Err(unusable(error.into())),
    }
    lock.set_len(0).and_then(|()| lock.rewind()).map_err(unusable)?;
    writeln!(lock, "{}", std::process::id()).map_err(unusable)?;
    Ok(StateFolder { _lock: lock })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_a_file_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("vm-state");
        fs::write(&file, "").unwrap();
        assert!(take(&file).unwrap_err().to_string().contains("vm-state"));
    }

    #[test]
    fn a_second_run_is_refused_with_the_firsts_number_until_the_first_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/vm-state");
        let first = take(&path).unwrap();
        match take(&path) {
            Err(StateError::InUse { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        drop(first);
        take(&path).unwrap();
    }

    #[test]
    fn what_a_killed_run_left_locks_nothing() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(LOCK_FILE), "4194304999\nleft over").unwrap();
        drop(take(folder.path()).unwrap());
        let now = fs::read_to_string(folder.path().join(LOCK_FILE)).unwrap();
        assert_eq!(now, format!("{}\n", std::process::id()));
    }
}

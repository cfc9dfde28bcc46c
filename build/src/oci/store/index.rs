//! `index.json` and its lock. Entries that nobody here wrote are kept as they are.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Store, StoreError};

/// linuxkit's and skopeo's way to name an image in a layout.
pub(super) const NAME_ANNOTATION: &str = "org.opencontainers.image.ref.name";

/// A store with ten thousand images stays below.
const INDEX_BYTES_MAX: u64 = 32 << 20;
/// Work under the lock takes milliseconds here, and a download at most in linuxkit.
const LOCK_WAIT: Duration = Duration::from_secs(120);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Builds that have just begun to end do so in this time.
const ALONE_WAIT: Duration = Duration::from_secs(2);

/// A lock of the store; dropping it unlocks. `None` where the store cannot be written and so needs none.
#[derive(Debug)]
pub(super) struct Lock {
    _file: Option<File>,
}

/// A lock that others may share, on a file that is made if it can be.
pub(super) fn shared(path: &Path) -> Result<Lock, StoreError> {
    let open = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            OpenOptions::new().create(true).truncate(false).write(true).open(path)
        }
        other => other,
    };
    match open {
        Ok(file) => {
            wait(path, || file.try_lock_shared())?;
            Ok(Lock { _file: Some(file) })
        }
        Err(error) if is_read_only(&error) => Ok(Lock { _file: None }),
        Err(source) => Err(StoreError::Io { action: "lock", path: path.into(), source }),
    }
}

/// A lock that nobody else has.
pub(super) fn alone(path: &Path) -> Result<Lock, StoreError> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path);
    let file = file.map_err(|source| StoreError::Io { action: "lock", path: path.into(), source })?;
    match wait_for(path, ALONE_WAIT, || file.try_lock()) {
        Err(StoreError::Locked { path, .. }) => {
            Err(StoreError::InUse { path: path.parent().unwrap_or(&path).to_owned() })
        }
        locked => locked.map(|()| Lock { _file: Some(file) }),
    }
}

impl Store {
    pub(super) fn index_path(&self) -> PathBuf {
        self.root.join("index.json")
    }

    pub(super) fn lock_exclusive(&self) -> Result<Lock, StoreError> {
        let path = self.root.join(".lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(|source| StoreError::Io { action: "lock", path: path.clone(), source })?;
        wait(&path, || file.try_lock())?;
        Ok(Lock { _file: Some(file) })
    }

    fn lock_shared(&self) -> Result<Lock, StoreError> {
        shared(&self.root.join(".lock"))
    }

    /// `index.json` as it is now. Whoever wants to change it holds the exclusive lock and reads it again.
    pub(super) fn read_index(&self) -> Result<Value, StoreError> {
        let path = self.index_path();
        let fail = |source| StoreError::Io { action: "read", path: path.clone(), source };
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(serde_json::json!({"schemaVersion": 2, "manifests": []}));
            }
            other => other.map_err(fail)?,
        };
        let mut bytes = Vec::new();
        file.take(INDEX_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(fail)?;
        if bytes.len() as u64 > INDEX_BYTES_MAX {
            return Err(fail(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 32 MiB")));
        }
        serde_json::from_slice(&bytes).map_err(|source| StoreError::Index { path, source })
    }

    pub(super) fn read_index_shared(&self) -> Result<Value, StoreError> {
        let _lock = self.lock_shared()?;
        self.read_index()
    }

    /// Needs the exclusive lock.
    pub(super) fn write_index(&self, index: &Value) -> Result<(), StoreError> {
        let path = self.index_path();
        let bytes =
            serde_json::to_vec_pretty(index).map_err(|source| StoreError::Index { path: path.clone(), source })?;
        self.replace_file(&path, &bytes)
    }

    /// Puts `bytes` in the place of `path` as a whole, and has both on disk when it returns.
    pub(super) fn replace_file(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let (temp, mut file) = self.create_temp()?;
        let fail = |source| StoreError::Io { action: "write", path: path.to_owned(), source };
        let written = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&temp, path));
        if let Err(error) = written {
            let _gone = fs::remove_file(&temp);
            return Err(fail(error));
        }
        File::open(&self.root).and_then(|folder| folder.sync_all()).map_err(fail)
    }
}

/// The entries' list of an index, made if there is none.
pub(super) fn entries_mut(index: &mut Value) -> Option<&mut Vec<Value>> {
    let object = index.as_object_mut()?;
    object.entry("manifests").or_insert_with(|| Value::Array(Vec::new())).as_array_mut()
}

/// The name that an entry of `index.json` carries.
pub(super) fn entry_name(entry: &Value) -> Option<&str> {
    entry.get("annotations")?.get(NAME_ANNOTATION)?.as_str()
}

fn is_read_only(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

/// The kernel's waiting has no time limit; so it is asked again and again.
fn wait(path: &Path, lock: impl FnMut() -> Result<(), TryLockError>) -> Result<(), StoreError> {
    wait_for(path, LOCK_WAIT, lock)
}

fn wait_for(
    path: &Path,
    limit: Duration,
    mut lock: impl FnMut() -> Result<(), TryLockError>,
) -> Result<(), StoreError> {
    let start = Instant::now();
    loop {
        match lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if start.elapsed() < limit => thread::sleep(LOCK_PAUSE),
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::Locked { path: path.to_owned(), waited_s: limit.as_secs() });
            }
            Err(TryLockError::Error(source)) => {
                return Err(StoreError::Io { action: "lock", path: path.to_owned(), source });
            }
        }
    }
}

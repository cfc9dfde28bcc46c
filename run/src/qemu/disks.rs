//! Makes the files of disks that are missing, as the other back end does: sparse, of the size that was asked for.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::PathBuf;

use crate::config::Disk;

/// A disk's file that cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make disk `{}`", path.display())]
pub struct DiskError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Makes what is missing and has a size. A file that is there stays as it is, whatever its size.
pub(super) fn make_missing(disks: &[Disk]) -> Result<(), DiskError> {
    for Disk { path, size_bytes, .. } in disks {
        let Some(size_bytes) = size_bytes else { continue };
        let failed = |source| DiskError { path: path.clone(), source };
        let file = match OpenOptions::new().write(true).create_new(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            opened => opened.map_err(failed)?,
        };
        if let Err(error) = file.set_len(*size_bytes) {
            // An empty file would count as the disk from now on.
            let _ = fs::remove_file(path);
            return Err(failed(error));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DiskFormat;

    fn disk(path: PathBuf, size_bytes: u64) -> Disk {
        Disk { path, size_bytes: Some(size_bytes), format: DiskFormat::Raw, read_only: false }
    }

    #[test]
    fn a_disk_that_cannot_be_made_is_named_and_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d.img");
        let error = make_missing(&[disk(path.clone(), u64::MAX)]).unwrap_err();
        assert!(error.to_string().contains("d.img") && !path.exists(), "{error}");
    }

    #[test]
    fn a_missing_disk_is_made_sparse_and_one_that_is_there_stays() {
        use std::os::unix::fs::MetadataExt;
        let folder = tempfile::tempdir().unwrap();
        let (new, old) = (folder.path().join("new"), folder.path().join("old"));
        fs::write(&old, "kept").unwrap();
        make_missing(&[disk(new.clone(), 1 << 30), disk(old.clone(), 1 << 30)]).unwrap();
        let made = new.metadata().unwrap();
        assert_eq!((made.len(), made.blocks()), (1 << 30, 0));
        assert_eq!(fs::read(old).unwrap(), b"kept");
    }
}

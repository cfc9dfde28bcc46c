//! Opens the disks of a machine, and makes the files that are missing.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use crate::config::{Disk, DiskFormat};

/// A disk's open file. It stays open over resets.
#[derive(Debug)]
pub(crate) struct OpenDisk {
    pub(crate) file: File,
    pub(crate) read_only: bool,
}

/// A disk that cannot be opened or made.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} disk `{}`", path.display())]
pub struct DiskError {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Opens all disks, in order. A missing file is made sparse, with its size.
pub(crate) fn open_all(disks: &[Disk]) -> Result<Vec<OpenDisk>, DiskError> {
    disks.iter().map(open).collect()
}

fn open(disk: &Disk) -> Result<OpenDisk, DiskError> {
    if disk.layout() != DiskFormat::Raw {
        return Err(DiskError { action: "open", path: disk.path.clone(), source: io::ErrorKind::Unsupported.into() });
    }
    let failed = |action| move |source| DiskError { action, path: disk.path.clone(), source };
    let mut options = File::options();
    options.read(true).write(!disk.read_only);
    let file = match (options.open(&disk.path), disk.size_bytes) {
        (Err(error), Some(bytes)) if error.kind() == io::ErrorKind::NotFound => {
            make(disk, bytes).map_err(failed("make"))?
        }
        (opened, _) => opened.map_err(failed("open"))?,
    };
    Ok(OpenDisk { file, read_only: disk.read_only })
}

/// Makes a file of zeros that takes no room yet. One that cannot get its size does not stay behind.
fn make(disk: &Disk, bytes: u64) -> io::Result<File> {
    let file = File::options().read(true).write(true).create_new(true).open(&disk.path)?;
    if let Err(error) = file.set_len(bytes) {
        // The first error is the one to tell; an empty file that cannot be removed is told of by the next run.
        let _left_behind = std::fs::remove_file(&disk.path);
        return Err(error);
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn disk(path: PathBuf, size_bytes: Option<u64>) -> Disk {
        Disk { size_bytes, ..Disk::of(path) }
    }

    #[test]
    fn a_disk_too_large_for_any_file_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("huge");
        let error = open_all(&[disk(path.clone(), Some(u64::MAX))]).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot make disk `{}`", path.display()));
        assert!(!path.exists());
    }

    #[test]
    fn a_missing_disk_is_made_sparse_and_an_existing_one_keeps_its_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        open_all(&[disk(path.clone(), Some(1 << 30))]).unwrap();
        open_all(&[disk(path.clone(), Some(512))]).unwrap();
        let file = std::fs::metadata(&path).unwrap();
        assert_eq!((file.len(), file.blocks()), (1 << 30, 0));
    }
}

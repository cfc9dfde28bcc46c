//! Metadata from files of the user's.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{CONFIG, MAX_BYTES, MAX_FILES, Metadata, MetadataError, USER_DATA, name};
use crate::tree::TreePath;

/// Most folders within one another: what an ISO of the first level has.
const MAX_DEPTH: usize = 8;

impl Metadata {
    /// A file's data, or all files of a folder as they are.
    ///
    /// # Errors
    /// What cannot be read or has no place on a CD; a folder without data.
    pub fn read(path: &Path) -> Result<Self, MetadataError> {
        let about = fs::metadata(path).map_err(|source| MetadataError::Read { path: path.into(), source })?;
        let mut gathered = Gathered { start: path, files: BTreeMap::new(), bytes: 0 };
        if !about.is_dir() {
            gathered.add_file(path, name(USER_DATA))?;
            return Ok(Self::whole(gathered.files));
        }
        gathered.add_folder(path, &TreePath::root(), 0)?;
        if [USER_DATA, CONFIG].iter().all(|file| !gathered.files.contains_key(&name(file))) {
            return Err(MetadataError::NoUserData { path: path.into() });
        }
        Ok(Self::whole(gathered.files))
    }
}

struct Gathered<'a> {
    start: &'a Path,
    files: BTreeMap<TreePath, Vec<u8>>,
    bytes: u64,
}

impl Gathered<'_> {
    fn add_folder(&mut self, folder: &Path, at: &TreePath, depth: usize) -> Result<(), MetadataError> {
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |source| MetadataError::Read { path, source }
        };
        if depth > MAX_DEPTH {
            return Err(self.too_much());
        }
        for entry in fs::read_dir(folder).map_err(failed(folder))? {
            let path = entry.map_err(failed(folder))?.path();
            let own_name = path.file_name().unwrap_or_default().as_bytes();
            let place = TreePath::from_member(at.join(own_name).as_bytes())
                .map_err(|source| MetadataError::Name { path: path.clone(), source })?;
            // What a link leads to counts: secrets are often given so.
            let about = fs::metadata(&path).map_err(failed(&path))?;
            if about.is_dir() {
                self.add_folder(&path, &place, depth + 1)?;
            } else {
                self.add_file(&path, place)?;
            }
        }
        Ok(())
    }

    fn add_file(&mut self, path: &Path, place: TreePath) -> Result<(), MetadataError> {
        let failed = |source| MetadataError::Read { path: path.into(), source };
        // A pipe would be waited for.
        if !fs::metadata(path).map_err(failed)?.is_file() {
            return Err(MetadataError::Kind { path: path.into() });
        }
        let mut content = vec![];
        let room = MAX_BYTES - self.bytes;
        File::open(path).map_err(failed)?.take(room + 1).read_to_end(&mut content).map_err(failed)?;
        if content.len() as u64 > room || self.files.len() == MAX_FILES {
            return Err(self.too_much());
        }
        self.bytes += content.len() as u64;
        self.files.insert(place, content);
        Ok(())
    }

    fn too_much(&self) -> MetadataError {
        MetadataError::TooMuch { path: PathBuf::from(self.start) }
    }
}

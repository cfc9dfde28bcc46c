//! The image while it is put together: a tree in memory, contents in an unlinked file.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{PackageError, io_error};
use super::pattern::fits;
use super::recipe::{FileContent, FileEntry};
use crate::tree::{Attributes, Body, Kind, Spool, Tree, TreeError, TreePath};

/// Deeper folders are a loop of links or a mistake.
const DEPTH_LIMIT: usize = 64;
/// Times are the same for all, and these two depend on nothing else.
const MODE_FILE: u32 = 0o644;
const MODE_FOLDER: u32 = 0o755;
const MODE_LINK: u32 = 0o777;

/// An image that is being put together.
pub(super) struct Stage {
    /// What is there so far.
    pub tree: Tree,
    spool: Arc<Spool>,
    spool_folder: PathBuf,
    package: PathBuf,
    mtime_s: i64,
}

impl Stage {
    /// Nothing yet, of the package in the folder `package`; contents are kept on the file system of `spool_folder`.
    pub fn new(package: &Path, spool_folder: &Path, mtime_s: i64) -> Result<Self, PackageError> {
        let spool = Spool::create(spool_folder)
            .map_err(|source| io_error("write a temporary file in", spool_folder, source))?;
        Ok(Self {
            tree: Tree::new(mtime_s),
            spool: Arc::new(spool),
            spool_folder: spool_folder.to_owned(),
            package: package.to_owned(),
            mtime_s,
        })
    }

    /// The package's folder.
    pub fn package(&self) -> &Path {
        &self.package
    }

    /// A folder for temporary files.
    pub fn spool_folder(&self) -> &Path {
        &self.spool_folder
    }

    /// An empty tree with this image's time.
    pub fn new_tree(&self) -> Tree {
        Tree::new(self.mtime_s)
    }

    /// Root's, with this image's time.
    pub fn attributes(&self, mode: u32) -> Attributes {
        Attributes::of_root(mode, self.mtime_s)
    }

    /// Keeps all that `content` gives. `name` is what it is called if it cannot be read.
    pub fn keep(&self, content: &mut dyn Read, name: &Path) -> Result<Body, PackageError> {
        self.keep_with(&mut |mut out| io::copy(content, &mut out).map(drop)).map_err(|e| io_error("copy", name, e))
    }

    /// Keeps all that `write` writes.
    pub fn keep_with(&self, write: &mut dyn FnMut(&File) -> io::Result<()>) -> io::Result<Body> {
        let mut file = self.spool.file();
        let start = file.seek(SeekFrom::End(0))?;
        write(file)?;
        let len = file.stream_position()? - start;
        Ok(Body::Spooled { spool: self.spool.clone(), start, len })
    }

    /// Puts something into the tree.
    pub fn put(&mut self, path: &TreePath, mode: u32, kind: Kind) -> Result<(), PackageError> {
        let attributes = self.attributes(mode);
        self.tree.put(path, attributes, kind).map_err(|source| self.refused(source))?;
        Ok(())
    }

    /// Puts a symbolic link into the tree.
    pub fn symlink(&mut self, path: &TreePath, target: &[u8]) -> Result<(), PackageError> {
        self.put(path, MODE_LINK, Kind::Symlink(target.into()))
    }

    /// Copies a file of the host into the tree.
    pub fn copy(&mut self, path: &TreePath, host: &Path, mode: u32) -> Result<(), PackageError> {
        let mut file = File::open(host).map_err(|source| io_error("read", host, source))?;
        let body = self.keep(&mut file, host)?;
        self.put(path, mode, Kind::File(body))
    }

    /// The error for a tree that refused something.
    pub fn refused(&self, source: TreeError) -> PackageError {
        PackageError::Tree { folder: self.package.clone(), source }
    }

    /// Does what a `files` source says.
    pub fn add_files(&mut self, entries: &[FileEntry]) -> Result<(), PackageError> {
        entries.iter().try_for_each(|entry| self.add_file(entry))
    }

    fn add_file(&mut self, entry: &FileEntry) -> Result<(), PackageError> {
        let FileEntry { path, content, mode } = entry;
        let mode = mode.map(|mode| mode.bits());
        match content {
            FileContent::Directory => self.put(path, mode.unwrap_or(MODE_FOLDER), Kind::directory()),
            FileContent::Symlink(target) => self.symlink(path, target.as_bytes()),
            FileContent::Contents(text) => self.put(path, mode.unwrap_or(MODE_FILE), Kind::file(text)),
            FileContent::Joined(pattern) => {
                let body = self.joined(pattern)?;
                self.put(path, mode.unwrap_or(MODE_FILE), Kind::File(body))
            }
            FileContent::Source(source) => {
                let host = source.components().fold(self.package.clone(), |folder, name| {
                    folder.join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(name))
                });
                self.copy_all(path, &host, mode, DEPTH_LIMIT)
            }
        }
    }

    /// The files that fit, in the order of their names. One without an end of line gets it, as lists of certificates need.
    fn joined(&self, pattern: &str) -> Result<Body, PackageError> {
        let pattern_bytes = pattern.trim_matches('/').as_bytes();
        let mut bodies = vec![];
        for (path, id) in self.tree.walk() {
            if let Kind::File(body) = &self.tree.node(id).kind
                && fits(pattern_bytes, path.as_bytes())
            {
                bodies.push(body);
            }
        }
        if bodies.is_empty() {
            return Err(PackageError::NothingToJoin { pattern: pattern.to_owned() });
        }
        let mut join = |mut out: &File| {
            for body in &bodies {
                // Read by position, so it does not matter that the bodies are in the same file.
                io::copy(&mut body.reader(), &mut out)?;
                let mut last = [b'\n'];
                if let Some(at) = body.len().checked_sub(1) {
                    body.read_exact_at(&mut last, at)?;
                }
                if last != [b'\n'] {
                    io::Write::write_all(&mut out, b"\n")?;
                }
            }
            Ok(())
        };
        self.keep_with(&mut join).map_err(|e| io_error("join", Path::new(pattern), e))
    }

    /// Copies a file, a link or a folder with all in it. `mode` is for files; folders get theirs from the default.
    fn copy_all(
        &mut self,
        path: &TreePath,
        host: &Path,
        mode: Option<u32>,
        depth_left: usize,
    ) -> Result<(), PackageError> {
        let failed = |source| io_error("read", host, source);
        let meta = host.symlink_metadata().map_err(failed)?;
        if meta.is_symlink() {
            let target = fs::read_link(host).map_err(failed)?;
            return self.symlink(path, target.as_os_str().as_encoded_bytes());
        }
        if meta.is_file() {
            // Of a checkout only whether a file can be run is the same everywhere.
            let runs = meta.permissions().mode() & 0o111 != 0;
            let plain = if runs { MODE_FOLDER } else { MODE_FILE };
            return self.copy(path, host, mode.unwrap_or(plain));
        }
        if !meta.is_dir() {
            return Err(failed(io::Error::other("it is no file, folder or symbolic link")));
        }
        let too_deep = || failed(io::Error::other(format!("nested deeper than {DEPTH_LIMIT} folders")));
        let depth_left = depth_left.checked_sub(1).ok_or_else(too_deep)?;
        self.put(path, MODE_FOLDER, Kind::directory())?;
        for entry in fs::read_dir(host).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            self.copy_all(&path.join(name.as_encoded_bytes()), &host.join(&name), mode, depth_left)?;
        }
        Ok(())
    }
}

//! Blobs: written to a locked temp file and renamed once they are verified; verified again whenever they are read.

use std::fs::{self, File, TryLockError};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest as _, Sha256};

use super::{BlobKind, Store, StoreError};
use crate::oci::{Digest, Layer};

/// Network chunks are small; the disk likes larger ones.
const WRITE_BUFFER_BYTES: usize = 128 << 10;
/// Reading to the end of a blob that its reader left early.
const DRAIN_BUFFER_BYTES: usize = 64 << 10;

/// A blob that is not what its name says. Also found inside the [`io::Error`] of a [`VerifiedReader`].
#[derive(Debug, thiserror::Error)]
#[error("blob {digest} in `{}` {fault}", path.display())]
pub struct DamagedBlob {
    /// Which blob.
    pub digest: Digest,
    /// Its file, or the temp file it was written to.
    pub path: PathBuf,
    /// What is wrong.
    pub fault: BlobFault,
}

/// How a blob differs from what was promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BlobFault {
    /// It has another length.
    #[error("has {found} bytes, it should have {expected}; build again to fetch it anew")]
    Length {
        /// Bytes it should have.
        expected: u64,
        /// Bytes it has.
        found: u64,
    },
    /// It has another content.
    #[error("holds other bytes, whose digest is {found}; build again to fetch it anew")]
    Content {
        /// Digest of the bytes that are there.
        found: Digest,
    },
}

impl Store {
    /// A writer of one new blob. What was not committed is removed when the writer is dropped.
    pub fn blob_writer(&self) -> Result<BlobWriter, StoreError> {
        let (path, file) = self.create_temp()?;
        let out = BufWriter::with_capacity(WRITE_BUFFER_BYTES, file);
        Ok(BlobWriter { store: self.clone(), path, out, hash: Sha256::new(), len_bytes: 0 })
    }

    /// Writes `bytes` as a blob and returns its digest.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let mut writer = self.blob_writer()?;
        let path = writer.path.clone();
        writer.write_all(bytes).map_err(|source| StoreError::Io { action: "write", path, source })?;
        writer.commit(None, None)
    }

    /// A reader of a layer's blob that verifies what it hands out.
    ///
    /// Errors: [`StoreError::Missing`], and [`StoreError::Damaged`] when the length already tells.
    pub fn open_layer(&self, layer: &Layer) -> Result<VerifiedReader, StoreError> {
        let (path, file) = self.open_sized(BlobKind::Layer, &layer.digest, layer.size_bytes)?;
        let left_bytes = layer.size_bytes;
        Ok(VerifiedReader { digest: layer.digest, path, file, hash: Some(Sha256::new()), left_bytes, size: left_bytes })
    }

    /// The layers of an image whose blobs are missing or have another length than the manifest says.
    pub fn missing_layers<'a>(&self, layers: &'a [Layer]) -> Vec<&'a Layer> {
        layers.iter().filter(|layer| !self.has_layer(layer)).collect()
    }

    fn has_layer(&self, layer: &Layer) -> bool {
        fs::metadata(self.blob_path(&layer.digest)).is_ok_and(|meta| meta.is_file() && meta.len() == layer.size_bytes)
    }

    /// The verified bytes of a manifest or a configuration of at most `limit` bytes.
    pub(in crate::oci) fn read_document(
        &self,
        kind: BlobKind,
        digest: &Digest,
        limit: u64,
    ) -> Result<Vec<u8>, StoreError> {
        let (path, file) = self.open_blob(kind, digest)?;
        let mut bytes = Vec::new();
        let read = file.take(limit + 1).read_to_end(&mut bytes);
        read.map_err(|source| StoreError::Io { action: "read", path: path.clone(), source })?;
        let len = bytes.len() as u64;
        if len > limit {
            return Err(StoreError::TooLarge { kind, digest: *digest, bytes: len, limit });
        }
        let found = Digest::from_bytes(Sha256::digest(&bytes).into());
        match found == *digest {
            true => Ok(bytes),
            false => Err(damaged(kind, *digest, path, BlobFault::Content { found })),
        }
    }

    fn open_sized(&self, kind: BlobKind, digest: &Digest, size: u64) -> Result<(PathBuf, File), StoreError> {
        let (path, file) = self.open_blob(kind, digest)?;
        let meta =
            file.metadata().map_err(|source| StoreError::Io { action: "look at", path: path.clone(), source })?;
        match meta.len() {
            found if found == size => Ok((path, file)),
            found => Err(damaged(kind, *digest, path, BlobFault::Length { expected: size, found })),
        }
    }

    fn open_blob(&self, kind: BlobKind, digest: &Digest) -> Result<(PathBuf, File), StoreError> {
        let path = self.blob_path(digest);
        match File::open(&path) {
            Ok(file) => Ok((path, file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(StoreError::Missing { kind, digest: *digest, path })
            }
            Err(source) => Err(StoreError::Io { action: "open", path, source }),
        }
    }

    /// A new file in `tmp/`, locked for as long as it is open: a locked one belongs to a living process.
    pub(super) fn create_temp(&self) -> Result<(PathBuf, File), StoreError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let folder = self.temp_folder();
        fs::create_dir_all(&folder).map_err(|source| StoreError::Io {
            action: "make folder",
            path: folder.clone(),
            source,
        })?;
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = folder.join(format!("{}-{number}", std::process::id()));
            let fail = |action, source| StoreError::Io { action, path: path.clone(), source };
            let file = match File::options().read(true).write(true).create_new(true).open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(fail("create", error)),
            };
            file.lock().map_err(|error| fail("lock", error))?;
            // Between the two steps another process may have taken it for a stale one.
            if file.metadata().map_err(|error| fail("look at", error))?.nlink() > 0 {
                return Ok((path, file));
            }
        }
    }

    /// A new file in `tmp/` that is gone when it is closed.
    pub(in crate::oci) fn unnamed_file(&self) -> Result<File, StoreError> {
        let (path, file) = self.create_temp()?;
        fs::remove_file(&path).map_err(|source| StoreError::Io { action: "remove", path, source })?;
        Ok(file)
    }

    /// Removes temp files whose writer is gone. Trouble is left for the writer that will meet it.
    pub(super) fn remove_stale_temps(&self) {
        let entries = fs::read_dir(self.temp_folder()).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()) {
            let is_stale = File::open(&path).is_ok_and(|file| match file.try_lock() {
                Ok(()) => fs::remove_file(&path).is_ok(), // removed while locked, see `create_temp`
                Err(TryLockError::WouldBlock | TryLockError::Error(_)) => false,
            });
            debug_assert!(!is_stale || !path.exists());
        }
    }

    fn temp_folder(&self) -> PathBuf {
        self.root.join("tmp")
    }
}

fn damaged(kind: BlobKind, digest: Digest, path: PathBuf, fault: BlobFault) -> StoreError {
    StoreError::Damaged { kind, source: Box::new(DamagedBlob { digest, path, fault }) }
}

/// Writes one blob: hashes what goes through it and gives it its name at the end.
#[derive(Debug)]
pub struct BlobWriter {
    store: Store,
    path: PathBuf,
    out: BufWriter<File>,
    hash: Sha256,
    len_bytes: u64,
}

impl BlobWriter {
    /// Bytes written so far.
    pub fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// The temp file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Forgets everything written so far.
    pub fn restart(&mut self) -> Result<(), StoreError> {
        *self = self.store.blob_writer()?;
        Ok(())
    }

    /// Checks what was written against what was expected, syncs it to disk and puts it under its digest.
    ///
    /// Errors: [`StoreError::Damaged`] when length or digest differ; then nothing is kept.
    pub fn commit(mut self, expected: Option<Digest>, size_bytes: Option<u64>) -> Result<Digest, StoreError> {
        let found = Digest::from_bytes(self.hash.finalize_reset().into());
        let digest = expected.unwrap_or(found);
        let path = self.path.clone();
        if let Some(expected) = size_bytes.filter(|size| *size != self.len_bytes) {
            let fault = BlobFault::Length { expected, found: self.len_bytes };
            return Err(damaged(BlobKind::Layer, digest, path, fault));
        }
        if digest != found {
            return Err(damaged(BlobKind::Layer, digest, path, BlobFault::Content { found }));
        }
        let synced = self.out.flush().and_then(|()| self.out.get_ref().sync_all());
        synced.map_err(|source| StoreError::Io { action: "write", path, source })?;
        let blob = self.store.blob_path(&digest);
        fs::rename(&self.path, &blob).map_err(|source| StoreError::Io { action: "write", path: blob, source })?;
        Ok(digest)
    }
}

impl BlobWriter {
    /// Commits if the digest that was found is agreed to, and tells which it is either way.
    pub(in crate::oci) fn commit_if(self, agreed: impl FnOnce(Digest) -> bool) -> Result<Digest, StoreError> {
        let found = Digest::from_bytes(self.hash.clone().finalize().into());
        if agreed(found) { self.commit(None, None) } else { Ok(found) }
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        let (written, _) = bytes.split_at(count.min(bytes.len()));
        self.hash.update(written);
        self.len_bytes += written.len() as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        // After a commit there is nothing under this name any more; else the next `open` removes what stays.
        let _gone = fs::remove_file(&self.path);
    }
}

/// Reads one blob and hashes what it hands out. It never hands out more than the promised length, and the read that
/// takes the last byte fails if the digest is wrong. A reader that stops earlier calls [`VerifiedReader::finish`].
#[derive(Debug)]
pub struct VerifiedReader {
    digest: Digest,
    path: PathBuf,
    file: File,
    /// `None` once the digest was compared.
    hash: Option<Sha256>,
    left_bytes: u64,
    size: u64,
}

impl VerifiedReader {
    /// Reads what is left and compares the digest: for readers that stop where their own format ends.
    pub fn finish(mut self) -> io::Result<()> {
        let mut rest = vec![0; DRAIN_BUFFER_BYTES];
        while self.read(&mut rest)? > 0 {}
        Ok(())
    }

    fn compare(&mut self) -> io::Result<()> {
        let Some(hash) = self.hash.take() else { return Ok(()) };
        let found = Digest::from_bytes(hash.finalize().into());
        match found == self.digest {
            true => Ok(()),
            false => Err(self.refuse(BlobFault::Content { found })),
        }
    }

    /// The error for a damaged blob. Its file goes, so that the next build fetches it again: it would look intact to
    /// whoever only compares lengths.
    fn refuse(&self, fault: BlobFault) -> io::Error {
        let same_file = |a: fs::Metadata, b: fs::Metadata| a.ino() == b.ino() && a.dev() == b.dev();
        if let (Ok(read), Ok(named)) = (self.file.metadata(), fs::metadata(&self.path))
            && same_file(read, named)
        {
            let _kept_if_read_only = fs::remove_file(&self.path);
        }
        let damaged = DamagedBlob { digest: self.digest, path: self.path.clone(), fault };
        io::Error::new(io::ErrorKind::InvalidData, damaged)
    }
}

impl Read for VerifiedReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        if self.left_bytes == 0 {
            return self.compare().map(|()| 0);
        }
        let wanted = usize::try_from(self.left_bytes).map_or(out.len(), |left| left.min(out.len()));
        let (wanted, _) = out.split_at_mut(wanted);
        let count = self.file.read(wanted)?;
        if count == 0 {
            let found = self.size - self.left_bytes;
            return Err(self.refuse(BlobFault::Length { expected: self.size, found }));
        }
        if let (Some(hash), Some(read)) = (&mut self.hash, wanted.get(..count)) {
            hash.update(read);
        }
        self.left_bytes -= count as u64;
        if self.left_bytes == 0 {
            self.compare()?;
        }
        Ok(count)
    }
}

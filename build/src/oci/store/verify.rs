//! Reads every blob and compares it with its name.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use sha2::{Digest as _, Sha256};

use super::{Store, StoreError};
use crate::cancel::{Cancel, Cancelled};
use crate::oci::Digest;
use crate::progress::{Meter, Progress};

const PIECE_BYTES: usize = 1 << 20;

/// What a look at every blob found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// Blobs that were read.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Those that are wrong, and those that a manifest names and that are not here.
    pub wrong: Vec<WrongBlob>,
}

/// A blob that is damaged or missing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct WrongBlob {
    /// Which.
    pub digest: Digest,
    /// What its bytes are instead; `None` if there are none.
    pub found: Option<Digest>,
    /// Names that need it.
    pub images: Vec<String>,
}

impl Store {
    /// Verifies every blob, several at the same time. `remove`: damaged ones are removed, so that they are fetched again.
    ///
    /// Errors: those of reading; `Ok(Err)` when it was cancelled.
    pub fn verify(
        &self,
        remove: bool,
        cancel: &Cancel,
        progress: &dyn Progress,
    ) -> Result<Result<Verified, Cancelled>, StoreError> {
        let here = self.blob_sizes()?;
        let bytes = here.values().sum();
        let meter = progress.begin("verify", Some(bytes));
        let blobs: Vec<Digest> = here.keys().copied().collect();
        let (next, damaged) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let work = || {
            while let Some(digest) = blobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                match self.digest_of(digest, cancel, meter.as_ref()) {
                    Ok(found) if found == *digest => {}
                    Ok(found) => damaged.lock().unwrap_or_else(PoisonError::into_inner).push((*digest, found)),
                    Err(_) if cancel.check().is_err() => return Ok(()),
                    // Another process found it damaged first.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(source) => {
                        let path = self.blob_path(digest);
                        return Err(StoreError::Io { action: "read", path, source });
                    }
                }
            }
            Ok(())
        };
        let threads = thread::available_parallelism().map_or(1, usize::from).min(blobs.len());
        thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            threads.into_iter().try_for_each(|thread| match thread.join() {
                Ok(done) => done,
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })?;
        if let Err(cancelled) = cancel.check() {
            return Ok(Err(cancelled));
        }
        let damaged = damaged.into_inner().unwrap_or_else(PoisonError::into_inner);
        let wrong = self.users_of(&damaged, &here.keys().copied().collect())?;
        if remove {
            for (digest, _) in &damaged {
                let path = self.blob_path(digest);
                fs::remove_file(&path).map_err(|source| StoreError::Io { action: "remove", path, source })?;
            }
        }
        Ok(Ok(Verified { blobs: blobs.len(), bytes, wrong }))
    }

    fn digest_of(&self, digest: &Digest, cancel: &Cancel, meter: &dyn Meter) -> io::Result<Digest> {
        let mut file = File::open(self.blob_path(digest))?;
        let (mut hash, mut piece) = (Sha256::new(), vec![0; PIECE_BYTES]);
        loop {
            cancel.check().map_err(io::Error::other)?;
            let count = file.read(&mut piece)?;
            if count == 0 {
                return Ok(Digest::from_bytes(hash.finalize().into()));
            }
            let (bytes, _) = piece.split_at(count);
            hash.update(bytes);
            meter.advance(count as u64);
        }
    }

    /// Damaged and missing blobs with the names that need them.
    fn users_of(&self, damaged: &[(Digest, Digest)], here: &BTreeSet<Digest>) -> Result<Vec<WrongBlob>, StoreError> {
        let mut wrong: Vec<WrongBlob> = Vec::new();
        let found = |digest: &Digest| damaged.iter().find(|(name, _)| name == digest).map(|(_, found)| *found);
        wrong.extend(damaged.iter().map(|(digest, found)| WrongBlob {
            digest: *digest,
            found: Some(*found),
            images: Vec::new(),
        }));
        for (name, root) in self.roots()? {
            let name = name.unwrap_or_else(|| root.to_string());
            for (digest, told) in self.reach(root).blobs {
                let is_missing = !here.contains(&digest) && (told.is_some() || digest == root);
                if !is_missing && found(&digest).is_none() {
                    continue;
                }
                match wrong.iter_mut().find(|wrong| wrong.digest == digest) {
                    Some(wrong) => wrong.images.push(name.clone()),
                    None => wrong.push(WrongBlob { digest, found: None, images: vec![name.clone()] }),
                }
            }
        }
        wrong.sort();
        Ok(wrong)
    }
}

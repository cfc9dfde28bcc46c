//! A file as the crate `imago` sees it: what it reads and writes itself are tables, counts and compressed clusters.
#![expect(unsafe_code, reason = "the crate's trait calls methods so that do nothing unsafe here")]

use std::fmt;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use imago::Storage;
use imago::io_buffers::{IoVector, IoVectorMut};
use imago::storage::PreallocateMode;
use imago::storage::drivers::CommonStorageHelper;

use super::claims::Claims;
use crate::block::HostFile;

/// The file of an image.
#[derive(Debug)]
pub(crate) struct Image {
    file: HostFile,
    helper: CommonStorageHelper,
    /// Held by who writes.
    claims: Mutex<Claims>,
}

impl Image {
    pub(crate) fn new(file: HostFile) -> Self {
        Self { file, helper: CommonStorageHelper::default(), claims: Mutex::default() }
    }

    pub(super) fn file(&self) -> &HostFile {
        &self.file
    }

    fn claims(&self) -> MutexGuard<'_, Claims> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("file")
    }
}

impl Storage for Image {
    fn size(&self) -> io::Result<u64> {
        self.file.len_bytes()
    }

    unsafe fn pure_readv(&self, vector: IoVectorMut<'_>, mut offset: u64) -> io::Result<()> {
        for mut piece in vector.into_inner() {
            self.file.read_bytes(&mut piece, offset)?;
            offset = behind(offset, piece.len())?;
        }
        Ok(())
    }

    unsafe fn pure_writev(&self, vector: IoVector<'_>, mut offset: u64) -> io::Result<()> {
        let pieces = vector.into_inner();
        let mut claims = self.claims();
        claims.before(&self.file, &pieces, offset)?;
        for piece in pieces {
            self.file.write_bytes(&piece, offset)?;
            offset = behind(offset, piece.len())?;
        }
        Ok(())
    }

    unsafe fn pure_write_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        let end = offset.checked_add(length).ok_or(io::ErrorKind::InvalidInput)?;
        self.file.grow(end)?;
        let zeroed = self.file.zero(offset, length, true);
        self.claims().forget_at(offset);
        zeroed
    }

    unsafe fn pure_discard(&self, offset: u64, length: u64) -> io::Result<()> {
        let punched = self.file.punch(offset, length);
        self.claims().forget_at(offset);
        match punched {
            // It is a wish.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
            result => result,
        }
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    /// Nothing is kept here.
    unsafe fn invalidate_cache(&self) -> io::Result<()> {
        Ok(())
    }

    fn get_storage_helper(&self) -> &CommonStorageHelper {
        &self.helper
    }

    fn resize(&self, bytes: u64, mode: PreallocateMode) -> io::Result<()> {
        match mode {
            PreallocateMode::None | PreallocateMode::Zero => self.file.grow(bytes),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

fn behind(offset: u64, len: usize) -> io::Result<u64> {
    Ok(offset.checked_add(len as u64).ok_or(io::ErrorKind::InvalidInput)?)
}

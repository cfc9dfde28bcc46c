//! A disk whose file (or block device) holds its bytes as they are.

use std::io;
use std::sync::Arc;

use super::{BlockBackend, HostFile, Place, Request};
use crate::mem::GuestMemory;

/// A raw file or block device.
#[derive(Debug)]
pub struct RawDisk {
    file: HostFile,
    len_bytes: u64,
    read_only: bool,
    syncs: bool,
}

impl RawDisk {
    /// Serves the bytes of an open file; its size now is the disk's size. `read_only` must be set if the file is not
    /// open for writing. Without `syncs` a flush does nothing.
    pub fn new(file: HostFile, read_only: bool, syncs: bool) -> io::Result<Self> {
        let len_bytes = file.len_bytes()?;
        Ok(Self { file, len_bytes, read_only, syncs })
    }
}

impl BlockBackend for RawDisk {
    fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn execute(&self, memory: &GuestMemory, request: Request<'_>) -> io::Result<()> {
        match request {
            Request::Read { offset, into } => self.file.read(memory, into, offset),
            Request::Write { .. } | Request::Discard { .. } | Request::WriteZeroes { .. } if self.read_only => {
                Err(io::ErrorKind::PermissionDenied.into())
            }
            Request::Write { offset, from } => self.file.write(memory, from, offset),
            Request::Flush if self.read_only || !self.syncs => Ok(()),
            Request::Flush => self.file.sync(),
            Request::Discard { offset, len } => self.file.punch(offset, len),
            Request::WriteZeroes { offset, len, may_unmap } => self.file.zero(offset, len, may_unmap),
        }
    }

    fn place(&self, request: Request<'_>) -> Option<Place> {
        let (spans, offset) = match request {
            Request::Read { offset, into } => (into, offset),
            Request::Write { offset, from } if !self.read_only => (from, offset),
            _ => return None,
        };
        let file = Arc::clone(self.file.suited(spans, offset));
        Some(Place { file, offset, is_memory: self.file.is_memory(), _hold: None })
    }
}

//! A disk whose file (or block device) holds its bytes as they are.

use std::{
    fs::File,
    io::{self, Seek, SeekFrom},
    os::unix::fs::FileExt,
};

use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
};

use super::{BlockBackend, Request};
use crate::mem::{
    GuestMemory,
    transfer::{read_at, write_at},
};

/// Zeros written at once where the host's file system cannot zero a range by itself.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// A raw file or block device.
#[derive(Debug)]
pub struct RawDisk {
    file: File,
    len_bytes: u64,
    read_only: bool,
}

impl RawDisk {
    /// Serves the bytes of an open file; its size now is the disk's size. `read_only` must be set if the file is not
    /// open for writing.
    pub fn new(mut file: File, read_only: bool) -> io::Result<Self> {
        // The metadata of a block device tells no size; its end does.
        let len_bytes = file.seek(SeekFrom::End(0))?;
        Ok(Self { file, len_bytes, read_only })
    }

    fn zero(&self, offset: u64, len: u64, may_unmap: bool) -> io::Result<()> {
        let unmapped = may_unmap && self.punch(offset, len).is_ok();
        if unmapped
            || fallocate(&self.file, FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE, offset, len).is_ok()
        {
            return Ok(());
        }
        let mut at = offset;
        let end = offset.saturating_add(len);
        while at < end {
            let count = usize::try_from(end - at).unwrap_or(usize::MAX).min(ZEROS.len());
            self.file.write_all_at(ZEROS.get(..count).unwrap_or(&ZEROS), at)?;
            at += count as u64;
        }
        Ok(())
    }

    /// Gives the room of a range back to the host; it reads as zeros afterwards.
    fn punch(&self, offset: u64, len: u64) -> rustix::io::Result<()> {
        fallocate(&self.file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len)
    }
}

impl BlockBackend for RawDisk {
    fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn execute(&mut self, memory: &GuestMemory, request: Request<'_>) -> io::Result<()> {
        match request {
            Request::Read { offset, into } => read_at(&self.file, memory, into, offset),
            Request::Write { .. } | Request::Discard { .. } | Request::WriteZeroes { .. } if self.read_only => {
                Err(io::ErrorKind::PermissionDenied.into())
            }
            Request::Write { offset, from } => write_at(&self.file, memory, from, offset),
            Request::Flush if self.read_only => Ok(()),
            Request::Flush => self.file.sync_data(),
            Request::Discard { offset, len } => match self.punch(offset, len) {
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NODEV) => Err(io::ErrorKind::Unsupported.into()),
                result => Ok(result?),
            },
            Request::WriteZeroes { offset, len, may_unmap } => self.zero(offset, len, may_unmap),
        }
    }
}

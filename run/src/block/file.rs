//! A file (or block device) that holds bytes of a disk.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, OFlags, fallocate, fstatfs, seek};
use rustix::io::Errno;

use crate::mem::GuestMemory;
use crate::mem::transfer::{Span, read_at, read_at_or_zeros, write_at};

/// Zeros written at once where the host's file system cannot zero a range by itself.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// What offsets, lengths and addresses must be a multiple of to go past the page cache: no disk wants more.
const DIRECT_ALIGNMENT: u64 = 4096;

/// File systems that hold their files in memory (Linux: `TMPFS_MAGIC`, `RAMFS_MAGIC`).
const MEMORY_FILE_SYSTEMS: [i128; 2] = [0x0102_1994, 0x8584_58f6];

/// An open file. Cheap to clone.
#[derive(Debug, Clone)]
pub struct HostFile {
    file: Arc<File>,
    /// The same file without the page cache.
    direct: Option<Arc<File>>,
    is_memory: bool,
}

impl HostFile {
    /// A file that is read and written through the host's page cache.
    #[must_use]
    pub fn cached(file: File) -> Self {
        let is_memory = fstatfs(&file).is_ok_and(|system| MEMORY_FILE_SYSTEMS.contains(&system.f_type.into()));
        Self { file: Arc::new(file), direct: None, is_memory }
    }

    /// A file that is read and written past the page cache where a request's alignment allows it. The kernel keeps both
    /// ways in step. Fails with `InvalidInput` where the file system has no such way.
    pub fn direct(file: File, read_only: bool) -> io::Result<Self> {
        let own_name = format!("/proc/self/fd/{}", file.as_raw_fd());
        let flags = i32::try_from(OFlags::DIRECT.bits()).unwrap_or(0);
        let direct = File::options().read(true).write(!read_only).custom_flags(flags).open(Path::new(&own_name))?;
        Ok(Self { file: Arc::new(file), direct: Some(Arc::new(direct)), is_memory: false })
    }

    /// Whether its bytes are in memory, so that moving them waits for no disk. Such files know no other way: to hand a
    /// request on, to a thread or to the kernel (which before Linux 6.6 has a thread for it too), costs more than to do it.
    #[must_use]
    pub fn is_memory(&self) -> bool {
        self.is_memory
    }

    /// Its length now in bytes.
    pub fn len_bytes(&self) -> io::Result<u64> {
        // The metadata of a block device tells no size; its end does.
        (&*self.file).seek(SeekFrom::End(0))
    }

    /// Where data begins, at `offset` or behind it; what is in front of that is a hole and reads as zeros. `None` if only
    /// a hole is left. Where the host does not tell holes apart, all is data.
    pub fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        match seek(&*self.file, rustix::fs::SeekFrom::Data(offset)) {
            Ok(data) => Ok(Some(data)),
            Err(Errno::NXIO) => Ok(None),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(Some(offset)),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes it at least so long; the new bytes read as zeros and take next to no room. Never makes it shorter, whoever
    /// writes to its end meanwhile.
    pub fn grow(&self, bytes: u64) -> io::Result<()> {
        if bytes <= self.len_bytes()? {
            return Ok(());
        }
        match fallocate(&*self.file, FallocateFlags::empty(), bytes - 1, 1) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.file.set_len(bytes),
            result => Ok(result?),
        }
    }

    /// The file to use for a request of these spans.
    #[must_use]
    pub fn suited(&self, spans: &[Span], offset: u64) -> &Arc<File> {
        let is_aligned = |number: u64| number.is_multiple_of(DIRECT_ALIGNMENT);
        let span_is_aligned = |span: &Span| is_aligned(span.address.0) && is_aligned(span.len.into());
        match &self.direct {
            Some(direct) if is_aligned(offset) && spans.iter().all(span_is_aligned) => direct,
            _ => &self.file,
        }
    }

    /// Fills `spans` from `offset`. Fails with `UnexpectedEof` if the file ends before the spans do.
    pub fn read(&self, memory: &GuestMemory, spans: &[Span], offset: u64) -> io::Result<()> {
        read_at(self.suited(spans, offset), memory, spans, offset)
    }

    /// Fills `spans` from `offset`, and what is behind the file's end with zeros.
    pub fn read_or_zeros(&self, memory: &GuestMemory, spans: &[Span], offset: u64) -> io::Result<()> {
        read_at_or_zeros(self.suited(spans, offset), memory, spans, offset)
    }

    /// Writes `spans` to `offset`.
    pub fn write(&self, memory: &GuestMemory, spans: &[Span], offset: u64) -> io::Result<()> {
        write_at(self.suited(spans, offset), memory, spans, offset)
    }

    /// Fills `bytes` from `offset`, and what is behind the file's end with zeros.
    pub fn read_bytes(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = offset.checked_add(done as u64).ok_or(io::ErrorKind::InvalidInput)?;
            match self.file.read_at(rest, at) {
                Ok(0) => {
                    rest.fill(0);
                    break;
                }
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes `bytes` to `offset`.
    pub fn write_bytes(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    /// What was written survives a crash of the host.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Makes a range read as zeros, within the file's length or behind it.
    pub fn zero(&self, offset: u64, len: u64, may_unmap: bool) -> io::Result<()> {
        let unmapped = may_unmap && self.punch(offset, len).is_ok();
        if unmapped
            || fallocate(&*self.file, FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE, offset, len).is_ok()
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

    /// Gives the room of a range back to the host; it reads as zeros afterwards. Fails with `Unsupported` where the host
    /// cannot.
    pub fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        match fallocate(&*self.file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NODEV) => Err(io::ErrorKind::Unsupported.into()),
            result => Ok(result?),
        }
    }
}

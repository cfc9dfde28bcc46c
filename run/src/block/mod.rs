//! Where disks keep their bytes. The devices that a guest sees and the files behind them meet in [`Request`]; neither
//! knows of the other's kinds.

mod raw;

pub use raw::RawDisk;

use std::io;

use crate::mem::{GuestMemory, transfer::Span};

/// Unit of offsets and lengths of all requests, in bytes.
pub const SECTOR_BYTES: u64 = 512;

/// One thing to do. Offsets and lengths are in bytes, multiples of [`SECTOR_BYTES`], and inside the disk: the device
/// has checked that. Spans are inside guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request<'a> {
    /// Fill the spans.
    Read {
        /// Where on the disk.
        offset: u64,
        /// Guest memory to fill.
        into: &'a [Span],
    },
    /// Write the spans.
    Write {
        /// Where on the disk.
        offset: u64,
        /// Guest memory to take from.
        from: &'a [Span],
    },
    /// What was written so far survives a crash of the host.
    Flush,
    /// The bytes are no longer needed and may read as anything.
    Discard {
        /// Where on the disk.
        offset: u64,
        /// How many bytes.
        len: u64,
    },
    /// The bytes read as zeros.
    WriteZeroes {
        /// Where on the disk.
        offset: u64,
        /// How many bytes.
        len: u64,
        /// Their room may be given back to the host.
        may_unmap: bool,
    },
}

/// A disk's bytes.
pub trait BlockBackend: Send {
    /// Size of the disk in bytes.
    fn len_bytes(&self) -> u64;

    /// Whether it refuses [`Request::Write`], [`Request::Discard`] and [`Request::WriteZeroes`].
    fn is_read_only(&self) -> bool;

    /// Does one request, and returns when it is done. Fails with `Unsupported` for what the backend cannot do at all.
    fn execute(&mut self, memory: &GuestMemory, request: Request<'_>) -> io::Result<()>;
}

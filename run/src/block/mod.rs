//! Where disks keep their bytes. The devices that a guest sees and the files behind them meet in [`Request`]; neither
//! knows of the other's kinds.

mod file;
mod qcow2;
mod raw;

pub use file::HostFile;
pub use qcow2::{Fault, Qcow2Disk, Qcow2Error, Qcow2Header};
pub(crate) use qcow2::{Layer, check_tables, grow, image_layer, new_layer, raw_layer};
pub use raw::RawDisk;

use std::fs::File;
use std::io;
use std::sync::Arc;

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

/// A disk's bytes. Several threads may ask it for things at once; what they ask for is done in any order.
pub trait BlockBackend: Send + Sync {
    /// Size of the disk in bytes.
    fn len_bytes(&self) -> u64;

    /// Whether it refuses [`Request::Write`], [`Request::Discard`] and [`Request::WriteZeroes`].
    fn is_read_only(&self) -> bool;

    /// Does one request, and returns when it is done. Fails with `Unsupported` for what the backend cannot do at all.
    fn execute(&self, memory: &GuestMemory, request: Request<'_>) -> io::Result<()>;

    /// Where the bytes of a read or write are, if all of them are in one piece of one file: whoever asks moves them by
    /// himself. Never waits for another request. A read that finds the file to end early is to be executed instead.
    fn place(&self, request: Request<'_>) -> Option<Place>;
}

/// A piece of a file that holds what a request is about, for as long as this value lives.
#[derive(Debug)]
pub struct Place {
    /// The file.
    pub file: Arc<File>,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// Moving the bytes waits for no disk.
    pub is_memory: bool,
    /// Keeps the piece what it is.
    _hold: Option<qcow2::Hold>,
}

//! Numbers and layouts of FUSE's messages (Linux: `include/uapi/linux/fuse.h`, version 7.38), and the reading and writing
//! of their fields, which are in the guest's byte order: little-endian. No logic.

use std::ffi::CStr;

/// The version that is spoken.
pub(super) const MAJOR: u32 = 7;
/// Its minor number.
pub(super) const MINOR: u32 = 38;
/// The first that knows everything that is relied on here.
pub(super) const MINOR_LEAST: u32 = 31;

/// Length of what stands before each request.
pub(super) const IN_HEADER_BYTES: usize = 40;
/// Length of what stands before each answer.
pub(super) const OUT_HEADER_BYTES: usize = 16;
/// Length of a request to write, before its data.
pub(super) const WRITE_BYTES: usize = IN_HEADER_BYTES + 40;
/// The folder that was shared.
pub(super) const ROOT: u64 = 1;

macro_rules! operations {
    ($($name:ident = $number:literal,)*) => {
        /// What is asked for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Operation { $($name = $number),* }

        impl Operation {
            /// Every operation that is known.
            #[cfg(test)]
            pub(super) const ALL: &[Self] = &[$(Self::$name),*];

            pub(super) fn of(number: u32) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }
        }
    };
}

operations! {
    Lookup = 1,
    Forget = 2,
    GetAttributes = 3,
    SetAttributes = 4,
    ReadLink = 5,
    SymbolicLink = 6,
    MakeNode = 8,
    MakeFolder = 9,
    Unlink = 10,
    RemoveFolder = 11,
    Rename = 12,
    Link = 13,
    Open = 14,
    Read = 15,
    Write = 16,
    StatFs = 17,
    Release = 18,
    Sync = 20,
    SetXattr = 21,
    GetXattr = 22,
    ListXattr = 23,
    RemoveXattr = 24,
    Init = 26,
    OpenFolder = 27,
    ReadFolder = 28,
    ReleaseFolder = 29,
    SyncFolder = 30,
    Create = 35,
    Interrupt = 36,
    Destroy = 38,
    BatchForget = 42,
    Allocate = 43,
    ReadFolderPlus = 44,
    Rename2 = 45,
    Seek = 46,
    CopyRange = 47,
    SyncFileSystem = 50,
}

/// Flags of [`Operation::Init`].
pub(super) mod init {
    pub(in super::super) const ASYNC_READ: u64 = 1 << 0;
    pub(in super::super) const ATOMIC_O_TRUNC: u64 = 1 << 3;
    pub(in super::super) const BIG_WRITES: u64 = 1 << 5;
    /// What changed is read again, though it was read before.
    pub(in super::super) const AUTO_INVAL_DATA: u64 = 1 << 12;
    pub(in super::super) const DO_READDIRPLUS: u64 = 1 << 13;
    pub(in super::super) const READDIRPLUS_AUTO: u64 = 1 << 14;
    pub(in super::super) const ASYNC_DIO: u64 = 1 << 15;
    pub(in super::super) const PARALLEL_DIROPS: u64 = 1 << 18;
    pub(in super::super) const MAX_PAGES: u64 = 1 << 22;
    /// Whoever writes to a file takes its set-user-ID away here, not in the guest.
    pub(in super::super) const HANDLE_KILLPRIV_V2: u64 = 1 << 28;
    /// There is a second word of flags.
    pub(in super::super) const INIT_EXT: u64 = 1 << 30;
    /// Files that are read and written past the page cache may be mapped all the same.
    pub(in super::super) const DIRECT_IO_ALLOW_MMAP: u64 = 1 << 36;
}

/// Which fields of [`Operation::SetAttributes`] count.
pub(super) mod set {
    pub(in super::super) const MODE: u32 = 1 << 0;
    pub(in super::super) const UID: u32 = 1 << 1;
    pub(in super::super) const GID: u32 = 1 << 2;
    pub(in super::super) const SIZE: u32 = 1 << 3;
    pub(in super::super) const ATIME: u32 = 1 << 4;
    pub(in super::super) const MTIME: u32 = 1 << 5;
    pub(in super::super) const HANDLE: u32 = 1 << 6;
    pub(in super::super) const ATIME_NOW: u32 = 1 << 7;
    pub(in super::super) const MTIME_NOW: u32 = 1 << 8;
    /// The file must not run as its owner any more.
    pub(in super::super) const KILL_PRIVILEGES: u32 = 1 << 11;
}

/// Fields of a request, one after the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn u32(&mut self) -> Option<u32> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*field))
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*field))
    }

    pub(super) fn skip(&mut self, bytes: usize) -> Option<()> {
        self.0 = self.0.get(bytes..)?;
        Some(())
    }

    /// A text that ends with a zero.
    pub(super) fn text(&mut self) -> Option<&'a CStr> {
        let text = CStr::from_bytes_until_nul(self.0).ok()?;
        self.skip(text.count_bytes() + 1)?;
        Some(text)
    }

    pub(super) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let bytes = self.0.get(..count)?;
        self.0 = self.0.get(count..)?;
        Some(bytes)
    }
}

/// Who asks for what, about which node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) operation: u32,
    pub(super) unique: u64,
    pub(super) node: u64,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Header {
    pub(super) fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let _len_bytes = fields.u32()?;
        let (operation, unique, node) = (fields.u32()?, fields.u64()?, fields.u64()?);
        let (uid, gid) = (fields.u32()?, fields.u32()?);
        fields.skip(8)?;
        Some(Self { operation, unique, node, uid, gid })
    }
}

/// An answer's body, or fields of one.
#[derive(Debug, Default)]
pub(super) struct Body(pub(super) Vec<u8>);

impl Body {
    pub(super) fn u16(&mut self, value: u16) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub(super) fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub(super) fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Zeros up to a multiple of 8 bytes.
    pub(super) fn pad(&mut self) -> &mut Self {
        self.0.resize(self.0.len().next_multiple_of(8), 0);
        self
    }
}

//! What a squashfs cannot hold.

use super::super::device::{MAJOR_LIMIT, MINOR_LIMIT};
use crate::tree::{TreePath, printable};

/// Why a tree cannot be a squashfs.
#[derive(Debug, thiserror::Error)]
pub enum SquashfsError {
    /// The table of owners and groups is full.
    #[error(
        "`{path}` belongs to {id}, one owner or group more than the {limit} different ones that a squashfs tells; \
         use fewer, or another format"
    )]
    Owners {
        /// The first that has no place.
        path: TreePath,
        /// Its owner or group.
        id: u32,
        /// Most that there may be.
        limit: usize,
    },
    /// Only three kinds of extended attributes have a place.
    #[error(
        "`{path}` has the extended attribute `{}`; a squashfs holds those of `user.`, `trusted.` and `security.` \
         only: remove it, or use another format",
        printable(name)
    )]
    AttributeKind {
        /// Whose.
        path: TreePath,
        /// Its full name.
        name: Box<[u8]>,
    },
    /// Linux would not give it to anybody.
    #[error(
        "the extended attribute `{}` of `{path}` has a {part} of {len_bytes} bytes, more than the {limit_bytes} that \
         Linux takes",
        printable(name)
    )]
    AttributeTooLong {
        /// Whose.
        path: TreePath,
        /// Its full name.
        name: Box<[u8]>,
        /// `name` or `value`.
        part: &'static str,
        /// How long it is.
        len_bytes: usize,
        /// How long it may be.
        limit_bytes: usize,
    },
    /// The device's number has more bits than there are.
    #[error(
        "the device `{path}` has number {major}:{minor}; a squashfs tells those up to {}:{} only",
        MAJOR_LIMIT,
        MINOR_LIMIT
    )]
    Device {
        /// Which.
        path: TreePath,
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// A link that Linux would not read.
    #[error("the symbolic link `{path}` holds {len_bytes} bytes, more than the {limit_bytes} that Linux follows")]
    Symlink {
        /// Which.
        path: TreePath,
        /// How long it is.
        len_bytes: usize,
        /// How long it may be.
        limit_bytes: usize,
    },
    /// A name that has no place in a folder.
    #[error("the name of `{path}` is longer than the {limit_bytes} bytes that a squashfs tells")]
    Name {
        /// Which.
        path: TreePath,
        /// How long it may be.
        limit_bytes: usize,
    },
    /// A table is longer than its offsets can tell.
    #[error("{what} would be longer than {limit_bytes} bytes; use fewer files, or another format")]
    TableTooLong {
        /// Which.
        what: &'static str,
        /// How long it may be.
        limit_bytes: u64,
    },
}

//! What has no place on an ISO 9660 volume.

use crate::tree::TreePath;

use super::{FOLDER_LIMIT, LINK_LIMIT_BYTES, SECTION_LIMIT, SECTOR_BYTES};

/// Why a tree does not fit onto an ISO 9660 volume.
#[derive(Debug, thiserror::Error)]
pub enum IsoError {
    /// The path table numbers folders with sixteen bits.
    #[error(
        "there are more than {FOLDER_LIMIT} folders, which an ISO cannot number; use kernel+squashfs or kernel+erofs"
    )]
    TooManyFolders,
    /// Linux reads no longer one.
    #[error("the symbolic link `{path}` is {len_bytes} bytes long, more than the {LINK_LIMIT_BYTES} that Linux reads")]
    LongLink {
        /// The link.
        path: TreePath,
        /// Length of its text.
        len_bytes: usize,
    },
    /// Linux reads no more sections of one file.
    #[error(
        "`{path}` is {len_bytes} bytes long, more than {SECTION_LIMIT} sections of 4 GiB, which Linux reads of a file"
    )]
    LongFile {
        /// The file.
        path: TreePath,
        /// Its length.
        len_bytes: u64,
    },
    /// Sectors have numbers of 32 bits.
    #[error("the ISO would be longer than {} bytes", u64::from(u32::MAX) * SECTOR_BYTES)]
    TooLarge,
    /// The label is text of a fixed length.
    #[error("the label `{label}` is not 1 to {limit_bytes} printable ASCII characters")]
    Label {
        /// As wanted.
        label: String,
        /// The volume's limit.
        limit_bytes: usize,
    },
}

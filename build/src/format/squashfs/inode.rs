//! One inode after another, as Linux' `squashfs_fs.h` lays them out: the short form where it does, else the extended one.

use super::directory::Listing;
use super::error::SquashfsError;

/// For whoever has no extended attributes.
const NO_ATTRIBUTES: u32 = u32::MAX;

/// For a file that has no tail in a fragment.
const NO_FRAGMENT: u32 = u32::MAX;

/// An extended inode's type is that much more.
const EXTENDED: u16 = 7;

/// The types of inodes, and of names in folders.
pub(super) mod kind {
    pub const FOLDER: u16 = 1;
    pub const FILE: u16 = 2;
    pub const SYMLINK: u16 = 3;
    pub const BLOCK_DEVICE: u16 = 4;
    pub const CHAR_DEVICE: u16 = 5;
    pub const FIFO: u16 = 6;
}

/// What every inode tells.
pub(super) struct Common {
    pub(super) mode: u16,
    /// Places in the table of owners and groups.
    pub(super) owner: u16,
    pub(super) group: u16,
    pub(super) mtime_s: u32,
    pub(super) number: u32,
    pub(super) names: u32,
    /// Place in the table of attributes, if there are any.
    pub(super) attributes: Option<u32>,
}

/// Where a file's content is.
#[derive(Default)]
pub(super) struct Content<'a> {
    pub(super) len_bytes: u64,
    /// The first block, from the start of the image.
    pub(super) start: u64,
    pub(super) blocks: &'a [u32],
    /// Number of a fragment and the offset in it, in unpacked bytes.
    pub(super) tail: Option<(u32, u32)>,
    /// Bytes in blocks that are nothing but zeros.
    pub(super) sparse_bytes: u64,
}

/// What is in a folder.
pub(super) struct FolderPlace<'a> {
    pub(super) listing: &'a Listing,
    /// Number of the folder that it is in.
    pub(super) parent: u32,
    /// Folders in it.
    pub(super) folders: u32,
}

/// Appends little-endian numbers.
#[derive(Default)]
pub(super) struct Bytes(pub(super) Vec<u8>);

impl Bytes {
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
}

impl Common {
    fn begin(&self, kind: u16, is_extended: bool) -> Bytes {
        let mut bytes = Bytes::default();
        bytes.u16(if is_extended { kind + EXTENDED } else { kind });
        bytes.u16(self.mode).u16(self.owner).u16(self.group).u32(self.mtime_s).u32(self.number);
        bytes
    }

    fn attributes_word(&self) -> u32 {
        self.attributes.unwrap_or(NO_ATTRIBUTES)
    }

    /// A regular file.
    pub(super) fn file(&self, content: &Content<'_>) -> Vec<u8> {
        let short = || {
            let is_plain = self.names == 1 && self.attributes.is_none() && content.sparse_bytes == 0;
            let (start, len) = (u32::try_from(content.start).ok()?, u32::try_from(content.len_bytes).ok()?);
            is_plain.then_some((start, len))
        };
        let short = short();
        let mut bytes = self.begin(kind::FILE, short.is_none());
        let (fragment, offset) = content.tail.unwrap_or((NO_FRAGMENT, 0));
        match short {
            Some((start, len)) => {
                bytes.u32(start).u32(fragment).u32(offset).u32(len);
            }
            None => {
                bytes.u64(content.start).u64(content.len_bytes).u64(content.sparse_bytes);
                bytes.u32(self.names).u32(fragment).u32(offset).u32(self.attributes_word());
            }
        }
        for word in content.blocks {
            bytes.u32(*word);
        }
        bytes.0
    }

    /// A symbolic link.
    pub(super) fn symlink(&self, target: &[u8]) -> Vec<u8> {
        let mut bytes = self.begin(kind::SYMLINK, self.attributes.is_some());
        bytes.u32(self.names).u32(u32::try_from(target.len()).unwrap_or(u32::MAX));
        bytes.0.extend_from_slice(target);
        self.end(bytes)
    }

    /// A device with this packed number.
    pub(super) fn device(&self, kind: u16, number: u32) -> Vec<u8> {
        let mut bytes = self.begin(kind, self.attributes.is_some());
        bytes.u32(self.names).u32(number);
        self.end(bytes)
    }

    /// A named pipe.
    pub(super) fn fifo(&self) -> Vec<u8> {
        let mut bytes = self.begin(kind::FIFO, self.attributes.is_some());
        bytes.u32(self.names);
        self.end(bytes)
    }

    fn end(&self, mut bytes: Bytes) -> Vec<u8> {
        if let Some(attributes) = self.attributes {
            bytes.u32(attributes);
        }
        bytes.0
    }

    /// A folder.
    pub(super) fn folder(&self, place: &FolderPlace<'_>) -> Result<Vec<u8>, SquashfsError> {
        /// `.` and `..` are not listed, but counted.
        const UNLISTED_BYTES: u64 = 3;
        let too_long = |limit_bytes| SquashfsError::TableTooLong { what: "the table of names", limit_bytes };
        let word = |value: u64| u32::try_from(value).map_err(|_| too_long(u64::from(u32::MAX)));
        let listing = place.listing;
        let links = place.folders.saturating_add(2);
        let len = word(listing.len_bytes + UNLISTED_BYTES)?;
        let block = word(listing.at.block)?;
        let short_len = u16::try_from(len).ok().filter(|_| self.attributes.is_none() && listing.index.is_empty());
        let mut bytes = self.begin(kind::FOLDER, short_len.is_none());
        if let Some(len) = short_len {
            bytes.u32(block).u32(links).u16(len).u16(listing.at.offset).u32(place.parent);
            return Ok(bytes.0);
        }
        // The index is an aid: where it has no room for all runs, the last ones are looked for from the last that it has.
        let index = &listing.index[..listing.index.len().min(usize::from(u16::MAX))];
        bytes.u32(links).u32(len).u32(block).u32(place.parent);
        bytes.u16(u16::try_from(index.len()).unwrap_or(u16::MAX)).u16(listing.at.offset).u32(self.attributes_word());
        for run in index {
            bytes.u32(word(run.offset)?).u32(word(run.block)?);
            bytes.u32(u32::try_from(run.name.len().saturating_sub(1)).unwrap_or(u32::MAX));
            bytes.0.extend_from_slice(&run.name);
        }
        Ok(bytes.0)
    }
}

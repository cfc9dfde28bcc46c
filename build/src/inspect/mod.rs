//! What fills something that was built: its files, by image, package and folder. Reads archives back as a stream; what is
//! kept of them is names, lengths and package databases, each with a limit, whatever their headers claim.

mod archive;
mod cpio;
mod folders;
mod listing;
mod packages;
mod report;
mod svg;
mod tape;
mod tar;

use std::io::{self, Read};
use std::path::PathBuf;

use crate::cancel::{Cancel, Cancelled};

pub use folders::Folder;
pub use listing::Listing;
pub use report::{File, Package, Report, Section};
pub use svg::treemap;

/// Most files and folders that are listed: as many as a tree holds.
pub const ENTRIES_MAX: usize = 1_000_000;

/// Why an archive cannot be listed.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// It cannot be read, or its compression is damaged.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What is in it cannot be understood.
    #[error("`{}` is no archive that can be listed", path.display())]
    Archive {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        fault: ArchiveFault,
    },
    /// Somebody cancelled.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// What is wrong with an archive.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveFault {
    /// Neither cpio nor tar, nor one of them compressed.
    #[error("there is neither cpio (newc) nor tar, gzip nor zstd at byte {offset}")]
    Unknown {
        /// Where, in what is unpacked at that point.
        offset: u64,
    },
    /// It ends within a member.
    #[error("it ends too early, at byte {offset}")]
    Truncated {
        /// Where, in what is unpacked at that point.
        offset: u64,
    },
    /// A header that makes no sense.
    #[error("the header at byte {offset} has no usable {field}")]
    Header {
        /// Where, in what is unpacked at that point.
        offset: u64,
        /// Which field.
        field: &'static str,
    },
    /// Compressed in what is compressed.
    #[error("it is compressed more than {} times", archive::DEPTH_MAX)]
    TooDeep,
    /// It unpacks to more than is allowed.
    #[error("it unpacks to more than {limit_bytes} bytes, which is out of all proportion to its length")]
    Bomb {
        /// How much it may be.
        limit_bytes: u64,
    },
    /// More members than any system has.
    #[error("it has more than {ENTRIES_MAX} files, or their names take more than {} MiB", listing::NAMES_BYTES_MAX >> 20)]
    TooMany,
    /// Not readable any more.
    #[error("cannot read on")]
    Io(#[source] io::Error),
    /// Somebody cancelled.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl Listing {
    /// Adds all members of an archive: cpio (newc) or tar, compressed or not, several behind one another as in an initrd
    /// with microcode. `name` is what it is called, `packed_bytes` its length.
    pub fn add_archive(
        &mut self,
        archive: impl Read,
        name: PathBuf,
        packed_bytes: u64,
        cancel: &Cancel,
    ) -> Result<(), InspectError> {
        match archive::read(archive, packed_bytes, cancel, self) {
            Ok(()) => Ok(()),
            Err(ArchiveFault::Cancelled(cancelled)) => Err(cancelled.into()),
            Err(ArchiveFault::Io(source)) => Err(InspectError::Read { path: name, source }),
            Err(fault) => Err(InspectError::Archive { path: name, fault }),
        }
    }
}

#[cfg(test)]
mod tests;

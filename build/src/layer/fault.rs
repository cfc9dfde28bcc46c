//! What can be wrong with a layer.

use std::io;
use std::path::PathBuf;

use crate::cancel::Cancelled;
use crate::oci::Digest;
use crate::tree::{PathFault, TreeError, TreePath, printable};

/// A layer that cannot be unpacked.
#[derive(Debug, thiserror::Error)]
#[error("cannot unpack layer {digest}")]
pub struct LayerError {
    /// Which.
    pub digest: Digest,
    /// Why.
    #[source]
    pub fault: ArchiveFault,
}

/// What is wrong with a tar, or with reading it.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveFault {
    /// The blob does not verify, its compression is broken, or the disk fails.
    #[error("cannot read it")]
    Read(#[source] io::Error),
    /// The content cannot be put on disk.
    #[error("cannot keep {len_bytes} bytes of its content in `{}`; free some space there or choose another `--cache`", folder.display())]
    Spool {
        /// Where.
        folder: PathBuf,
        /// How much there is so far.
        len_bytes: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It unpacks to more than is allowed.
    #[error(
        "it unpacks to more than {limit_bytes} bytes, which is out of all proportion to its {packed_bytes} packed bytes"
    )]
    Bomb {
        /// How much it may be.
        limit_bytes: u64,
        /// How much it is when packed.
        packed_bytes: u64,
    },
    /// There is no tar header where one must be.
    #[error("there is no tar header at byte {offset} of its content")]
    NoHeader {
        /// Where, in the unpacked content.
        offset: u64,
    },
    /// It ends within a member.
    #[error("it ends too early, at byte {offset} of its content")]
    Truncated {
        /// Where, in the unpacked content.
        offset: u64,
    },
    /// Names, links and extended attributes take more memory than is allowed.
    #[error("its names and attributes are more than {limit_bytes} bytes")]
    Metadata {
        /// How much they may be.
        limit_bytes: u64,
    },
    /// One member is wrong.
    #[error("its member `{}` is refused", printable(name))]
    Member {
        /// Its name, as the archive has it.
        name: Vec<u8>,
        /// Why.
        #[source]
        fault: MemberFault,
    },
    /// Somebody cancelled.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// What is wrong with one member.
#[derive(Debug, thiserror::Error)]
pub enum MemberFault {
    /// Its name cannot be in a tree.
    #[error(transparent)]
    Name(#[from] PathFault),
    /// It cannot be where its name says.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A sparse file, which images do not have.
    #[error("it is a sparse file that claims to hold {claimed_bytes} bytes; images hold plain files only")]
    Sparse {
        /// What it would be long when filled up.
        claimed_bytes: u64,
    },
    /// It is longer than the whole layer may be.
    #[error("it claims to hold {claimed_bytes} bytes, and the layer may not unpack to more than {limit_bytes}")]
    TooLarge {
        /// As the header says.
        claimed_bytes: u64,
        /// What the layer may be.
        limit_bytes: u64,
    },
    /// An extended header or a long name is too long to be kept in memory.
    #[error("its extended header holds {len_bytes} bytes, more than {limit_bytes}")]
    HeaderTooLarge {
        /// As the header says.
        len_bytes: u64,
        /// What is allowed.
        limit_bytes: u64,
    },
    /// A field of the header is no number, or none that can be kept.
    #[error("its {field} is no number that can be used")]
    Field {
        /// Which.
        field: &'static str,
    },
    /// The records of its extended header do not add up.
    #[error("its extended header is damaged")]
    ExtendedHeader,
    /// The link has an empty or impossible target.
    #[error("its link target is empty, too long or has a NUL byte")]
    Link,
    /// Neither file, folder, link, device nor pipe.
    #[error("its type `{}` is none that a file system has", type_flag.escape_ascii())]
    Type {
        /// The header's type flag.
        type_flag: u8,
    },
    /// A whiteout that hides nothing a folder can hold.
    #[error("the whiteout names nothing in `{folder}`")]
    Whiteout {
        /// Where it is.
        folder: TreePath,
    },
}

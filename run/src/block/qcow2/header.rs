//! What an image says of itself in its first cluster, checked before anything else is believed of it.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::{fmt, io};

use super::check::Fault;
use super::tables::{Table, Tables, number};
use crate::block::{HostFile, SECTOR_BYTES};

const MAGIC: [u8; 4] = *b"QFI\xfb";
/// Bytes of the header that all versions have, and those of version 3.
const HEADER_2_BYTES: u32 = 72;
const HEADER_3_BYTES: u32 = 104;
/// Sizes of clusters, as powers of two: QEMU's own limits.
pub(super) const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;
/// Most bytes of the two tables that are kept in memory: QEMU's own limits.
pub(super) const MAX_FIRST_TABLE_BYTES: u64 = 32 << 20;
const MAX_COUNT_TABLE_BYTES: u64 = 8 << 20;
/// Longest name of a file below.
const MAX_NAME_BYTES: u32 = 1023;
/// Largest count of a cluster's users has 2^6 bits.
const MAX_COUNT_ORDER: u32 = 6;

/// Bits that a reader must know.
const DIRTY: u64 = 1;
const CORRUPT: u64 = 1 << 1;
const DATA_FILE: u64 = 1 << 2;
const COMPRESSION: u64 = 1 << 3;
const SUBCLUSTERS: u64 = 1 << 4;

/// Header extension: the format of the file below.
const BACKING_FORMAT: u32 = 0xE279_2ACA;

/// An image that kiln can use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qcow2Header {
    /// Size of the disk in bytes.
    pub size_bytes: u64,
    /// What it is an overlay of.
    pub backing: Option<Backing>,
}

/// What an image is an overlay of, in its own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backing {
    /// The file's name. A relative one is meant from the image's folder.
    pub name: PathBuf,
    /// What it says of the format.
    pub format: Option<String>,
}

/// Why an image is none that kiln can use.
#[derive(Debug, thiserror::Error)]
pub enum Qcow2Error {
    /// It cannot be read.
    #[error("it cannot be read")]
    Read(#[from] io::Error),
    /// It is something else.
    #[error("it is no qcow2 image; `format=raw` takes its bytes as they are")]
    Magic,
    /// Another version.
    #[error("it is qcow2 of version {0}; versions 2 and 3 are known")]
    Version(u32),
    /// It is encrypted.
    #[error("it is encrypted; `qemu-img convert` with its key makes one that is not")]
    Encrypted,
    /// Something in it that kiln does not know.
    #[error("it needs what kiln does not have: {what}; `qemu-img convert -O qcow2 OLD NEW` makes a plain image")]
    Needs {
        /// What that is.
        what: Needed,
    },
    /// Whoever wrote it did not come to an end.
    #[error("it was not closed; `qemu-img check -r all` puts it right")]
    NotClosed,
    /// Its tables contradict each other.
    #[error("it is marked as corrupt; `qemu-img check -r all` puts right what can be")]
    Corrupt,
    /// A number that cannot be.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
    /// Its tables contradict each other, and it is to be written to.
    #[error("it is damaged: {0}; `qemu-img check -r all` puts right what can be, and `--ephemeral` only reads it")]
    Tables(Fault),
    /// More than are looked at.
    #[error(
        "it has more than {0} clusters; `qemu-img convert -O qcow2 -o cluster_size=2M OLD NEW` makes fewer and larger ones"
    )]
    TooManyClusters(u64),
}

impl From<Fault> for Qcow2Error {
    fn from(fault: Fault) -> Self {
        Self::Tables(fault)
    }
}

/// What an image may need that kiln does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needed {
    /// Data in another file.
    DataFile,
    /// zstd.
    Compression,
    /// Parts of clusters.
    Subclusters,
    /// Bits without a meaning yet.
    Unknown(u64),
}

impl fmt::Display for Needed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DataFile => f.write_str("an external data file"),
            Self::Compression => f.write_str("another compression than deflate"),
            Self::Subclusters => f.write_str("extended L2 entries"),
            Self::Unknown(bits) => write!(f, "features {bits:#x}"),
        }
    }
}

impl Qcow2Header {
    /// Whether a file that begins so is an image.
    #[must_use]
    pub fn is_announced_by(start: &[u8]) -> bool {
        start.starts_with(&MAGIC)
    }

    /// Reads the header of the image at `path`.
    pub fn read_path(path: &Path) -> Result<Self, Qcow2Error> {
        Self::read(&HostFile::cached(File::open(path)?))
    }

    /// Reads the header of an image. Believes nothing that it points to.
    pub fn read(file: &HostFile) -> Result<Self, Qcow2Error> {
        Ok(Self::read_with_tables(file)?.0)
    }

    /// Reads the header of an image, and where it has its tables.
    pub(super) fn read_with_tables(file: &HostFile) -> Result<(Self, Tables), Qcow2Error> {
        let mut bytes = [0; HEADER_3_BYTES as usize];
        file.read_bytes(&mut bytes, 0)?;
        let long = |at: usize| bytes.get(at..at + 4).map_or(0, |field| u32::try_from(number(field)).unwrap_or(0));
        let wide = |at: usize| bytes.get(at..at + 8).map_or(0, number);
        if !Self::is_announced_by(&bytes) {
            return Err(Qcow2Error::Magic);
        }
        let version = long(4);
        let (features, count_order, header_bytes) = match version {
            2 => (0, 4, HEADER_2_BYTES),
            3 => (wide(72), long(96), long(100)),
            other => return Err(Qcow2Error::Version(other)),
        };
        if long(32) != 0 {
            return Err(Qcow2Error::Encrypted);
        }
        check_features(features)?;
        let (cluster_bits, size_bytes) = (long(20), wide(24));
        if !CLUSTER_BITS.contains(&cluster_bits) || count_order > MAX_COUNT_ORDER {
            return Err(Qcow2Error::Damaged("clusters or counts of an impossible size"));
        }
        let cluster = 1_u64 << cluster_bits;
        if u64::from(header_bytes) > cluster || version == 3 && header_bytes < HEADER_3_BYTES {
            return Err(Qcow2Error::Damaged("a header of an impossible length"));
        }
        if size_bytes == 0 || !size_bytes.is_multiple_of(SECTOR_BYTES) || i64::try_from(size_bytes).is_err() {
            return Err(Qcow2Error::Damaged("a disk of an impossible size"));
        }
        let file_bytes = file.len_bytes()?;
        let inside = |start: u64, len: u64| {
            start.is_multiple_of(cluster) && start > 0 && start.checked_add(len).is_some_and(|end| end <= file_bytes)
        };
        // Each entry of the first table stands for a cluster of 8-byte entries.
        let firsts = u64::from(long(36));
        let needed = size_bytes.div_ceil(cluster).div_ceil(cluster / 8);
        if firsts < needed || firsts * 8 > MAX_FIRST_TABLE_BYTES || !inside(wide(40), firsts * 8) {
            return Err(Qcow2Error::Damaged("an L1 table that is too short, too long or outside of the file"));
        }
        let counts = u64::from(long(56)).saturating_mul(cluster);
        // The last table of a file may be cut off behind its last entry.
        if counts == 0 || counts > MAX_COUNT_TABLE_BYTES.max(cluster) || !inside(wide(48), 8) {
            return Err(Qcow2Error::Damaged("a table of counts that is too long or outside of the file"));
        }
        let backing = match wide(8) {
            0 => None,
            offset => Some(backing(file, offset, long(16), header_bytes, cluster)?),
        };
        let tables = Tables {
            cluster_bits,
            first: Table { offset: wide(40), entries: firsts },
            counts: Table { offset: wide(48), entries: counts / 8 },
            count_order,
            snapshots: long(60),
            snapshots_offset: wide(64),
        };
        Ok((Self { size_bytes, backing }, tables))
    }
}

fn check_features(features: u64) -> Result<(), Qcow2Error> {
    let unknown = features & !(DIRTY | CORRUPT | DATA_FILE | COMPRESSION | SUBCLUSTERS);
    for (bits, what) in [
        (unknown, Needed::Unknown(unknown)),
        (DATA_FILE, Needed::DataFile),
        (COMPRESSION, Needed::Compression),
        (SUBCLUSTERS, Needed::Subclusters),
    ] {
        if features & bits != 0 {
            return Err(Qcow2Error::Needs { what });
        }
    }
    match features {
        0 => Ok(()),
        bits if bits & CORRUPT != 0 => Err(Qcow2Error::Corrupt),
        _ => Err(Qcow2Error::NotClosed),
    }
}

/// The name at `offset`, and the format among the extensions between header and name.
fn backing(file: &HostFile, offset: u64, len: u32, header_bytes: u32, cluster: u64) -> Result<Backing, Qcow2Error> {
    let damaged = Qcow2Error::Damaged("a name of another file that is too long or outside of the first cluster");
    let is_inside = offset.checked_add(len.into()).is_some_and(|end| end <= cluster);
    if len == 0 || len > MAX_NAME_BYTES || !is_inside {
        return Err(damaged);
    }
    let mut name = vec![0; len as usize];
    file.read_bytes(&mut name, offset)?;
    if name.contains(&0) {
        return Err(damaged);
    }
    let mut format = None;
    let mut at = u64::from(header_bytes);
    while at + 8 <= cluster {
        let mut head = [0; 8];
        file.read_bytes(&mut head, at)?;
        let (kind, len) = (number(&head[..4]), number(&head[4..]));
        if kind == 0 || at + 8 + len > cluster {
            break;
        }
        if kind == u64::from(BACKING_FORMAT) && len <= MAX_NAME_BYTES.into() {
            let mut text = vec![0; usize::try_from(len).unwrap_or(0)];
            file.read_bytes(&mut text, at + 8)?;
            format = Some(String::from_utf8_lossy(&text).into_owned());
        }
        at += 8 + len.next_multiple_of(8);
    }
    Ok(Backing { name: OsString::from_vec(name).into(), format })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    /// A small image, as the crate makes it.
    fn image() -> File {
        let file = tempfile::tempfile().unwrap();
        super::super::new_layer(HostFile::cached(file.try_clone().unwrap()), None, 1 << 20).unwrap();
        file
    }

    fn read(file: &File) -> Result<Qcow2Header, Qcow2Error> {
        Qcow2Header::read(&HostFile::cached(file.try_clone().unwrap()))
    }

    #[test]
    fn a_header_that_lies_is_refused_with_the_reason() {
        let cases: [(u64, &[u8], &str); 19] = [
            (0, b"QFI\0", "no qcow2 image"),
            (4, &[0, 0, 0, 4], "version 4"),
            (4, &[0xff; 4], "version 4294967295"),
            (20, &[0, 0, 0, 8], "impossible size"),
            (20, &[0, 0, 0, 63], "impossible size"),
            (24, &[0xff; 8], "impossible size"),
            (24, &[0, 0, 0, 0, 0, 0, 2, 1], "impossible size"),
            (24, &[0, 0, 0xff, 0, 0, 0, 0, 0], "L1 table"),
            (32, &[0, 0, 0, 1], "encrypted"),
            (36, &[0xff; 4], "L1 table"),
            (36, &[0; 4], "L1 table"),
            (40, &[0xff; 8], "L1 table"),
            (48, &[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0], "counts"),
            (56, &[0xff; 4], "counts"),
            (72, &[0, 0, 0, 0, 0, 0, 0, 1], "not closed"),
            (72, &[0, 0, 0, 0, 0, 0, 0, 2], "corrupt"),
            (72, &[0, 0, 0, 0, 0, 0, 0, 4], "external data file"),
            (72, &[0, 0, 0, 0, 0, 0, 1, 0], "features 0x100"),
            (100, &[0xff; 4], "impossible length"),
        ];
        for (at, bytes, wanted) in cases {
            let file = image();
            assert_eq!(read(&file).unwrap(), Qcow2Header { size_bytes: 1 << 20, backing: None });
            file.write_all_at(bytes, at).unwrap();
            let error = read(&file).unwrap_err().to_string();
            assert!(error.contains(wanted), "{at}: {error}");
        }
    }

    #[test]
    fn a_name_outside_of_the_first_cluster_is_refused() {
        for (offset, len) in [(1_u64 << 16, 1_u32), (u64::MAX, 8), (200, 0), (200, 1024), ((1 << 16) - 4, 5)] {
            let file = image();
            file.write_all_at(&offset.to_be_bytes(), 8).unwrap();
            file.write_all_at(&len.to_be_bytes(), 16).unwrap();
            assert!(matches!(read(&file), Err(Qcow2Error::Damaged(_))), "{offset} {len}");
        }
    }

    #[test]
    fn an_empty_or_cut_off_file_is_no_image() {
        let file = tempfile::tempfile().unwrap();
        assert!(matches!(read(&file), Err(Qcow2Error::Magic)));
        let file = image();
        file.set_len(100).unwrap();
        read(&file).unwrap_err();
    }
}

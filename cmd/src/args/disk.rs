//! `-disk [file=]PATH[,size=1G][,format=raw][,readonly]`.

use std::path::PathBuf;
use std::str::FromStr;

use super::size::{self, SizeError};

/// One `-disk`, as typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskSpec {
    /// The file; without one the disk is made in the state folder.
    pub file: Option<PathBuf>,
    /// Size to create the file with when it is missing.
    pub size_bytes: Option<u64>,
    /// The guest may not write.
    pub read_only: bool,
}

/// What is wrong with a `-disk`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiskSpecError {
    /// Nothing was said.
    #[error("a disk needs a file, a size, or both: `-disk data.img`, `-disk size=1G`, `-disk data.img,size=1G`")]
    Empty,
    /// A word that means nothing here.
    #[error("`{0}` is unknown in a disk; known are `file=`, `size=`, `format=raw` and `readonly`")]
    Unknown(String),
    /// The same thing twice.
    #[error("`{0}` stands twice in one disk")]
    Twice(&'static str),
    /// A format that kiln does not read.
    #[error("disk format `{0}` is not supported; only `raw` is (`qemu-img convert -O raw OLD NEW` makes one)")]
    Format(String),
    /// The size is none.
    #[error(transparent)]
    Size(#[from] SizeError),
    /// A disk of no bytes.
    #[error("a disk of size 0 holds nothing; give `size=1G` or the like")]
    ZeroSize,
}

impl FromStr for DiskSpec {
    type Err = DiskSpecError;

    fn from_str(text: &str) -> Result<Self, DiskSpecError> {
        let (mut file, mut size_bytes, mut format, mut read_only) = (None, None, None, None);
        for (at, word) in text.split(',').enumerate() {
            match word.split_once('=') {
                Some(("file", path)) => once(&mut file, PathBuf::from(path), "file")?,
                Some(("size", size)) => once(&mut size_bytes, size::disk_bytes(size)?, "size")?,
                Some(("format", "raw")) => once(&mut format, (), "format")?,
                Some(("format", other)) => return Err(DiskSpecError::Format(other.into())),
                None if word == "readonly" && at > 0 => once(&mut read_only, (), "readonly")?,
                _ if word.is_empty() => return Err(DiskSpecError::Empty),
                // A path may hold `=` itself.
                _ if at == 0 => once(&mut file, PathBuf::from(word), "file")?,
                _ => return Err(DiskSpecError::Unknown(word.into())),
            }
        }
        if size_bytes == Some(0) {
            return Err(DiskSpecError::ZeroSize);
        }
        let file = file.filter(|path| !path.as_os_str().is_empty());
        if file.is_none() && size_bytes.is_none() {
            return Err(DiskSpecError::Empty);
        }
        Ok(Self { file, size_bytes, read_only: read_only.is_some() })
    }
}

fn once<T>(slot: &mut Option<T>, value: T, name: &'static str) -> Result<(), DiskSpecError> {
    if slot.replace(value).is_some() { Err(DiskSpecError::Twice(name)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<DiskSpec, DiskSpecError> {
        text.parse()
    }

    #[test]
    fn a_disk_that_cannot_be_meant_is_refused() {
        let unknown = |word: &str| DiskSpecError::Unknown(word.into());
        assert_eq!(parse(""), Err(DiskSpecError::Empty));
        assert_eq!(parse("file="), Err(DiskSpecError::Empty));
        assert_eq!(parse("format=raw"), Err(DiskSpecError::Empty));
        assert_eq!(parse("a.img,b.img"), Err(unknown("b.img")));
        assert_eq!(parse("a.img,speed=9"), Err(unknown("speed=9")));
        assert_eq!(parse("a.img,file=b.img"), Err(DiskSpecError::Twice("file")));
        assert_eq!(parse("a.img,size=1G,size=2G"), Err(DiskSpecError::Twice("size")));
        assert_eq!(parse("a.qcow2,format=qcow2"), Err(DiskSpecError::Format("qcow2".into())));
        assert_eq!(parse("size=0"), Err(DiskSpecError::ZeroSize));
        assert!(matches!(parse("a.img,size=big"), Err(DiskSpecError::Size(_))));
    }

    #[test]
    fn file_and_size_come_in_any_order() {
        let disk = |file: Option<&str>, size_bytes, read_only| {
            Ok(DiskSpec { file: file.map(PathBuf::from), size_bytes, read_only })
        };
        assert_eq!(parse("a.img"), disk(Some("a.img"), None, false));
        assert_eq!(parse("dir=x/a.img"), disk(Some("dir=x/a.img"), None, false));
        assert_eq!(parse("readonly"), disk(Some("readonly"), None, false));
        assert_eq!(parse("size=1"), disk(None, Some(1 << 30), false));
        assert_eq!(parse("size=64M,file=a.img,format=raw"), disk(Some("a.img"), Some(64 << 20), false));
        assert_eq!(parse("a.img,readonly"), disk(Some("a.img"), None, true));
    }
}

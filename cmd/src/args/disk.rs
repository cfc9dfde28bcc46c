//! `-disk [file=]PATH[,size=1G][,format=raw|qcow2][,readonly][,cache=MODE][,backing=FILE]`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use kiln_run::config::{DiskCache, DiskFormat};

use super::size::{self, SizeError};

/// Flags of `kiln run`.
#[derive(Debug, Clone, Default, Args)]
pub struct Disks {
    /// A disk, made when it is missing and has a size; without a file it is kept in the state folder. WORDs: size=1G, made or
    /// grown to that; format=raw|qcow2; readonly; cache=writeback|none|writethrough|unsafe; backing=FILE, which the image may be
    /// an overlay of. Repeatable; a root on a disk comes before them
    #[arg(long, value_name = "[file=]PATH[,WORD...]")]
    pub disk: Vec<DiskSpec>,
    /// Throw away at the end what the machine writes to its disks; others may read the same files meanwhile
    #[arg(long)]
    pub ephemeral: bool,
}

/// One `-disk`, as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiskSpec {
    /// The file; without one the disk is made in the state folder.
    pub file: Option<PathBuf>,
    /// Size to create the file with when it is missing, and to grow a smaller one to.
    pub size_bytes: Option<u64>,
    /// How the file is laid out, if that was said.
    pub format: Option<DiskFormat>,
    /// The guest may not write.
    pub read_only: bool,
    /// When what the guest writes is on the disk.
    pub cache: DiskCache,
    /// Files that it may be an overlay of.
    pub backing: Vec<PathBuf>,
}

/// What is wrong with a `-disk`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiskSpecError {
    /// Nothing was said.
    #[error("a disk needs a file, a size, or both: `-disk data.img`, `-disk size=1G`, `-disk data.img,size=1G`")]
    Empty,
    /// A word that means nothing here.
    #[error("`{0}` is unknown in a disk; known are `file=`, `size=`, `format=`, `readonly`, `cache=` and `backing=`")]
    Unknown(String),
    /// The same thing twice.
    #[error("`{0}` stands twice in one disk")]
    Twice(&'static str),
    /// A format that kiln does not read.
    #[error(
        "disk format `{0}` is not supported; `raw` and `qcow2` are (`qemu-img convert -O qcow2 OLD NEW` makes one)"
    )]
    Format(String),
    /// A way of caching that there is not.
    #[error("`cache={0}` is unknown; known are `writeback`, `none`, `writethrough` and `unsafe`")]
    Cache(String),
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
        let (mut file, mut size_bytes, mut format, mut read_only, mut cache) = (None, None, None, None, None);
        let mut backing = vec![];
        for (at, word) in text.split(',').enumerate() {
            match word.split_once('=') {
                Some(("file", path)) => once(&mut file, PathBuf::from(path), "file")?,
                Some(("size", size)) => once(&mut size_bytes, size::disk_bytes(size)?, "size")?,
                Some(("format", name)) => once(&mut format, disk_format(name)?, "format")?,
                Some(("cache", mode)) => once(&mut cache, disk_cache(mode)?, "cache")?,
                Some(("backing", path)) if at > 0 && !path.is_empty() => backing.push(path.into()),
                None if matches!(word, "readonly" | "ro") && at > 0 => once(&mut read_only, (), "readonly")?,
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
        let cache = cache.unwrap_or_default();
        Ok(Self { file, size_bytes, format, read_only: read_only.is_some(), cache, backing })
    }
}

fn disk_format(name: &str) -> Result<DiskFormat, DiskSpecError> {
    [DiskFormat::Raw, DiskFormat::Qcow2]
        .into_iter()
        .find(|format| format.name() == name)
        .ok_or_else(|| DiskSpecError::Format(name.into()))
}

fn disk_cache(mode: &str) -> Result<DiskCache, DiskSpecError> {
    match mode {
        "writeback" => Ok(DiskCache::Writeback),
        "none" => Ok(DiskCache::None),
        "writethrough" => Ok(DiskCache::Writethrough),
        "unsafe" => Ok(DiskCache::Unsafe),
        other => Err(DiskSpecError::Cache(other.into())),
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
        assert_eq!(parse("a.img,backing="), Err(unknown("backing=")));
        assert_eq!(parse("a.img,file=b.img"), Err(DiskSpecError::Twice("file")));
        assert_eq!(parse("a.img,ro,readonly"), Err(DiskSpecError::Twice("readonly")));
        assert_eq!(parse("a.img,size=1G,size=2G"), Err(DiskSpecError::Twice("size")));
        assert_eq!(parse("a.vmdk,format=vmdk"), Err(DiskSpecError::Format("vmdk".into())));
        assert_eq!(parse("a.img,cache=direct"), Err(DiskSpecError::Cache("direct".into())));
        assert_eq!(parse("size=0"), Err(DiskSpecError::ZeroSize));
        assert!(matches!(parse("a.img,size=big"), Err(DiskSpecError::Size(_))));
    }

    #[test]
    fn words_come_in_any_order() {
        let disk = |file: Option<&str>, size_bytes| DiskSpec {
            file: file.map(PathBuf::from),
            size_bytes,
            ..DiskSpec::default()
        };
        assert_eq!(parse("a.img"), Ok(disk(Some("a.img"), None)));
        assert_eq!(parse("dir=x/a.img"), Ok(disk(Some("dir=x/a.img"), None)));
        assert_eq!(parse("readonly"), Ok(disk(Some("readonly"), None)));
        assert_eq!(parse("size=1"), Ok(disk(None, Some(1 << 30))));
        let raw = DiskSpec { format: Some(DiskFormat::Raw), ..disk(Some("a.img"), Some(64 << 20)) };
        assert_eq!(parse("size=64M,file=a.img,format=raw"), Ok(raw));
        assert_eq!(parse("a.img,readonly"), Ok(DiskSpec { read_only: true, ..disk(Some("a.img"), None) }));
        let overlay = DiskSpec {
            format: Some(DiskFormat::Qcow2),
            cache: DiskCache::None,
            backing: vec!["b".into(), "c.img".into()],
            read_only: true,
            ..disk(Some("a"), None)
        };
        assert_eq!(parse("a,cache=none,backing=b,format=qcow2,backing=c.img,ro"), Ok(overlay));
    }
}

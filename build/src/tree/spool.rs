//! Where file contents stay while a build works: files on disk that have no name, so that memory does not grow with
//! images and nothing stays of a build that is killed; or files of a cache, which are checked before they are used.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

const CHECK_BUFFER_BYTES: usize = 256 * 1024;

/// What is known of a spool's content without reading it: spools of one identity hold the same bytes.
pub type Identity = [u8; 32];

/// A file that holds contents one behind another. If it has no name, it vanishes with the last [`Body`] that points into
/// it.
#[derive(Debug)]
pub struct Spool {
    file: File,
    identity: Option<Identity>,
    check: Option<Check>,
}

/// What a file is to hold, and whether it does, once somebody looked.
#[derive(Debug)]
struct Check {
    path: PathBuf,
    len_bytes: u64,
    crc32: u32,
    whole: OnceLock<Result<(), io::ErrorKind>>,
}

/// A spool from a cache that does not hold what it once did. Found inside the [`io::Error`] of whoever reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an unpacked layer in the cache is damaged; `kiln cache gc` removes all of them")]
pub struct DamagedSpool;

impl Spool {
    /// An empty spool on the file system of `folder`, which must exist.
    pub fn create(folder: &Path) -> io::Result<Self> {
        Ok(Self { file: tempfile::tempfile_in(folder)?, identity: None, check: None })
    }

    /// A file of a cache, called `path`, of which the first `len_bytes` are content and had this checksum when they were
    /// written. Nothing is read before somebody wants content; if it is damaged then, the file is removed.
    pub fn cached((path, file): (PathBuf, File), identity: Identity, len_bytes: u64, crc32: u32) -> Self {
        let check = Check { path, len_bytes, crc32, whole: OnceLock::new() };
        Self { file, identity: Some(identity), check: Some(check) }
    }

    /// A file that is there, which nobody changes meanwhile.
    pub fn of(file: File) -> Self {
        Self { file, identity: None, check: None }
    }

    /// The same, known to hold what `identity` stands for once it is written, if that is known.
    pub fn identified(self, identity: Option<Identity>) -> Self {
        Self { identity, ..self }
    }

    /// The file, for writing.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The file, for reading and for copying from. The first call reads all of a cached one.
    ///
    /// Errors: [`DamagedSpool`], inside the [`io::Error`], and what the disk says.
    pub fn content(&self) -> io::Result<&File> {
        match &self.check {
            None => Ok(&self.file),
            Some(check) => match check.look_once(&self.file) {
                Ok(()) => Ok(&self.file),
                Err(io::ErrorKind::InvalidData) => Err(io::Error::new(io::ErrorKind::InvalidData, DamagedSpool)),
                Err(kind) => Err(kind.into()),
            },
        }
    }
}

impl Check {
    fn look(&self, file: &File) -> Result<(), io::ErrorKind> {
        let mut buffer = vec![0; CHECK_BUFFER_BYTES];
        let mut hasher = crc32fast::Hasher::new();
        let mut offset = 0;
        while offset < self.len_bytes {
            let most = usize::try_from(self.len_bytes - offset).unwrap_or(usize::MAX).min(buffer.len());
            let part = &mut buffer[..most];
            file.read_exact_at(part, offset).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => io::ErrorKind::InvalidData,
                kind => kind,
            })?;
            hasher.update(part);
            offset += part.len() as u64;
        }
        if hasher.finalize() == self.crc32 { Ok(()) } else { Err(io::ErrorKind::InvalidData) }
    }

    fn look_once(&self, file: &File) -> Result<(), io::ErrorKind> {
        *self.whole.get_or_init(|| {
            self.look(file).inspect_err(|_| {
                // A read-only cache keeps it; then the next build stumbles over it too.
                let _read_only = std::fs::remove_file(&self.path);
            })
        })
    }
}

/// A regular file's content.
#[derive(Debug, Clone)]
pub enum Body {
    /// In memory: what the build itself wrote, so small.
    Inline(Arc<[u8]>),
    /// `len` bytes from `start` on in a spool.
    Spooled {
        /// Which spool.
        spool: Arc<Spool>,
        /// Offset of the first byte.
        start: u64,
        /// Length in bytes.
        len: u64,
    },
}

impl Body {
    /// Length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Spooled { len, .. } => *len,
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The part of it that starts `offset` bytes in, `len` bytes long; `None` if that is not inside.
    pub fn slice(&self, offset: u64, len: u64) -> Option<Self> {
        let end = offset.checked_add(len).filter(|&end| end <= self.len())?;
        Some(match self {
            Self::Inline(bytes) => {
                Self::Inline(bytes.get(usize::try_from(offset).ok()?..usize::try_from(end).ok()?)?.into())
            }
            Self::Spooled { spool, start, .. } => Self::Spooled { spool: spool.clone(), start: start + offset, len },
        })
    }

    /// Fills `buffer` from `offset` on. It is an error if the body ends before.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let part = self.slice(offset, buffer.len() as u64).ok_or(io::ErrorKind::UnexpectedEof)?;
        match part {
            Self::Inline(bytes) => buffer.copy_from_slice(&bytes),
            Self::Spooled { spool, start, .. } => spool.content()?.read_exact_at(buffer, start)?,
        }
        Ok(())
    }

    /// What its bytes are, without reading them: the identity of a longer content, and where in it they start. `None` if
    /// that is not known. Bodies that agree in it and in their length hold the same bytes.
    pub fn identity(&self) -> Option<(Identity, u64)> {
        match self {
            Self::Inline(_) => None,
            Self::Spooled { spool, start, .. } => Some((spool.identity?, *start)),
        }
    }

    /// Reads it from its start to its end.
    pub fn reader(&self) -> BodyReader<'_> {
        BodyReader { body: self, offset: 0 }
    }

    /// All of it, for content that must be in memory, or `None` if it is longer than `limit_bytes`.
    pub fn read_up_to(&self, limit_bytes: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(len) = usize::try_from(self.len()).ok().filter(|_| self.len() <= limit_bytes) else {
            return Ok(None);
        };
        let mut bytes = vec![0; len];
        self.read_exact_at(&mut bytes, 0)?;
        Ok(Some(bytes))
    }
}

/// Reads one body.
#[derive(Debug)]
pub struct BodyReader<'a> {
    body: &'a Body,
    offset: u64,
}

impl Read for BodyReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = self.body.len() - self.offset;
        let take = usize::try_from(rest).unwrap_or(usize::MAX).min(buffer.len());
        self.body.read_exact_at(&mut buffer[..take], self.offset)?;
        self.offset += take as u64;
        Ok(take)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_gives_exactly_its_part_of_a_spool() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Arc::new(Spool::create(folder.path()).unwrap());
        spool.file().write_all_at(b"..content..", 0).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "a spool has no name");

        let spooled = Body::Spooled { spool, start: 2, len: 7 };
        for body in [spooled, Body::Inline(Arc::from(&b"content"[..]))] {
            let mut text = String::new();
            body.reader().read_to_string(&mut text).unwrap();
            assert_eq!(text, "content");
            assert_eq!(body.slice(3, 4).unwrap().read_up_to(4).unwrap().unwrap(), b"tent");
            assert!(body.slice(3, 5).is_none());
            assert!(body.slice(u64::MAX, 2).is_none());
            assert!(body.read_up_to(6).unwrap().is_none());
            assert!(body.read_exact_at(&mut [0; 8], 0).is_err());
        }
    }
    #[test]
    fn a_cached_spool_that_is_damaged_gives_nothing() {
        let cached = |bytes: &[u8], len| {
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(bytes, 0).unwrap();
            let spool = Arc::new(Spool::cached(("/no/such".into(), file), [1; 32], len, crc32fast::hash(b"content")));
            Body::Spooled { spool, start: 3, len: 4 }
        };
        for bytes in [&b"Content"[..], b"conten", b""] {
            let error = cached(bytes, 7).read_up_to(9).unwrap_err();
            assert!(error.get_ref().is_some_and(|inner| inner.is::<DamagedSpool>()), "{error}");
        }
        let whole = cached(b"content and what is behind it", 7);
        assert_eq!(whole.read_up_to(9).unwrap().unwrap(), b"tent");
        assert_eq!(whole.slice(1, 2).unwrap().identity(), Some(([1; 32], 4)));
    }
}

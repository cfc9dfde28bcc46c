//! Where file contents stay while a build works: unlinked files on disk, so that memory does not grow with images.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// An unlinked file that holds contents one behind another. It vanishes with the last [`Body`] that points into it.
#[derive(Debug)]
pub struct Spool {
    file: File,
}

impl Spool {
    /// An empty spool on the file system of `folder`, which must exist.
    pub fn create(folder: &Path) -> io::Result<Self> {
        Ok(Self { file: tempfile::tempfile_in(folder)? })
    }

    /// The file, for writing and for copying from.
    pub fn file(&self) -> &File {
        &self.file
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
            Self::Spooled { spool, start, .. } => spool.file.read_exact_at(buffer, start)?,
        }
        Ok(())
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
}

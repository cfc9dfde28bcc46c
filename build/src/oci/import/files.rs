//! The files that images are in: a folder, or a tar archive that may be compressed or come through a pipe.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::tar_index::TarIndex;
use crate::cancel::Cancel;
use crate::oci::{Store, StoreError};
use crate::progress::Meter;

/// A pipe or a compressed archive may not fill the disk without end. Real archives stay below 20 GB.
const SPOOL_BYTES_MAX: u64 = 256 << 30;
const PIECE_BYTES: usize = 1 << 20;

/// Files by name.
pub enum Files {
    /// Below a folder.
    Folder(PathBuf),
    /// In an archive.
    Tar(File, TarIndex),
}

/// A file that can be read once, and its length in bytes.
pub type Opened<'a> = (Box<dyn Read + 'a>, u64);

/// How an archive could not be opened.
pub enum OpenFault {
    Io(io::Error),
    Store(StoreError),
}

impl From<io::Error> for OpenFault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Files {
    /// An archive in a file, which is read where it is unless it is compressed.
    pub fn archive(path: &Path, store: &Store, cancel: &Cancel, meter: &dyn Meter) -> Result<Self, OpenFault> {
        let mut file = File::open(path)?;
        let mut start = [0; 4];
        let is_plain_file = file.metadata()?.is_file();
        if is_plain_file && file.read_at(&mut start, 0)? > 0 && !is_compressed(&start) {
            let index = TarIndex::read(&file)?;
            return Ok(Self::Tar(file, index));
        }
        if file.metadata()?.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder; write `oci:DIR`").into());
        }
        Self::stream(&mut file, store, cancel, meter)
    }

    /// An archive that can be read only once: kept in a file without a name until the import is done.
    pub fn stream(from: &mut dyn Read, store: &Store, cancel: &Cancel, meter: &dyn Meter) -> Result<Self, OpenFault> {
        let mut start = [0; 4];
        let count = read_start(from, &mut start)?;
        let (start, _) = start.split_at(count);
        let whole = io::Cursor::new(start.to_vec()).chain(from);
        let mut spool = store.unnamed_file().map_err(OpenFault::Store)?;
        let keep = |from: &mut dyn Read, spool: &mut File| copy(from, spool, cancel, meter);
        match start {
            [0x1f, 0x8b, ..] => keep(&mut flate2::read::MultiGzDecoder::new(BufReader::new(whole)), &mut spool)?,
            [0x28, 0xb5, 0x2f, 0xfd] => keep(&mut zstd::stream::read::Decoder::new(whole)?, &mut spool)?,
            _ => keep(&mut { whole }, &mut spool)?,
        }
        spool.rewind()?;
        let index = TarIndex::read(&spool)?;
        Ok(Self::Tar(spool, index))
    }

    /// A file and its length; `None` if there is none of this name. The name must not lead out of a folder: it is one
    /// that this program made.
    pub fn open(&self, name: &str) -> io::Result<Option<Opened<'_>>> {
        match self {
            Self::Folder(folder) => match File::open(folder.join(name)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
                Ok(file) => {
                    let bytes = file.metadata()?.len();
                    Ok(Some((Box::new(file), bytes)))
                }
            },
            Self::Tar(file, index) => Ok(index.get(name).map(|span| {
                let part = Part { file, at: span.start, left: span.bytes };
                (Box::new(part) as Box<dyn Read>, span.bytes)
            })),
        }
    }
}

/// Reads a part of a file, wherever others read it.
struct Part<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl Read for Part<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).map_or(out.len(), |left| left.min(out.len()));
        let (out, _) = out.split_at_mut(wanted);
        let count = self.file.read_at(out, self.at)?;
        self.at += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

fn is_compressed(start: &[u8; 4]) -> bool {
    start.starts_with(&[0x1f, 0x8b]) || *start == [0x28, 0xb5, 0x2f, 0xfd]
}

fn read_start(from: &mut dyn Read, start: &mut [u8; 4]) -> io::Result<usize> {
    let mut bytes = Vec::new();
    from.take(4).read_to_end(&mut bytes)?;
    start.iter_mut().zip(&bytes).for_each(|(to, byte)| *to = *byte);
    Ok(bytes.len())
}

/// Copies until the end; stops when it is cancelled or too much.
pub fn copy(from: &mut dyn Read, to: &mut dyn Write, cancel: &Cancel, meter: &dyn Meter) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut total = 0_u64;
    loop {
        cancel.check().map_err(io::Error::other)?;
        let count = match from.read(&mut piece) {
            Ok(0) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            count => count?,
        };
        total += count as u64;
        if total > SPOOL_BYTES_MAX {
            let text = format!("it is longer than {SPOOL_BYTES_MAX} bytes");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
        }
        let (bytes, _) = piece.split_at(count);
        to.write_all(bytes)?;
        meter.advance(count as u64);
    }
}

//! A log file of bounded size: `NAME`, and `NAME.1`, `NAME.2` and so on for what was before.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;

/// Largest size of one file, unless another one is asked for.
const FILE_LIMIT_BYTES: u64 = 1 << 20;
/// Older files that are kept, unless another number is asked for.
const OLDER: u32 = 3;

/// An open log file.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: Option<File>,
    len: u64,
    limit_bytes: u64,
    older: u32,
}

impl LogFile {
    /// The log at `path`, which is made when there is something to write and continued if it is there. A file has at most
    /// 1 MiB and the last write; three older ones are kept.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self::with_limits(path, FILE_LIMIT_BYTES, OLDER)
    }

    /// The same with other limits.
    #[must_use]
    pub fn with_limits(path: PathBuf, limit_bytes: u64, older: u32) -> Self {
        Self { path, file: None, len: 0, limit_bytes, older }
    }

    /// Appends bytes; begins a new file when this one is full.
    ///
    /// # Errors
    /// The file system's.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.len >= self.limit_bytes {
            self.rotate()?;
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                if let Some(folder) = self.path.parent() {
                    fs::create_dir_all(folder)?;
                }
                let file = OpenOptions::new().append(true).create(true).open(&self.path)?;
                self.len = file.metadata()?.len();
                self.file.insert(file)
            }
        };
        file.write_all(bytes)?;
        self.len = self.len.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let older = |number: u32| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        for number in (1..self.older).rev() {
            match fs::rename(older(number), older(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.older == 0 {
            fs::remove_file(&self.path)?;
        } else {
            fs::rename(&self.path, older(1))?;
        }
        self.file = None;
        self.len = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_never_ends_stays_within_its_limit_and_keeps_the_newest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/web.log");
        let mut log = LogFile::new(path.clone());
        for round in 0..40_u8 {
            log.write(&[round; 200_000]).unwrap();
        }
        let sizes: u64 =
            fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
        assert!(sizes <= (u64::from(OLDER) + 1) * (FILE_LIMIT_BYTES + 200_000), "{sizes}");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 4);
        assert_eq!(fs::read(&path).unwrap().last(), Some(&39));
    }

    #[test]
    fn a_log_is_continued_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.log");
        LogFile::new(path.clone()).write(b"one\n").unwrap();
        LogFile::new(path.clone()).write(b"two\n").unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), "one\ntwo\n");
    }
}

//! The log of a machine that runs detached: a file with a limit, and the one before it.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// Name of the log in the state folder.
pub const CONSOLE_LOG: &str = "console.log";
/// The log is begun anew when it has this many bytes. The one before is kept as `console.log.1`.
pub const LOG_BYTES: u64 = 8 << 20;

/// A log that is written.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    len: u64,
    limit: u64,
}

impl Log {
    /// A new log. What is there is the one before.
    pub fn create(path: &Path, limit: u64) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: begin(path)?, len: 0, limit })
    }

    /// Writes all of `bytes`.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let more = bytes.len() as u64;
        if self.len > 0 && self.len + more > self.limit {
            self.file = begin(&self.path)?;
            self.len = 0;
        }
        self.len += more;
        self.file.write_all(bytes)
    }
}

/// The file that a log is renamed to.
#[must_use]
pub fn log_before(path: &Path) -> PathBuf {
    let mut name: OsString = path.into();
    name.push(".1");
    name.into()
}

fn begin(path: &Path) -> io::Result<File> {
    match fs::rename(path, log_before(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_never_grows_beyond_its_limit_and_the_one_before_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(CONSOLE_LOG);
        fs::write(&path, "of the last run").unwrap();
        let mut log = Log::create(&path, 10).unwrap();
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        log.write(b"12345678").unwrap();
        assert_eq!((read(&path), read(&log_before(&path))), ("12345678".into(), "of the last run".into()));
        log.write(b"90").unwrap();
        log.write(b"ab").unwrap();
        assert_eq!((read(&path), read(&log_before(&path))), ("ab".into(), "1234567890".into()));
        log.write(b"longer than the limit").unwrap();
        assert_eq!(read(&path), "longer than the limit");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_log_that_cannot_be_made_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Log::create(&folder.path().join("none/log"), 10).is_err());
    }
}

//! What the last build of the same inputs wrote, so that a build of nothing new ends at once.
//!
//! A stamp is a file in the store's folder, named by a digest of everything the outputs depend on. It holds the outputs'
//! paths and how they looked when they were written. Who changes, touches or removes one makes the stamp void.

use std::fs::{self, Metadata};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, linkat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

/// Folder of the stamps in the store's.
const FOLDER: &str = "kiln-stamps";

/// Most stamps that are kept; the oldest go first.
const KEPT: usize = 256;

/// Longest stamp that is read: the outputs of a build are few.
const LIMIT_BYTES: u64 = 1 << 20;

/// Collects what outputs depend on.
#[derive(Debug, Clone)]
pub struct Stamp {
    hash: Sha256,
}

impl Default for Stamp {
    fn default() -> Self {
        Self { hash: Sha256::new_with_prefix("kiln stamp 1\n") }
    }
}

impl Stamp {
    /// One more thing that the outputs depend on: what it is, and its value.
    pub fn add(&mut self, what: &str, value: &[u8]) {
        for part in [what.as_bytes(), value] {
            self.hash.update((part.len() as u64).to_le_bytes());
            self.hash.update(part);
        }
    }

    /// The outputs of the last build, if there is one with the same inputs and they are as it left them.
    pub fn outputs(&self, store: &Path) -> Option<Vec<PathBuf>> {
        let file = self.file(store);
        if fs::metadata(&file).ok()?.len() > LIMIT_BYTES {
            return None;
        }
        let text = fs::read(&file).ok()?;
        let lines = text.strip_suffix(b"\n")?.split(|&byte| byte == b'\n');
        let lines: Vec<_> = lines.map(split).collect::<Option<_>>()?;
        let (looks, paths): (Vec<_>, Vec<_>) = lines.into_iter().unzip();
        let paths: Vec<PathBuf> =
            paths.into_iter().map(|path| Path::new(std::ffi::OsStr::from_bytes(path)).into()).collect();
        let same = |(path, look): (&PathBuf, &&[u8])| {
            fs::symlink_metadata(path)
                .is_ok_and(|metadata| metadata.is_file() && looks_of(&metadata).as_bytes() == *look)
        };
        (!paths.is_empty() && paths.iter().zip(&looks).all(same)).then_some(paths)
    }

    /// Keeps how `outputs` look now.
    pub fn keep(&self, store: &Path, outputs: &[PathBuf]) -> io::Result<()> {
        let mut text = Vec::new();
        for output in outputs {
            let path = fs::canonicalize(output)?;
            text.extend_from_slice(looks_of(&fs::symlink_metadata(&path)?).as_bytes());
            text.push(b'\t');
            text.extend_from_slice(path.as_os_str().as_bytes());
            text.push(b'\n');
        }
        let folder = store.join(FOLDER);
        fs::create_dir_all(&folder)?;
        forget_oldest(&folder)?;
        let mut file = tempfile::tempfile_in(&folder)?;
        file.write_all(&text)?;
        // It gets its name when it is complete, so nothing is left of a build that is killed.
        let path = self.file(store);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let from = format!("/proc/self/fd/{}", file.as_raw_fd());
        match linkat(CWD, from, CWD, &path, AtFlags::SYMLINK_FOLLOW) {
            // Another build of the same was faster.
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            // Not every file system can do that.
            Err(_) => {
                let temporary = tempfile::NamedTempFile::new_in(&folder)?;
                fs::write(temporary.path(), text)?;
                temporary.persist(path).map(drop).map_err(|error| error.error)
            }
        }
    }

    fn file(&self, store: &Path) -> PathBuf {
        let digest = crate::oci::Digest::from_bytes(self.hash.clone().finalize().into());
        store.join(FOLDER).join(digest.hex())
    }
}

fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let tab = line.iter().position(|&byte| byte == b'\t')?;
    Some((&line[..tab], &line[tab + 1..]))
}

/// Size, device, inode and both times: any write to the file changes one of them.
fn looks_of(metadata: &Metadata) -> String {
    format!(
        "{} {}:{} {}.{:09} {}.{:09}",
        metadata.size(),
        metadata.dev(),
        metadata.ino(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime(),
        metadata.ctime_nsec()
    )
}

fn forget_oldest(folder: &Path) -> io::Result<()> {
    let mut stamps = Vec::new();
    for entry in fs::read_dir(folder)?.flatten() {
        stamps.push((entry.metadata()?.modified()?, entry.path()));
    }
    stamps.sort();
    for (_, path) in stamps.iter().take(stamps.len().saturating_sub(KEPT - 1)) {
        fs::remove_file(path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(values: &[&str]) -> Stamp {
        let mut stamp = Stamp::default();
        for value in values {
            stamp.add("value", value.as_bytes());
        }
        stamp
    }

    #[test]
    fn other_inputs_and_touched_or_missing_outputs_are_not_up_to_date() {
        let folder = tempfile::tempdir().unwrap();
        let (store, output) = (folder.path().join("store"), folder.path().join("out\tput"));
        fs::write(&output, "content").unwrap();
        let inputs = stamp(&["a", "b"]);
        assert!(inputs.outputs(&store).is_none());
        inputs.keep(&store, std::slice::from_ref(&output)).unwrap();
        let there = [fs::canonicalize(&output).unwrap()];
        assert_eq!(inputs.outputs(&store).unwrap(), there);
        assert!(stamp(&["ab", ""]).outputs(&store).is_none());
        assert!(stamp(&["a", "b", ""]).outputs(&store).is_none());

        let replaced = folder.path().join("other");
        fs::write(&replaced, "content").unwrap();
        fs::rename(&replaced, &output).unwrap();
        assert!(inputs.outputs(&store).is_none(), "another file of the same length");
        inputs.keep(&store, std::slice::from_ref(&output)).unwrap();
        fs::remove_file(&output).unwrap();
        assert!(inputs.outputs(&store).is_none());
    }

    #[test]
    fn a_stamp_that_is_damaged_is_none() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join(FOLDER)).unwrap();
        let inputs = stamp(&["a"]);
        for text in ["", "\n", "no tab\n", "1 1:1\t/etc/passwd\n"] {
            fs::write(inputs.file(folder.path()), text).unwrap();
            assert!(inputs.outputs(folder.path()).is_none(), "{text:?}");
        }
    }

    #[test]
    fn stamps_do_not_pile_up() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("output");
        fs::write(&output, "").unwrap();
        for number in 0..KEPT + 9 {
            stamp(&[&number.to_string()]).keep(folder.path(), std::slice::from_ref(&output)).unwrap();
        }
        assert_eq!(fs::read_dir(folder.path().join(FOLDER)).unwrap().count(), KEPT);
    }
}

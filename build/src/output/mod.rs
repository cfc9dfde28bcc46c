//! Files that are there whole or not at all: written beside their place, synced, renamed; and the stamp by which the next
//! build sees that nothing changed.

mod stamp;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

pub use stamp::Stamp;

/// Why an output is not there.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The folder cannot be made.
    #[error("cannot make the folder `{}`", folder.display())]
    Folder {
        /// Which.
        folder: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something with the name of an output is in its way.
    #[error("`{}` is a folder, so it cannot be replaced by a file; remove it or choose another name", path.display())]
    IsFolder {
        /// Which.
        path: PathBuf,
    },
    /// The file cannot be made, written, synced or renamed.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The output, by its final name.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no room for the file.
    #[error(
        "no room for `{}`: it needs about {} MiB where {} MiB are free",
        path.display(), needed_bytes.div_ceil(1 << 20), free_bytes >> 20
    )]
    Full {
        /// The output, by its final name.
        path: PathBuf,
        /// About how long it will be.
        needed_bytes: u64,
        /// What there was when it was begun.
        free_bytes: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Outputs on their way. Dropped before [`commit`](Self::commit), nothing of them stays.
#[derive(Debug)]
pub struct Outputs {
    folder: PathBuf,
    /// Folders that were made for it, the outermost first.
    made: Vec<PathBuf>,
    files: Vec<Pending>,
}

#[derive(Debug)]
struct Pending {
    path: PathBuf,
    temporary: PathBuf,
    needed_bytes: u64,
    free_bytes: u64,
}

impl Outputs {
    /// Outputs in `folder`, which is made if it is missing. What a build that was killed left there is removed.
    pub fn begin(folder: &Path) -> Result<Self, OutputError> {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let missing = folder.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists());
        let mut made: Vec<PathBuf> = missing.map(Into::into).collect();
        made.reverse();
        fs::create_dir_all(folder).map_err(|source| OutputError::Folder { folder: folder.into(), source })?;
        remove_orphans(folder);
        Ok(Self { folder: folder.into(), made, files: Vec::new() })
    }

    /// A new empty file that will be called `name`, and be about `needed_bytes` long.
    pub fn create(&mut self, name: &str, needed_bytes: u64) -> Result<File, OutputError> {
        let path = self.folder.join(name);
        if path.is_dir() {
            return Err(OutputError::IsFolder { path });
        }
        let temporary = self.folder.join(temporary_name(name, std::process::id()));
        let opened = OpenOptions::new().write(true).create_new(true).open(&temporary);
        let file = opened.map_err(|source| OutputError::Write { path: path.clone(), source })?;
        let free_bytes =
            rustix::fs::statvfs(&self.folder).map_or(u64::MAX, |fs| fs.f_bavail.saturating_mul(fs.f_frsize));
        self.files.push(Pending { path, temporary, needed_bytes, free_bytes });
        Ok(file)
    }

    /// The error for `source`, which happened when the file created last was written.
    pub fn failed(&self, source: io::Error) -> OutputError {
        let Some(pending) = self.files.last() else {
            return OutputError::Write { path: self.folder.clone(), source };
        };
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                OutputError::Full {
                    path: pending.path.clone(),
                    needed_bytes: pending.needed_bytes,
                    free_bytes: pending.free_bytes,
                    source,
                }
            }
            _ => OutputError::Write { path: pending.path.clone(), source },
        }
    }

    /// Syncs the file created last, which is complete.
    pub fn complete(&self, file: &File) -> Result<(), OutputError> {
        file.sync_all().map_err(|source| self.failed(source))
    }

    /// Gives all files their names. Returns them in the order of creation.
    pub fn commit(mut self) -> Result<Vec<PathBuf>, OutputError> {
        let mut done = Vec::new();
        // From the front on, so that what is left of `files` is what has to be removed if a rename fails.
        while let Some(pending) = self.files.first() {
            let Pending { path, temporary, .. } = pending;
            fs::rename(temporary, path).map_err(|source| OutputError::Write { path: path.clone(), source })?;
            done.push(self.files.remove(0).path);
        }
        self.made.clear();
        match File::open(&self.folder).and_then(|folder| folder.sync_all()) {
            // Some file systems cannot sync folders; the names are there all the same.
            Ok(()) | Err(_) => Ok(done),
        }
    }
}

impl Drop for Outputs {
    fn drop(&mut self) {
        for pending in &self.files {
            // What cannot be removed is found by the next build.
            let _left_for_the_next_build = fs::remove_file(&pending.temporary);
        }
        for folder in self.made.iter().rev() {
            // Somebody else may have put something there.
            let _not_empty = fs::remove_dir(folder);
        }
    }
}

/// `.NAME.kiln-PID`.
fn temporary_name(name: &str, pid: u32) -> String {
    format!(".{name}.kiln-{pid}")
}

/// Removes temporary files whose builds are dead.
fn remove_orphans(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(orphan_pid) else { continue };
        let dead = rustix::process::Pid::from_raw(pid)
            .is_some_and(|pid| rustix::process::test_kill_process(pid) == Err(Errno::SRCH));
        if dead {
            let _left_for_the_next_build = fs::remove_file(entry.path());
        }
    }
}

fn orphan_pid(name: &str) -> Option<i32> {
    let (output, pid) = name.strip_prefix('.')?.rsplit_once(".kiln-")?;
    pid.parse().ok().filter(|&pid| pid > 0 && !output.is_empty())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_dropped_leaves_nothing_and_keeps_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "old").unwrap();
        let mut outputs = Outputs::begin(folder.path()).unwrap();
        outputs.create("a", 1).unwrap().write_all(b"new").unwrap();
        outputs.create("b", 1).unwrap().write_all(b"new").unwrap();
        drop(outputs);
        assert_eq!(names(folder.path()), ["a"]);
        assert_eq!(fs::read(folder.path().join("a")).unwrap(), b"old");
    }

    #[test]
    fn folders_that_were_made_go_with_what_was_to_be_in_them() {
        let folder = tempfile::tempdir().unwrap();
        let mut outputs = Outputs::begin(&folder.path().join("new/deeper")).unwrap();
        outputs.create("a", 1).unwrap();
        drop(outputs);
        assert_eq!(names(folder.path()), [""; 0]);
        let mut outputs = Outputs::begin(&folder.path().join("new/deeper")).unwrap();
        outputs.create("a", 1).unwrap();
        fs::write(folder.path().join("new/other"), "").unwrap();
        drop(outputs);
        assert_eq!(names(&folder.path().join("new")), ["other"]);
    }

    #[test]
    fn a_full_disk_names_the_file_and_what_it_needs() {
        let folder = tempfile::tempdir().unwrap();
        let mut outputs = Outputs::begin(folder.path()).unwrap();
        drop(outputs.create("x.tar", 5 << 20).unwrap());
        outputs.files[0].free_bytes = 3 << 20;
        let path = folder.path().join("x.tar");
        let error = outputs.failed(io::ErrorKind::StorageFull.into());
        let expected = format!("no room for `{}`: it needs about 5 MiB where 3 MiB are free", path.display());
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn a_folder_in_the_way_is_named_before_anything_is_written() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("x.tar")).unwrap();
        let error = Outputs::begin(folder.path()).unwrap().create("x.tar", 1).unwrap_err();
        assert!(matches!(error, OutputError::IsFolder { .. }), "{error}");
        assert_eq!(names(folder.path()), ["x.tar"]);
        fs::write(folder.path().join("file"), "").unwrap();
        let error = Outputs::begin(&folder.path().join("file/below")).unwrap_err();
        assert!(matches!(error, OutputError::Folder { .. }), "{error}");
    }

    #[test]
    fn what_a_killed_build_left_is_removed_and_what_a_living_one_writes_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let dead = child.id();
        child.wait().unwrap();
        let living = temporary_name("x", std::process::id());
        for name in [&temporary_name("x", dead), &living, ".kiln-1", "x.kiln-99", ".x.kiln-no"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        Outputs::begin(folder.path()).unwrap();
        let mut kept = [".kiln-1".to_string(), living, ".x.kiln-no".into(), "x.kiln-99".into()];
        kept.sort();
        assert_eq!(names(folder.path()), kept);
    }

    #[test]
    fn committed_outputs_replace_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("new/folder");
        fs::create_dir_all(&below).unwrap();
        fs::write(below.join("a"), "old").unwrap();
        let mut outputs = Outputs::begin(&below).unwrap();
        for name in ["b", "a"] {
            let mut file = outputs.create(name, 1).unwrap();
            file.write_all(name.as_bytes()).unwrap();
            outputs.complete(&file).unwrap();
        }
        assert_eq!(outputs.commit().unwrap(), [below.join("b"), below.join("a")]);
        assert_eq!(names(&below), ["a", "b"]);
        assert_eq!(fs::read(below.join("a")).unwrap(), b"a");
    }
}

//! The git repository that a package is in, asked through the `git` program.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::PackageError;
use super::error::io_error;
use super::program::{Program, ProgramError};

/// The commit that a package is built from unless another one is asked for.
pub(super) const HEAD: &str = "HEAD";
/// Shortest name of an object: SHA-1. Repositories with SHA-256 have longer ones.
const HASH_DIGITS: usize = 40;

/// A work tree, seen from a folder in it.
#[derive(Debug, Clone)]
pub(super) struct Repository {
    folder: PathBuf,
}

impl Repository {
    /// The repository that `folder` is in, if there is one.
    ///
    /// Errors: there is one, and `git` is missing or refuses it.
    pub fn around(folder: &Path) -> Result<Option<Self>, PackageError> {
        let start = std::fs::canonicalize(folder).map_err(|source| io_error("open", folder, source))?;
        if !start.ancestors().any(|folder| folder.join(".git").exists()) {
            return Ok(None);
        }
        let (folder, _) = place(&start);
        git(folder).args(["rev-parse", "--is-inside-work-tree"]).run()?;
        Ok(Some(Self { folder: folder.to_owned() }))
    }

    /// The hash of `path`, a folder or a file, in `commit`; `None` if it is not in there.
    ///
    /// Errors: `git` cannot be started.
    pub fn tree(&self, path: &Path, commit: &str) -> Result<Option<String>, PackageError> {
        let (folder, name) = place(path);
        let name = format!("{commit}:./{}", name.trim_start_matches('.').trim_start_matches('/'));
        let out = git(folder).args(["rev-parse", "--verify", "--quiet", "--end-of-options", &name]).run();
        let out = match out {
            Err(ProgramError::Failed { .. }) => return Ok(None),
            other => other?,
        };
        let text = String::from_utf8_lossy(&out).trim().to_owned();
        let is_hash = text.len() >= HASH_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        Ok(is_hash.then_some(text))
    }

    /// Whether anything at `path` differs from `HEAD`, or is new there and not ignored.
    pub fn is_changed(&self, path: &Path) -> Result<bool, PackageError> {
        let (folder, name) = place(path);
        let diff = git(folder).args(["diff", "--no-ext-diff", "--quiet", HEAD, "--", &name]).run();
        match diff {
            Err(ProgramError::Failed { .. }) => return Ok(true),
            other => other?,
        };
        Ok(!self.new_files(path)?.is_empty())
    }

    /// All files at `path` that git knows, then those that are new and not ignored, each in git's order. Some may be gone
    /// from the disk.
    pub fn files(&self, path: &Path) -> Result<Vec<PathBuf>, PackageError> {
        let (folder, name) = place(path);
        let mut files = names(folder, &git(folder).args(["ls-files", "-z", "--", &name]).run()?);
        files.extend(self.new_files(path)?);
        Ok(files)
    }

    fn new_files(&self, path: &Path) -> Result<Vec<PathBuf>, PackageError> {
        let (folder, name) = place(path);
        let out = git(folder).args(["ls-files", "-z", "--exclude-standard", "--others", "--", &name]).run()?;
        Ok(names(folder, &out))
    }

    /// The commit that is checked out.
    pub fn head(&self) -> Result<String, PackageError> {
        let out = git(&self.folder).args(["rev-parse", "--verify", HEAD]).run()?;
        Ok(String::from_utf8_lossy(&out).trim().to_owned())
    }

    /// A version as Go's modules have them: the tag `v1.2.3` of the commit that is checked out, else one made from its
    /// time and name.
    pub fn go_version(&self) -> Result<String, PackageError> {
        let exact = ["describe", "--tags", "--exact-match", "--match=v[0-9]*.[0-9]*.[0-9]*"];
        let out = match git(&self.folder).args(exact).run() {
            Err(ProgramError::Failed { .. }) => {
                let date = "--date=format-local:%Y%m%d%H%M%S";
                let words = ["log", "-1", "--abbrev=12", date, "--format=v0.0.0-%cd-%h"];
                git(&self.folder).env("TZ", "UTC").args(words).run()?
            }
            other => other?,
        };
        Ok(String::from_utf8_lossy(&out).trim().to_owned())
    }
}

/// The folder to ask git in about `path`, and what `path` is called there.
fn place(path: &Path) -> (&Path, String) {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if !path.is_dir() => (parent, format!("./{}", name.to_string_lossy())),
        _ => (path, ".".into()),
    }
}

/// A call of git in `folder`.
pub(super) fn git(folder: &Path) -> Program {
    let program = Program::new("git", "git").arg("--no-optional-locks").folder(folder);
    // Set while a hook runs: they would lead to another repository.
    ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"].into_iter().fold(program, Program::without_env)
}

/// Paths from a list that ends each with a zero byte.
fn names(folder: &Path, list: &[u8]) -> Vec<PathBuf> {
    let names = list.split(|&byte| byte == 0).filter(|name| !name.is_empty());
    names.map(|name| folder.join(OsStr::from_bytes(name))).collect()
}

/// Feeds every regular file of `files` to `take`, one after another; links, folders and what is gone are passed over.
pub(super) fn read_all(files: &[PathBuf], take: &mut dyn io::Write) -> Result<(), PackageError> {
    for path in files {
        let failed = |source| io_error("read", path, source);
        match path.symlink_metadata() {
            Ok(meta) if meta.is_file() => {}
            Ok(_) => continue,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error)),
        }
        io::copy(&mut std::fs::File::open(path).map_err(failed)?, take).map_err(failed)?;
    }
    Ok(())
}

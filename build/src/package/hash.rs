//! The content hash that names a native package's build.
//!
//! In a git repository it is made like LinuxKit's: the SHA-1 of all folders' tree hashes in `HEAD`, one behind another,
//! and of what else the sources are made from; then `-dirty-` with seven digits when something differs from `HEAD`, which
//! count names, links and modes too. Outside of git the folders are walked and hashed as they are.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::git::git;
use super::identity::{DIRTY_DIGITS, Identity};
use super::{PackageError, hex};

/// Digits of a hash that was not made by git; as many as git's own.
const HASH_DIGITS: usize = 40;
/// Deeper folders are a loop of links or a mistake.
const DEPTH_LIMIT: usize = 64;

/// What a package is made from.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// The package's folder first, then further ones.
    pub folders: Vec<PathBuf>,
    /// What is in no folder of its own.
    pub facts: String,
}

/// The hash of `contents`.
///
/// Errors: a folder or a file that cannot be read.
pub(super) fn of_contents(contents: &Contents, force_dirty: bool) -> Result<Identity, PackageError> {
    let Some(trees) = committed(&contents.folders) else {
        return Ok(Identity { hash: walked(contents)?, is_dirty: force_dirty });
    };
    let hash = hex(&sha1::Sha1::digest(trees.concat() + &contents.facts));
    let mut state = Sha256::new();
    let mut is_dirty = force_dirty;
    for folder in &contents.folders {
        is_dirty |= add_changes(folder, &mut state)?;
    }
    let hash = match is_dirty {
        true => format!("{hash}-dirty-{}", &hex(&state.finalize())[..DIRTY_DIGITS]),
        false => hash,
    };
    Ok(Identity { hash, is_dirty })
}

/// Each folder's tree hash in `HEAD`; `None` if git does not know one of them.
fn committed(folders: &[PathBuf]) -> Option<Vec<String>> {
    let hash = |folder: &PathBuf| {
        let out = git(folder).args(["rev-parse", "--verify", "--quiet", "HEAD:./"]).run().ok()?;
        let text = String::from_utf8(out).ok()?.trim().to_owned();
        (text.len() >= HASH_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(text)
    };
    folders.iter().map(hash).collect()
}

/// Adds all files of `folder` that git does not ignore, and says whether any of them differs from `HEAD`.
fn add_changes(folder: &Path, state: &mut Sha256) -> Result<bool, PackageError> {
    let changed = git(folder).args(["status", "--porcelain", "-z", "--untracked-files=all", "--", "."]).run()?;
    if changed.is_empty() {
        return Ok(false);
    }
    let listed = git(folder).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", "."]).run()?;
    let mut names: Vec<&[u8]> = listed.split(|&byte| byte == 0).filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let path = folder.join(std::ffi::OsStr::from_bytes(name));
        // A file that was removed is listed all the same.
        if path.symlink_metadata().is_ok() {
            add_path(name, &path, state, DEPTH_LIMIT)?;
        }
    }
    Ok(true)
}

/// The hash where git has none.
fn walked(contents: &Contents) -> Result<String, PackageError> {
    let mut state = Sha256::new();
    for folder in &contents.folders {
        add_path(b".", folder, &mut state, DEPTH_LIMIT)?;
    }
    state.update(&contents.facts);
    let mut hash = hex(&state.finalize());
    hash.truncate(HASH_DIGITS);
    Ok(hash)
}

/// Adds name, kind, whether it can be run, and content.
fn add_path(name: &[u8], path: &Path, state: &mut Sha256, depth_left: usize) -> Result<(), PackageError> {
    let failed = |source| super::error::io_error("read", path, source);
    let meta = path.symlink_metadata().map_err(failed)?;
    if meta.is_dir() {
        let too_deep = || failed(io::Error::other(format!("nested deeper than {DEPTH_LIMIT} folders")));
        let depth_left = depth_left.checked_sub(1).ok_or_else(too_deep)?;
        let entries: Result<Vec<_>, _> = fs::read_dir(path).map_err(failed)?.collect();
        let mut names: Vec<_> = entries.map_err(failed)?.into_iter().map(|entry| entry.file_name()).collect();
        names.sort();
        // What git and cargo keep for themselves is no content.
        names.retain(|name| name != ".git" && !path.join(name).join("CACHEDIR.TAG").is_file());
        add(state, b'd', name, &(names.len() as u64).to_le_bytes());
        return names.iter().try_for_each(|name| add_path(name.as_bytes(), &path.join(name), state, depth_left));
    }
    if meta.is_symlink() {
        let target = fs::read_link(path).map_err(failed)?;
        add(state, b'l', name, target.as_os_str().as_bytes());
        return Ok(());
    }
    let mut content = Sha256::new();
    let mut file = fs::File::open(path).map_err(failed)?;
    io::copy(&mut file, &mut content).map_err(failed)?;
    let kind = if meta.permissions().mode() & 0o111 == 0 { b'f' } else { b'x' };
    add(state, kind, name, &content.finalize());
    Ok(())
}

fn add(state: &mut Sha256, kind: u8, name: &[u8], content: &[u8]) {
    state.update([kind]);
    for part in [name, content] {
        state.update((part.len() as u64).to_le_bytes());
        state.update(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content_hash(contents: &Contents) -> Result<String, PackageError> {
        of_contents(contents, false).map(|identity| identity.hash)
    }

    fn run_git(folder: &Path, args: &[&str]) -> String {
        let identity = ["-c", "user.name=n", "-c", "user.email=e@localhost", "-c", "commit.gpgsign=false"];
        String::from_utf8(git(folder).args(identity).args(args).run().unwrap()).unwrap().trim().to_owned()
    }

    fn package(root: &Path) -> Contents {
        let folder = root.join("pkg/a");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("build.yml"), "image: a\n").unwrap();
        Contents { folders: vec![folder], facts: String::new() }
    }

    fn repository() -> (tempfile::TempDir, Contents) {
        let root = tempfile::tempdir().unwrap();
        let contents = package(root.path());
        run_git(root.path(), &["init", "-q"]);
        run_git(root.path(), &["add", "."]);
        run_git(root.path(), &["commit", "-q", "-m", "a"]);
        (root, contents)
    }

    #[test]
    fn a_clean_folder_has_the_hash_of_gits_tree() {
        let (root, contents) = repository();
        let tree = run_git(root.path(), &["rev-parse", "HEAD:pkg/a"]);
        let hashed = hex(&sha1::Sha1::digest(&tree));
        assert_eq!(content_hash(&contents).unwrap(), hashed);
        fs::write(root.path().join("elsewhere"), "x").unwrap();
        assert_eq!(content_hash(&contents).unwrap(), hashed, "what is elsewhere does not matter");
    }

    #[test]
    fn a_changed_folder_is_dirty_and_every_change_shows() {
        let (_root, contents) = repository();
        let tree = content_hash(&contents).unwrap();
        let mut seen = vec![tree.clone()];
        let changes: [(&str, Option<&str>); 4] =
            [("build.yml", Some("image: b\n")), ("new", Some("1")), ("new", Some("2")), ("build.yml", None)];
        for (name, content) in changes {
            let path = contents.folders[0].join(name);
            content.map_or_else(|| fs::remove_file(&path), |content| fs::write(&path, content)).unwrap();
            let hash = content_hash(&contents).unwrap();
            let digits = hash.strip_prefix(&format!("{tree}-dirty-")).expect(&hash);
            assert_eq!(digits.len(), DIRTY_DIGITS);
            assert!(!seen.contains(&hash), "{name}");
            seen.push(hash);
        }
    }

    #[test]
    fn further_folders_and_facts_change_the_hash() {
        let (root, contents) = repository();
        let tree = run_git(root.path(), &["rev-parse", "HEAD:pkg/a"]);
        let twice = Contents { folders: [&contents.folders[..], &contents.folders[..]].concat(), facts: String::new() };
        assert_eq!(content_hash(&twice).unwrap(), hex(&sha1::Sha1::digest(format!("{tree}{tree}"))));
        let facts = Contents { facts: "f".into(), folders: contents.folders };
        assert_eq!(content_hash(&facts).unwrap(), hex(&sha1::Sha1::digest(format!("{tree}f"))));
    }

    #[test]
    fn outside_of_git_the_content_alone_decides() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (first, second) = (package(one.path()), package(two.path()));
        let hash = content_hash(&first).unwrap();
        assert_eq!(hash.len(), HASH_DIGITS);
        assert_eq!(hash, content_hash(&second).unwrap());
        let path = first.folders[0].join("build.yml");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        assert_ne!(hash, content_hash(&first).unwrap());
    }

    #[test]
    fn a_missing_folder_is_an_error() {
        let contents = Contents { folders: vec!["/nonexistent/kiln".into()], facts: String::new() };
        assert!(matches!(content_hash(&contents), Err(PackageError::Io { .. })));
    }
}

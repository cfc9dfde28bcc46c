//! Files as they are laid out: whole under their names or not at all, never through a symbolic link at their end.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// User and group by number.
pub(super) type Owner = (u32, u32);

/// Makes a folder, and those above it with mode 0755.
///
/// # Errors
/// The file system's.
pub(super) fn folder(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Writes a file, in the place of what was there. Folders above it are made.
///
/// # Errors
/// The file system's; nothing half-written stays.
pub(super) fn file(path: &Path, content: &[u8], mode: u32, owner: Option<Owner>) -> io::Result<()> {
    make_parent(path)?;
    let unfinished = unfinished(path)?;
    let written = write_new(&unfinished, content, mode, owner).and_then(|()| fs::rename(&unfinished, path));
    if written.is_err() {
        // It may not be there at all.
        let _ = fs::remove_file(&unfinished);
    }
    written
}

fn write_new(path: &Path, content: &[u8], mode: u32, owner: Option<Owner>) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    finish(&file, mode, owner)
}

/// Puts `content` behind what a file holds.
///
/// # Errors
/// The file system's.
pub(super) fn append(path: &Path, content: &[u8], mode: u32, owner: Option<Owner>) -> io::Result<()> {
    make_parent(path)?;
    let nofollow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default();
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(nofollow).open(path)?;
    file.write_all(content)?;
    finish(&file, mode, owner)
}

fn finish(file: &File, mode: u32, owner: Option<Owner>) -> io::Result<()> {
    if let Some((user, group)) = owner {
        fchown(file, Some(user), Some(group))?;
    }
    // Behind the owner, which takes bits away.
    file.set_permissions(fs::Permissions::from_mode(mode))
}

fn make_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => DirBuilder::new().recursive(true).mode(0o755).create(parent),
        None => Ok(()),
    }
}

fn unfinished(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(".new");
    Ok(path.with_file_name(hidden))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_link_that_waits_is_replaced_and_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        fs::write(&target, "mine").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert!(append(&link, b"bad", 0o644, None).is_err());
        file(&link, b"new", 0o640, None).unwrap();
        assert_eq!(
            (fs::read_to_string(&target).unwrap(), fs::read_to_string(&link).unwrap()),
            ("mine".into(), "new".into())
        );
        assert_eq!(mode(&link), 0o640);
        assert!(file(&folder.path().join("link/below"), b"", 0o644, None).is_err());
    }

    #[test]
    fn files_are_replaced_or_continued_and_leave_nothing_beside_them() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b/c");
        file(&path, b"one", 0o600, None).unwrap();
        file(&path, b"two", 0o755, None).unwrap();
        append(&path, b" three", 0o755, None).unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap(), mode(&path)), ("two three".into(), 0o755));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        folder(&root.path().join("a/b"), 0o700).unwrap();
        assert_eq!(mode(&root.path().join("a/b")), 0o700);
    }
}

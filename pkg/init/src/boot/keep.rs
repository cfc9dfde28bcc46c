//! Mounting a tmpfs without hiding what the image has at that place.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use kiln_guest::mount::{Options, mount};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, XattrFlags};

use super::root::{Storage, storage};

/// Deepest tree that is copied; deeper ones are an error.
const DEPTH_LIMIT: usize = 64;
/// Linux' limit for the list of names and for one value of extended attributes.
const XATTR_LIMIT_BYTES: usize = 65536;

/// Mounts a tmpfs with `options` on `target`. If the image has files there and they are in a tmpfs already, they stay
/// where they are and are bound writable; if they are elsewhere, they are copied with owners, links and attributes.
pub fn mount_keeping_files(target: &Path, options: &str) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(target) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(target)?;
            fs::symlink_metadata(target)?
        }
        Err(error) => return Err(error),
    };
    let fresh = || mount("tmpfs", "tmpfs", target, &Options::parse([options])).map_err(io::Error::other);
    if fs::read_dir(target)?.next().is_none() {
        return fresh();
    }
    if storage(target) == Storage::Tmpfs {
        return Ok(rustix::mount::mount_bind(target, target)?);
    }
    let below = rustix::fs::open(target, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    fresh()?;
    // The descriptor still leads to the folder below the new mount.
    let source = crate::descriptor_path(&below);
    Copy { links: HashMap::new() }.folder(&source, target, 0)?;
    fs::set_permissions(target, metadata.permissions())
}

struct Copy {
    /// First copy of each inode that has several names.
    links: HashMap<(u64, u64), PathBuf>,
}

impl Copy {
    fn folder(&mut self, source: &Path, target: &Path, depth: usize) -> io::Result<()> {
        if depth > DEPTH_LIMIT {
            return Err(io::Error::other(format!("`{}` is more than {DEPTH_LIMIT} folders deep", target.display())));
        }
        for entry in fs::read_dir(source)? {
            let entry = entry?;
            self.entry(&entry.path(), &target.join(entry.file_name()), depth)?;
        }
        Ok(())
    }

    fn entry(&mut self, source: &Path, target: &Path, depth: usize) -> io::Result<()> {
        let metadata = fs::symlink_metadata(source)?;
        let kind = metadata.file_type();
        if kind.is_dir() {
            fs::create_dir(target)?;
            self.folder(source, target, depth + 1)?;
            return dress(source, target, &metadata);
        }
        if metadata.nlink() > 1 {
            let inode = (metadata.dev(), metadata.ino());
            if let Some(first) = self.links.get(&inode) {
                return fs::hard_link(first, target);
            }
            self.links.insert(inode, target.to_owned());
        }
        if kind.is_symlink() {
            symlink(fs::read_link(source)?, target)?;
        } else if kind.is_file() {
            io::copy(&mut File::open(source)?, &mut File::create_new(target)?)?;
        } else {
            let kind = if kind.is_fifo() {
                FileType::Fifo
            } else if kind.is_block_device() {
                FileType::BlockDevice
            } else if kind.is_char_device() {
                FileType::CharacterDevice
            } else {
                // A socket has no life without its server.
                return Ok(());
            };
            rustix::fs::mknodat(CWD, target, kind, Mode::RUSR | Mode::WUSR, metadata.rdev())?;
        }
        dress(source, target, &metadata)
    }
}

/// Owner, attributes, mode and times, in an order in which none undoes another.
fn dress(source: &Path, target: &Path, metadata: &Metadata) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(metadata.uid()), Gid::from_raw(metadata.gid()));
    rustix::fs::chownat(CWD, target, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    copy_attributes(source, target)?;
    if !metadata.file_type().is_symlink() {
        fs::set_permissions(target, fs::Permissions::from_mode(metadata.mode()))?;
    }
    let time = |seconds, nanos| rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanos };
    let times = rustix::fs::Timestamps {
        last_access: time(metadata.atime(), metadata.atime_nsec()),
        last_modification: time(metadata.mtime(), metadata.mtime_nsec()),
    };
    Ok(rustix::fs::utimensat(CWD, target, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn copy_attributes(source: &Path, target: &Path) -> io::Result<()> {
    let mut names = Vec::new();
    let names = match read_sized(&mut names, |buffer| rustix::fs::llistxattr(source, buffer)) {
        Ok(names) => names,
        Err(rustix::io::Errno::NOTSUP) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = Vec::new();
        let value = read_sized(&mut value, |buffer| rustix::fs::lgetxattr(source, name, buffer))?;
        match rustix::fs::lsetxattr(target, name, value, XattrFlags::empty()) {
            // tmpfs has no user attributes before Linux 6.6.
            Ok(()) | Err(rustix::io::Errno::NOTSUP) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn read_sized(
    buffer: &mut Vec<u8>,
    read: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
) -> rustix::io::Result<&[u8]> {
    buffer.resize(XATTR_LIMIT_BYTES, 0);
    let len = read(buffer)?;
    buffer.truncate(len);
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_the_same_links_modes_and_contents() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir_all(from.join("deep/er")).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(from.join("deep/er/file"), "text").unwrap();
        fs::set_permissions(from.join("deep/er/file"), fs::Permissions::from_mode(0o4711)).unwrap();
        fs::hard_link(from.join("deep/er/file"), from.join("second name")).unwrap();
        symlink("nowhere", from.join("link")).unwrap();

        Copy { links: HashMap::new() }.folder(&from, &to, 0).unwrap();

        let (first, second) = (to.join("deep/er/file").metadata().unwrap(), to.join("second name").metadata().unwrap());
        assert_eq!(first.ino(), second.ino());
        assert_eq!(first.mode() & 0o7777, 0o4711);
        assert_eq!(fs::read_to_string(to.join("second name")).unwrap(), "text");
        assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("nowhere"));
        assert_eq!(first.mtime(), from.join("second name").metadata().unwrap().mtime());
    }
}

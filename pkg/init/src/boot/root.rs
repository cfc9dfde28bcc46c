//! Away from the kernel's initial root, without copying a byte.
//!
//! pivot_root(2), which containers need, refuses to work below the initial root because that mount has no parent.
//! A bind of `/` moved over `/` has one. So files stay where the kernel unpacked them: hard links, attributes and
//! memory are as before. On a disk nothing is to be done.

use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::StatFs;

const RAMFS_MAGIC: u64 = 0x8584_58f6;
const TMPFS_MAGIC: u64 = 0x0102_1994;
/// Any folder will do; the contract has this one.
const STEP: &str = "/mnt";

/// Which file system holds a folder, as far as that matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// tmpfs: in memory, with extended attributes.
    Tmpfs,
    /// ramfs: in memory, without them and without limit.
    Ramfs,
    /// Anything else.
    Other,
}

/// Where `path` is stored.
pub fn storage(path: &Path) -> Storage {
    let magic = |stat: StatFs| u64::try_from(stat.f_type).unwrap_or_default();
    match rustix::fs::statfs(path).map(magic) {
        Ok(TMPFS_MAGIC) => Storage::Tmpfs,
        Ok(RAMFS_MAGIC) => Storage::Ramfs,
        _ => Storage::Other,
    }
}

/// If `/` is in memory, puts a mount over it that can be pivoted away from, and makes that the root of PID 1 and
/// (they share it) of the kernel's own helpers.
pub fn leave_initial() -> io::Result<()> {
    if storage(Path::new("/")) == Storage::Other {
        return Ok(());
    }
    fs::create_dir_all(STEP)?;
    rustix::mount::mount_bind("/", STEP)?;
    rustix::process::chdir(STEP)?;
    rustix::mount::mount_move(".", "/")?;
    rustix::process::chroot(".")?;
    rustix::process::chdir("/")?;
    Ok(())
}

//! Lets programs that watch a shared folder know what the host changed there: each path is touched in a way that the
//! folder's server knows and does nothing about, and the kernel tells who watches (`IN_MODIFY`).

use std::ffi::CString;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use kiln_abi::{TOUCH_NANOSECONDS, TOUCH_SECONDS};
use kiln_guest::mount::table::{self, Mounted};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT, openat2, utimensat};

/// Longest path (Linux: `PATH_MAX`), with its end.
const PATH_LIMIT_BYTES: u64 = 4_096;
/// No path leads out of the folder, into another file system, or along a link.
const STAYS: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// Touches what is named on `input`, in the shared folder of this tag, until that ends.
///
/// # Errors
/// The input's. What cannot be touched is gone by now, or the folder is not mounted: then nobody watches it.
pub(crate) fn touch_all(tag: &str, input: impl Read) -> io::Result<()> {
    let mut input = BufReader::new(input);
    let mut folder = None;
    let mut path = Vec::new();
    loop {
        path.clear();
        if input.by_ref().take(PATH_LIMIT_BYTES).read_until(0, &mut path)? == 0 {
            return Ok(());
        }
        if path.pop() != Some(0) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        folder = folder.or_else(|| open(tag));
        if let (Some(folder), Ok(path)) = (&folder, CString::new(if path.is_empty() { b"." } else { &path[..] })) {
            touch(folder, &path);
        }
        // Nobody could unmount it in between.
        if input.buffer().is_empty() {
            folder = None;
        }
    }
}

fn open(tag: &str) -> Option<OwnedFd> {
    let mounts = table::read().ok()?;
    openat2(
        CWD,
        place(&mounts, tag)?,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::empty(),
    )
    .ok()
}

/// Where all of the folder of this tag is mounted.
fn place<'a>(mounts: &'a [Mounted], tag: &str) -> Option<&'a Path> {
    let is_it =
        |mounted: &&Mounted| mounted.kind == "virtiofs" && mounted.source == tag && mounted.root == Path::new("/");
    mounts.iter().find(is_it).map(|mounted| mounted.target.as_path())
}

fn touch(folder: &OwnedFd, path: &CString) {
    let time = Timespec { tv_sec: TOUCH_SECONDS, tv_nsec: TOUCH_NANOSECONDS.into() };
    let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let times = Timestamps { last_access: omit, last_modification: time };
    // Gone by now: its folder is told of too.
    let _gone = openat2(folder, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty(), STAYS)
        .and_then(|found| utimensat(found, c"", &times, AtFlags::EMPTY_PATH));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_found_by_its_tag_and_nothing_else_is() {
        for (line, expected) in [
            ("36 25 0:32 / /mnt rw - virtiofs tag rw", Some("/mnt")),
            ("36 25 0:32 / /a\\040b\\134 rw shared:1 master:2 - virtiofs tag rw", Some("/a b\\")),
            ("36 25 0:32 /below /mnt rw - virtiofs tag rw", None),
            ("36 25 0:32 / /mnt rw - ext4 tag rw", None),
            ("36 25 0:32 / /mnt rw - virtiofs other rw", None),
            ("36 25 0:32 / /mnt rw virtiofs tag rw", None),
            ("36 25 - virtiofs tag rw", None),
            ("", None),
        ] {
            assert_eq!(place(&table::parse(line.as_bytes()), "tag"), expected.map(Path::new), "{line}");
        }
    }

    #[test]
    fn a_path_without_an_end_is_refused_and_a_folder_that_is_not_mounted_is_nobodys() {
        assert!(touch_all("no such tag", &b"a\0\0b/c\0"[..]).is_ok());
        assert_eq!(touch_all("no such tag", &b"a\0b"[..]).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(touch_all("no such tag", io::repeat(b'x')).is_err());
    }
}

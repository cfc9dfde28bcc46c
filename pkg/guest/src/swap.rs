//! Swap space (`swapon(2)`, `mkswap(8)`'s format in `include/linux/swap.h`).

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::mount::table::unescape;

/// Where the signature stands: at the end of the first page.
const SIGNATURE: &[u8; 10] = b"SWAPSPACE2";
const HEADER_AT: usize = 1024;
/// Fewest pages that the kernel takes.
const PAGES_FLOOR: u64 = 10;

/// Writes the header of swap space of `len_bytes` to the start of a file or device.
///
/// # Errors
/// It is too small, or the file system's.
pub fn make(file: &File, len_bytes: u64, uuid: [u8; 16]) -> io::Result<()> {
    let page_bytes = page_bytes();
    let header = header(len_bytes, page_bytes, uuid).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("swap space has at least {PAGES_FLOOR} pages of {page_bytes} bytes"),
        )
    })?;
    file.write_all_at(&header, 0)?;
    file.sync_all()
}

#[expect(unsafe_code, reason = "the length of a page is told by sysconf(3)")]
fn page_bytes() -> usize {
    // SAFETY: sysconf(3) takes a number and touches no memory of ours.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

fn header(len_bytes: u64, page_bytes: usize, uuid: [u8; 16]) -> Option<Vec<u8>> {
    let pages = len_bytes / u64::try_from(page_bytes).ok()?;
    // What is beyond 2^32 pages cannot be told and is not used.
    let last = u32::try_from(pages.checked_sub(1)?).unwrap_or(u32::MAX);
    if pages < PAGES_FLOOR || page_bytes < 4096 {
        return None;
    }
    let mut page = vec![0; page_bytes];
    page[HEADER_AT..HEADER_AT + 4].copy_from_slice(&1_u32.to_ne_bytes());
    page[HEADER_AT + 4..HEADER_AT + 8].copy_from_slice(&last.to_ne_bytes());
    page[HEADER_AT + 12..HEADER_AT + 28].copy_from_slice(&uuid);
    page[page_bytes - SIGNATURE.len()..].copy_from_slice(SIGNATURE);
    Some(page)
}

/// Begins to swap there. Needs CAP_SYS_ADMIN.
///
/// # Errors
/// The kernel's: no header, holes in the file, or a file system that cannot.
#[expect(unsafe_code, reason = "no safe library has swapon(2)")]
pub fn on(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: `path` ends with a NUL and lives until the call is over; the kernel only reads it.
    match unsafe { libc::swapon(path.as_ptr(), 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Ends all swapping, so that file systems with swap files can be unmounted. What does not end is left.
///
/// The kernel names a file by its path in the mount that it was opened by. That of a container is gone with the container, and
/// its path is then one from the top of that mount: so the file is looked for below each of `mount_points` too.
pub fn off_all(mount_points: &[&Path]) {
    for path in in_use(&std::fs::read("/proc/swaps").unwrap_or_default()) {
        // Another file of that name is no swap space, which is all that happens to it.
        let _ = candidates(&path, mount_points).iter().any(|path| off(path).is_ok());
    }
}

/// Where a path of the kernel's list may lead.
fn candidates(path: &Path, mount_points: &[&Path]) -> Vec<PathBuf> {
    let below = mount_points.iter().rev().map(|point| point.join(path.strip_prefix("/").unwrap_or(path)));
    std::iter::once(path.into()).chain(below).collect()
}

/// The first column of `/proc/swaps` behind its heading.
fn in_use(swaps: &[u8]) -> Vec<PathBuf> {
    let lines = swaps.split(|byte| *byte == b'\n').skip(1);
    let paths = lines.filter_map(|line| line.split(u8::is_ascii_whitespace).next().filter(|path| !path.is_empty()));
    paths.map(|path| unescape(path).into()).collect()
}

#[expect(unsafe_code, reason = "no safe library has swapoff(2)")]
fn off(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: `path` ends with a NUL and lives until the call is over; the kernel only reads it.
    match unsafe { libc::swapoff(path.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_small_is_no_swap_space() {
        assert_eq!(header(0, 4096, [0; 16]), None);
        assert_eq!(header(9 * 4096 + 4095, 4096, [0; 16]), None);
    }

    #[test]
    fn swap_files_are_told_by_the_kernels_list() {
        let list = b"Filename Type Size Used Priority\n/var/my\\040swap file 16380 0 -2\n/dev/vdb partition 1 0 -3\n\n";
        assert_eq!(in_use(list), ["/var/my swap", "/dev/vdb"].map(PathBuf::from));
        assert!(in_use(b"").is_empty());
    }

    #[test]
    fn a_file_of_a_container_that_is_gone_is_looked_for_below_all_mounts() {
        let paths = candidates(Path::new("/swap"), &[Path::new("/"), Path::new("/var/lib/data")]);
        assert_eq!(paths, ["/swap", "/var/lib/data/swap", "/swap"].map(PathBuf::from));
    }

    #[test]
    fn the_header_says_which_page_is_the_last() {
        let page = header(10 * 4096, 4096, [7; 16]).unwrap();
        assert_eq!(page.len(), 4096);
        assert_eq!((&page[4086..], page[1024], page[1028], page[1036]), (&SIGNATURE[..], 1, 9, 7));
    }
}

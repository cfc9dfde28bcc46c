//! What only ioctl(2) does to block devices, and to file systems that are to become as long as their device.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

/// A file system that can become longer while it is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Growing {
    /// ext4 (`EXT4_IOC_RESIZE_FS`); ext2 and ext3 under its driver as well.
    Ext4,
    /// XFS (`XFS_IOC_FSGROWFSDATA`).
    Xfs,
    /// btrfs (`BTRFS_IOC_RESIZE`).
    Btrfs,
}

impl Growing {
    /// As mount(2) calls it.
    #[must_use]
    pub fn of(kind: &str) -> Option<Self> {
        match kind {
            "ext4" => Some(Self::Ext4),
            "xfs" => Some(Self::Xfs),
            "btrfs" => Some(Self::Btrfs),
            _ => None,
        }
    }
}

/// Has the kernel read the partition table of a disk anew.
///
/// # Errors
/// The kernel's: `EBUSY` while one of the partitions is in use, `EINVAL` for what has none.
pub fn reread_partitions(disk: &File) -> io::Result<()> {
    // BLKRRPART: _IO(0x12, 95)
    number_only((0x12 << 8) | 95, disk).map(drop)
}

/// Makes a file system as long as the device that it is on. `folder` is open somewhere in it. One that is as long already
/// stays as it is.
///
/// # Errors
/// The kernel's, or the device's.
pub fn grow(growing: Growing, folder: &File, device: &File, device_bytes: u64) -> io::Result<()> {
    match growing {
        Growing::Ext4 => {
            // `s_log_block_size` and `s_blocks_count` (Documentation/filesystems/ext4/super.rst).
            let mut block = [0; 1024];
            device.read_exact_at(&mut block, 1024)?;
            let bits = 10 + u32_at(&block, 24, u32::from_le_bytes);
            let blocks = device_bytes.checked_shr(bits).ok_or(io::ErrorKind::InvalidData)?;
            // EXT4_IOC_RESIZE_FS: _IOW('f', 16, u64)
            with((1 << 30) | (8 << 16) | (0x66 << 8) | 16, folder, &mut blocks.to_ne_bytes())
        }
        Growing::Xfs => {
            // `sb_blocksize`, `sb_dblocks` and `sb_imax_pct` (fs/xfs/libxfs/xfs_format.h), big-endian.
            let mut block = [0; 512];
            device.read_exact_at(&mut block, 0)?;
            let block_bytes = u64::from(u32_at(&block, 4, u32::from_be_bytes));
            let blocks = device_bytes.checked_div(block_bytes).ok_or(io::ErrorKind::InvalidData)?;
            let before = block[8..16].try_into().map_or(0, u64::from_be_bytes);
            if blocks <= before {
                return Ok(());
            }
            let mut request = [0; 16];
            request[..8].copy_from_slice(&blocks.to_ne_bytes());
            request[8..12].copy_from_slice(&u32::from(block[127]).to_ne_bytes());
            // XFS_IOC_FSGROWFSDATA: _IOW('X', 110, struct xfs_growfs_data)
            with((1 << 30) | (16 << 16) | (0x58 << 8) | 110, folder, &mut request)
        }
        Growing::Btrfs => {
            // struct btrfs_ioctl_vol_args: a descriptor that is not used, and what to do.
            let mut request = [0; 4096];
            request[8..11].copy_from_slice(b"max");
            // BTRFS_IOC_RESIZE: _IOW(0x94, 3, struct btrfs_ioctl_vol_args)
            with((1 << 30) | (4096 << 16) | (0x94 << 8) | 3, folder, &mut request)
        }
    }
}

fn u32_at(block: &[u8], offset: usize, read: fn([u8; 4]) -> u32) -> u32 {
    block.get(offset..offset + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, read)
}

fn done(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A request with nothing but its number; gives the kernel's answer.
#[expect(unsafe_code, reason = "no safe library has these requests")]
pub(super) fn number_only(number: u32, file: &File) -> io::Result<libc::c_int> {
    // SAFETY: a request without an argument touches no memory of ours; others read none behind the zero that they get.
    done(unsafe { libc::ioctl(file.as_raw_fd(), number.into(), 0) })
}

/// `request` is as long as `number` says (bits 16 to 29).
fn with<const LEN: usize>(number: u32, file: &File, request: &mut [u8; LEN]) -> io::Result<()> {
    debug_assert_eq!((number >> 16) & 0x3fff, u32::try_from(LEN).unwrap_or(0));
    answer(number, file, request).map(drop)
}

/// `request` is at least as long as what the kernel has for `number`.
#[expect(unsafe_code, reason = "no safe library has these requests")]
pub(super) fn answer(number: u32, file: &File, request: &mut [u8]) -> io::Result<libc::c_int> {
    // SAFETY: the kernel reads and writes no more bytes than the structure of `number` has, which `request` holds, and keeps
    // no pointer to it.
    done(unsafe { libc::ioctl(file.as_raw_fd(), number.into(), request.as_mut_ptr()) })
}

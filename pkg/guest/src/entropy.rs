//! The kernel's pool of random numbers (`random(4)`).

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Most that is added at once, in bytes: much more than the pool holds.
const LIMIT_BYTES: usize = 512;
/// Two numbers stand before the bytes (`struct rand_pool_info`).
const HEADER_BYTES: usize = 8;

/// Adds bytes that nobody can guess, each of their bits counted as a random one. Needs CAP_SYS_ADMIN.
///
/// # Errors
/// More than 512 bytes, or the kernel's.
pub fn add(bytes: &[u8]) -> io::Result<()> {
    let len = i32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= LIMIT_BYTES);
    let len = len.ok_or(io::ErrorKind::InvalidInput)?;
    let mut request = Vec::with_capacity(HEADER_BYTES + bytes.len());
    request.extend((len * 8).to_ne_bytes());
    request.extend(len.to_ne_bytes());
    request.extend(bytes);
    ioctl(&File::open("/dev/random")?, &request)
}

#[expect(unsafe_code, reason = "the pool is reached by ioctl(2) alone")]
fn ioctl(device: &File, request: &[u8]) -> io::Result<()> {
    // RNDADDENTROPY: _IOW('R', 3, int[2])
    const NUMBER: u32 = (1 << 30) | (8 << 16) | (0x52 << 8) | 3;
    // SAFETY: the kernel reads the two numbers, and as many bytes behind them as the second one says, all of which
    // `request` holds; it writes nothing and keeps no pointer.
    match unsafe { libc::ioctl(device.as_raw_fd(), NUMBER.into(), request.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

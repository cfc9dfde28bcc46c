//! Device mapper: a block device whose blocks are those of another, checked or encrypted on the way (`linux/dm-ioctl.h`).

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use crate::block::nodes::open_control;

/// Through which devices are made.
const CONTROL: &str = "/dev/mapper/control";
/// Its minor number (`linux/miscdevice.h`).
const CONTROL_MINOR: u32 = 236;

/// `struct dm_ioctl`.
const HEADER_BYTES: usize = 312;
/// `struct dm_target_spec`, behind which its parameters stand.
const TARGET_BYTES: usize = 40;
const NAME_LIMIT_BYTES: usize = 127;
const KIND_LIMIT_BYTES: usize = 15;
/// Longest parameters: much longer than any that exist.
const PARAMETERS_LIMIT_BYTES: usize = 4096;

const DM_REMOVE_ALL: u8 = 1;
const DM_DEV_CREATE: u8 = 3;
const DM_DEV_REMOVE: u8 = 4;
const DM_DEV_SUSPEND: u8 = 6;
const DM_TABLE_LOAD: u8 = 9;

const DM_READONLY_FLAG: u32 = 1;
/// The kernel wipes what it was given: there is a key in it.
const DM_SECURE_DATA_FLAG: u32 = 1 << 15;

/// What a device may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// To be read.
    Read,
    /// To be written too.
    Write,
}

/// The one target of a device.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// What it may be used for.
    pub access: Access,
    /// Length in sectors of 512 bytes.
    pub sectors: u64,
    /// Such as `verity`.
    pub kind: &'static str,
    /// What the target takes, with spaces between. There may be a key in it.
    pub parameters: String,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("kind", &self.kind).field("sectors", &self.sectors).finish_non_exhaustive()
    }
}

/// Makes the device `name` with `target` as all of it. Returns its node below `/dev`.
///
/// # Errors
/// The kernel's: no driver, no such target, or the target refuses its parameters (the kernel's log says why). What was
/// begun is removed.
pub fn create(name: &str, target: &Target) -> io::Result<PathBuf> {
    let control = open_control(Path::new(CONTROL), CONTROL_MINOR)?;
    let mut header = request(name, &[])?;
    ioctl(&control, DM_DEV_CREATE, &mut header)?;
    let minor = minor(&header);
    let begun = load(&control, name, target);
    if let Err(error) = begun {
        // The first error is the one to tell.
        let _ = remove(name);
        return Err(error);
    }
    Ok(format!("/dev/dm-{minor}").into())
}

/// Removes the device `name`.
///
/// # Errors
/// The kernel's: there is none, or somebody uses it.
pub fn remove(name: &str) -> io::Result<()> {
    ioctl(&open_control(Path::new(CONTROL), CONTROL_MINOR)?, DM_DEV_REMOVE, &mut request(name, &[])?)
}

/// Removes all devices that nobody uses.
///
/// # Errors
/// The kernel's: no driver, or one that is in use, which stays.
pub fn remove_unused() -> io::Result<()> {
    let control = File::options().read(true).write(true).open(CONTROL)?;
    ioctl(&control, DM_REMOVE_ALL, &mut request("", &[])?)
}

fn load(control: &File, name: &str, target: &Target) -> io::Result<()> {
    let mut table = request(name, &table(target)?)?;
    let read_only = if target.access == Access::Read { DM_READONLY_FLAG } else { 0 };
    put_u32(&mut table, 20, 1);
    put_u32(&mut table, 28, read_only | DM_SECURE_DATA_FLAG);
    ioctl(control, DM_TABLE_LOAD, &mut table)?;
    let mut resume = request(name, &[])?;
    put_u32(&mut resume, 28, read_only);
    ioctl(control, DM_DEV_SUSPEND, &mut resume)
}

/// A header for the device `name`, with `data` behind it.
fn request(name: &str, data: &[u8]) -> io::Result<Vec<u8>> {
    if name.len() > NAME_LIMIT_BYTES || name.contains('\0') {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut bytes = vec![0; HEADER_BYTES];
    bytes.extend_from_slice(data);
    // Version 4.0.0; later kernels know it.
    put_u32(&mut bytes, 0, 4);
    let len = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    put_u32(&mut bytes, 12, len);
    put_u32(&mut bytes, 16, 312);
    bytes[48..48 + name.len()].copy_from_slice(name.as_bytes());
    Ok(bytes)
}

fn table(target: &Target) -> io::Result<Vec<u8>> {
    let parameters = target.parameters.as_bytes();
    if target.kind.len() > KIND_LIMIT_BYTES || parameters.len() > PARAMETERS_LIMIT_BYTES || parameters.contains(&0) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut spec = vec![0; TARGET_BYTES];
    spec[8..16].copy_from_slice(&target.sectors.to_ne_bytes());
    spec[24..24 + target.kind.len()].copy_from_slice(target.kind.as_bytes());
    spec.extend_from_slice(parameters);
    spec.push(0);
    spec.resize(spec.len().next_multiple_of(8), 0);
    Ok(spec)
}

/// The device's minor number, as the kernel wrote it: its upper bits stand above the major number.
fn minor(header: &[u8]) -> u64 {
    let device = header.get(40..48).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_ne_bytes);
    (device & 0xff) | ((device >> 12) & 0xfff_ff00)
}

fn put_u32(bytes: &mut [u8], offset: usize, value: u32) {
    bytes[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
}

#[expect(unsafe_code, reason = "device mapper is reached by ioctl(2) alone")]
fn ioctl(control: &File, command: u8, request: &mut [u8]) -> io::Result<()> {
    // _IOWR(0xfd, command, struct dm_ioctl)
    let number: u32 = (3 << 30) | (312 << 16) | (0xfd << 8) | u32::from(command);
    // SAFETY: the kernel reads and writes at most as many bytes as the header's `data_size` says, which is the length of
    // `request`; it keeps no pointer to it.
    match unsafe { libc::ioctl(control.as_raw_fd(), number.into(), request.as_mut_ptr()) } {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verity(parameters: &str) -> Target {
        Target { access: Access::Read, sectors: 8, kind: "verity", parameters: parameters.into() }
    }

    #[test]
    fn what_does_not_fit_into_a_request_is_refused() {
        assert!(request(&"n".repeat(128), &[]).is_err());
        assert!(table(&verity(&"x".repeat(4097))).is_err());
        assert!(table(&verity("a\0b")).is_err());
    }

    #[test]
    fn a_request_says_how_long_it_is() {
        let table = table(&verity("1 2 3")).unwrap();
        assert_eq!((table.len(), &table[40..46]), (48, &b"1 2 3\0"[..]));
        let request = request("root", &table).unwrap();
        assert_eq!(request[12..20], [104, 1, 0, 0, 56, 1, 0, 0]);
        assert_eq!(request[48..53], *b"root\0");
    }

    #[test]
    fn minor_numbers_beyond_255_are_read() {
        let header = |device: u64| [&[0; 40][..], &device.to_ne_bytes()].concat();
        assert_eq!(minor(&header(0xfd03)), 3);
        assert_eq!(minor(&header(0x0010_fd03)), 0x103);
    }
}

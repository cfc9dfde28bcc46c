//! Loop devices: block devices whose blocks are those of a file (`linux/loop.h`).

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use super::control::{answer, number_only};
use super::nodes::open_control;

/// The control node's minor number (`linux/miscdevice.h`).
const CONTROL_MINOR: u32 = 237;
const LOOP_CLR_FD: u32 = 0x4C01;
const LOOP_CONFIGURE: u32 = 0x4C0A;
const LOOP_CTL_GET_FREE: u32 = 0x4C82;
/// `struct loop_config`: the file, the size of a block, `struct loop_info64` of 232 bytes, and reserved ones.
const CONFIG_BYTES: usize = 304;
/// Where `lo_flags` is in it.
const FLAGS_AT: usize = 8 + 52;
/// The device lets go of the file when nobody has it open any more.
const LO_FLAGS_AUTOCLEAR: u32 = 4;
/// Somebody else may take the free device first.
const TRIES: usize = 16;

/// A loop device of a file; it goes when this and everybody else has closed it.
#[derive(Debug)]
pub struct LoopDevice {
    /// Its node.
    pub path: PathBuf,
    /// Keeps it.
    _device: File,
}

/// Makes a block device of a file.
///
/// # Errors
/// The kernel's: it has no loop devices, or the caller lacks CAP_SYS_ADMIN.
pub fn attach(file: &File) -> io::Result<LoopDevice> {
    let control = open_control(Path::new("/dev/loop-control"), CONTROL_MINOR)?;
    let mut config = [0; CONFIG_BYTES];
    config[..4].copy_from_slice(&file.as_raw_fd().to_ne_bytes());
    config[FLAGS_AT..FLAGS_AT + 4].copy_from_slice(&LO_FLAGS_AUTOCLEAR.to_ne_bytes());
    for _ in 0..TRIES {
        let path = PathBuf::from(format!("/dev/loop{}", number_only(LOOP_CTL_GET_FREE, &control)?));
        let device = File::options().read(true).write(true).open(&path)?;
        match answer(LOOP_CONFIGURE, &device, &mut config) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
            Err(error) => return Err(error),
            Ok(_) => return Ok(LoopDevice { path, _device: device }),
        }
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

/// Has all loop devices let go of their files: at once, or when nobody uses the device any more.
pub fn detach_all() {
    for entry in fs::read_dir("/sys/class/block").into_iter().flatten().flatten() {
        if !entry.path().join("loop/backing_file").exists() {
            continue;
        }
        if let Ok(device) = File::open(Path::new("/dev").join(entry.file_name())) {
            // Somebody else may have done it meanwhile.
            let _ = number_only(LOOP_CLR_FD, &device);
        }
    }
}

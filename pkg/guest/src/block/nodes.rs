//! Nodes of drivers that may not be loaded yet.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

/// Major number of the kernel's various single devices (`linux/major.h`).
const MISC_MAJOR: u32 = 10;

/// Opens a driver's control node, and makes it if it is missing: that it is opened has the kernel load the driver.
///
/// # Errors
/// The kernel's: `ENODEV` if it has no such driver.
pub(crate) fn open_control(path: &Path, minor: u32) -> io::Result<File> {
    let open = || File::options().read(true).write(true).open(path);
    match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            mknodat(CWD, path, FileType::CharacterDevice, Mode::from_raw_mode(0o600), makedev(MISC_MAJOR, minor))?;
            open()
        }
        opened => opened,
    }
}

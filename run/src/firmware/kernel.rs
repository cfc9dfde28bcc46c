//! A kernel that firmware starts itself, and measures if there is something to measure with: it finds it in its configuration.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::fw_cfg::{COMMAND_LINE, Contents, FwCfg, INITRD, KERNEL, SETUP};
use crate::config::Kernel;

/// Start of an EFI program.
const PROGRAM: [u8; 2] = *b"MZ";
/// Where a bzImage says how many sectors of it are for real mode, and that it is one (Linux,
/// `Documentation/arch/x86/boot.rst`).
const SETUP_SECTORS: u64 = 0x1F1;
const MAGIC: u64 = 0x202;
const SECTOR: u64 = 512;
/// What no number of sectors means.
const OLD_SETUP_SECTORS: u8 = 4;

/// Whether firmware can start this file.
///
/// # Errors
/// It cannot be read.
pub fn is_program(file: &File) -> io::Result<bool> {
    Ok(part(file, 0)? == PROGRAM)
}

impl FwCfg {
    /// With a kernel that firmware starts before it looks for anything else.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn with_kernel(self, kernel: &Kernel) -> io::Result<Self> {
        let image = File::open(&kernel.image)?;
        let len = image.metadata()?.len();
        let setup = setup_bytes(&image)?.min(len);
        let contents = |file, offset, len| Contents::File(file, offset, usize::try_from(len).unwrap_or(0));
        let command_line = [kernel.cmdline.as_bytes(), &[0]].concat();
        let mut made = self
            .with(SETUP, contents(image.try_clone()?, 0, setup))
            .with(KERNEL, contents(image, setup, len - setup))
            .with(COMMAND_LINE, Contents::Bytes(command_line));
        if let Some(path) = &kernel.initrd {
            let initrd = File::open(path)?;
            let len = initrd.metadata()?.len();
            made = made.with(INITRD, contents(initrd, 0, len));
        }
        Ok(made)
    }
}

/// Bytes of a bzImage that come apart from the rest; none of another program.
fn setup_bytes(image: &File) -> io::Result<u64> {
    let is_bzimage = part(image, MAGIC)? == *b"HdrS";
    let [sectors] = part(image, SETUP_SECTORS)?;
    let sectors = if sectors == 0 { OLD_SETUP_SECTORS } else { sectors };
    Ok(if is_bzimage { (u64::from(sectors) + 1) * SECTOR } else { 0 })
}

/// Zeros, where the file ends before.
fn part<const BYTES: usize>(file: &File, offset: u64) -> io::Result<[u8; BYTES]> {
    let mut bytes = [0; BYTES];
    match file.read_exact_at(&mut bytes, offset) {
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error),
        _ => Ok(bytes),
    }
}

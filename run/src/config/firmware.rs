//! EFI firmware, as its user asked for it.

use std::path::PathBuf;

/// What starts a machine that has no kernel of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firmware {
    /// The file that runs: EDK II's `OVMF_CODE_4M.fd`, or one with its variables in front, like `OVMF.fd`.
    pub code: PathBuf,
    /// What variables are at first, if that is a file of its own: `OVMF_VARS_4M.fd`.
    pub template: Option<PathBuf>,
    /// The file that keeps the machine's variables; made when it is missing.
    pub variables: PathBuf,
    /// How long the firmware waits for the key to its menu, in seconds; at most [`Self::MOST_MENU_WAIT_S`].
    pub menu_wait_s: Option<u16>,
    /// What it starts at once, instead of looking for something on the disks.
    pub kernel: Option<Kernel>,
}

/// A kernel with what belongs to it, for firmware.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// An EFI program: a bzImage, or a unified kernel image.
    pub image: PathBuf,
    /// Initial RAM disk, if any.
    pub initrd: Option<PathBuf>,
    /// Command line.
    pub cmdline: String,
}

impl Firmware {
    /// It is told of the wait in milliseconds, in two bytes.
    pub const MOST_MENU_WAIT_S: u16 = u16::MAX / 1000;
}

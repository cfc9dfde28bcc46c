//! The boot loader for BIOS firmware: a boot record, and a second stage that is also the boot image of a CD. It knows by
//! numbers where kernel and initrd are, and starts Linux by its boot protocol (Linux' `Documentation/arch/x86/boot.rst`).

use crate::tree::Body;

/// What a BIOS loads.
#[derive(Debug)]
pub struct BiosFiles<'a> {
    /// A bzImage.
    pub kernel: Body,
    /// Where the kernel is, in sectors of 512 bytes; on a CD a multiple of four.
    pub kernel_lba: u32,
    /// Where the initrd is, in sectors of 512 bytes (on a CD a multiple of four), and its length in bytes.
    pub initrd: Option<(u32, u64)>,
    /// Kernel command line; white space around it is left out.
    pub cmdline: &'a [u8],
}

//! How what is built starts on a machine: kiln's own boot code, and what wraps kernel and initrd in it. README.md beside
//! this file says how the machine code is made.
//!
//! The boot code finds nothing by itself: whoever lays out an image tells where everything is, and that is written into
//! tables behind the code. So all that could be wrong with a kernel is found here, while it is built.

pub mod bios;
mod der;
mod kernel;
mod pe;
mod sign;
mod uki;

use crate::tree::Body;

pub use sign::{Signer, SignerError};
pub use uki::{Program, Uki, uki};

/// Why something cannot be made to boot.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// There is nothing to boot.
    #[error("there is no kernel to boot; name an image under `kernel:` in the YAML")]
    NoKernel,
    /// An ELF file where a kernel with its own start-up code is needed.
    #[error(
        "the kernel is an unpacked one (an ELF file), which {firmware} cannot start; leave out `--decompress-kernel`"
    )]
    Unpacked {
        /// Who would start it.
        firmware: &'static str,
    },
    /// A gzip file where a kernel is needed.
    #[error("the kernel is packed by gzip, which {firmware} cannot start; use `--decompress-kernel`")]
    Gzip {
        /// Who would start it.
        firmware: &'static str,
    },
    /// Something else where a kernel is needed.
    #[error("the kernel is nothing that {firmware} can start: {wants}")]
    Unknown {
        /// Who would start it.
        firmware: &'static str,
        /// What it should be.
        wants: &'static str,
    },
    /// A kernel for another machine.
    #[error(
        "the kernel is for {found}, but the image is built for `{architecture}`; build with `--arch` as the kernel is"
    )]
    Machine {
        /// Whose it is.
        found: String,
        /// Go's name of what was wanted.
        architecture: String,
    },
    /// No boot code for it.
    #[error("{firmware} cannot start images for `{architecture}`; {instead}")]
    Architecture {
        /// Who would start it.
        firmware: &'static str,
        /// Go's name of it.
        architecture: String,
        /// What is possible.
        instead: &'static str,
    },
    /// A kernel from before the way in which it gets its initrd.
    #[error(
        "the kernel is older than {needed}, the first that {firmware} can give an initrd this way; use a newer kernel"
    )]
    TooOld {
        /// Who would start it.
        firmware: &'static str,
        /// The first that can.
        needed: &'static str,
    },
    /// A kernel that contradicts itself.
    #[error("the kernel is damaged: its {what} cannot be right")]
    Damaged {
        /// What is wrong.
        what: &'static str,
    },
    /// The command line is longer than the kernel takes.
    #[error("the kernel's command line has {len_bytes} bytes, more than the {limit_bytes} that it takes")]
    LongCmdline {
        /// Its length.
        len_bytes: u64,
        /// What is possible.
        limit_bytes: u64,
    },
    /// The command line has what cannot be told.
    #[error("the kernel's command line has the byte {byte:#04x} at {offset}; only printable ASCII can be given to it")]
    Cmdline {
        /// The byte.
        byte: u8,
        /// Where it is.
        offset: usize,
    },
    /// More than the format or the firmware takes.
    #[error(
        "the initrd has {initrd_bytes} bytes, more than the {limit_bytes} that {firmware} can start beside this kernel; build a root on a disk instead, such as `kernel+squashfs`"
    )]
    LargeInitrd {
        /// Who would start it.
        firmware: &'static str,
        /// Its length.
        initrd_bytes: u64,
        /// What is possible.
        limit_bytes: u64,
    },
}

/// Longest command line that Linux keeps, on x86-64 and on AArch64, without the zero byte behind it.
const CMDLINE_LIMIT_BYTES: u64 = 2047;

/// Where EFI firmware looks for a program on a disk that it knows nothing of (UEFI 2.10, 3.5.1.1). `architecture` is Go's
/// name of one that [`uki`] takes.
pub fn removable_path(architecture: &str) -> &'static str {
    match architecture {
        "arm64" => "EFI/BOOT/BOOTAA64.EFI",
        _ => "EFI/BOOT/BOOTX64.EFI",
    }
}

/// The command line as it is given: without a new line at its end, and checked.
fn cmdline(bytes: &[u8]) -> Result<&[u8], BootError> {
    let bytes = bytes.trim_ascii();
    let len_bytes = bytes.len() as u64;
    if len_bytes > CMDLINE_LIMIT_BYTES {
        return Err(BootError::LongCmdline { len_bytes, limit_bytes: CMDLINE_LIMIT_BYTES });
    }
    match bytes.iter().position(|byte| !matches!(byte, b' '..=b'~' | b'\t' | b'\n')) {
        Some(offset) => Err(BootError::Cmdline { byte: bytes[offset], offset }),
        None => Ok(bytes),
    }
}

/// The first bytes of a kernel, fewer if it is shorter.
fn head(kernel: &Body) -> std::io::Result<Vec<u8>> {
    const HEAD_BYTES: u64 = 4096;
    let len = kernel.len().min(HEAD_BYTES);
    Ok(kernel.slice(0, len).map(|head| head.read_up_to(HEAD_BYTES)).transpose()?.flatten().unwrap_or_default())
}

/// What a file that is no kernel for `firmware` is.
fn stranger(head: &[u8], firmware: &'static str, wants: &'static str) -> BootError {
    match head {
        [] => BootError::NoKernel,
        [0x7f, b'E', b'L', b'F', ..] => BootError::Unpacked { firmware },
        [0x1f, 0x8b, ..] => BootError::Gzip { firmware },
        _ => BootError::Unknown { firmware, wants },
    }
}

#[cfg(test)]
mod tests;

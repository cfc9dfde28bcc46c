//! What must be there for a machine to boot, looked at before a byte is written.

use std::collections::BTreeSet;

use super::{DiskFormat, Format, FormatError, IsoFormat, Material, Watch, rpi3};
use crate::artifact;
use crate::compat::Compat;
use crate::tree::{Body, Kind, NodeId, Tree, TreePath};

/// Longest initrd that x86's kernels take from a BIOS loader: they want it below `initrd_addr_max`, which is 2 GiB less a
/// byte (Linux' `Documentation/arch/x86/boot.rst`), and something else must have room there too.
const BIOS_INITRD_BYTES_MAX: u64 = 0x7000_0000;
/// Longest initrd in an EFI program, which is shorter than 2 GiB with its kernel: firmware counts with signed numbers.
const EFI_INITRD_BYTES_MAX: u64 = 0x7000_0000;
/// What `kiln run` and most clouds' smallest machines have.
const DEFAULT_MEMORY_BYTES: u64 = 1 << 30;
/// What a kernel takes for itself before it unpacks anything.
const KERNEL_MEMORY_BYTES: u64 = 96 << 20;
const PAGE_BYTES: u64 = 4096;
/// Memory is sold in pieces of this size.
const MEMORY_STEP_BYTES: u64 = 256 << 20;

/// Why a format cannot boot.
#[derive(Debug, thiserror::Error)]
pub enum Unbootable {
    /// Another machine's kernel.
    #[error("its kernel is for {found}, not for {wanted}; build with `--arch {found}`, or take another kernel image")]
    Architecture {
        /// What the kernel is for, by Go's name.
        found: &'static str,
        /// What the build is for.
        wanted: String,
    },
    /// A command line that no kernel has.
    #[error("its kernel command line is no text (UTF-8)")]
    Cmdline,
    /// A board of one architecture only.
    #[error("the board is {wanted}, and this build is for {built}; build with `--arch {wanted}`")]
    Board {
        /// The board's architecture, by Go's name.
        wanted: &'static str,
        /// What the build is for.
        built: String,
    },
    /// A kernel that somebody must unpack first.
    #[error(
        "its kernel is no plain arm64 `Image`; the board's firmware takes none but an unpacked one (`--decompress-kernel`)"
    )]
    Packed,
    /// Nobody would tell the kernel what is on the board.
    #[error(
        "there is no device tree of the board in `{folder}`; take a kernel image whose `kernel.tar` has them, such as kiln's `kernel-rpi3`"
    )]
    NoDeviceTree {
        /// Where it should be.
        folder: &'static str,
    },
    /// The board would not start.
    #[error(
        "there is no `{name}` of the board's firmware in `{folder}`; add it with `files:` or an image in `init:`, from Debian's \
         `raspi-firmware` or the maker"
    )]
    NoFirmware {
        /// The file.
        name: &'static str,
        /// Where it should be.
        folder: &'static str,
    },
    /// No loader could give it to the kernel.
    #[error(
        "its initrd has {len_bytes} bytes, more than the {limit_bytes} that {loader} can load; use `kernel+squashfs` or \
         `kernel+erofs`, of which only what is read is in memory"
    )]
    Initrd {
        /// Its length, packed.
        len_bytes: u64,
        /// What there is room for.
        limit_bytes: u64,
        /// Whose limit it is.
        loader: &'static str,
    },
}

/// What is booted.
pub(super) struct Boot {
    /// The kernel as its image has it.
    pub kernel: Body,
    /// The kernel's command line, without a line's end.
    pub cmdline: String,
}

/// Who gives kernel and initrd to the machine, and so what it can be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loader {
    /// Nothing of the root is in memory before it is used.
    None,
    /// Whoever takes the files: a virtual machine monitor, or a loader that is not ours.
    Foreign,
    /// Ours for machines with a BIOS.
    Bios,
    /// The firmware itself.
    Efi,
}

/// Refuses what cannot boot in one of `formats`, before anything is written. Says so, once, if what can boot needs more
/// memory than most machines have.
///
/// Errors: [`FormatError::Unbootable`], and what can go wrong when the initrd is packed.
pub fn check(
    formats: &[Format],
    material: &Material<'_>,
    watch: Watch<'_>,
    note: &dyn Fn(&str),
) -> Result<(), (Format, FormatError)> {
    if material.options.compat == Compat::Linuxkit {
        return Ok(());
    }
    for &format in formats {
        check_one(format, material, watch).map_err(|error| (format, error))?;
    }
    let needed = memory_bytes(material.tree);
    if needed > DEFAULT_MEMORY_BYTES
        && let Some(format) = formats.iter().find(|format| loader(**format, material) != Loader::None)
    {
        note(&format!(
            "{format}: a machine unpacks this root in memory and needs about {0} MiB for it (`kiln run -mem {0}`); \
             with `kernel+squashfs` it needs less",
            needed >> 20
        ));
    }
    Ok(())
}

/// Who loads the whole root: nobody where it stays on the disk.
fn loader(format: Format, material: &Material<'_>) -> Loader {
    match format {
        _ if format.takes_root() && material.options.disk_root.is_some() => Loader::None,
        _ => format.loader(),
    }
}

fn check_one(format: Format, material: &Material<'_>, watch: Watch<'_>) -> Result<(), FormatError> {
    let loader = loader(format, material);
    let is_a_root_alone = matches!(format, Format::Tar | Format::Docker);
    let needs_none = matches!(
        format,
        Format::KernelInitrd
            | Format::TarKernelInitrd
            | Format::KernelErofs
            | Format::KernelSquashfs
            | Format::Iso(IsoFormat::Kernel)
    );
    if is_a_root_alone || needs_none && material.kernel().is_err() {
        return Ok(());
    }
    match format {
        Format::Rpi3 => rpi3::check(material)?,
        _ => boot(material)?,
    };
    let (loader, limit_bytes) = match loader {
        Loader::None | Loader::Foreign => return Ok(()),
        Loader::Bios => ("a BIOS loader", BIOS_INITRD_BYTES_MAX),
        Loader::Efi => ("EFI", EFI_INITRD_BYTES_MAX),
    };
    match material.initrd(watch)?.len() {
        len_bytes if len_bytes > limit_bytes => Err(Unbootable::Initrd { len_bytes, limit_bytes, loader }.into()),
        _ => Ok(()),
    }
}

impl Format {
    /// Who loads the whole root into memory.
    fn loader(self) -> Loader {
        match self {
            Self::KernelInitrd | Self::TarKernelInitrd | Self::Oci | Self::Rpi3 => Loader::Foreign,
            Self::Disk(DiskFormat::RawEfi | DiskFormat::Qcow2Efi) | Self::Iso(IsoFormat::EfiInitrd) => Loader::Efi,
            Self::Disk(_) | Self::ContainerDisk => Loader::Bios,
            _ => Loader::None,
        }
    }
}

/// What there is to boot.
pub(super) fn boot(material: &Material<'_>) -> Result<Boot, FormatError> {
    let kernel = material.kernel()?;
    let found = artifact::architecture(&|buffer, offset| kernel.read_exact_at(buffer, offset))?;
    let wanted = &material.options.architecture;
    if let Some(found) = found.filter(|found| found != wanted) {
        return Err(Unbootable::Architecture { found, wanted: wanted.clone() }.into());
    }
    let cmdline = String::from_utf8(material.cmdline()?).map_err(|_| Unbootable::Cmdline)?;
    let cmdline = cmdline.trim_end_matches(['\n', '\r']).to_owned();
    Ok(Boot { kernel: kernel.clone(), cmdline })
}

/// Memory of a machine that unpacks the root: Linux gives a tmpfs half of it, and the packed one is there meanwhile. How
/// well it packs is not known yet; three to one is usual.
fn memory_bytes(tree: &Tree) -> u64 {
    let in_root = |(path, _): &(TreePath, NodeId)| !path.as_bytes().starts_with(b"boot/");
    let files: BTreeSet<NodeId> = tree.walk().filter(in_root).map(|(_, id)| id).collect();
    let pages = |id| match &tree.node(id).kind {
        Kind::File(body) => body.len().next_multiple_of(PAGE_BYTES),
        _ => 0,
    };
    let unpacked: u64 = files.into_iter().map(pages).sum();
    (2 * unpacked + unpacked / 3 + KERNEL_MEMORY_BYTES).next_multiple_of(MEMORY_STEP_BYTES)
}

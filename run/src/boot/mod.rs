//! Puts a kernel, its initial RAM disk, command line and description of the machine into guest memory, and says where
//! the first vCPU starts. Kernel and RAM disk are the user's, so every number in them is checked.

mod bzimage;
mod cache;
mod image;
mod initrd;
mod linux64;
mod memory_map;
mod pvh;
mod unpack;

use std::fs::File;
use std::io::{self, Seek};
use std::path::{Path, PathBuf};

use linux_loader::loader::elf::PvhBootCapability;
use linux_loader::loader::{BzImage, Elf, KernelLoader};
use vm_memory::{Bytes, GuestAddress};

pub use self::cache::KernelCache;
pub use self::image::{Image, ImageKind, NotAKernel, inspect};
pub use self::initrd::unpacked_bytes;
pub use self::unpack::Error as UnpackError;
use crate::hv::{Entry, segments};
use crate::layout::{COMMAND_LINE_MAX, COMMAND_LINE_START, GDT_START, KERNEL_START, LOW_RAM_LIMIT};
use crate::mem::{GuestMemory, GuestRam};

/// Page size, in bytes, to which the RAM disk is aligned.
const PAGE_BYTES: u64 = 4096;

/// What is to be booted.
#[derive(Debug)]
pub struct Request<'a> {
    /// A bzImage or a `vmlinux`.
    pub kernel: &'a Path,
    /// Initial RAM disk.
    pub initrd: Option<&'a Path>,
    /// Command line, without a closing zero.
    pub cmdline: &'a str,
    /// Where the ACPI tables begin.
    pub rsdp: u64,
    /// Where unpacked kernels are kept; without it they are unpacked each time.
    pub cache: Option<&'a KernelCache>,
}

/// Why a machine cannot be booted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// Neither a bzImage nor an x86_64 ELF.
    #[error("`{}` cannot be booted", path.display())]
    NotAKernel {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: NotAKernel,
    },
    /// The kernel's own headers do not fit together, or it does not fit into memory.
    #[error("cannot load kernel `{}` into guest memory: {problem}", path.display())]
    Load {
        /// The file.
        path: PathBuf,
        /// The loader's words.
        problem: String,
    },
    /// An ELF file without the PVH note, which `CONFIG_PVH=y` makes.
    #[error("kernel `{}` is an ELF file without a PVH entry; use its bzImage, or build it with CONFIG_PVH=y", path.display())]
    NoPvhEntry {
        /// The file.
        path: PathBuf,
    },
    /// A bzImage that only a 32-bit boot loader can start.
    #[error("kernel `{}` has no 64-bit entry", path.display())]
    No64BitEntry {
        /// The file.
        path: PathBuf,
    },
    /// The RAM disk does not fit between kernel and end of memory.
    #[error("initrd `{}` of {bytes} bytes does not fit into memory behind the kernel; give the machine more memory", path.display())]
    InitrdTooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// The command line is longer than a kernel takes.
    #[error("kernel command line has {bytes} bytes, a kernel takes at most {}", COMMAND_LINE_MAX - 1)]
    CommandLineTooLong {
        /// Its length.
        bytes: usize,
    },
    /// A table does not fit into guest memory.
    #[error("guest memory is too small for the boot tables")]
    Memory(#[source] vm_memory::GuestMemoryError),
}

/// Where the RAM disk was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Placed {
    start: u64,
    len_bytes: u64,
}

/// What the two boot protocols tell the kernel.
struct Told {
    initrd: Option<Placed>,
    cmdline_bytes: u32,
    rsdp: u64,
}

/// Loads everything and returns the entry of the first vCPU. Guest memory must be all zeros.
pub fn load(ram: &GuestRam, request: &Request<'_>) -> Result<Entry, Error> {
    let memory = ram.memory();
    let cmdline_bytes = write_command_line(memory, request.cmdline)?;
    let image = inspect(request.kernel)?;
    let told = |initrd| Told { initrd, cmdline_bytes, rsdp: request.rsdp };
    if let Some(loaded) = load_elf(memory, request, &image)? {
        let initrd = place_initrd(ram, request, loaded.end, LOW_RAM_LIMIT)?;
        write_segments(memory, segments::CODE32)?;
        return pvh::describe(ram, loaded.entry, &told(initrd)).map_err(Error::Memory);
    }
    let ImageKind::BzImage(header) = image.kind else {
        return Err(Error::NoPvhEntry { path: request.kernel.into() });
    };
    if !header.has_64bit_entry() {
        return Err(Error::No64BitEntry { path: request.kernel.into() });
    }
    let mut file = open(request.kernel)?;
    let start = GuestAddress(header.load_address());
    let loaded = BzImage::load(memory, Some(start), &mut file, Some(GuestAddress(KERNEL_START)))
        .map_err(|error| Error::Load { path: request.kernel.into(), problem: error.to_string() })?;
    let initrd = place_initrd(ram, request, header.end(), header.initrd_limit())?;
    write_segments(memory, segments::CODE64)?;
    let setup = loaded.setup_header.unwrap_or_default();
    linux64::describe(ram, setup, header.load_address(), &told(initrd)).map_err(Error::Memory)
}

/// A kernel loaded as ELF.
struct LoadedElf {
    entry: u32,
    /// First address past it.
    end: u64,
}

/// Loads the kernel as ELF if it is one or holds one, and has a PVH entry. `None` means that memory is untouched and
/// another way must be tried.
fn load_elf(memory: &GuestMemory, request: &Request<'_>, image: &Image) -> Result<Option<LoadedElf>, Error> {
    match &image.kind {
        ImageKind::Elf { has_pvh_entry: false } => Ok(None),
        ImageKind::Elf { .. } => load_elf_from(memory, request.kernel, open(request.kernel)?).map(Some),
        ImageKind::BzImage(header) => {
            let unpacked = match request.cache {
                Some(cache) => cache.vmlinux(request.kernel, header),
                None => unpack::to_unnamed_file(request.kernel, header),
            };
            // What cannot be unpacked here is left to the kernel's own unpacker; so is one without a PVH entry.
            let Ok(mut file) = unpacked else { return Ok(None) };
            match image::pvh_entry_of_elf(&mut file) {
                Ok(Some(_)) => load_elf_from(memory, request.kernel, file).map(Some),
                Ok(None) | Err(_) => Ok(None),
            }
        }
    }
}

fn load_elf_from(memory: &GuestMemory, path: &Path, mut file: File) -> Result<LoadedElf, Error> {
    let problem = |problem: String| Error::Load { path: path.into(), problem };
    let loaded = Elf::load(memory, None, &mut file, None).map_err(|error| problem(error.to_string()))?;
    let PvhBootCapability::PvhEntryPresent(entry) = loaded.pvh_boot_cap else {
        return Err(Error::NoPvhEntry { path: path.into() });
    };
    let entry = u32::try_from(entry.0).map_err(|_| problem("its entry lies above 4 GiB".into()))?;
    Ok(LoadedElf { entry, end: loaded.kernel_end })
}

fn open(path: &Path) -> Result<File, Error> {
    File::open(path).map_err(|source| Error::Read { path: path.into(), source })
}

/// Reads the RAM disk to the highest place below `limit` and behind `kernel_end`.
fn place_initrd(ram: &GuestRam, request: &Request<'_>, kernel_end: u64, limit: u64) -> Result<Option<Placed>, Error> {
    let Some(path) = request.initrd else { return Ok(None) };
    let read_error = |source| Error::Read { path: path.into(), source };
    let mut file = open(path)?;
    let bytes = file.seek(io::SeekFrom::End(0)).map_err(read_error)?;
    file.rewind().map_err(read_error)?;
    if bytes == 0 {
        return Ok(None);
    }
    let too_large = || Error::InitrdTooLarge { path: path.into(), bytes };
    let end = limit.min(ram.split().low_bytes);
    let start = end.checked_sub(bytes).map(|start| start - start % PAGE_BYTES).ok_or_else(too_large)?;
    if start < kernel_end {
        return Err(too_large());
    }
    read_into(ram.memory(), start, &mut file, bytes).map_err(read_error)?;
    Ok(Some(Placed { start, len_bytes: bytes }))
}

/// Reads `bytes` from `file` straight into guest memory.
fn read_into(memory: &GuestMemory, start: u64, file: &mut File, bytes: u64) -> io::Result<()> {
    let len = usize::try_from(bytes).map_err(io::Error::other)?;
    memory.read_exact_volatile_from(GuestAddress(start), file, len).map_err(io::Error::other)
}

/// Writes the command line with its closing zero; returns its length without it.
fn write_command_line(memory: &GuestMemory, cmdline: &str) -> Result<u32, Error> {
    let too_long = || Error::CommandLineTooLong { bytes: cmdline.len() };
    if cmdline.len() >= COMMAND_LINE_MAX {
        return Err(too_long());
    }
    let mut bytes = cmdline.as_bytes().to_vec();
    bytes.push(0);
    memory.write_slice(&bytes, GuestAddress(COMMAND_LINE_START)).map_err(Error::Memory)?;
    u32::try_from(cmdline.len()).map_err(|_| too_long())
}

fn write_segments(memory: &GuestMemory, code: u64) -> Result<(), Error> {
    let table = segments::table(code).map(u64::to_le_bytes).concat();
    memory.write_slice(&table, GuestAddress(GDT_START)).map_err(Error::Memory)
}

#[cfg(test)]
pub(crate) mod tests {
    pub(crate) use super::image::tests::elf_kernel;
}

//! Kernel, initrd and command line as one EFI program: a unified kernel image, with the sections that the UAPI group's
//! specification of that name gives.

use super::kernel::{EfiKernel, machine};
use super::pe::{self, Section};
use super::{BootError, Signer, cmdline};
use crate::format::{Extents, FormatError, Material, Watch, file};
use crate::tree::{Body, Tree};

const FIRMWARE: &str = "EFI firmware";

const CODE_AMD64: &[u8] = include_bytes!("code/efi-x86_64.bin");
const CODE_ARM64: &[u8] = include_bytes!("code/efi-aarch64.bin");

/// Pieces of a kernel that the code's table has room for. Kernels have two to five.
const COPIES: usize = 8;

/// The table is the last that is in the code: eight numbers, and three for each piece of the kernel.
const TABLE_BYTES: usize = 4 * (8 + 3 * COPIES);

/// One block of relocations that moves nothing: some firmware starts only what can be relocated.
const NO_RELOCATIONS: [u8; 12] = [0, 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0];

/// For shim: generations of what could be revoked, ours being the first.
const SBAT: &[u8] = b"sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md\n\
    kiln,1,kiln,kiln-stub,1,https://kiln.invalid/\n";

/// What becomes one EFI program.
pub struct Uki<'a> {
    /// Go's name: `amd64` or `arm64`.
    pub architecture: &'a str,
    /// A kernel that is an EFI program itself.
    pub kernel: Body,
    /// What it finds as its initrd.
    pub initrd: Option<Body>,
    /// Its command line; white space around it is left out.
    pub cmdline: &'a [u8],
    /// What `/etc/os-release` says, or nothing: boot menus show its name.
    pub os_release: Vec<u8>,
    /// Who signs it for Secure Boot.
    pub signer: Option<&'a Signer>,
}

/// One EFI program, and where its parts are in it: for whoever lays it out and lets others read them there.
#[derive(Debug)]
pub struct Program {
    /// The file.
    pub extents: Extents,
    /// Offset of the kernel, in bytes.
    pub kernel_at: u64,
    /// Offset and length of the initrd, in bytes.
    pub initrd: Option<(u64, u64)>,
}

impl<'a> Uki<'a> {
    /// The kernel and the names of `material`, signed if the user wants that.
    ///
    /// # Errors
    /// [`BootError::NoKernel`], [`FormatError::Io`].
    pub fn of(material: &Material<'a>, initrd: Option<Body>, cmdline: &'a [u8]) -> Result<Self, FormatError> {
        Ok(Self {
            architecture: &material.options.architecture,
            kernel: material.kernel()?.clone(),
            initrd,
            cmdline,
            os_release: os_release(material.tree)?,
            signer: material.options.secure_boot.as_ref(),
        })
    }
}

/// What the root says about itself; empty if that is unknown or too long to be true.
fn os_release(tree: &Tree) -> Result<Vec<u8>, FormatError> {
    const LIMIT_BYTES: u64 = 64 << 10;
    for path in ["etc/os-release", "usr/lib/os-release"] {
        if let Some(body) = file(tree, path) {
            return Ok(body.read_up_to(LIMIT_BYTES)?.unwrap_or_default());
        }
    }
    Ok(Vec::new())
}

/// The program: to be called as [`removable_path`](super::removable_path) says on an EFI system partition.
///
/// # Errors
/// [`FormatError::Boot`] says why this kernel, command line or initrd cannot be started so.
pub fn uki(parts: &Uki<'_>, watch: Watch<'_>) -> Result<Program, FormatError> {
    let Some((machine, code)) = machine(parts.architecture).zip(code(parts.architecture)) else {
        let instead = "`amd64` and `arm64` are possible";
        return Err(
            BootError::Architecture { firmware: FIRMWARE, architecture: parts.architecture.into(), instead }.into()
        );
    };
    let kernel = EfiKernel::read(&parts.kernel, parts.architecture)?;
    let cmdline = cmdline(parts.cmdline)?;
    let initrd = parts.initrd.as_ref().filter(|initrd| !initrd.is_empty());
    if initrd.is_some() && !kernel.asks_for_initrd {
        return Err(BootError::TooOld { firmware: FIRMWARE, needed: "Linux 5.8" }.into());
    }
    check_length(parts, code)?;
    let inline = |name, bytes: &[u8]| Section { name, content: Body::Inline(bytes.into()) };
    let mut sections = vec![
        inline(".text", code),
        inline(".reloc", &NO_RELOCATIONS),
        inline(".sbat", SBAT),
        inline(".osrel", &parts.os_release),
        inline(".cmdline", cmdline),
    ];
    sections.extend(initrd.map(|initrd| Section { name: ".initrd", content: initrd.clone() }));
    sections.push(Section { name: ".linux", content: parts.kernel.clone() });
    sections.retain(|section| !section.content.is_empty());
    sections[0].content = Body::Inline(patched(code, &kernel, &sections)?.into());
    let mut extents = pe::image(machine, &sections);
    if let Some(signer) = parts.signer {
        signer.sign(&mut extents, watch)?;
    }
    let in_file = |name| place(&sections, name).map(|(start, len)| (pe::FIRST_SECTION + start, len));
    let kernel_at = in_file(".linux").map_or(0, |(at, _)| at);
    Ok(Program { extents, kernel_at, initrd: in_file(".initrd") })
}

/// Where a section starts behind the first one's start, and its length.
fn place(sections: &[Section], name: &str) -> Option<(u64, u64)> {
    let index = sections.iter().position(|section| section.name == name)?;
    let (before, from) = sections.split_at(index);
    let start = before.iter().map(|section| section.content.len().next_multiple_of(pe::ALIGNMENT_BYTES)).sum();
    Some((start, from.first()?.content.len()))
}

fn code(architecture: &str) -> Option<&'static [u8]> {
    match architecture {
        "amd64" => Some(CODE_AMD64),
        "arm64" => Some(CODE_ARM64),
        _ => None,
    }
}

fn check_length(parts: &Uki<'_>, code: &[u8]) -> Result<(), BootError> {
    /// Room for the headers and for the ends of eight sections.
    const SLACK_BYTES: u64 = 16 * pe::ALIGNMENT_BYTES;
    let small = [code.len(), SBAT.len(), parts.os_release.len(), parts.cmdline.len()].iter().sum::<usize>() as u64;
    let limit_bytes = pe::LIMIT_BYTES.saturating_sub(SLACK_BYTES + small + parts.kernel.len());
    let initrd_bytes = parts.initrd.as_ref().map_or(0, Body::len);
    match initrd_bytes <= limit_bytes {
        true => Ok(()),
        false => Err(BootError::LargeInitrd { firmware: FIRMWARE, initrd_bytes, limit_bytes }),
    }
}

/// The code with its table filled in.
fn patched(code: &[u8], kernel: &EfiKernel, sections: &[Section]) -> Result<Vec<u8>, BootError> {
    let (code, _) = code.split_at(code.len() - TABLE_BYTES);
    let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let place = |name| place(sections, name).map_or((0, 0), |(start, len)| (small(start), small(len)));
    let [(linux, _), cmdline, initrd] = [".linux", ".cmdline", ".initrd"].map(place);
    let pages = (kernel.image_bytes + kernel.alignment_bytes - 4096) / 4096;
    let mut table = vec![pages, kernel.alignment_bytes, kernel.image_bytes, kernel.entry];
    table.extend([cmdline.0, cmdline.1, initrd.0, initrd.1]);
    table.extend(kernel.copies.iter().flat_map(|copy| [copy.to, linux + copy.from, copy.bytes]));
    if table.len() * 4 > TABLE_BYTES {
        return Err(BootError::Damaged { what: "number of sections" });
    }
    table.resize(TABLE_BYTES / 4, 0);
    Ok([code, &table.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>()].concat())
}

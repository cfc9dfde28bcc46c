//! What an EFI kernel says about itself: the headers of a PE32+ file (Microsoft's "PE Format").

use super::{BootError, head, stranger};
use crate::format::FormatError;
use crate::tree::Body;

const FIRMWARE: &str = "EFI firmware";
const WANTS: &str = "it has to be an EFI program (a kernel with `CONFIG_EFI_STUB`)";
const PE32_PLUS: u16 = 0x20b;
const SECTION_BYTES: usize = 40;

/// Most memory that a kernel may ask for: ten times what distributions' kernels do.
const IMAGE_LIMIT_BYTES: u32 = 1 << 30;

/// Largest alignment of a kernel in memory.
const ALIGNMENT_LIMIT_BYTES: u32 = 2 << 20;

/// A kernel that EFI firmware can start, and where its parts belong.
#[derive(Debug)]
pub(super) struct EfiKernel {
    /// Memory that it takes, in bytes, with what it clears.
    pub(super) image_bytes: u32,
    /// What its first byte's address is a multiple of: a power of two, at least 4096.
    pub(super) alignment_bytes: u32,
    /// Where it is entered, from its first byte on.
    pub(super) entry: u32,
    /// What to copy where; neighbours are one piece.
    pub(super) copies: Vec<Copy>,
    /// Since Linux 5.8 kernels ask the firmware for their initrd.
    pub(super) asks_for_initrd: bool,
}

/// A piece of the file and its place in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Copy {
    pub(super) to: u32,
    pub(super) from: u32,
    pub(super) bytes: u32,
}

/// What machine a PE file is for, by Go's name of the architecture.
pub(super) fn machine(architecture: &str) -> Option<u16> {
    match architecture {
        "amd64" => Some(0x8664),
        "arm64" => Some(0xaa64),
        _ => None,
    }
}

fn machine_name(machine: u16) -> String {
    match machine {
        0x8664 => "`amd64`".into(),
        0xaa64 => "`arm64`".into(),
        0x014c => "32-bit x86".into(),
        other => format!("machine type {other:#06x}"),
    }
}

impl EfiKernel {
    /// Reads and checks the headers.
    pub(super) fn read(kernel: &Body, architecture: &str) -> Result<Self, FormatError> {
        let head = head(kernel)?;
        let wanted = machine(architecture);
        Ok(Self::parse(&head, kernel.len(), wanted, architecture)?)
    }

    fn parse(head: &[u8], len_bytes: u64, wanted: Option<u16>, architecture: &str) -> Result<Self, BootError> {
        let damaged = |what| BootError::Damaged { what };
        let fields = Fields(head);
        if !head.starts_with(b"MZ") {
            return Err(stranger(head, FIRMWARE, WANTS));
        }
        let pe = fields.long(0x3c).and_then(|at| usize::try_from(at).ok()).filter(|&at| at < head.len());
        let Some(pe) = pe.filter(|&at| head[at..].starts_with(b"PE\0\0")) else {
            return Err(stranger(head, FIRMWARE, WANTS));
        };
        let header = || damaged("PE header");
        let found = fields.word(pe + 4).ok_or_else(header)?;
        let optional = pe + 24;
        if Some(found) != wanted || fields.word(optional) != Some(PE32_PLUS) {
            return Err(BootError::Machine { found: machine_name(found), architecture: architecture.into() });
        }
        let sections = fields.word(pe + 6).ok_or_else(header)?;
        let optional_bytes = fields.word(pe + 20).ok_or_else(header)?;
        let image_bytes = fields.long(optional + 56).ok_or_else(header)?;
        let entry = fields.long(optional + 16).ok_or_else(header)?;
        let alignment_bytes = fields.long(optional + 32).ok_or_else(header)?.max(4096);
        if image_bytes > IMAGE_LIMIT_BYTES || entry >= image_bytes {
            return Err(damaged("length in memory"));
        }
        if !alignment_bytes.is_power_of_two() || alignment_bytes > ALIGNMENT_LIMIT_BYTES {
            return Err(damaged("alignment in memory"));
        }
        let headers_bytes = fields.long(optional + 60).ok_or_else(header)?;
        let mut copies = vec![Copy { to: 0, from: 0, bytes: headers_bytes }];
        let table = optional + usize::from(optional_bytes);
        for at in (0..usize::from(sections)).map(|index| table + index * SECTION_BYTES) {
            let field = |offset| fields.long(at + offset).ok_or_else(|| damaged("section table"));
            let (in_memory, to, in_file, from) = (field(8)?, field(12)?, field(16)?, field(20)?);
            // Zero is what old linkers wrote for "as in the file".
            let bytes = if in_memory == 0 { in_file } else { in_memory.min(in_file) };
            copies.push(Copy { to, from, bytes });
        }
        copies.retain(|copy| copy.bytes > 0);
        for copy in &copies {
            let in_memory = copy.to.checked_add(copy.bytes).is_some_and(|end| end <= image_bytes);
            if !in_memory || u64::from(copy.from) + u64::from(copy.bytes) > len_bytes {
                return Err(damaged("section table"));
            }
        }
        Ok(Self {
            image_bytes: image_bytes.next_multiple_of(4096),
            alignment_bytes,
            entry,
            copies: joined(copies),
            asks_for_initrd: fields.word(optional + 44).ok_or_else(header)? >= 1,
        })
    }
}

/// The same copies, with neighbours joined.
fn joined(copies: Vec<Copy>) -> Vec<Copy> {
    let mut all: Vec<Copy> = Vec::new();
    for copy in copies {
        match all.last_mut() {
            Some(last) if last.to + last.bytes == copy.to && last.from + last.bytes == copy.from => {
                last.bytes += copy.bytes;
            }
            _ => all.push(copy),
        }
    }
    all
}

/// Numbers in a header, if it is so long.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn word(&self, at: usize) -> Option<u16> {
        self.0.get(at..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
    }

    fn long(&self, at: usize) -> Option<u32> {
        self.0.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
    }
}

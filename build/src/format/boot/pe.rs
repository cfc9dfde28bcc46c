//! A PE32+ file for EFI (Microsoft's "PE Format"), laid out so that offsets in the file are those in memory.

use std::io;

use crate::format::Extents;
use crate::tree::Body;

/// What every section starts at a multiple of, in the file and in memory: a page, so that each can be protected on its own.
pub(super) const ALIGNMENT_BYTES: u64 = 4096;

/// Where the first section is: behind the headers.
pub(super) const FIRST_SECTION: u64 = ALIGNMENT_BYTES;

/// Where the headers' parts are.
const PE_OFFSET: usize = 0x40;
const OPTIONAL_OFFSET: usize = PE_OFFSET + 24;
const OPTIONAL_BYTES: usize = 240;
const SECTIONS_OFFSET: usize = OPTIONAL_OFFSET + OPTIONAL_BYTES;
const DIRECTORIES_OFFSET: usize = OPTIONAL_OFFSET + 112;

/// The checksum, which a signature leaves out.
pub(super) const CHECKSUM_OFFSET: u64 = OPTIONAL_OFFSET as u64 + 64;

/// The place of the signatures in the file, which a signature leaves out.
pub(super) const CERTIFICATES_OFFSET: u64 = DIRECTORIES_OFFSET as u64 + 4 * 8;

const RELOCATIONS_OFFSET: usize = DIRECTORIES_OFFSET + 5 * 8;

const CODE: u32 = 0x6000_0020;
const DATA: u32 = 0x4000_0040;
const DISCARDABLE: u32 = 0x0200_0000;

/// Most that a file may take: a field for its length has 32 bits, of which some firmware takes one for the sign.
pub(super) const LIMIT_BYTES: u64 = i32::MAX as u64;

/// One section: a name of at most eight bytes, and what is in it.
pub(super) struct Section {
    pub(super) name: &'static str,
    pub(super) content: Body,
}

/// An EFI program with these sections in this order. The first is code and starts with the first instruction; a section
/// called `.reloc` is the table of relocations. All of it must be shorter than [`LIMIT_BYTES`].
pub(super) fn image(machine: u16, sections: &[Section]) -> Extents {
    let mut extents = Extents::default();
    let mut headers = vec![0; SECTIONS_OFFSET];
    let mut at = FIRST_SECTION;
    let mut code_bytes = 0;
    for (index, section) in sections.iter().enumerate() {
        let len = section.content.len();
        let padded = len.next_multiple_of(ALIGNMENT_BYTES);
        let characteristics = match section.name {
            _ if index == 0 => CODE,
            ".reloc" => DATA | DISCARDABLE,
            _ => DATA,
        };
        if index == 0 {
            code_bytes = padded;
        }
        if section.name == ".reloc" {
            put(&mut headers, RELOCATIONS_OFFSET, &long(at));
            put(&mut headers, RELOCATIONS_OFFSET + 4, &long(len));
        }
        let mut name = [0; 8];
        name[..section.name.len()].copy_from_slice(section.name.as_bytes());
        headers.extend(name);
        for field in [long(len), long(at), long(padded), long(at), [0; 4], [0; 4], [0; 4]] {
            headers.extend(field);
        }
        headers.extend(characteristics.to_le_bytes());
        extents.put(at, section.content.clone());
        at += padded;
    }
    extents.extend_to(at);
    fill(&mut headers, machine, sections.len(), code_bytes, at);
    extents.put_bytes(0, headers);
    extents
}

/// The same file with `certificates` at its end. Their length is a multiple of eight.
pub(super) fn with_certificates(image: &Extents, certificates: &[u8]) -> io::Result<Extents> {
    let mut signed = Extents::default();
    for (at, body) in image.bodies() {
        if at > 0 {
            signed.put(at, body.clone());
            continue;
        }
        let mut headers = vec![0; usize::try_from(body.len()).unwrap_or(0)];
        body.read_exact_at(&mut headers, 0)?;
        let entry = DIRECTORIES_OFFSET + 4 * 8;
        put(&mut headers, entry, &long(image.len_bytes()));
        put(&mut headers, entry + 4, &long(certificates.len() as u64));
        signed.put_bytes(0, headers);
    }
    signed.extend_to(image.len_bytes());
    signed.put_bytes(image.len_bytes(), certificates);
    Ok(signed)
}

/// All but the sections.
fn fill(headers: &mut [u8], machine: u16, sections: usize, code_bytes: u64, image_bytes: u64) {
    const EXECUTABLE: u16 = 2;
    const LARGE_ADDRESSES: u16 = 0x20;
    const DEBUG_STRIPPED: u16 = 0x200;
    const PE32_PLUS: u16 = 0x20b;
    const EFI_APPLICATION: u16 = 10;
    const NX_COMPATIBLE: u16 = 0x100;
    const DIRECTORIES: u32 = 16;
    put(headers, 0, b"MZ");
    put(headers, 0x3c, &long(PE_OFFSET as u64));
    put(headers, PE_OFFSET, b"PE\0\0");
    put(headers, PE_OFFSET + 4, &machine.to_le_bytes());
    put(headers, PE_OFFSET + 6, &short(sections));
    put(headers, PE_OFFSET + 20, &short(OPTIONAL_BYTES));
    put(headers, PE_OFFSET + 22, &(EXECUTABLE | LARGE_ADDRESSES | DEBUG_STRIPPED).to_le_bytes());
    let mut optional = |offset: usize, bytes: &[u8]| put(headers, OPTIONAL_OFFSET + offset, bytes);
    optional(0, &PE32_PLUS.to_le_bytes());
    optional(4, &long(code_bytes));
    optional(8, &long(image_bytes - FIRST_SECTION - code_bytes));
    optional(16, &long(FIRST_SECTION));
    optional(20, &long(FIRST_SECTION));
    optional(32, &long(ALIGNMENT_BYTES));
    optional(36, &long(ALIGNMENT_BYTES));
    optional(56, &long(image_bytes));
    optional(60, &long(FIRST_SECTION));
    optional(68, &EFI_APPLICATION.to_le_bytes());
    optional(70, &NX_COMPATIBLE.to_le_bytes());
    optional(108, &DIRECTORIES.to_le_bytes());
}

fn put(headers: &mut [u8], at: usize, bytes: &[u8]) {
    headers[at..at + bytes.len()].copy_from_slice(bytes);
}

/// A number that [`LIMIT_BYTES`] keeps small enough.
fn long(number: u64) -> [u8; 4] {
    u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes()
}

fn short(number: usize) -> [u8; 2] {
    u16::try_from(number).unwrap_or(u16::MAX).to_le_bytes()
}

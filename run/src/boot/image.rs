//! Tells what a kernel file is, from its first bytes.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use super::Error;
use super::bzimage::{HEADER_END, Header};

/// More program headers than any kernel has.
const MAX_PROGRAM_HEADERS: u16 = 256;
/// Notes beyond this are not read, in bytes: a kernel has a few hundred.
const MAX_NOTES_BYTES: u64 = 64 * 1024;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const MACHINE_X86_64: u16 = 62;
/// `XEN_ELFNOTE_PHYS32_ENTRY`.
const NOTE_PVH_ENTRY: u32 = 18;

/// A kernel file that was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Image {
    /// What it is.
    pub kind: ImageKind,
    /// First guest address that it leaves free, as far as its headers tell.
    pub end: u64,
}

/// What a kernel file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageKind {
    /// An uncompressed ELF file.
    Elf {
        /// It has the note that PVH boot needs.
        has_pvh_entry: bool,
    },
    /// A bzImage.
    BzImage(Header),
}

/// Why a file is no kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAKernel {
    /// Neither magic number.
    #[error("it is neither a bzImage nor an ELF file")]
    Unknown,
    /// The file ends within its headers.
    #[error("it ends within its headers")]
    Short,
    /// An ELF file of something else.
    #[error("it is an ELF file, but not of a 64-bit x86 kernel")]
    OtherElf,
    /// A bzImage older than 2013.
    #[error("it is a bzImage of boot protocol {}.{}, at least 2.12 is needed", version >> 8, version & 0xFF)]
    TooOld {
        /// Its protocol version.
        version: u16,
    },
    /// A bzImage or ELF that wants to be where no kernel can be.
    #[error("it wants to be loaded at {address:#x}")]
    LoadAddress {
        /// The address.
        address: u64,
    },
}

/// Looks at the kernel file `path`.
pub fn inspect(path: &Path) -> Result<Image, Error> {
    let read_error = |source| Error::Read { path: path.into(), source };
    let not_a_kernel = |source| Error::NotAKernel { path: path.into(), source };
    let mut file = File::open(path).map_err(read_error)?;
    let mut start = Vec::with_capacity(HEADER_END);
    (&mut file).take(HEADER_END as u64).read_to_end(&mut start).map_err(read_error)?;
    if Header::is_claimed_by(&start) {
        let header = Header::parse(&start).map_err(not_a_kernel)?;
        return Ok(Image { kind: ImageKind::BzImage(header), end: header.end() });
    }
    if !start.starts_with(b"\x7fELF") {
        return Err(not_a_kernel(NotAKernel::Unknown));
    }
    let elf = read_elf(&mut file).map_err(|trouble| match trouble {
        Trouble::Read(source) => read_error(source),
        Trouble::Form(source) => not_a_kernel(source),
    })?;
    Ok(Image { kind: ImageKind::Elf { has_pvh_entry: elf.pvh_entry.is_some() }, end: elf.end })
}

/// The PVH entry of an ELF kernel, if it has one.
pub(super) fn pvh_entry_of_elf(file: &mut File) -> Result<Option<u32>, Trouble> {
    read_elf(file).map(|elf| elf.pvh_entry)
}

/// Why an ELF file could not be looked at.
#[derive(Debug)]
pub(super) enum Trouble {
    Read(io::Error),
    Form(NotAKernel),
}

struct ElfFacts {
    end: u64,
    pvh_entry: Option<u32>,
}

fn read_elf(file: &mut File) -> Result<ElfFacts, Trouble> {
    let header: [u8; 64] = read_at(file, 0)?;
    let (class, order) = (header[4], header[5]);
    let machine = u16::from_le_bytes([header[18], header[19]]);
    let entry_bytes = u16::from_le_bytes([header[54], header[55]]);
    let count = u16::from_le_bytes([header[56], header[57]]);
    let is_64bit_little_endian = class == 2 && order == 1;
    if !is_64bit_little_endian || machine != MACHINE_X86_64 || entry_bytes != 56 || count > MAX_PROGRAM_HEADERS {
        return Err(Trouble::Form(NotAKernel::OtherElf));
    }
    let table = le64(&header, 32);
    let mut facts = ElfFacts { end: 0, pvh_entry: None };
    for index in 0..u64::from(count) {
        let offset = table.checked_add(index * 56).ok_or(Trouble::Form(NotAKernel::Short))?;
        let program: [u8; 56] = read_at(file, offset)?;
        let [a, b, c, d, ..] = program;
        match u32::from_le_bytes([a, b, c, d]) {
            PT_LOAD => {
                let (address, bytes) = (le64(&program, 24), le64(&program, 40));
                let end = address.checked_add(bytes).ok_or(Trouble::Form(NotAKernel::LoadAddress { address }))?;
                facts.end = facts.end.max(end);
            }
            PT_NOTE => {
                let (offset, bytes) = (le64(&program, 8), le64(&program, 32));
                facts.pvh_entry = facts.pvh_entry.or(find_note(file, offset, bytes)?);
            }
            _ => {}
        }
    }
    if facts.end == 0 { Err(Trouble::Form(NotAKernel::OtherElf)) } else { Ok(facts) }
}

/// Walks the notes for Xen's entry note. Each note is three words (name length, contents length, kind), the name and
/// the contents, each padded to four bytes.
fn find_note(file: &mut File, offset: u64, bytes: u64) -> Result<Option<u32>, Trouble> {
    let mut notes = Vec::new();
    file.seek(SeekFrom::Start(offset)).map_err(Trouble::Read)?;
    file.take(bytes.min(MAX_NOTES_BYTES)).read_to_end(&mut notes).map_err(Trouble::Read)?;
    let mut rest = notes.as_slice();
    while let Some((head, after)) = rest.split_first_chunk::<12>() {
        let [n0, n1, n2, n3, c0, c1, c2, c3, k0, k1, k2, k3] = *head;
        let padded = |len: u32| usize::try_from(u64::from(len).next_multiple_of(4)).unwrap_or(usize::MAX);
        let name_len = padded(u32::from_le_bytes([n0, n1, n2, n3]));
        let contents_len = padded(u32::from_le_bytes([c0, c1, c2, c3]));
        let Some((name, after)) = after.split_at_checked(name_len) else { break };
        let Some((contents, after)) = after.split_at_checked(contents_len) else { break };
        if u32::from_le_bytes([k0, k1, k2, k3]) == NOTE_PVH_ENTRY && name.starts_with(b"Xen\0") {
            return Ok(contents.first_chunk().map(|entry| u32::from_le_bytes(*entry)));
        }
        rest = after;
    }
    Ok(None)
}

fn read_at<const N: usize>(file: &mut File, offset: u64) -> Result<[u8; N], Trouble> {
    let mut bytes = [0; N];
    file.seek(SeekFrom::Start(offset)).map_err(Trouble::Read)?;
    match file.read_exact(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(Trouble::Form(NotAKernel::Short)),
        Err(error) => Err(Trouble::Read(error)),
    }
}

/// Eight bytes at a fixed place of a fixed header.
fn le64<const N: usize>(header: &[u8; N], at: usize) -> u64 {
    header.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;

    use super::*;
    use crate::boot::bzimage::tests::bzimage;

    /// A kernel of `code` at 1 MiB with a PVH entry there.
    pub fn elf_kernel(code: &[u8]) -> Vec<u8> {
        let mut elf = vec![0u8; 64];
        elf[..4].copy_from_slice(b"\x7fELF");
        elf[4] = 2;
        elf[5] = 1;
        elf[18] = 62;
        elf[24..32].copy_from_slice(&0x10_0000u64.to_le_bytes());
        elf[32..40].copy_from_slice(&64u64.to_le_bytes());
        elf[54] = 56;
        elf[56] = 2;
        let code_offset = 64 + 2 * 56 + 20u64;
        let len = code.len() as u64;
        for (kind, offset, address, bytes) in [(PT_NOTE, 64 + 2 * 56, 0, 20), (PT_LOAD, code_offset, 0x10_0000u64, len)]
        {
            elf.extend(kind.to_le_bytes());
            elf.extend(0u32.to_le_bytes());
            for word in [offset, address, address, bytes, bytes, 4] {
                elf.extend(word.to_le_bytes());
            }
        }
        for word in [4, 4, NOTE_PVH_ENTRY] {
            elf.extend(word.to_le_bytes());
        }
        elf.extend(b"Xen\0");
        elf.extend(0x10_0000u32.to_le_bytes());
        elf.extend(code);
        elf
    }

    fn inspected(bytes: &[u8]) -> Result<Image, Error> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        inspect(file.path())
    }

    #[test]
    fn what_is_no_kernel_is_told_apart() {
        let mut arm = elf_kernel(&[]);
        arm[18] = 183;
        for (bytes, expected) in [
            (b"".as_slice(), NotAKernel::Unknown),
            (b"#!/bin/sh\n", NotAKernel::Unknown),
            (b"\x7fELF", NotAKernel::Short),
            (&arm, NotAKernel::OtherElf),
        ] {
            let Err(Error::NotAKernel { source, .. }) = inspected(bytes) else { panic!("{bytes:?}") };
            assert_eq!(source, expected);
        }
    }

    #[test]
    fn an_elf_cut_off_or_damaged_anywhere_never_panics() {
        let whole = elf_kernel(&[0xF4; 8]);
        for len in 0..whole.len() {
            let _ = inspected(&whole[..len]);
            let mut damaged = whole.clone();
            damaged[len] = 0xFF;
            let _ = inspected(&damaged);
        }
    }

    #[test]
    fn both_kinds_of_kernel_are_known() {
        let elf = inspected(&elf_kernel(&[0xF4; 8])).unwrap();
        assert_eq!(elf, Image { kind: ImageKind::Elf { has_pvh_entry: true }, end: 0x10_0008 });
        let image = inspected(&bzimage(&[1, 2, 3])).unwrap();
        assert!(matches!(image.kind, ImageKind::BzImage(header) if header.payload() == (1024, 3)));
        assert_eq!(image.end, 24 << 20);
    }
}

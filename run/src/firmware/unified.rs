//! Images that `kiln build` made, taken apart: the kernel, initial RAM disk and command line that are in their one EFI program (a
//! unified kernel image, as the UAPI group's specification of that name has it). A machine that is given them starts without
//! firmware, and sooner.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::fat::{Found, Volume};
use super::media::volumes;

/// Where the program is, as folders have the names.
const PROGRAM: [&[u8; 11]; 3] = [b"EFI        ", b"BOOT       ", b"BOOTX64 EFI"];
/// In its section `.sbat`: it is ours, and so there is nothing in it but what its other sections say.
const OURS: &[u8] = b"\nkiln,1,kiln,";
/// Most bytes of that section, and of a command line.
const MOST_TEXT_BYTES: u64 = 4096;
/// Most sections; ours have seven.
const MOST_SECTIONS: u64 = 32;
/// Bytes that are copied at once.
const PIECE: usize = 1 << 20;

/// Where a PE file has the start of its header, and what is there (PE format, "Signature", "COFF File Header").
const HEADER_AT: u64 = 0x3C;
const SIGNATURE: &[u8] = b"PE\0\0";
const COFF_BYTES: u64 = 24;
const SECTION_BYTES: u64 = 40;

/// What was taken out of an image.
#[derive(Debug)]
pub struct Unified {
    /// The kernel, a file without a name.
    pub kernel: File,
    /// The initial RAM disk, if there is one, without a name too.
    pub initrd: Option<File>,
    /// The command line.
    pub cmdline: String,
}

/// Takes apart the image at `path`, whose bytes are those of the medium. `None` if it is not one that `kiln build` made: that
/// may start anything else first.
///
/// # Errors
/// It cannot be read, or there is no room for the parts where temporary files go.
pub fn unified(path: &Path) -> io::Result<Option<Unified>> {
    let file = File::open(path)?;
    for start in volumes(&file)? {
        let Some(volume) = Volume::at(&file, start)? else { continue };
        let Some(found) = volume.find(&PROGRAM)? else { continue };
        return Program { file: &file, found }.take_apart();
    }
    Ok(None)
}

/// A section's name and place.
type Section = ([u8; 8], Range<u64>);

struct Program<'a> {
    file: &'a File,
    found: Found,
}

impl Program<'_> {
    fn take_apart(&self) -> io::Result<Option<Unified>> {
        let Some(sections) = self.sections()? else { return Ok(None) };
        let section = |name: &[u8; 8]| sections.iter().find(|(found, _)| found == name).map(|(_, range)| range.clone());
        let text = |name| match section(name) {
            Some(range) if range.end - range.start <= MOST_TEXT_BYTES => {
                self.read(range.start, range.end - range.start)
            }
            _ => Ok(None),
        };
        let is_ours = text(b".sbat\0\0\0")?.is_some_and(|text| text.windows(OURS.len()).any(|part| part == OURS));
        let Some(kernel) = section(b".linux\0\0").filter(|_| is_ours) else { return Ok(None) };
        let cmdline = text(b".cmdline")?.unwrap_or_default();
        let cmdline = String::from_utf8_lossy(&cmdline).trim_end_matches('\0').trim().to_owned();
        let initrd = section(b".initrd\0").map(|range| self.copy(&range)).transpose()?;
        Ok(Some(Unified { kernel: self.copy(&kernel)?, initrd, cmdline }))
    }

    /// Names and places of all sections; `None` if it is no such program, or one that is cut off.
    fn sections(&self) -> io::Result<Option<Vec<Section>>> {
        let Some(at) = self.read(HEADER_AT, 4)?.and_then(|bytes| number(&bytes, 0)) else { return Ok(None) };
        let Some(header) = self.read(at, COFF_BYTES)?.filter(|header| header.starts_with(SIGNATURE)) else {
            return Ok(None);
        };
        let half = |at: usize| header.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |n| u16::from_le_bytes(*n));
        let (count, optional) = (u64::from(half(6)).min(MOST_SECTIONS), u64::from(half(20)));
        let table = self.read(at + COFF_BYTES + optional, count * SECTION_BYTES)?.unwrap_or_default();
        let mut sections = vec![];
        for entry in table.chunks(usize::try_from(SECTION_BYTES).unwrap_or(1)) {
            let (Some(name), Some(used), Some(stored), Some(start)) =
                (entry.first_chunk(), number(entry, 8), number(entry, 16), number(entry, 20))
            else {
                return Ok(None);
            };
            let end = start + used.min(stored);
            if end > self.found.len {
                return Ok(None);
            }
            sections.push((*name, start..end));
        }
        Ok(Some(sections))
    }

    /// `len` bytes at `offset` of the program; `None` if it ends before.
    fn read(&self, offset: u64, len: u64) -> io::Result<Option<Vec<u8>>> {
        if offset.checked_add(len).is_none_or(|end| end > self.found.len) {
            return Ok(None);
        }
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        let (mut done, mut skip) = (0, offset);
        for piece in &self.found.pieces {
            let has = piece.end - piece.start;
            let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) else { break };
            if skip >= has {
                skip -= has;
                continue;
            }
            let here = rest.len().min(usize::try_from(has - skip).unwrap_or(usize::MAX));
            match self.file.read_exact_at(rest.get_mut(..here).unwrap_or_default(), piece.start + skip) {
                Ok(()) => done += here,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                Err(error) => return Err(error),
            }
            skip = 0;
        }
        Ok((done == bytes.len()).then_some(bytes))
    }

    /// A copy of a part, in a file without a name.
    fn copy(&self, range: &Range<u64>) -> io::Result<File> {
        let copy = tempfile::tempfile()?;
        let mut at = range.start;
        while at < range.end {
            let len = (range.end - at).min(PIECE as u64);
            let piece = self.read(at, len)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            copy.write_all_at(&piece, at - range.start)?;
            at += len;
        }
        Ok(copy)
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|number| u64::from(u32::from_le_bytes(*number)))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::super::fat::tests::image;
    use super::*;

    /// A program with these sections.
    fn program(sections: &[(&[u8; 8], &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0; 1024];
        bytes[..2].copy_from_slice(b"MZ");
        bytes[0x3C] = 0x80;
        bytes[0x80..0x84].copy_from_slice(SIGNATURE);
        bytes[0x86] = u8::try_from(sections.len()).unwrap();
        bytes[0x94] = 16;
        for (at, (name, contents)) in sections.iter().enumerate() {
            let entry = 0x80 + 24 + 16 + 40 * at;
            let start = u32::try_from(bytes.len()).unwrap();
            let len = u32::try_from(contents.len()).unwrap();
            bytes[entry..entry + 8].copy_from_slice(*name);
            bytes[entry + 8..entry + 12].copy_from_slice(&len.to_le_bytes());
            bytes[entry + 16..entry + 20].copy_from_slice(&len.next_multiple_of(512).to_le_bytes());
            bytes[entry + 20..entry + 24].copy_from_slice(&start.to_le_bytes());
            bytes.extend(*contents);
            bytes.resize(bytes.len().next_multiple_of(512), 0);
        }
        bytes
    }

    fn taken(program: &[u8]) -> Option<Unified> {
        let file = image(0, 2 << 20, program);
        unified(Path::new(&format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file)))).unwrap()
    }

    fn contents(mut file: File) -> Vec<u8> {
        let mut bytes = vec![];
        file.read_to_end(&mut bytes).unwrap();
        bytes
    }

    const SBAT: (&[u8; 8], &[u8]) = (b".sbat\0\0\0", b"sbat,1,x\nkiln,1,kiln,kiln-stub,1,u\n");

    #[test]
    fn programs_of_others_and_programs_cut_off_are_left_alone() {
        let linux: (&[u8; 8], &[u8]) = (b".linux\0\0", &[1; 9000]);
        let whole = program(&[SBAT, linux]);
        assert!(taken(&whole).is_some());
        for bytes in [vec![], b"MZ".to_vec(), vec![0xFF; 5000], program(&[linux]), program(&[SBAT])] {
            assert!(taken(&bytes).is_none());
        }
        for len in [0x40, 0x80, 0x90, 0xB0, 1030, whole.len() - 600] {
            assert!(taken(&whole[..len]).is_none(), "{len}");
        }
    }

    #[test]
    fn the_parts_come_out_as_they_went_in() {
        let (kernel, initrd): (Vec<u8>, Vec<u8>) =
            ((0..15_000_u32).flat_map(u32::to_le_bytes).collect(), vec![9; 3000]);
        let sections: [(&[u8; 8], &[u8]); 4] =
            [SBAT, (b".cmdline", b"console=ttyS0 quiet\n"), (b".initrd\0", &initrd), (b".linux\0\0", &kernel)];
        let parts = taken(&program(&sections)).unwrap();
        assert_eq!(parts.cmdline, "console=ttyS0 quiet");
        assert_eq!(contents(parts.kernel), kernel);
        assert_eq!(contents(parts.initrd.unwrap()), initrd);
    }
}

//! A tar stream whose long names have a limit. The reader of archives keeps a name, and what POSIX calls extended headers,
//! in memory as a whole, however long the other side says that they are.

use std::io::{self, Read};

/// Blocks of a tar stream.
const BLOCK_BYTES: usize = 512;
/// Longest name, target of a link or extended header, in bytes: some of Linux' longest paths.
const MOST_BYTES: u64 = 64 * 1024;
/// Places in a header: its size and type (POSIX.1-1988, `ustar`).
const SIZE: std::ops::Range<usize> = 124..136;
const KIND: usize = 156;
/// Types that are kept in memory: GNU's long names and targets, POSIX' headers of one entry and of all.
const KEPT: &[u8] = b"LKxg";

/// Passes on a stream, and fails where a header asks for too much.
pub(crate) struct Bounded<R> {
    from: R,
    header: Vec<u8>,
    /// Bytes of contents until the next header.
    contents: u64,
}

impl<R: Read> Bounded<R> {
    pub(crate) fn new(from: R) -> Self {
        Self { from, header: Vec::with_capacity(BLOCK_BYTES), contents: 0 }
    }

    fn look(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.contents > 0 {
                let skipped = usize::try_from(self.contents).map_or(bytes.len(), |contents| contents.min(bytes.len()));
                self.contents -= skipped as u64;
                bytes = bytes.get(skipped..).unwrap_or_default();
                continue;
            }
            let (more, rest) = bytes.split_at((BLOCK_BYTES - self.header.len()).min(bytes.len()));
            self.header.extend(more);
            bytes = rest;
            if self.header.len() == BLOCK_BYTES {
                let size = size(self.header.get(SIZE).unwrap_or_default()).ok_or(io::ErrorKind::InvalidData)?;
                if size > MOST_BYTES && self.header.get(KIND).is_none_or(|kind| KEPT.contains(kind)) {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "a name is too long"));
                }
                self.contents = size.checked_next_multiple_of(BLOCK_BYTES as u64).ok_or(io::ErrorKind::InvalidData)?;
                self.header.clear();
            }
        }
        Ok(())
    }
}

/// A size in octal digits, or, with the first bit set, as a number of 95 bits.
fn size(field: &[u8]) -> Option<u64> {
    let (first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        let number = rest.iter().fold(u128::from(first & 0x7F), |number, byte| number << 8 | u128::from(*byte));
        return u64::try_from(number).ok();
    }
    let text = std::str::from_utf8(field).ok()?.trim_matches([' ', '\0']);
    if text.is_empty() { Some(0) } else { u64::from_str_radix(text, 8).ok() }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.from.read(buffer)?;
        self.look(buffer.get(..len).unwrap_or_default())?;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(kind: u8, size: &[u8]) -> Vec<u8> {
        let mut header = vec![0; BLOCK_BYTES];
        header[KIND] = kind;
        header[SIZE.start..SIZE.start + size.len()].copy_from_slice(size);
        header
    }

    fn passes(stream: &[u8]) -> bool {
        let mut all = vec![];
        Bounded::new(stream).read_to_end(&mut all).is_ok_and(|_| all == stream)
    }

    #[test]
    fn only_contents_may_be_long() {
        for (kind, size, good) in [
            (b'0', &b"77777777777\0"[..], true),
            (b'L', b"00000200000\0", true),
            (b'L', b"00000200001\0", false),
            (b'K', b"77777777777\0", false),
            (b'x', b"\x80\0\0\0\0\0\0\x01\0\0\0\0", false),
            (b'0', b"\x80\0\0\0\0\0\0\x01\0\0\0\0", true),
            (b'0', b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", false),
            (b'0', b"none", false),
        ] {
            assert_eq!(passes(&header(kind, size)), good, "{kind} {size:?}");
        }
    }

    #[test]
    fn contents_are_no_headers() {
        let mut stream = header(b'0', b"1000");
        stream.extend(header(b'L', b"77777777777\0"));
        stream.extend(header(b'0', b"0"));
        assert!(passes(&stream));
        stream.extend(header(b'L', b"77777777777\0"));
        assert!(!passes(&stream));
    }
}

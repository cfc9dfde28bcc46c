//! A file that is put together of pieces: each knows where it stands and where its bytes are, and between them are zeros.
//! Disk images are laid out so, before a byte is copied; large files in them stay where they are until then.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

use super::{FormatError, Sink, Watch, copy};
use crate::tree::Body;

/// Where every byte of a file comes from.
#[derive(Debug, Clone, Default)]
pub struct Extents {
    len_bytes: u64,
    /// By the offset of their first byte. None is empty, none overlap.
    bodies: BTreeMap<u64, Body>,
}

impl Extents {
    /// Length of the file, in bytes.
    pub fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Makes it at least so long.
    pub fn extend_to(&mut self, len_bytes: u64) {
        self.len_bytes = self.len_bytes.max(len_bytes);
    }

    /// Puts `body` at `offset_bytes`, where nothing is yet.
    pub fn put(&mut self, offset_bytes: u64, body: Body) {
        let end = offset_bytes + body.len();
        debug_assert!(self.is_free(offset_bytes, body.len()), "two pieces at {offset_bytes}");
        self.extend_to(end);
        if !body.is_empty() {
            self.bodies.insert(offset_bytes, body);
        }
    }

    /// Puts bytes from memory at `offset_bytes`, where nothing is yet.
    pub fn put_bytes(&mut self, offset_bytes: u64, bytes: impl AsRef<[u8]>) {
        self.put(offset_bytes, Body::Inline(bytes.as_ref().into()));
    }

    /// Puts all of another file at `offset_bytes`, where nothing is yet.
    pub fn put_extents(&mut self, offset_bytes: u64, other: &Self) {
        self.extend_to(offset_bytes + other.len_bytes);
        for (at, body) in &other.bodies {
            self.put(offset_bytes + at, body.clone());
        }
    }

    /// Puts what is in these bytes of another file at `offset_bytes`, where nothing is yet; behind its end is nothing.
    pub fn put_range(&mut self, offset_bytes: u64, other: &Self, range: Range<u64>) {
        let first = other.bodies.range(..=range.start).next_back().map_or(range.start, |(at, _)| *at);
        for (&at, body) in other.bodies.range(first..range.end) {
            let (from, to) = (at.max(range.start), (at + body.len()).min(range.end));
            let part = to.checked_sub(from).and_then(|len| body.slice(from - at, len));
            if let Some(part) = part {
                self.put(offset_bytes + from - range.start, part);
            }
        }
        self.extend_to(offset_bytes + range.end - range.start);
    }

    /// Whether only zeros of no piece are in these bytes.
    pub fn is_free(&self, offset_bytes: u64, len_bytes: u64) -> bool {
        let before = self.bodies.range(..offset_bytes.saturating_add(len_bytes)).next_back();
        len_bytes == 0 || before.is_none_or(|(at, body)| at + body.len() <= offset_bytes)
    }

    /// Fills `buffer` from `offset_bytes` on; behind the end are zeros.
    pub fn read_at(&self, buffer: &mut [u8], offset_bytes: u64) -> io::Result<()> {
        buffer.fill(0);
        let end = offset_bytes.saturating_add(buffer.len() as u64);
        let first = self.bodies.range(..=offset_bytes).next_back().map_or(offset_bytes, |(at, _)| *at);
        for (&at, body) in self.bodies.range(first..end) {
            let from = at.max(offset_bytes);
            let to = (at + body.len()).min(end);
            if from < to {
                let place = offset_in(buffer, from - offset_bytes)..offset_in(buffer, to - offset_bytes);
                body.read_exact_at(&mut buffer[place], from - at)?;
            }
        }
        Ok(())
    }

    /// The pieces with their offsets, in order.
    pub fn bodies(&self) -> impl Iterator<Item = (u64, &Body)> {
        self.bodies.iter().map(|(at, body)| (*at, body))
    }

    /// Appends all of it to `sink`, zeros as holes where that can be.
    pub fn write(&self, sink: &mut dyn Sink, watch: Watch<'_>) -> Result<(), FormatError> {
        let mut done = 0;
        for (at, body) in self.bodies() {
            sink.skip(at - done)?;
            copy(body, sink, watch)?;
            done = at + body.len();
        }
        Ok(sink.skip(self.len_bytes - done)?)
    }
}

impl From<Body> for Extents {
    fn from(body: Body) -> Self {
        let mut extents = Self::default();
        extents.put(0, body);
        extents
    }
}

/// An offset that is at most the buffer's length.
fn offset_in(buffer: &[u8], offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX).min(buffer.len())
}

#[cfg(test)]
mod tests {
    use super::super::{FileSink, StreamSink};
    use super::*;
    use crate::cancel::Cancel;
    use crate::progress::Silent;
    use std::os::unix::fs::MetadataExt;

    fn sample() -> Extents {
        let mut inner = Extents::default();
        inner.put_bytes(3, b"inner");
        inner.extend_to(10);
        let mut extents = Extents::from(Body::Inline(b"head".as_slice().into()));
        extents.put_extents(1 << 20, &inner);
        extents.put_bytes(6, b"six");
        extents.put_bytes(50, b"");
        extents
    }

    #[test]
    fn what_is_read_anywhere_is_what_is_written() {
        let extents = sample();
        let watch = Watch { cancel: &Cancel::default(), meter: &Silent, folder: &std::env::temp_dir() };
        let mut stream = StreamSink(Vec::new());
        extents.write(&mut stream, watch).unwrap();
        assert_eq!(stream.0.len() as u64, extents.len_bytes());
        assert_eq!(stream.0[..12], *b"head\0\0six\0\0\0");
        assert_eq!(stream.0[1 << 20..], *b"\0\0\0inner\0\0");
        for (offset, len) in [(0, 12), (2, 5), (7, 1), (9, 100), ((1 << 20) - 2, 9), ((1 << 20) + 4, 1)] {
            let mut buffer = vec![0xff; len];
            extents.read_at(&mut buffer, offset).unwrap();
            let start = usize::try_from(offset).unwrap();
            assert_eq!(buffer, stream.0[start..start + len], "{offset}");
        }
        let mut behind = [0xff; 4];
        extents.read_at(&mut behind, extents.len_bytes() - 2).unwrap();
        assert_eq!(behind, [0; 4]);

        let file = tempfile::NamedTempFile::new().unwrap();
        let mut sink = FileSink::new(file.reopen().unwrap());
        extents.write(&mut sink, watch).unwrap();
        sink.finish().unwrap();
        assert_eq!(std::fs::read(file.path()).unwrap(), stream.0);
        assert!(file.path().metadata().unwrap().blocks() * 512 < 1 << 19, "zeros are holes");
    }

    #[test]
    fn a_range_holds_what_was_there() {
        let extents = sample();
        for range in [0..12, 2..7, 4..6, 7..8, (1 << 20)..(1 << 20) + 10, 0..1 << 20, 5..(1 << 20) + 5, 8..8] {
            let mut moved = Extents::default();
            moved.put_range(3, &extents, range.clone());
            assert_eq!(moved.len_bytes(), 3 + range.end - range.start);
            let mut expected = vec![0; usize::try_from(range.end - range.start).unwrap()];
            let mut found = expected.clone();
            extents.read_at(&mut expected, range.start).unwrap();
            moved.read_at(&mut found, 3).unwrap();
            assert!(found == expected, "{range:?}");
        }
    }

    #[test]
    fn what_is_taken_is_known() {
        let extents = sample();
        for (offset, len, free) in
            [(4, 2, true), (4, 3, false), (0, 1, false), (9, 40, true), (0, 0, true), (7, 1, false)]
        {
            assert_eq!(extents.is_free(offset, len), free, "{offset} {len}");
        }
    }
}

//! Takes the vmlinux out of a bzImage, whichever way it was packed.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::bzimage::Header;

/// A kernel unpacks to at most this many bytes: ten times what distributions ship.
const MAX_VMLINUX_BYTES: u64 = 512 << 20;
/// The legacy LZ4 format's blocks unpack to at most this many bytes.
const LZ4_BLOCK_BYTES: usize = 8 << 20;
/// A packed block can be larger than an unpacked one by this: LZ4's own bound for data that does not shrink.
const LZ4_PACKED_MAX: u32 = (8 << 20) + (8 << 20) / 255 + 16;
/// Memory that an xz stream may ask for, in bytes: kernels are packed with dictionaries of 32 MiB (128 since 6.12).
const XZ_MEMORY_BYTES: u64 = 160 << 20;
/// Largest window of a zstd stream, as a power of two: kernels are packed with 128 MiB.
const ZSTD_WINDOW_LOG: u32 = 27;

/// Why a kernel could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Reading the image or writing the result failed, or the packed data is damaged.
    #[error("cannot unpack `{}`", path.display())]
    Io {
        /// The image.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// Packed in a way that is not known here (bzip2, LZMA, LZO).
    #[error("`{}` is packed in an unknown way", path.display())]
    UnknownPacking {
        /// The image.
        path: PathBuf,
    },
    /// It would become larger than any kernel.
    #[error("`{}` unpacks to more than {MAX_VMLINUX_BYTES} bytes", path.display())]
    TooLarge {
        /// The image.
        path: PathBuf,
    },
    /// It unpacks to another size than it says.
    #[error("`{}` unpacks to {found} bytes, but says that it should be {stated}", path.display())]
    WrongSize {
        /// The image.
        path: PathBuf,
        /// Bytes that came out.
        found: u64,
        /// The size at the payload's end, which is modulo 2^32.
        stated: u32,
    },
}

/// Writes the vmlinux inside the bzImage at `path` to `output`; returns its size.
pub(super) fn unpack(path: &Path, header: &Header, output: &mut impl Write) -> Result<u64, Error> {
    let failed = |source| Error::Io { path: path.into(), source };
    let (offset, len) = header.payload();
    let mut file = File::open(path).map_err(failed)?;
    file.seek(SeekFrom::Start(offset)).map_err(failed)?;
    let mut magic = [0; 6];
    file.read_exact(&mut magic).map_err(failed)?;
    file.seek(SeekFrom::Start(offset)).map_err(failed)?;
    let packed = BufReader::with_capacity(64 * 1024, file.take(len));
    let (reader, has_size): (Box<dyn Read>, bool) = match magic {
        [0x1F, 0x8B, ..] => (Box::new(flate2::bufread::GzDecoder::new(packed)), false),
        [0x02, 0x21, 0x4C, 0x18, ..] => (Box::new(LegacyLz4::new(packed, len).map_err(failed)?), true),
        [0xFD, b'7', b'z', b'X', b'Z', 0] => {
            let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY_BYTES, 0)
                .map_err(|error| failed(io::Error::other(error)))?;
            (Box::new(liblzma::bufread::XzDecoder::new_stream(packed, stream)), true)
        }
        [0x28, 0xB5, 0x2F, 0xFD, ..] => {
            let mut decoder = zstd::Decoder::with_buffer(packed).map_err(failed)?.single_frame();
            decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(failed)?;
            (Box::new(decoder), true)
        }
        [0x7F, b'E', b'L', b'F', ..] => (Box::new(packed), false),
        _ => return Err(Error::UnknownPacking { path: path.into() }),
    };
    let found = io::copy(&mut reader.take(MAX_VMLINUX_BYTES + 1), output).map_err(failed)?;
    if found > MAX_VMLINUX_BYTES {
        return Err(Error::TooLarge { path: path.into() });
    }
    if has_size {
        check_size(path, offset, len, found)?;
    }
    Ok(found)
}

/// The kernel's build appends the unpacked size, modulo 2^32, to what it packed; gzip has it in itself.
fn check_size(path: &Path, offset: u64, len: u64, found: u64) -> Result<(), Error> {
    let failed = |source| Error::Io { path: path.into(), source };
    let mut file = File::open(path).map_err(failed)?;
    let end = len.checked_sub(4).and_then(|last| offset.checked_add(last)).unwrap_or(offset);
    file.seek(SeekFrom::Start(end)).map_err(failed)?;
    let mut stated = [0; 4];
    file.read_exact(&mut stated).map_err(failed)?;
    let stated = u32::from_le_bytes(stated);
    if found & u64::from(u32::MAX) == u64::from(stated) {
        Ok(())
    } else {
        Err(Error::WrongSize { path: path.into(), found, stated })
    }
}

/// Unpacks into a file that has no name and goes away by itself.
pub(super) fn to_unnamed_file(path: &Path, header: &Header) -> Result<File, Error> {
    let failed = |source| Error::Io { path: path.into(), source };
    let mut file = tempfile::tempfile().map_err(failed)?;
    unpack(path, header, &mut file)?;
    file.rewind().map_err(failed)?;
    Ok(file)
}

/// The legacy LZ4 format, of which Linux makes its kernels: a magic number, then blocks, each with its packed size
/// before it, then the kernel build's own size word.
struct LegacyLz4<R> {
    packed: R,
    /// Bytes of `packed` not yet read.
    left: u64,
    input: Vec<u8>,
    block: Vec<u8>,
    /// Bytes of `block` that hold data, and how many of them were given out.
    filled: usize,
    given: usize,
}

impl<R: Read> LegacyLz4<R> {
    fn new(mut packed: R, len: u64) -> io::Result<Self> {
        packed.read_exact(&mut [0; 4])?;
        let left = len.saturating_sub(4);
        Ok(Self { packed, left, input: Vec::new(), block: vec![0; LZ4_BLOCK_BYTES], filled: 0, given: 0 })
    }

    /// Unpacks the next block; `false` at the end.
    fn next_block(&mut self) -> io::Result<bool> {
        // Four bytes alone at the end are the size that the kernel's build appended.
        if self.left <= 4 {
            return Ok(false);
        }
        let mut len = [0; 4];
        self.packed.read_exact(&mut len)?;
        let len = u32::from_le_bytes(len);
        self.left -= 4;
        if len > LZ4_PACKED_MAX || u64::from(len) > self.left {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "LZ4 block is larger than its file"));
        }
        self.left -= u64::from(len);
        self.input.resize(len as usize, 0);
        self.packed.read_exact(&mut self.input)?;
        self.filled = lz4_flex::block::decompress_into(&self.input, &mut self.block)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        self.given = 0;
        Ok(true)
    }
}

impl<R: Read> Read for LegacyLz4<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.given == self.filled {
            if !self.next_block()? {
                return Ok(0);
            }
        }
        let ready = self.block.get(self.given..self.filled).unwrap_or_default();
        let len = ready.len().min(buffer.len());
        let (Some(from), Some(to)) = (ready.get(..len), buffer.get_mut(..len)) else { return Ok(0) };
        to.copy_from_slice(from);
        self.given += len;
        Ok(len)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::boot::bzimage::tests::bzimage;

    fn contents() -> Vec<u8> {
        (0..300_000u32).flat_map(|word| (word / 7).to_le_bytes()).collect()
    }

    fn with_size(mut packed: Vec<u8>, len: usize) -> Vec<u8> {
        packed.extend(u32::try_from(len).unwrap().to_le_bytes());
        packed
    }

    pub fn legacy_lz4(contents: &[u8]) -> Vec<u8> {
        let mut packed = vec![0x02, 0x21, 0x4C, 0x18];
        for block in contents.chunks(LZ4_BLOCK_BYTES) {
            let block = lz4_flex::block::compress(block);
            packed.extend(u32::try_from(block.len()).unwrap().to_le_bytes());
            packed.extend(block);
        }
        with_size(packed, contents.len())
    }

    fn gzip(contents: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(contents).unwrap();
        encoder.finish().unwrap()
    }

    fn xz(contents: &[u8]) -> Vec<u8> {
        let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
        encoder.write_all(contents).unwrap();
        with_size(encoder.finish().unwrap(), contents.len())
    }

    fn zstd(contents: &[u8]) -> Vec<u8> {
        with_size(zstd::encode_all(contents, 1).unwrap(), contents.len())
    }

    fn unpacked(payload: &[u8]) -> Result<Vec<u8>, Error> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let image = bzimage(payload);
        file.write_all(&image).unwrap();
        let mut output = Vec::new();
        unpack(file.path(), &Header::parse(&image).unwrap(), &mut output).map(|_| output)
    }

    #[test]
    fn damaged_payloads_are_refused_whatever_their_packing() {
        let contents = contents();
        for packed in [legacy_lz4(&contents), xz(&contents), zstd(&contents), gzip(&contents)] {
            assert!(unpacked(&packed[..packed.len() / 2]).is_err());
            let mut longer = packed.clone();
            let last = longer.len() - 1;
            longer[last] ^= 1;
            assert!(unpacked(&longer).is_err());
        }
        assert!(matches!(unpacked(b"BZh91AY&SY"), Err(Error::UnknownPacking { .. })));
        assert!(unpacked(b"").is_err());
    }

    #[test]
    fn an_lz4_block_that_claims_more_than_there_is_is_refused() {
        let mut packed = vec![0x02, 0x21, 0x4C, 0x18];
        packed.extend(u32::MAX.to_le_bytes());
        packed.extend([0; 64]);
        assert!(matches!(unpacked(&packed), Err(Error::Io { .. })));
    }

    #[test]
    fn every_known_packing_gives_the_contents_back() {
        let contents = contents();
        for packed in [legacy_lz4(&contents), gzip(&contents), xz(&contents), zstd(&contents)] {
            assert!(unpacked(&packed).unwrap() == contents);
        }
        let elf = [b"\x7fELF".as_slice(), &contents].concat();
        assert!(unpacked(&elf).unwrap() == elf);
    }
}

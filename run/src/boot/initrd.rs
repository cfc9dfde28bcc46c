//! How much memory an initial RAM disk takes when the kernel has unpacked it, as far as its file tells.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Deflate packs at most so many bytes into one (RFC 1951: 258 bytes in two bits, less what a block costs).
const DEFLATE_RATIO_MAX: u64 = 1032;
/// gzip tells the length modulo this.
const GZIP_MODULUS: u64 = 1 << 32;

/// About how many bytes it unpacks to; at least as many as it has. Of gzip alone more is known: its last four bytes
/// (RFC 1952, ISIZE) are the length of its last member, and a build writes one.
///
/// # Errors
/// The host's.
pub fn unpacked_bytes(path: &Path) -> io::Result<u64> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    let mut magic = [0; 2];
    let mut size = [0; 4];
    let Some(size_at) = len.checked_sub(4).filter(|at| *at >= 14) else { return Ok(len) };
    file.read_exact_at(&mut magic, 0)?;
    file.read_exact_at(&mut size, size_at)?;
    if magic != [0x1f, 0x8b] {
        return Ok(len);
    }
    let mut unpacked = u64::from(u32::from_le_bytes(size));
    // What hardly shrank may stay a little below its packed length.
    let least = len - len / 64;
    while unpacked < least.saturating_sub(64 << 10) {
        unpacked += GZIP_MODULUS;
    }
    // Something else stands behind the stream, such as padding.
    let believable = unpacked <= len.saturating_mul(DEFLATE_RATIO_MAX) && unpacked - least.min(unpacked) < GZIP_MODULUS;
    Ok(if believable { unpacked.max(len) } else { len })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn unpacked(bytes: &[u8]) -> u64 {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        unpacked_bytes(file.path()).unwrap()
    }

    fn gzip(len: usize) -> Vec<u8> {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(&vec![b'x'; len]).unwrap();
        packer.finish().unwrap()
    }

    #[test]
    fn what_is_not_known_counts_as_it_is() {
        for bytes in [&b""[..], b"\x1f\x8b", b"070701 and so on, plain", &[0xfd; 100]] {
            assert_eq!(unpacked(bytes), bytes.len() as u64);
        }
        // More than deflate can pack into so little.
        let absurd = [&gzip(10)[..], &[0xff; 4]].concat();
        assert_eq!(unpacked(&absurd), absurd.len() as u64);
    }

    #[test]
    fn gzip_tells_its_length() {
        assert_eq!(unpacked(&gzip(5_000_000)), 5_000_000);
    }
}

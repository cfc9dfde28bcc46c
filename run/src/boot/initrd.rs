//! How much memory an initial RAM disk takes when the kernel has unpacked it, as far as its file tells.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Deflate packs at most so many bytes into one (RFC 1951: 258 bytes in two bits, less what a block costs).
const DEFLATE_RATIO_MAX: u64 = 1032;

/// About how many bytes it unpacks to; at least as many as it has. Of gzip alone more is known: its last four bytes
/// (RFC 1952, ISIZE) are the length of its last member. A build writes one; of several, the last tells too little.
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
    let unpacked = u64::from(u32::from_le_bytes(size));
    // Something else stands behind the stream, such as padding.
    let is_believable = unpacked <= len.saturating_mul(DEFLATE_RATIO_MAX);
    Ok(if is_believable { unpacked.max(len) } else { len })
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

    #[test]
    fn several_streams_are_not_four_gibibytes() {
        let noise: Vec<u8> = (0..1_000_000_u32).flat_map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(&noise).unwrap();
        let both = [packer.finish().unwrap(), gzip(1_000)].concat();
        assert!(both.len() > 300_000);
        assert_eq!(unpacked(&both), both.len() as u64);
    }
}

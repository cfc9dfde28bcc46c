//! What packs a layer: gzip of one or more members, zstd, or nothing; told by the first bytes, never by a media type.

use std::io::{self, BufReader, Cursor, Read};

use flate2::bufread::MultiGzDecoder;

/// Largest window that a zstd frame may ask for, as a power of two: the `zstd` program's own limit. It bounds memory.
const ZSTD_WINDOW_LOG_LIMIT: u32 = 27;

const INPUT_BUFFER_BYTES: usize = 256 * 1024;

enum Packing {
    Gzip,
    Zstd,
    None,
}

/// Gives the plain bytes of `packed`. Reading to the end also reads `packed` to its end.
pub fn decompress<'a>(mut packed: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    let (start, packing) = first_bytes(&mut packed)?;
    let whole = BufReader::with_capacity(INPUT_BUFFER_BYTES, Cursor::new(start).chain(packed));
    Ok(match packing {
        Packing::Gzip => Box::new(MultiGzDecoder::new(whole)),
        Packing::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(whole)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_LIMIT)?;
            Box::new(decoder)
        }
        Packing::None => Box::new(whole),
    })
}

/// Whether [`decompress`] would do anything.
pub fn is_packed(mut content: impl Read) -> io::Result<bool> {
    Ok(!matches!(first_bytes(&mut content)?.1, Packing::None))
}

fn first_bytes(content: &mut impl Read) -> io::Result<(Vec<u8>, Packing)> {
    let mut start = Vec::with_capacity(4);
    content.by_ref().take(4).read_to_end(&mut start)?;
    let packing = match <[u8; 4]>::try_from(&start[..]).unwrap_or_default() {
        [0x1f, 0x8b, _, _] => Packing::Gzip,
        // A frame, or a skippable frame in front of one (RFC 8878, 3.1).
        [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => Packing::Zstd,
        _ => Packing::None,
    };
    Ok((start, packing))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(plain).unwrap();
        packer.finish().unwrap()
    }

    fn unpacked(packed: &[u8]) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        decompress(packed)?.read_to_end(&mut plain)?;
        Ok(plain)
    }

    #[test]
    fn a_stream_that_is_cut_or_damaged_is_an_error() {
        for packed in [gzip(b"plain plain plain"), zstd::encode_all(&b"plain plain plain"[..], 3).unwrap()] {
            assert!(unpacked(&packed[..packed.len() - 3]).is_err());
        }
        let mut damaged = gzip(b"plain plain plain");
        let middle = damaged.len() / 2;
        damaged[middle] ^= 0xff;
        assert!(unpacked(&damaged).is_err());
    }

    #[test]
    fn a_zstd_frame_that_wants_gigabytes_of_window_is_refused() {
        // Magic; a frame header with a window descriptor of exponent 21, so 2^31 bytes; a last raw block of 1 byte.
        let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0b0000_1001, 0, 0, b'x'];
        assert!(unpacked(&frame).is_err());
    }

    #[test]
    fn the_first_bytes_tell_what_packs_a_stream() {
        let zstd = zstd::encode_all(&b"b"[..], 3).unwrap();
        let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 0xff], &zstd[..]].concat();
        for (packed, plain) in [
            (gzip(b"a"), &b"a"[..]),
            ([gzip(b"a"), gzip(b"b")].concat(), b"ab"),
            (zstd.clone(), b"b"),
            ([zstd.clone(), zstd].concat(), b"bb"),
            (skippable, b"b"),
            (b"plain".to_vec(), b"plain"),
            (b"abc".to_vec(), b"abc"),
            (Vec::new(), b""),
        ] {
            assert_eq!(unpacked(&packed).unwrap(), plain);
        }
    }
}

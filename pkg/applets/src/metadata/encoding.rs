//! Texts that stand for bytes (base64, quoted-printable), and gzip. What comes out of gzip can be a thousand times as long as
//! what goes in, so that it is limited for each piece and for all of them together.

use std::borrow::Cow;
use std::io::{self, Read};

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use flate2::read::GzDecoder;

use super::DATA_LIMIT_BYTES;

/// Most that is unpacked for one machine.
const UNPACKED_LIMIT_BYTES: u64 = 4 * DATA_LIMIT_BYTES;
/// How gzip begins (RFC 1952, 2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// How much may still be unpacked.
#[derive(Debug)]
pub(super) struct Room {
    left_bytes: u64,
}

impl Room {
    /// All of it.
    pub fn new() -> Self {
        Self { left_bytes: UNPACKED_LIMIT_BYTES }
    }

    /// Unpacks gzip.
    ///
    /// # Errors
    /// It is damaged, too long, or one too many.
    pub fn unpack(&mut self, data: &[u8]) -> io::Result<Vec<u8>> {
        let limit = DATA_LIMIT_BYTES.min(self.left_bytes);
        let mut unpacked = vec![];
        GzDecoder::new(data).take(limit + 1).read_to_end(&mut unpacked)?;
        let len = u64::try_from(unpacked.len()).unwrap_or(u64::MAX);
        if len > limit {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too long"));
        }
        self.left_bytes -= len;
        Ok(unpacked)
    }

    /// Unpacks what is gzip, and leaves what is not.
    ///
    /// # Errors
    /// As [`Self::unpack`].
    pub fn unpacked<'d>(&mut self, data: &'d [u8]) -> io::Result<Cow<'d, [u8]>> {
        if data.starts_with(&GZIP) { self.unpack(data).map(Cow::Owned) } else { Ok(Cow::Borrowed(data)) }
    }
}

/// Reads base64 (RFC 4648, 4) with any spaces in it, padded or not.
///
/// # Errors
/// Another letter, or one too few.
pub(super) fn base64(text: &[u8]) -> Result<Vec<u8>, String> {
    const LENIENT: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let letters: Vec<u8> = text.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    GeneralPurpose::new(&STANDARD, LENIENT).decode(letters).map_err(|error| error.to_string())
}

/// Reads quoted-printable (RFC 2045, 6.7). A sign that means nothing stands for itself.
pub(super) fn quoted_printable(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, behind)) = rest.split_first() {
        rest = behind;
        if *byte != b'=' {
            bytes.push(*byte);
            continue;
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        match *behind {
            [b'\n', ..] => rest = &behind[1..],
            [b'\r', b'\n', ..] => rest = &behind[2..],
            [high, low, ..] if digit(high).is_some() && digit(low).is_some() => {
                bytes.push(digit(high).unwrap_or(0) << 4 | digit(low).unwrap_or(0));
                rest = &behind[2..];
            }
            _ => bytes.push(b'='),
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn packed(len: usize) -> Vec<u8> {
        let mut packer = GzEncoder::new(vec![], Compression::best());
        packer.write_all(&vec![0; len]).unwrap();
        packer.finish().unwrap()
    }

    #[test]
    fn what_blows_up_is_refused_alone_and_together() {
        let limit = usize::try_from(DATA_LIMIT_BYTES).unwrap();
        assert!(Room::new().unpack(&packed(limit + 1)).is_err());
        assert!(Room::new().unpack(&GZIP).is_err());
        let (mut room, full) = (Room::new(), packed(limit));
        for _ in 0..4 {
            assert_eq!(room.unpack(&full).unwrap().len(), limit);
        }
        assert!(room.unpack(&packed(1)).is_err());
        assert_eq!(*room.unpacked(b"plain").unwrap(), *b"plain");
    }

    #[test]
    fn base64_of_all_spellings_is_read_and_nonsense_is_not() {
        for nonsense in ["%%", "a", "aGk=x", "aG*k"] {
            assert!(base64(nonsense.as_bytes()).is_err(), "{nonsense}");
        }
        for text in ["aGk=", "aGk", " aG\n k = "] {
            assert_eq!(base64(text.as_bytes()).unwrap(), b"hi", "{text}");
        }
    }

    #[test]
    fn quoted_letters_become_bytes_and_lines_are_joined() {
        assert_eq!(quoted_printable(b"a=3Db=\r\nc=\nd=e9=zz="), b"a=bcd\xe9=zz=");
    }
}

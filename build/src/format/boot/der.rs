//! As much of DER (ITU-T X.690) as a signature takes: writing values, and finding the names in a certificate.

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OCTETS: u8 = 0x04;
const INTEGER: u8 = 0x02;
const BITS: u8 = 0x03;
const CONTEXT: u8 = 0xa0;

/// Values one behind another as one `SEQUENCE`.
pub(super) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    value(SEQUENCE, parts)
}

/// A `SET` of values that are sorted already.
pub(super) fn set(parts: &[&[u8]]) -> Vec<u8> {
    value(SET, parts)
}

/// An `OCTET STRING`.
pub(super) fn octets(bytes: &[u8]) -> Vec<u8> {
    value(OCTETS, &[bytes])
}

/// What `[number]` stands in front of.
pub(super) fn context(number: u8, parts: &[&[u8]]) -> Vec<u8> {
    value(CONTEXT | number, parts)
}

/// The number one.
pub(super) fn integer_one() -> &'static [u8] {
    &[INTEGER, 1, 1]
}

fn value(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let mut all = vec![tag];
    match u8::try_from(len) {
        Ok(short) if short < 0x80 => all.push(short),
        _ => {
            let bytes = len.to_be_bytes();
            let bytes = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
            all.push(0x80 | u8::try_from(bytes.len()).unwrap_or_default());
            all.extend(bytes);
        }
    }
    parts.iter().for_each(|part| all.extend(*part));
    all
}

/// What a signature needs of an X.509 certificate (RFC 5280, section 4.1).
pub(super) struct Certificate<'a> {
    /// A `Name`, as it stands there.
    pub(super) issuer: &'a [u8],
    /// An `INTEGER`, as it stands there.
    pub(super) serial: &'a [u8],
    /// What is in the `BIT STRING` of the public key.
    pub(super) public_key: &'a [u8],
}

impl<'a> Certificate<'a> {
    /// `None` if it is no certificate.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut outer = Reader(Reader(bytes).take(SEQUENCE)?.content);
        let mut fields = Reader(outer.take(SEQUENCE)?.content);
        // Version 1 does not say so.
        if fields.0.first() == Some(&CONTEXT) {
            fields.take(CONTEXT)?;
        }
        let serial = fields.take(INTEGER)?.all;
        fields.take(SEQUENCE)?;
        let issuer = fields.take(SEQUENCE)?.all;
        fields.take(SEQUENCE)?;
        fields.take(SEQUENCE)?;
        let mut key = Reader(fields.take(SEQUENCE)?.content);
        key.take(SEQUENCE)?;
        let public_key = key.take(BITS)?.content.strip_prefix(&[0])?;
        Some(Self { issuer, serial, public_key })
    }
}

struct Reader<'a>(&'a [u8]);

struct Value<'a> {
    /// With its tag and length.
    all: &'a [u8],
    content: &'a [u8],
}

impl<'a> Reader<'a> {
    /// The next value, if it has this tag.
    fn take(&mut self, tag: u8) -> Option<Value<'a>> {
        let (_, rest) = self.0.split_first().filter(|(first, _)| **first == tag)?;
        let (&short, rest) = rest.split_first()?;
        let (len, rest) = match short {
            0..=0x7f => (usize::from(short), rest),
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(short & 0x7f))?;
                (bytes.iter().fold(0, |len, byte| len << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(len)?;
        let all = self.0.get(..self.0.len() - rest.len())?;
        self.0 = rest;
        Some(Value { all, content })
    }
}

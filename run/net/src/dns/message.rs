//! What is looked at of messages (RFC 1035 section 4): the first question, and nothing behind it.

pub(super) const HEADER_BYTES: usize = 12;
const NAME_LIMIT_BYTES: usize = 255;

/// A question with one name in it.
#[derive(Debug)]
pub(super) struct Question<'a> {
    /// The message up to the end of the question.
    pub(super) bytes: &'a [u8],
    name: String,
    pub(super) kind: u16,
    pub(super) class: u16,
}

impl<'a> Question<'a> {
    /// Reads it; `None` if there is none, or something that is not looked at.
    pub(super) fn read(message: &'a [u8]) -> Option<Self> {
        let (name, end) = first_name(message)?;
        let [a, b, c, d] = *message.get(end..)?.first_chunk::<4>()?;
        let (kind, class) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        Some(Self { bytes: message.get(..end + 4)?, name, kind, class })
    }

    /// The name, in lower case, without a dot at the end.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

/// Whether it is a question that a name server is to answer (not an answer, and not one of the rare other kinds).
pub(super) fn is_question(message: &[u8]) -> bool {
    message.len() >= HEADER_BYTES && message.get(2).is_some_and(|flags| flags & 0x80 == 0)
}

/// "The server failed" (RFC 1035 section 4.1.1): never "no such name", which would be believed.
pub(super) fn failure(question: &[u8]) -> Vec<u8> {
    let mut bytes = question.to_vec();
    if let Some([flags, code]) = bytes.get_mut(2..4) {
        *flags |= 0x80;
        *code = 0x82;
    }
    bytes
}

/// The name in the first question, in lower case, and where it ends.
fn first_name(message: &[u8]) -> Option<(String, usize)> {
    let mut at = HEADER_BYTES;
    let mut name = String::new();
    loop {
        let len = usize::from(*message.get(at)?);
        at += 1;
        match len {
            0 => return Some((name, at)),
            // Nothing stands before it that a first name could point at.
            64.. => return None,
            _ => {}
        }
        let label = std::str::from_utf8(message.get(at..at + len)?).ok()?;
        at += len;
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(&label.to_ascii_lowercase());
        if name.len() > NAME_LIMIT_BYTES {
            return None;
        }
    }
}

/// A name as it stands in messages; `None` if it cannot stand there.
pub fn name_bytes(name: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(name.len() + 2);
    for label in name.trim_end_matches('.').split('.') {
        let len = u8::try_from(label.len()).ok().filter(|len| (1..64).contains(len))?;
        bytes.push(len);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    (bytes.len() <= NAME_LIMIT_BYTES).then_some(bytes)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn question(name: &str, kind: u16) -> Vec<u8> {
        let mut bytes = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        bytes.extend(name_bytes(name).unwrap());
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0, 1]);
        bytes
    }

    #[test]
    fn what_is_cut_or_points_elsewhere_is_no_question() {
        let whole = question("gateway.kiln.internal", 1);
        for len in 0..whole.len() {
            assert!(Question::read(&whole[..len]).is_none(), "{len}");
            assert_eq!(is_question(&whole[..len]), len >= HEADER_BYTES);
        }
        assert!(Question::read(&[&whole[..12], &[0xc0, 12, 0, 1, 0, 1]].concat()).is_none());
        let long = [&whole[..12], &[&[63][..], &[b'a'; 63]].concat().repeat(5), &[0, 0, 1, 0, 1]].concat();
        assert!(Question::read(&long).is_none());
        let behind = [&whole[..], b"behind"].concat();
        assert_eq!(Question::read(&behind).unwrap().bytes, whole);
    }
}

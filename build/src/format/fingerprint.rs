//! Numbers by which systems tell disks, partitions and volumes apart: made of what is in them, so never by chance.

use std::io;

use sha2::{Digest as _, Sha256};

use super::Extents;

/// Of a longer content only the ends are read: a number for a disk is not worth reading gigabytes a second time. Both ends
/// of what is large here tell about all of it: an initrd ends in gzip's checksum and length, a kernel or a program begins
/// with its headers and may end in its signature.
const END_BYTES: usize = 256 << 10;

/// What tells these files under these names from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Errors: a content cannot be read.
    pub(super) fn of(files: &[(String, Extents)]) -> io::Result<Self> {
        let mut hash = Sha256::new();
        let mut text = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        for (path, content) in files {
            text(path.as_bytes());
            text(&content.len_bytes().to_le_bytes());
            for offset in [0, content.len_bytes().saturating_sub(END_BYTES as u64)] {
                let mut end = vec![0; usize::try_from(content.len_bytes()).unwrap_or(END_BYTES).min(END_BYTES)];
                content.read_at(&mut end, offset)?;
                text(&end);
            }
        }
        Ok(Self(hash.finalize().into()))
    }

    /// For this use of it: a UUID of version 8, of one's own making (RFC 9562, 5.8).
    pub(super) fn uuid(&self, purpose: &str) -> [u8; 16] {
        let hash = self.hash(purpose);
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&hash[..16]);
        uuid[6] = uuid[6] & 0x0f | 0x80;
        uuid[8] = uuid[8] & 0x3f | 0x80;
        uuid
    }

    /// For this use of it: four bytes.
    pub(super) fn number(&self, purpose: &str) -> [u8; 4] {
        let [a, b, c, d, ..] = self.hash(purpose);
        [a, b, c, d]
    }

    fn hash(&self, purpose: &str) -> [u8; 32] {
        Sha256::new_with_prefix(purpose).chain_update(self.0).finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Body;

    #[test]
    fn every_difference_that_a_user_can_make_gives_another_number() {
        let file = |path: &str, bytes: &[u8]| (path.to_owned(), Extents::from(Body::Inline(bytes.into())));
        let long = vec![7; 3 * END_BYTES];
        let mut other_end = long.clone();
        other_end[3 * END_BYTES - 1] = 8;
        let all = [
            Fingerprint::of(&[]),
            Fingerprint::of(&[file("x", b"")]),
            Fingerprint::of(&[file("x", b"1")]),
            Fingerprint::of(&[file("y", b"1")]),
            Fingerprint::of(&[file("x", b"12")]),
            Fingerprint::of(&[file("x", b"1"), file("x", b"2")]),
            Fingerprint::of(&[file("x", &long)]),
            Fingerprint::of(&[file("x", &long[1..])]),
            Fingerprint::of(&[file("x", &other_end)]),
        ];
        let all: Vec<_> = all.into_iter().map(Result::unwrap).collect();
        for (index, one) in all.iter().enumerate() {
            assert!(!all[..index].contains(one), "{index}");
        }
        let uuid = all[0].uuid("a");
        assert_eq!((uuid[6] >> 4, uuid[8] >> 6), (8, 2));
        assert_ne!(uuid, all[0].uuid("b"));
        assert_ne!(all[0].number("a"), all[0].number("b"));
    }
}

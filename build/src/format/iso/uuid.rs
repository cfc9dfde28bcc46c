//! What tells one volume from another. ISO 9660 has no place for such a number; what Linux' tools take for one (`UUID=`) is
//! the date of the volume's last change, to the hundredth of a second. So its time of day is made of what is on the volume.

use sha2::{Digest, Sha256};

use crate::tree::{Kind, Tree};

use super::date::Date;

const DAY_S: i64 = 86_400;

/// When a volume was made, and what stands where it was last changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct VolumeDates {
    pub(super) created_s: i64,
    pub(super) changed: [u8; 17],
}

impl VolumeDates {
    /// Names, owners, modes, times, lengths and links count, the bytes of files do not: they are not read for it.
    pub(super) fn of(tree: &Tree) -> Self {
        let created_s = tree.implied_mtime_s();
        let mut hash = Sha256::new_with_prefix(b"iso9660\0");
        for (path, id) in tree.walk() {
            let node = tree.node(id);
            let attributes = &node.attributes;
            let (kind, detail, text): (u8, u64, &[u8]) = match &node.kind {
                Kind::Directory(_) => (0, 0, b""),
                Kind::File(body) => (1, body.len(), b""),
                Kind::Symlink(target) => (2, target.len() as u64, target),
                &Kind::CharDevice { major, minor } => (3, u64::from(major) << 32 | u64::from(minor), b""),
                &Kind::BlockDevice { major, minor } => (4, u64::from(major) << 32 | u64::from(minor), b""),
                Kind::Fifo => (5, 0, b""),
            };
            hash.update((path.as_bytes().len() as u64).to_le_bytes());
            hash.update(path.as_bytes());
            hash.update([kind]);
            hash.update(detail.to_le_bytes());
            hash.update(text);
            for number in [attributes.mode, attributes.uid, attributes.gid] {
                hash.update(number.to_le_bytes());
            }
            hash.update(attributes.mtime_s.to_le_bytes());
        }
        let [a, b, c, d, hundredth, ..]: [u8; 32] = hash.finalize().into();
        let second = i64::from(u32::from_le_bytes([a, b, c, d])) % DAY_S;
        let day_s = created_s.div_euclid(DAY_S).saturating_mul(DAY_S);
        Self { created_s, changed: Date::of(day_s.saturating_add(second)).long(hundredth % 100) }
    }
}

/// The volume's `UUID=`, such as `2017-04-18-09-12-33-07`, as `blkid` tells it of [a volume](super::volume) of this tree.
pub fn uuid(tree: &Tree) -> String {
    let digits = VolumeDates::of(tree).changed;
    let digits: Vec<_> = digits[..16].iter().map(|&byte| char::from(byte)).collect();
    let (year, rest) = digits.split_at(4);
    let fields = std::iter::once(year).chain(rest.chunks(2)).map(|field| field.iter().collect::<String>());
    fields.collect::<Vec<_>>().join("-")
}

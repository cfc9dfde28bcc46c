//! Folders of a FAT volume: their entries, short names and long ones (*FAT File System Specification*, 6 and 7).

use std::collections::BTreeSet;

use super::FatError;

/// Bytes of one slot.
pub(super) const SLOT_BYTES: usize = 32;

/// Most slots of a folder: its bytes must fit into two of a 16-bit count.
const SLOT_LIMIT: usize = 65_536;

/// Longest name, in UTF-16 units.
const LONG_NAME_UNITS: usize = 255;

/// Units of a long name in one slot.
const SLOT_UNITS: usize = 13;

const ATTRIBUTE_VOLUME: u8 = 0x08;
const ATTRIBUTE_FOLDER: u8 = 0x10;
const ATTRIBUTE_ARCHIVE: u8 = 0x20;
const ATTRIBUTE_LONG_NAME: u8 = 0x0f;

/// What an entry leads to: a place in the list of folders or of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Folder(usize),
    File(usize),
}

#[derive(Debug)]
struct Entry {
    name: String,
    short: [u8; 11],
    target: Target,
}

/// One folder before it has a place.
#[derive(Debug, Default)]
pub(super) struct Folder {
    /// Place of the folder that it is in; the root's is its own.
    pub(super) parent: usize,
    entries: Vec<Entry>,
    /// All names that are taken, with letters large.
    taken: BTreeSet<String>,
}

/// Where something lies and how long it is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Place {
    pub(super) cluster: u32,
    pub(super) len_bytes: u32,
}

/// Date and time as FAT tells them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stamp {
    date: u16,
    time: u16,
}

impl Stamp {
    /// Of seconds since 1970, in UTC. What is before 1980 or after 2107 becomes the nearest that can be told.
    pub(super) fn of(time_s: i64) -> Self {
        const FIRST_S: i64 = 315_532_800;
        const LAST_S: i64 = 4_354_819_198;
        let time_s = time_s.clamp(FIRST_S, LAST_S);
        let (year, month, day) = kiln_abi::date(time_s / 86_400);
        let second = time_s.unsigned_abs() % 86_400;
        let small = |number: u64| u16::try_from(number).unwrap_or(0);
        Self {
            date: small(year.unsigned_abs() - 1980) << 9 | small(month) << 5 | small(day),
            time: small(second / 3600) << 11 | small(second / 60 % 60) << 5 | small(second % 60 / 2),
        }
    }
}

impl Folder {
    /// An empty folder in another.
    pub(super) fn below(parent: usize) -> Self {
        Self { parent, ..Self::default() }
    }

    /// The folder called `name` in it, if there is one.
    pub(super) fn folder(&self, name: &str) -> Option<usize> {
        self.entries.iter().find_map(|entry| match entry.target {
            Target::Folder(index) if entry.name.eq_ignore_ascii_case(name) => Some(index),
            _ => None,
        })
    }

    /// Adds an entry. `path` is for errors.
    pub(super) fn add(&mut self, path: &str, name: &str, target: Target) -> Result<(), FatError> {
        let refuse = |why| FatError::Name { path: path.into(), why };
        let units = name.encode_utf16().count();
        if name.chars().any(|c| c.is_control() || "\"*/:<>?\\|".contains(c)) {
            return Err(refuse("has a character that FAT does not know"));
        }
        if name.is_empty() || name.ends_with(['.', ' ']) || units > LONG_NAME_UNITS {
            return Err(refuse("is empty, ends in a dot or space, or is longer than 255"));
        }
        if !self.taken.insert(name.to_uppercase()) {
            return Err(refuse("is there twice, if large and small letters are the same"));
        }
        let short = self.short_name(name).ok_or_else(|| refuse("is like too many others"))?;
        self.entries.push(Entry { name: name.into(), short, target });
        if self.slots() > SLOT_LIMIT {
            return Err(refuse("is one more than a folder can hold"));
        }
        Ok(())
    }

    /// A name of eight and three letters that nobody in here has.
    fn short_name(&self, name: &str) -> Option<[u8; 11]> {
        let is_free = |short: &[u8; 11]| self.entries.iter().all(|entry| entry.short != *short);
        let (base, extension) = match name.rsplit_once('.') {
            Some((base, extension)) if !base.is_empty() => (base, extension),
            _ => (name, ""),
        };
        let plain = |text: &str| -> Vec<u8> {
            let kept = text.chars().filter(|c| !matches!(c, ' ' | '.'));
            kept.map(|c| if is_short(c) { c.to_ascii_uppercase() as u8 } else { b'_' }).collect()
        };
        let (plain_base, plain_extension) = (plain(base), plain(extension));
        let is_whole = plain_base.len() == base.len() && base.len() <= 8 && extension.len() <= 3;
        if is_whole && base.chars().chain(extension.chars()).all(is_short) {
            return Some(padded(&plain_base, &plain_extension)).filter(is_free);
        }
        (1..=999_999).find_map(|number| {
            let tail = format!("~{number}");
            let kept = plain_base.len().min(8 - tail.len());
            Some(padded(&[&plain_base[..kept], tail.as_bytes()].concat(), &plain_extension)).filter(is_free)
        })
    }

    /// How many slots its entries take; a folder that is not the root has two more.
    pub(super) fn slots(&self) -> usize {
        self.entries.iter().map(|entry| 1 + entry.long_slots()).sum()
    }

    /// Its bytes but for what is in front of all entries.
    pub(super) fn bytes(&self, stamp: Stamp, place_of: impl Fn(Target) -> Place) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.slots() * SLOT_BYTES);
        for entry in &self.entries {
            entry.write_long_name(&mut bytes);
            let attribute = match entry.target {
                Target::Folder(_) => ATTRIBUTE_FOLDER,
                Target::File(_) => ATTRIBUTE_ARCHIVE,
            };
            bytes.extend_from_slice(&slot(&entry.short, attribute, stamp, place_of(entry.target)));
        }
        bytes
    }
}

/// The first entry of a root folder: the volume's label.
pub(super) fn label_slot(label: &[u8; 11], stamp: Stamp) -> [u8; SLOT_BYTES] {
    slot(label, ATTRIBUTE_VOLUME, stamp, Place::default())
}

/// The first two entries of any other folder: itself and the one that it is in.
pub(super) fn dot_slots(itself: u32, parent: u32, stamp: Stamp) -> Vec<u8> {
    let at = |cluster| Place { cluster, len_bytes: 0 };
    let dot = slot(b".          ", ATTRIBUTE_FOLDER, stamp, at(itself));
    [dot, slot(b"..         ", ATTRIBUTE_FOLDER, stamp, at(parent))].concat()
}

fn slot(short: &[u8; 11], attribute: u8, stamp: Stamp, place: Place) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    let cluster = place.cluster.to_le_bytes();
    slot[..11].copy_from_slice(short);
    slot[11] = attribute;
    slot[14..16].copy_from_slice(&stamp.time.to_le_bytes());
    slot[16..18].copy_from_slice(&stamp.date.to_le_bytes());
    slot[18..20].copy_from_slice(&stamp.date.to_le_bytes());
    slot[20..22].copy_from_slice(&cluster[2..]);
    slot[22..24].copy_from_slice(&stamp.time.to_le_bytes());
    slot[24..26].copy_from_slice(&stamp.date.to_le_bytes());
    slot[26..28].copy_from_slice(&cluster[..2]);
    slot[28..32].copy_from_slice(&place.len_bytes.to_le_bytes());
    slot
}

impl Entry {
    /// None if the short name says it all.
    fn long_slots(&self) -> usize {
        let short: Vec<u8> = self.short.iter().copied().filter(|&byte| byte != b' ').collect();
        match self.name.bytes().filter(|&byte| byte != b'.').eq(short) && self.name.matches('.').count() <= 1 {
            true => 0,
            false => self.name.encode_utf16().count().div_ceil(SLOT_UNITS),
        }
    }

    /// The last part of the name comes first.
    fn write_long_name(&self, bytes: &mut Vec<u8>) {
        let slots = self.long_slots();
        let mut units: Vec<u16> = self.name.encode_utf16().collect();
        if units.len() < slots * SLOT_UNITS {
            units.push(0);
            units.resize(slots * SLOT_UNITS, 0xffff);
        }
        let sum = self.short.iter().fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
        for (number, part) in (1_u8..).zip(units.chunks(SLOT_UNITS)).take(slots).collect::<Vec<_>>().into_iter().rev() {
            let part: Vec<u8> = part.iter().flat_map(|unit| unit.to_le_bytes()).collect();
            let is_last = usize::from(number) == slots;
            bytes.extend_from_slice(&[number | if is_last { 0x40 } else { 0 }]);
            bytes.extend_from_slice(&part[..10]);
            bytes.extend_from_slice(&[ATTRIBUTE_LONG_NAME, 0, sum]);
            bytes.extend_from_slice(&part[10..22]);
            bytes.extend_from_slice(&[0, 0]);
            bytes.extend_from_slice(&part[22..]);
        }
    }
}

fn is_short(c: char) -> bool {
    c.is_ascii_alphanumeric() || "$%'-_@~`!(){}^#&".contains(c)
}

/// Cut or filled with spaces to eight and three.
fn padded(base: &[u8], extension: &[u8]) -> [u8; 11] {
    let mut short = [b' '; 11];
    for (to, from) in short[..8].iter_mut().zip(base) {
        *to = *from;
    }
    for (to, from) in short[8..].iter_mut().zip(extension) {
        *to = *from;
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_fat_does_not_know_are_refused() {
        let mut folder = Folder::default();
        folder.add("a/Kernel", "Kernel", Target::File(0)).unwrap();
        let long = "x".repeat(256);
        for name in ["", "a*", "a\nb", "a.", "a ", "KERNEL", "a:b", "\\", &long] {
            let error = folder.add("the/path", name, Target::File(1)).unwrap_err();
            assert!(error.to_string().starts_with("`the/path`"), "{error}");
        }
    }

    #[test]
    fn short_names_are_never_alike() {
        let mut folder = Folder::default();
        let names = [
            ("BOOTX64.EFI", "BOOTX64 EFI", 0),
            ("initrd.img", "INITRD  IMG", 1),
            ("a long name.img", "ALONGN~1IMG", 2),
            ("a long name 2.img", "ALONGN~2IMG", 2),
            (".hidden", "HIDDEN~1   ", 1),
            ("a.b.c", "AB~1    C  ", 1),
            ("größe", "GR__E~1    ", 1),
            ("file.html", "FILE~1  HTM", 1),
            ("initrd", "INITRD     ", 1),
            ("INITRD~1", "INITRD~1   ", 0),
        ];
        for (index, (name, _, _)) in names.iter().enumerate() {
            folder.add(name, name, Target::File(index)).unwrap();
        }
        for (entry, (name, short, slots)) in folder.entries.iter().zip(names) {
            assert_eq!(String::from_utf8_lossy(&entry.short), short, "{name}");
            assert_eq!(entry.long_slots(), slots, "{name}");
        }
    }

    #[test]
    fn times_are_told_to_two_seconds_from_1980_to_2107() {
        for (time_s, year, month, day, hour, minute, second) in [
            (0, 1980, 1, 1, 0, 0, 0),
            (1_492_533_000, 2017, 4, 18, 16, 30, 0),
            (951_827_697, 2000, 2, 29, 12, 34, 57),
            (1_709_251_199, 2024, 2, 29, 23, 59, 59),
            (i64::MAX, 2107, 12, 31, 23, 59, 58),
        ] {
            let stamp = Stamp::of(time_s);
            assert_eq!(stamp.date, (year - 1980) << 9 | month << 5 | day, "{time_s}");
            assert_eq!(stamp.time, hour << 11 | minute << 5 | (second / 2), "{time_s}");
        }
    }
}

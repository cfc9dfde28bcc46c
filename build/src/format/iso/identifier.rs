//! Names as ISO 9660 and Joliet can tell them. Rock Ridge tells the real ones; these are for systems that do not read it.
//!
//! In a folder each is unique. Where two names become one, the later of them (in byte order) ends in a number.

use std::collections::{HashMap, HashSet};

/// Name and extension of a file together: ECMA-119 7.5.1 at level 3.
const FILE_LIMIT: usize = 30;

/// Name of a folder: ECMA-119 7.6.3 at level 3.
const FOLDER_LIMIT: usize = 31;

/// Joliet's, in characters.
const JOLIET_LIMIT: usize = 64;

/// A longer extension is cut.
const EXTENSION_LIMIT: usize = 8;

/// `_` and five digits of base 36, which are enough for any folder of a tree.
const NUMBER_DIGITS: u32 = 5;
const NUMBER_CHARS: usize = 1 + NUMBER_DIGITS as usize;

/// Which of a volume's two hierarchies a name is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Namespace {
    /// ECMA-119's own: capitals, digits and `_`.
    Primary,
    /// Microsoft's Joliet: UCS-2.
    Joliet,
}

/// A name in one namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Identifier {
    stem: Vec<u16>,
    extension: Vec<u16>,
}

/// The identifiers of one folder's children.
pub(super) struct Identifiers {
    namespace: Namespace,
    taken: HashSet<Identifier>,
    /// The last number that was given to names that are alike but for it.
    numbers: HashMap<Identifier, u64>,
}

impl Identifiers {
    pub(super) fn new(namespace: Namespace) -> Self {
        Self { namespace, taken: HashSet::new(), numbers: HashMap::new() }
    }

    /// An identifier that no one else in the folder has.
    pub(super) fn give(&mut self, name: &[u8], is_folder: bool) -> Identifier {
        let (mut wished, limit) = match self.namespace {
            Namespace::Primary => (primary(name, is_folder), if is_folder { FOLDER_LIMIT } else { FILE_LIMIT }),
            Namespace::Joliet => (joliet(name, is_folder), JOLIET_LIMIT - 1),
        };
        let limit = limit - wished.extension.len();
        let whole = wished.extension.is_empty() && self.namespace == Namespace::Joliet;
        wished.stem.truncate(limit + usize::from(whole));
        if self.taken.insert(wished.clone()) {
            return wished;
        }
        wished.stem.truncate(limit - NUMBER_CHARS);
        let number = self.numbers.entry(wished.clone()).or_default();
        loop {
            *number += 1;
            let mut numbered = wished.clone();
            numbered.stem.push(u16::from(b'_'));
            numbered.stem.extend(digits(*number));
            if self.taken.insert(numbered.clone()) {
                return numbered;
            }
        }
    }
}

impl Identifier {
    /// The bytes of a directory record. A file of ECMA-119 has a version, which is always 1; as other writers do, those of
    /// Joliet have none.
    pub(super) fn bytes(&self, namespace: Namespace, is_folder: bool) -> Box<[u8]> {
        let (dot, version): (bool, &[u16]) = match namespace {
            Namespace::Primary if !is_folder => (true, &[b';' as u16, b'1' as u16]),
            _ => (!self.extension.is_empty(), &[]),
        };
        let dot: &[u16] = if dot { &[b'.' as u16] } else { &[] };
        let units = [&self.stem[..], dot, &self.extension, version].concat();
        match namespace {
            Namespace::Primary => units.into_iter().flat_map(|unit| u8::try_from(unit).ok()).collect(),
            Namespace::Joliet => units.into_iter().flat_map(u16::to_be_bytes).collect(),
        }
    }
}

/// What stands before the last `.` of a file's name and behind it.
fn split<T: PartialEq + From<u8>>(name: &[T], is_folder: bool) -> (&[T], &[T]) {
    let dot = name.iter().rposition(|unit| *unit == T::from(b'.'));
    match dot.filter(|&dot| !is_folder && dot > 0) {
        Some(dot) => (&name[..dot], &name[dot + 1..]),
        None => (name, &[]),
    }
}

fn primary(name: &[u8], is_folder: bool) -> Identifier {
    let units = |name: &[u8], limit| {
        let unit = |byte: &u8| match byte.to_ascii_uppercase() {
            byte @ (b'A'..=b'Z' | b'0'..=b'9') => u16::from(byte),
            _ => u16::from(b'_'),
        };
        name.iter().take(limit).map(unit).collect()
    };
    let (stem, extension) = split(name, is_folder);
    Identifier { stem: units(stem, FOLDER_LIMIT), extension: units(extension, EXTENSION_LIMIT) }
}

fn joliet(name: &[u8], is_folder: bool) -> Identifier {
    let unit = |c: char| match c {
        '*' | '/' | ':' | ';' | '?' | '\\' | char::REPLACEMENT_CHARACTER => u16::from(b'_'),
        c if c.is_control() => u16::from(b'_'),
        c => u16::try_from(u32::from(c)).unwrap_or(u16::from(b'_')),
    };
    let units: Vec<u16> = String::from_utf8_lossy(name).chars().map(unit).collect();
    match split(&units, is_folder) {
        // There the `.` is part of it.
        (_, []) => Identifier { stem: units, extension: Vec::new() },
        (stem, extension) => {
            let extension = extension.iter().take(EXTENSION_LIMIT).copied().collect();
            Identifier { stem: stem.into(), extension }
        }
    }
}

fn digits(number: u64) -> impl Iterator<Item = u16> {
    let digit = move |place| u16::from(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[digit_at(number, place)]);
    (0..NUMBER_DIGITS).rev().map(digit)
}

fn digit_at(number: u64, place: u32) -> usize {
    usize::try_from(number / 36_u64.pow(place) % 36).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn primary_of(names: &[&[u8]], is_folder: bool) -> Vec<String> {
        let mut identifiers = Identifiers::new(Namespace::Primary);
        let text = |name: &&[u8]| {
            let identifier = identifiers.give(name, is_folder);
            String::from_utf8(identifier.bytes(Namespace::Primary, is_folder).into()).unwrap()
        };
        names.iter().map(text).collect()
    }

    fn joliet_of(names: &[&[u8]]) -> Vec<String> {
        let mut identifiers = Identifiers::new(Namespace::Joliet);
        let text = |name: &&[u8]| {
            let bytes = identifiers.give(name, false).bytes(Namespace::Joliet, false);
            let units: Vec<u16> = bytes.chunks(2).map(|unit| u16::from_be_bytes([unit[0], unit[1]])).collect();
            String::from_utf16(&units).unwrap()
        };
        names.iter().map(text).collect()
    }

    #[test]
    fn files_get_capitals_an_extension_and_a_version() {
        let names: [&[u8]; 8] =
            [b"a.conf", b"A.conf", b".profile", b"b", b"lib.so.6", b"x.", b"\xff\xfe.\xff", b"many.verylongextension"];
        let expected =
            ["A.CONF;1", "A_00001.CONF;1", "_PROFILE.;1", "B.;1", "LIB_SO.6;1", "X.;1", "__._;1", "MANY.VERYLONG;1"];
        assert_eq!(primary_of(&names, false), expected);
    }

    #[test]
    fn long_names_are_cut_and_stay_unique() {
        let long = [b'n'; 255];
        let names = primary_of(&[&long, &long[..254], &long[..31], &long[..30]], false);
        let n = |count| "N".repeat(count);
        assert_eq!(names[0], format!("{}.;1", n(30)));
        assert_eq!(names[1], format!("{}_00001.;1", n(24)));
        assert_eq!(names[3], format!("{}_00003.;1", n(24)));
        let folders = primary_of(&[&long, b"a.b", b"A.B"], true);
        assert_eq!(folders, [n(31), "A_B".into(), "A_B_00001".into()]);
    }

    #[test]
    fn a_name_that_looks_numbered_takes_nobodys_place() {
        let names = primary_of(&[b"A", b"A_00001", b"a", b"a_00001"], false);
        assert_eq!(names, ["A.;1", "A_00001.;1", "A_00002.;1", "A_00001_00001.;1"]);
    }

    #[test]
    fn joliet_keeps_what_it_can_tell() {
        let long = "ä".repeat(70);
        let wide = "x".repeat(70) + ".tar";
        let names: [&[u8]; 8] = [
            "Grüße.txt".as_bytes(),
            b"a:b*c",
            b"bad\xff",
            "\u{1f600}".as_bytes(),
            long.as_bytes(),
            wide.as_bytes(),
            b"trailing.",
            b".hidden",
        ];
        let expected = [
            "Grüße.txt".to_owned(),
            "a_b_c".to_owned(),
            "bad_".to_owned(),
            "_".to_owned(),
            "ä".repeat(64),
            "x".repeat(60) + ".tar",
            "trailing.".to_owned(),
            ".hidden".to_owned(),
        ];
        assert_eq!(joliet_of(&names), expected);
        let (one, two) = (long.clone() + "1", long + "2");
        assert_eq!(joliet_of(&[one.as_bytes(), two.as_bytes()])[1], "ä".repeat(57) + "_00001");
    }

    #[test]
    fn a_folder_full_of_names_that_become_one_is_no_slow_one() {
        let mut identifiers = Identifiers::new(Namespace::Primary);
        let mut seen = HashSet::new();
        for number in 0..100_000_u32 {
            let name = format!("{}{number}", "same".repeat(20));
            assert!(seen.insert(identifiers.give(name.as_bytes(), false)));
        }
    }
}

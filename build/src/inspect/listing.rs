//! The files of one or several archives, by name; what a later one has wins, as it does when they are unpacked.

use std::collections::{BTreeMap, BTreeSet};

use super::{ArchiveFault, ENTRIES_MAX, packages};
use crate::tree::TreePath;

/// What all names may take in memory.
pub(super) const NAMES_BYTES_MAX: usize = 256 << 20;
/// Longest package database that is kept.
const KEPT_FILE_BYTES_MAX: u64 = 16 << 20;
/// All of them together.
const KEPT_BYTES_MAX: u64 = 128 << 20;
/// Where a bill of materials lies unless it was put elsewhere. It tells which image is in which folder.
pub(super) const BILL: &[u8] = b"sbom.spdx.json";
/// Different records of where members come from; more are taken for one.
const SECTIONS_MAX: usize = 10_000;

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Folder,
    Link,
    /// A file, a device or a pipe.
    File,
}

/// LinuxKit's records in a tar.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Records {
    pub source: String,
    pub location: String,
}

/// One member as it is read.
pub(super) struct Member<'a> {
    pub name: &'a [u8],
    pub kind: Kind,
    pub bytes: u64,
    pub records: Option<Records>,
    pub content: Option<Vec<u8>>,
}

/// What is known of one name.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub kind: Kind,
    pub bytes: u64,
    /// Number of its records, if it has any.
    pub records: Option<u32>,
}

/// Files by their names.
#[derive(Debug, Default)]
pub struct Listing {
    pub(super) entries: BTreeMap<Box<[u8]>, Entry>,
    pub(super) records: Vec<Records>,
    pub(super) kept: BTreeMap<Box<[u8]>, Vec<u8>>,
    pub(super) bad_names: usize,
    pub(super) too_long: BTreeSet<Box<[u8]>>,
    numbers: BTreeMap<Records, u32>,
    names_bytes: usize,
    kept_bytes: u64,
}

impl Listing {
    /// Adds one file that is in no archive, such as a kernel.
    pub fn add_file(&mut self, path: &str, bytes: u64) {
        let entry = Entry { kind: Kind::File, bytes, records: None };
        self.entries.insert(path.as_bytes().into(), entry);
    }

    /// Whether the content of a member is to be kept.
    pub(super) fn wants(&mut self, name: &[u8], bytes: u64) -> bool {
        let Ok(path) = TreePath::from_member(name) else { return false };
        if bytes == 0 || !(path.as_bytes() == BILL || packages::is_database(path.as_bytes())) {
            return false;
        }
        let fits = bytes <= KEPT_FILE_BYTES_MAX && self.kept_bytes.saturating_add(bytes) <= KEPT_BYTES_MAX;
        if fits {
            self.kept_bytes += bytes;
        } else {
            self.too_long.insert(path.as_bytes().into());
        }
        fits
    }

    /// Adds a member.
    pub(super) fn add(&mut self, member: Member<'_>) -> Result<(), ArchiveFault> {
        let Member { name, kind, bytes, records, content } = member;
        let Ok(path) = TreePath::from_member(name) else {
            self.bad_names += 1;
            return Ok(());
        };
        if path == TreePath::root() {
            return Ok(());
        }
        let path: Box<[u8]> = path.as_bytes().into();
        self.names_bytes += path.len();
        if self.entries.len() >= ENTRIES_MAX || self.names_bytes > NAMES_BYTES_MAX {
            return Err(ArchiveFault::TooMany);
        }
        if let Some(content) = content {
            self.kept.insert(path.clone(), content);
        }
        let records = records.and_then(|records| self.number(records));
        self.entries.insert(path, Entry { kind, bytes, records });
        Ok(())
    }

    fn number(&mut self, records: Records) -> Option<u32> {
        if let Some(&number) = self.numbers.get(&records) {
            return Some(number);
        }
        let number = u32::try_from(self.records.len()).ok().filter(|_| self.records.len() < SECTIONS_MAX)?;
        self.numbers.insert(records.clone(), number);
        self.records.push(records);
        Some(number)
    }
}

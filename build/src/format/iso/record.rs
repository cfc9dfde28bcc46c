//! Directory records (ECMA-119 9.1), the folders made of them, and path tables (9.4).

use std::collections::HashMap;

use crate::tree::{Attributes, Kind, NodeId, Tree};

use super::date::Date;
use super::identifier::Namespace;
use super::listing::{Entry, Listing};
use super::number::{both16, both32};
use super::rock_ridge::{Continuation, Dot, Inode, SystemUse};
use super::{SECTION_BYTES, SECTOR, SECTOR_BYTES};

/// A record without its identifier and what is behind that.
const FIXED_BYTES: usize = 33;

/// Longest record: its length is one byte, and even.
const RECORD_LIMIT: usize = 254;

/// Flags of a record.
const FOLDER: u8 = 0x02;
const MORE_SECTIONS: u8 = 0x80;

/// Where the content of a folder is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Place {
    pub(super) sector: u32,
    pub(super) len_bytes: u32,
}

/// Where everything is that records point to. What is not known yet is at sector 0: records are as long wherever they
/// point to.
pub(super) struct Places<'a> {
    /// The folders of the listing.
    pub(super) folders: &'a [Place],
    /// First sectors of contents.
    pub(super) files: &'a HashMap<NodeId, u32>,
    pub(super) inodes: &'a HashMap<NodeId, Inode>,
}

/// The folders of a listing one behind another, each padded to whole sectors, and their lengths.
pub(super) fn folders(
    tree: &Tree,
    listing: &Listing<'_>,
    places: &Places<'_>,
    continuation: &mut Continuation,
) -> (Vec<u8>, Vec<u32>) {
    let mut lens = Vec::with_capacity(listing.folders.len());
    let mut bytes = Vec::new();
    for place in 0..listing.folders.len() {
        let start = bytes.len();
        let writer = FolderWriter { tree, listing, places, bytes: &mut bytes, continuation: &mut *continuation };
        writer.write(place);
        bytes.resize(bytes.len().next_multiple_of(SECTOR), 0);
        lens.push(u32::try_from(bytes.len() - start).unwrap_or(u32::MAX));
    }
    (bytes, lens)
}

/// Numbers of the folders, little-endian and big-endian.
pub(super) fn path_tables(listing: &Listing<'_>, places: &[Place]) -> [Vec<u8>; 2] {
    let (mut little, mut big) = (Vec::new(), Vec::new());
    for (folder, place) in listing.folders.iter().zip(places) {
        // There are no more folders than numbers.
        let parent = u16::try_from(folder.parent + 1).unwrap_or(u16::MAX);
        let len = u8::try_from(folder.identifier.len()).unwrap_or(u8::MAX);
        for (table, sector, parent) in [
            (&mut little, place.sector.to_le_bytes(), parent.to_le_bytes()),
            (&mut big, place.sector.to_be_bytes(), parent.to_be_bytes()),
        ] {
            table.extend([len, 0]);
            table.extend(sector);
            table.extend(parent);
            table.extend_from_slice(&folder.identifier);
            if len % 2 == 1 {
                table.push(0);
            }
        }
    }
    [little, big]
}

/// The record of the root that stands in a volume descriptor.
pub(super) fn root_record(attributes: &Attributes, place: Place) -> Vec<u8> {
    let mut bytes = Vec::new();
    put(&mut bytes, Extent::of_folder(place), attributes, &[0], &[]);
    bytes
}

/// What a record points to.
struct Extent {
    place: Place,
    flags: u8,
}

impl Extent {
    fn of_folder(place: Place) -> Self {
        Self { place, flags: FOLDER }
    }
}

struct FolderWriter<'a> {
    tree: &'a Tree,
    listing: &'a Listing<'a>,
    places: &'a Places<'a>,
    bytes: &'a mut Vec<u8>,
    continuation: &'a mut Continuation,
}

impl FolderWriter<'_> {
    fn write(mut self, place: usize) {
        let folder = &self.listing.folders[place];
        let root = if place == 0 { Dot::Root } else { Dot::Other };
        self.dot(0, place, root);
        self.dot(1, folder.parent, Dot::Other);
        for entry in &folder.entries {
            let system_use = self.system_use(entry.identifier.len(), |inode| {
                SystemUse::of(entry.name, self.tree.node(entry.node), inode(entry.node))
            });
            self.entry(entry, &system_use);
        }
    }

    fn dot(&mut self, identifier: u8, place: usize, dot: Dot) {
        let node = self.listing.folders[place].node;
        let content = self.tree.node(node);
        let system_use = self.system_use(1, |inode| SystemUse::of_dot(dot, content, inode(node)));
        put(self.bytes, Extent::of_folder(self.place(place)), &content.attributes, &[identifier], &system_use);
    }

    fn entry(&mut self, entry: &Entry<'_>, system_use: &[u8]) {
        let node = self.tree.node(entry.node);
        if let Some(place) = entry.folder {
            let extent = Extent::of_folder(self.place(place));
            return put(self.bytes, extent, &node.attributes, &entry.identifier, system_use);
        }
        let len_bytes = match &node.kind {
            Kind::File(body) => body.len(),
            _ => 0,
        };
        let first = self.places.files.get(&entry.node).copied().unwrap_or(0);
        for extent in sections(first, len_bytes) {
            put(self.bytes, extent, &node.attributes, &entry.identifier, system_use);
        }
    }

    fn place(&self, folder: usize) -> Place {
        self.places.folders.get(folder).copied().unwrap_or_default()
    }

    /// Joliet has none.
    fn system_use(&mut self, identifier: usize, of: impl FnOnce(&dyn Fn(NodeId) -> Inode) -> SystemUse) -> Vec<u8> {
        if self.listing.namespace == Namespace::Joliet {
            return Vec::new();
        }
        let room = RECORD_LIMIT - (FIXED_BYTES + identifier).next_multiple_of(2);
        of(&|node| self.places.inodes.get(&node).copied().unwrap_or_default()).fit(room, self.continuation)
    }
}

/// The pieces of a content, of which only the last one's length may be anything. What is empty has one, too.
fn sections(first: u32, len_bytes: u64) -> impl Iterator<Item = Extent> {
    let count = len_bytes.div_ceil(SECTION_BYTES).max(1);
    (0..count).map(move |index| {
        let start = index * SECTION_BYTES;
        let len = u32::try_from((len_bytes - start).min(SECTION_BYTES)).unwrap_or(u32::MAX);
        let sector = u32::try_from(u64::from(first) + start / SECTOR_BYTES).unwrap_or(u32::MAX);
        let flags = if index + 1 < count { MORE_SECTIONS } else { 0 };
        Extent { place: Place { sector, len_bytes: len }, flags }
    })
}

/// Appends one record, in the next sector if it does not fit into this one.
fn put(bytes: &mut Vec<u8>, extent: Extent, attributes: &Attributes, identifier: &[u8], system_use: &[u8]) {
    let named = (FIXED_BYTES + identifier.len()).next_multiple_of(2);
    let len = (named + system_use.len()).next_multiple_of(2);
    if bytes.len() % SECTOR + len > SECTOR {
        bytes.resize(bytes.len().next_multiple_of(SECTOR), 0);
    }
    let start = bytes.len();
    let byte = |len: usize| u8::try_from(len).unwrap_or(u8::MAX);
    bytes.extend([byte(len), 0]);
    bytes.extend(both32(extent.place.sector));
    bytes.extend(both32(extent.place.len_bytes));
    bytes.extend(Date::of(attributes.mtime_s).short());
    bytes.extend([extent.flags, 0, 0]);
    bytes.extend(both16(1));
    bytes.push(byte(identifier.len()));
    bytes.extend_from_slice(identifier);
    bytes.resize(start + named, 0);
    bytes.extend_from_slice(system_use);
    bytes.resize(start + len, 0);
}

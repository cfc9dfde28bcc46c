//! A tree as an ISO 9660 volume (ECMA-119, level 3) with Rock Ridge (SUSP and RRIP 1.12) and Joliet, and what makes it
//! start a machine from a CD or a stick.
//!
//! Everything but the contents of files is made before a byte is written; contents are copied from where they are.
//! Extended attributes have no place in this format. Folders may be nested deeper than the eight levels of ECMA-119 6.8.2.1,
//! as Linux reads them: to move them up, as Rock Ridge can, would only show a second, wrong place to those who read no
//! Rock Ridge.

mod bios;
mod date;
mod descriptor;
mod efi;
mod el_torito;
mod error;
mod format;
mod identifier;
mod kernel_iso;
mod listing;
mod number;
mod own_root;
mod record;
mod rock_ridge;
mod uuid;

use std::collections::HashMap;

use crate::tree::{Body, Kind, NodeId, Tree, TreePath};

use super::Extents;
pub use el_torito::{BootImage, BootPlatform};
pub use error::IsoError;
pub use format::IsoFormat;
use identifier::Namespace;
use listing::Listing;
use record::{Place, Places};
use rock_ridge::{Continuation, Inode};
use uuid::VolumeDates;
pub use uuid::uuid;

/// Everything on a volume starts at a multiple of it.
pub const SECTOR_BYTES: u64 = 2048;

/// The same, for what is in memory.
const SECTOR: usize = 2048;

/// What ECMA-119 leaves to others at the start of a volume.
pub const SYSTEM_AREA_BYTES: u64 = 16 * SECTOR_BYTES;

/// Longest section of a file: whole sectors whose number of bytes has 32 bits.
const SECTION_BYTES: u64 = (1 << 32) - SECTOR_BYTES;

/// Sections of one file that Linux reads (`isofs_read_level3_size`).
const SECTION_LIMIT: u64 = 100;

/// Folders on a volume: a path table has 16 bits for the parent's number.
const FOLDER_LIMIT: usize = 65_535;

/// Text of a symbolic link that Linux reads: a page less the final zero.
const LINK_LIMIT_BYTES: usize = 4095;

/// Bytes of a volume's label.
const LABEL_LIMIT_BYTES: usize = 32;

/// What a volume is to be.
#[derive(Debug, Clone, Copy)]
pub struct IsoOptions<'a> {
    /// What it is called: what Linux finds it by as `LABEL=`. 1 to 32 printable ASCII characters; Joliet shows the first 16.
    pub label: &'a str,
    /// Whether a firmware is to start what is on it: then it has a catalog.
    pub is_bootable: bool,
    /// Files whose content is in something that is put on the volume as a whole: see [`Volume::point`].
    pub elsewhere: &'a [TreePath],
}

/// A volume that holds `tree` and nothing else.
///
/// # Errors
/// What has no place on such a volume.
pub fn volume(tree: &Tree, options: &IsoOptions<'_>) -> Result<Extents, IsoError> {
    Volume::lay_out(tree, options)?.finish()
}

/// A volume on which every file of the tree has its place. More can be put behind them.
pub struct Volume<'a> {
    tree: &'a Tree,
    label: &'a str,
    is_bootable: bool,
    primary: Hierarchy<'a>,
    joliet: Hierarchy<'a>,
    continuation_sector: u32,
    inodes: HashMap<NodeId, Inode>,
    files: HashMap<NodeId, u32>,
    boot: Vec<BootImage>,
    extents: Extents,
}

/// One of the two views, and where its parts are.
struct Hierarchy<'a> {
    listing: Listing<'a>,
    folders: Vec<Place>,
    path_table_bytes: u32,
    path_table_sectors: [u32; 2],
}

/// Gives sectors, one behind another.
struct Cursor(u64);

impl Cursor {
    fn take(&mut self, len_bytes: u64) -> Result<u32, IsoError> {
        let sector = u32::try_from(self.0).map_err(|_| IsoError::TooLarge)?;
        self.0 += len_bytes.div_ceil(SECTOR_BYTES);
        u32::try_from(self.0).map_err(|_| IsoError::TooLarge)?;
        Ok(sector)
    }
}

impl<'a> Volume<'a> {
    /// Gives every name its identifiers and every file its place.
    pub fn lay_out(tree: &'a Tree, options: &IsoOptions<'a>) -> Result<Self, IsoError> {
        check(tree, options)?;
        let [primary, joliet] = [Listing::new(tree, Namespace::Primary)?, Listing::new(tree, Namespace::Joliet)?];
        let inodes = inodes(tree, &primary);
        let descriptors = 3 + u64::from(options.is_bootable);
        let mut cursor = Cursor(SYSTEM_AREA_BYTES / SECTOR_BYTES + descriptors + u64::from(options.is_bootable));
        let primary = Hierarchy::path_tables_at(primary, &mut cursor)?;
        let joliet = Hierarchy::path_tables_at(joliet, &mut cursor)?;
        let (primary, continuation_bytes) = primary.folders_at(tree, &inodes, &mut cursor)?;
        let continuation_sector = cursor.take(continuation_bytes)?;
        let (joliet, _) = joliet.folders_at(tree, &inodes, &mut cursor)?;
        let mut volume = Self {
            tree,
            label: options.label,
            is_bootable: options.is_bootable,
            primary,
            joliet,
            continuation_sector,
            inodes,
            files: HashMap::new(),
            boot: Vec::new(),
            extents: Extents::default(),
        };
        volume.extents.extend_to(cursor.0 * SECTOR_BYTES);
        let elsewhere = options.elsewhere.iter().filter_map(|path| tree.find(path)).map(|node| (node, 0));
        volume.files.extend(elsewhere);
        for (_, node) in tree.walk() {
            if let Kind::File(body) = &tree.node(node).kind
                && !body.is_empty()
                && !volume.files.contains_key(&node)
            {
                let sector = volume.append_body(body)?;
                volume.files.insert(node, sector);
            }
        }
        Ok(volume)
    }

    /// The first sector of the file at `path`, if it has one.
    pub fn sector_of(&self, path: &TreePath) -> Option<u32> {
        self.files.get(&self.tree.find(path)?).copied()
    }

    /// Length of the volume as it is now, in bytes: where the next image goes.
    pub fn len_bytes(&self) -> u64 {
        self.extents.len_bytes()
    }

    /// Puts something behind all that is there, and tells its first sector.
    pub fn append(&mut self, image: &Extents) -> Result<u32, IsoError> {
        let start = self.extents.len_bytes();
        let mut cursor = Cursor(start / SECTOR_BYTES);
        let sector = cursor.take(image.len_bytes())?;
        self.extents.put_extents(start, image);
        self.extents.extend_to(cursor.0 * SECTOR_BYTES);
        Ok(sector)
    }

    /// Says where the content of a file is that was left out.
    pub fn point(&mut self, path: &TreePath, sector: u32) {
        if let Some(node) = self.tree.find(path) {
            self.files.insert(node, sector);
        }
    }

    /// Adds to what a firmware can start; the first one is the default.
    pub fn boot(&mut self, image: BootImage) {
        debug_assert!(self.is_bootable, "there is room for a catalog");
        self.boot.push(image);
    }

    /// Fills what is in front of the volume's first descriptor. At most [`SYSTEM_AREA_BYTES`].
    pub fn put_system_area(&mut self, bytes: &[u8]) {
        debug_assert!(bytes.len() as u64 <= SYSTEM_AREA_BYTES);
        self.extents.put_bytes(0, bytes);
    }

    /// Writes all records, now that everything has its place.
    pub fn finish(mut self) -> Result<Extents, IsoError> {
        let sectors = u32::try_from(self.extents.len_bytes() / SECTOR_BYTES).map_err(|_| IsoError::TooLarge)?;
        let root = &self.tree.node(self.primary.listing.folders[0].node).attributes;
        let dates = VolumeDates::of(self.tree);
        let about = descriptor::About { label: self.label, sectors, dates };
        let mut descriptors = vec![self.primary.descriptor(&about, root)];
        let first = SYSTEM_AREA_BYTES / SECTOR_BYTES;
        if self.is_bootable {
            let catalog = first + 4;
            descriptors.push(descriptor::boot_record(u32::try_from(catalog).unwrap_or(0)));
            self.extents.put_bytes(catalog * SECTOR_BYTES, el_torito::catalog(&self.boot));
        }
        descriptors.push(self.joliet.descriptor(&about, root));
        descriptors.push(descriptor::terminator());
        self.extents.put_bytes(SYSTEM_AREA_BYTES, descriptors.concat());

        let mut continuation = Continuation::at(self.continuation_sector);
        for hierarchy in [&self.primary, &self.joliet] {
            let places = Places { folders: &hierarchy.folders, files: &self.files, inodes: &self.inodes };
            let (folders, _) = record::folders(self.tree, &hierarchy.listing, &places, &mut continuation);
            if let Some(root) = hierarchy.folders.first() {
                self.extents.put_bytes(offset(root.sector), folders);
            }
            let tables = record::path_tables(&hierarchy.listing, &hierarchy.folders);
            for (table, sector) in tables.iter().zip(hierarchy.path_table_sectors) {
                self.extents.put_bytes(offset(sector), table);
            }
        }
        self.extents.put_bytes(offset(self.continuation_sector), continuation.into_bytes());
        Ok(self.extents)
    }

    fn append_body(&mut self, body: &Body) -> Result<u32, IsoError> {
        let start = self.extents.len_bytes();
        let mut cursor = Cursor(start / SECTOR_BYTES);
        let sector = cursor.take(body.len())?;
        self.extents.put(start, body.clone());
        self.extents.extend_to(cursor.0 * SECTOR_BYTES);
        Ok(sector)
    }
}

impl<'a> Hierarchy<'a> {
    fn path_tables_at(listing: Listing<'a>, cursor: &mut Cursor) -> Result<Self, IsoError> {
        let folders = vec![Place::default(); listing.folders.len()];
        let [little, big] = record::path_tables(&listing, &folders).map(|table| table.len());
        let path_table_bytes = u32::try_from(little).map_err(|_| IsoError::TooLarge)?;
        let path_table_sectors = [cursor.take(little as u64)?, cursor.take(big as u64)?];
        Ok(Self { listing, folders, path_table_bytes, path_table_sectors })
    }

    /// Gives the folders their places, and tells how long what continues their records is.
    fn folders_at(
        mut self,
        tree: &Tree,
        inodes: &HashMap<NodeId, Inode>,
        cursor: &mut Cursor,
    ) -> Result<(Self, u64), IsoError> {
        let mut continuation = Continuation::at(0);
        let places = Places { folders: &[], files: &HashMap::new(), inodes };
        let (_, lens) = record::folders(tree, &self.listing, &places, &mut continuation);
        for (folder, len_bytes) in self.folders.iter_mut().zip(lens) {
            *folder = Place { sector: cursor.take(u64::from(len_bytes))?, len_bytes };
        }
        Ok((self, continuation.into_bytes().len() as u64))
    }

    fn descriptor(&self, about: &descriptor::About<'_>, root: &crate::tree::Attributes) -> [u8; SECTOR] {
        let place = self.folders.first().copied().unwrap_or_default();
        let hierarchy = descriptor::Hierarchy {
            namespace: self.listing.namespace,
            path_table_bytes: self.path_table_bytes,
            path_table_sectors: self.path_table_sectors,
            root: record::root_record(root, place),
        };
        descriptor::hierarchy(about, &hierarchy)
    }
}

fn check(tree: &Tree, options: &IsoOptions<'_>) -> Result<(), IsoError> {
    let label = options.label;
    let printable = label.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if !printable || label.is_empty() || label.len() > LABEL_LIMIT_BYTES {
        return Err(IsoError::Label { label: label.into(), limit_bytes: LABEL_LIMIT_BYTES });
    }
    for (path, node) in tree.walk() {
        match &tree.node(node).kind {
            Kind::Symlink(target) if target.len() > LINK_LIMIT_BYTES => {
                return Err(IsoError::LongLink { path, len_bytes: target.len() });
            }
            Kind::File(body) if body.len() > SECTION_LIMIT * SECTION_BYTES => {
                return Err(IsoError::LongFile { path, len_bytes: body.len() });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Numbers the nodes in the order of their records, and counts their names. A folder is named by its parent, by itself
/// and by each folder in it.
fn inodes(tree: &Tree, listing: &Listing<'_>) -> HashMap<NodeId, Inode> {
    let mut inodes: HashMap<NodeId, Inode> = HashMap::new();
    let mut serial = 0;
    let mut add = |node, names| {
        let inode = inodes.entry(node).or_insert_with(|| {
            serial += 1;
            Inode { serial, names: 0 }
        });
        inode.names += names;
    };
    for folder in &listing.folders {
        add(folder.node, 2);
        for entry in &folder.entries {
            match &tree.node(entry.node).kind {
                Kind::Directory(_) => add(folder.node, 1),
                _ => add(entry.node, 1),
            }
        }
    }
    inodes
}

fn offset(sector: u32) -> u64 {
    u64::from(sector) * SECTOR_BYTES
}

#[cfg(test)]
mod tests;

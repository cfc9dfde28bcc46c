//! The table of inodes and the table of names, which tell of each other: what is in a folder comes before the folder.

use std::collections::HashMap;

use super::super::{FormatError, Watch, device};
use super::attributes::Attributes;
use super::contents::Contents;
use super::data::Data;
use super::directory::{Entry, Listing, list};
use super::error::SquashfsError;
use super::inode::{Common, Content, FolderPlace, kind};
use super::inventory::{Folder, Inventory};
use super::metadata::{Metadata, Position};
use super::pack::Packer;
use super::tables::Owners;
use crate::tree::{Kind, NodeId, TreePath};

/// Longest text of a symbolic link: what Linux follows.
const SYMLINK_LIMIT_BYTES: usize = 4095;

/// All tables that tell of inodes.
pub(super) struct Inodes<'a> {
    pub(super) table: Vec<u8>,
    pub(super) names: Vec<u8>,
    /// Where the root's inode is.
    pub(super) root: u64,
    /// Where each inode is, by number.
    pub(super) places: Vec<u8>,
    pub(super) owners: Owners,
    pub(super) attributes: Attributes<'a>,
}

impl<'a> Inodes<'a> {
    pub(super) fn of(
        inventory: &Inventory<'a>,
        contents: &Contents,
        data: &Data,
        packer: &mut Packer,
        watch: Watch<'_>,
    ) -> Result<Self, FormatError> {
        let mut writer = Writer {
            inventory,
            contents,
            data,
            packer,
            table: Metadata::default(),
            names: Metadata::default(),
            places: vec![None; inventory.len()],
            listings: HashMap::new(),
            owners: Owners::default(),
            attributes: Attributes::default(),
        };
        // Whatever is in a folder comes behind it in this list.
        for folder in inventory.folders.iter().rev() {
            watch.cancel.check()?;
            writer.folder(folder)?;
        }
        let root = match inventory.folders.first() {
            Some(root) => writer.inode(root.id)?.reference(),
            None => 0,
        };
        let places = writer.places.iter().flat_map(|at| at.unwrap_or_default().reference().to_le_bytes()).collect();
        let Writer { packer, table, names, owners, attributes, .. } = writer;
        let (table, _) = table.finish(packer)?;
        let (names, _) = names.finish(packer)?;
        Ok(Self { table, names, root, places, owners, attributes })
    }
}

/// A time as inodes tell it. Times before 1970 and after 2106 cannot be told.
pub(super) fn time(mtime_s: i64) -> u32 {
    u32::try_from(mtime_s.max(0)).unwrap_or(u32::MAX)
}

struct Writer<'a, 'b> {
    inventory: &'b Inventory<'a>,
    contents: &'b Contents,
    data: &'b Data,
    packer: &'b mut Packer,
    table: Metadata,
    names: Metadata,
    /// By number, the first of which is 1.
    places: Vec<Option<Position>>,
    /// Of folders whose inode is still to come.
    listings: HashMap<NodeId, (Listing, u32, u32)>,
    owners: Owners,
    attributes: Attributes<'a>,
}

impl<'a> Writer<'a, '_> {
    /// Writes the inodes of all that is in a folder, and its names.
    fn folder(&mut self, folder: &Folder<'a>) -> Result<(), FormatError> {
        let mut entries = Vec::with_capacity(folder.children.len());
        for (name, id) in &folder.children {
            let at = self.inode(*id)?;
            let kind = kind_of(&self.inventory.node(*id).kind);
            entries.push(Entry { name, kind, number: self.inventory.number(*id), at });
        }
        let inventory = self.inventory;
        let listing = list(&|| inventory.path(folder.id), &entries, &mut self.names, self.packer)?;
        let folders = entries.iter().filter(|entry| entry.kind == kind::FOLDER).count();
        let folders = u32::try_from(folders).unwrap_or(u32::MAX);
        self.listings.insert(folder.id, (listing, folder.parent, folders));
        Ok(())
    }

    /// Where a node's inode is; it is written when its first name comes.
    fn inode(&mut self, id: NodeId) -> Result<Position, FormatError> {
        let index = usize::try_from(self.inventory.number(id)).unwrap_or(0).wrapping_sub(1);
        if let Some(at) = self.places.get(index).copied().flatten() {
            return Ok(at);
        }
        let bytes = self.bytes(id)?;
        let at = self.table.position();
        self.table.put(&bytes, self.packer)?;
        if let Some(place) = self.places.get_mut(index) {
            *place = Some(at);
        }
        Ok(at)
    }

    fn bytes(&mut self, id: NodeId) -> Result<Vec<u8>, FormatError> {
        let inventory = self.inventory;
        let path = || inventory.path(id);
        let common = self.common(id, &path)?;
        let bytes = match &inventory.node(id).kind {
            Kind::Directory(_) => {
                let (listing, parent, folders) = self.listings.remove(&id).unwrap_or_default();
                common.folder(&FolderPlace { listing: &listing, parent, folders })?
            }
            Kind::File(body) => common.file(&self.content(id, body.len())),
            Kind::Symlink(target) if target.len() > SYMLINK_LIMIT_BYTES => {
                let (len_bytes, limit_bytes) = (target.len(), SYMLINK_LIMIT_BYTES);
                return Err(SquashfsError::Symlink { path: path(), len_bytes, limit_bytes }.into());
            }
            Kind::Symlink(target) => common.symlink(target),
            node @ (&Kind::CharDevice { major, minor } | &Kind::BlockDevice { major, minor }) => {
                let number = device::packed(major, minor);
                let number = number.ok_or_else(|| SquashfsError::Device { path: path(), major, minor })?;
                common.device(kind_of(node), number)
            }
            Kind::Fifo => common.fifo(),
        };
        Ok(bytes)
    }

    fn common(&mut self, id: NodeId, path: &dyn Fn() -> TreePath) -> Result<Common, FormatError> {
        let attributes = &self.inventory.node(id).attributes;
        Ok(Common {
            mode: u16::try_from(attributes.mode & 0o7777).unwrap_or(0),
            owner: self.owners.place(attributes.uid, path)?,
            group: self.owners.place(attributes.gid, path)?,
            mtime_s: time(attributes.mtime_s),
            number: self.inventory.number(id),
            names: self.inventory.names(id),
            attributes: self.attributes.place(&attributes.xattrs, path, self.packer)?,
        })
    }

    fn content(&self, id: NodeId, len_bytes: u64) -> Content<'_> {
        let Some(place) = self.contents.place(id) else { return Content::default() };
        let (Some(content), Some(run)) = (self.contents.all.get(place), self.data.runs.get(place)) else {
            return Content::default();
        };
        Content {
            len_bytes,
            start: run.start,
            blocks: self.data.blocks(run),
            tail: content.tail,
            sparse_bytes: run.sparse_bytes,
        }
    }
}

fn kind_of(kind: &Kind) -> u16 {
    match kind {
        Kind::Directory(_) => kind::FOLDER,
        Kind::File(_) => kind::FILE,
        Kind::Symlink(_) => kind::SYMLINK,
        Kind::BlockDevice { .. } => kind::BLOCK_DEVICE,
        Kind::CharDevice { .. } => kind::CHAR_DEVICE,
        Kind::Fifo => kind::FIFO,
    }
}

//! A tree as a newc cpio archive (Linux' `Documentation/driver-api/early-userspace/buffer-format.rst`).
//!
//! The names of a hard-linked file share an inode number; its content follows the last of them, as `cpio` writes and both
//! it and Linux read. Extended attributes have no place in this format.

use std::collections::HashMap;
use std::io::{self, Write};

use super::{FormatError, Sink, Watch, copy};
use crate::tree::{Body, Kind, Node, NodeId, Tree, TreePath};

/// For whoever has one name: nobody looks it up. A running number would change all that follows a new file.
const NO_INODE: u32 = 0;

const HEADER_BYTES: usize = 110;

/// Folders whose content is not for the running system: the kernel and what goes with it.
const LEFT_OUT: &[u8] = b"boot/";

/// Writes all but the root itself and what is below `boot`.
pub(super) fn write(tree: &Tree, out: &mut dyn Sink, watch: Watch<'_>) -> Result<(), FormatError> {
    let mut names: HashMap<NodeId, u32> = HashMap::new();
    for (_, id) in entries(tree).filter(|(_, id)| can_be_linked(tree.node(*id))) {
        *names.entry(id).or_default() += 1;
    }
    let mut archive = Archive { out, offset: 0, next_inode: 1 };
    let mut links: HashMap<NodeId, Links> = HashMap::new();
    for (path, id) in entries(tree) {
        watch.cancel.check()?;
        let node = tree.node(id);
        let total = names.get(&id).copied().unwrap_or(1);
        if total == 1 {
            archive.member(&path, node, Place { inode: NO_INODE, names: 1, has_content: true }, watch)?;
            continue;
        }
        let links = links.entry(id).or_insert_with(|| Links { inode: archive.inode(), left: total });
        links.left -= 1;
        let place = Place { inode: links.inode, names: total, has_content: links.left == 0 };
        archive.member(&path, node, place, watch)?;
    }
    archive.trailer()?;
    Ok(())
}

/// The names of one file that are still to come.
struct Links {
    inode: u32,
    left: u32,
}

struct Place {
    inode: u32,
    names: u32,
    has_content: bool,
}

fn entries(tree: &Tree) -> impl Iterator<Item = (TreePath, NodeId)> {
    tree.walk().skip(1).filter(|(path, _)| !path.as_bytes().starts_with(LEFT_OUT))
}

/// Linux makes every symbolic link anew, whatever its inode number.
fn can_be_linked(node: &Node) -> bool {
    !matches!(node.kind, Kind::Directory(_) | Kind::Symlink(_))
}

struct Archive<'a> {
    out: &'a mut dyn Sink,
    offset: u64,
    next_inode: u32,
}

impl Archive<'_> {
    fn inode(&mut self) -> u32 {
        let inode = self.next_inode;
        self.next_inode += 1;
        inode
    }

    fn member(&mut self, path: &TreePath, node: &Node, place: Place, watch: Watch<'_>) -> Result<(), FormatError> {
        let names = match &node.kind {
            Kind::Directory(_) => 2,
            Kind::Symlink(_) => 1,
            _ => place.names,
        };
        let device = node.kind.device().unwrap_or_default();
        let len_bytes = match &node.kind {
            Kind::File(body) if place.has_content => body.len(),
            Kind::Symlink(target) => target.len() as u64,
            _ => 0,
        };
        let limit_bytes = u64::from(u32::MAX);
        let too_large = |_| FormatError::TooLarge { path: path.clone(), len_bytes, limit_bytes };
        let attributes = &node.attributes;
        // Times before 1970 and after 2106 cannot be told.
        let mtime = u32::try_from(attributes.mtime_s.max(0)).unwrap_or(u32::MAX);
        let mode = node.kind.type_bits() | attributes.mode;
        let size = u32::try_from(len_bytes).map_err(too_large)?;
        let fields = [place.inode, mode, attributes.uid, attributes.gid, names, mtime, size, 0, 0, device.0, device.1];
        self.out.begin_member(path.as_bytes(), len_bytes)?;
        self.header(fields, path.as_bytes())?;
        match &node.kind {
            Kind::File(body) if place.has_content => self.content(body, watch)?,
            Kind::Symlink(target) => self.put(target)?,
            _ => {}
        }
        self.pad(4)?;
        Ok(())
    }

    fn trailer(&mut self) -> io::Result<()> {
        self.header([0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0], b"TRAILER!!!")?;
        self.pad(512)
    }

    fn header(&mut self, fields: [u32; 11], name: &[u8]) -> io::Result<()> {
        let mut header = Vec::with_capacity(HEADER_BYTES + name.len() + 4);
        header.extend_from_slice(b"070701");
        let name_bytes = u32::try_from(name.len() + 1).map_err(|_| io::ErrorKind::InvalidFilename)?;
        for field in fields.into_iter().chain([name_bytes, 0]) {
            write!(header, "{field:08x}")?;
        }
        header.extend_from_slice(name);
        header.push(0);
        self.put(&header)?;
        self.pad(4)
    }

    fn content(&mut self, body: &Body, watch: Watch<'_>) -> Result<(), FormatError> {
        self.offset += body.len();
        copy(body, self.out, watch)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.offset += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    fn pad(&mut self, to: u64) -> io::Result<()> {
        let pad = self.offset.wrapping_neg() % to;
        self.put(&[0; 512][..usize::try_from(pad).unwrap_or(0)])
    }
}

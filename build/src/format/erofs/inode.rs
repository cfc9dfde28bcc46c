//! What becomes an inode: every node of the tree once, however many names it has.

use std::collections::HashMap;

use super::ErofsFault;
use crate::format::device;
use crate::tree::{Kind, Node, NodeId, Tree, TreePath};

const COMPACT_BYTES: u64 = 32;
const EXTENDED_BYTES: u64 = 64;

/// The folder of the kernel and what goes with it, which is not for the running system. It stays, empty.
const LEFT_EMPTY: &[u8] = b"boot";

/// The root's number.
pub(super) const ROOT: usize = 0;

/// A node with its names. Numbers are places in the list of all.
pub(super) struct Inode<'a> {
    pub(super) node: &'a Node,
    /// Its first name.
    name: &'a [u8],
    /// The folder that has its first name; the root's is itself.
    folder: usize,
    /// How many names it has; a folder also its own `.` and one `..` for each folder in it.
    pub(super) links: u32,
    /// A folder's, in byte order, with `.` and `..`.
    pub(super) names: Vec<(&'a [u8], usize)>,
}

impl<'a> Inode<'a> {
    /// All that is in the image. What is in one folder stands together.
    pub(super) fn all(tree: &'a Tree) -> Vec<Self> {
        let mut numbers: HashMap<NodeId, usize> = HashMap::new();
        let mut all: Vec<Self> = Vec::new();
        let Some(root) = tree.find(&TreePath::root()) else { return all };
        all.push(Self { node: tree.node(root), name: b"", folder: ROOT, links: 2, names: Vec::new() });
        let mut open = vec![ROOT];
        while let Some(folder) = open.pop() {
            let Kind::Directory(children) = &all[folder].node.kind else { continue };
            let mut names: Vec<(&[u8], usize)> = vec![(b".", folder), (b"..", all[folder].folder)];
            let first_folder = open.len();
            let is_left_empty = all[folder].folder == ROOT && all[folder].name == LEFT_EMPTY;
            for (name, id) in children.iter().filter(|_| !is_left_empty) {
                let number = *numbers.entry(*id).or_insert_with(|| {
                    all.push(Self { node: tree.node(*id), name, folder, links: 0, names: Vec::new() });
                    all.len() - 1
                });
                if let Kind::Directory(_) = all[number].node.kind {
                    all[number].links = 2;
                    all[folder].links += 1;
                    open.push(number);
                } else {
                    all[number].links += 1;
                }
                names.push((name, number));
            }
            open[first_folder..].reverse();
            names.sort_unstable();
            all[folder].names = names;
        }
        all
    }

    /// The first path of one of them.
    pub(super) fn path(all: &[Self], number: usize) -> TreePath {
        let mut names = Vec::new();
        let mut at = number;
        while at != ROOT {
            names.push(all[at].name);
            at = all[at].folder;
        }
        names.iter().rev().fold(TreePath::root(), |path, name| path.join(name))
    }

    /// As in `linux/fs_types.h`.
    pub(super) fn file_type(&self) -> u8 {
        match self.node.kind {
            Kind::File(_) => 1,
            Kind::Directory(_) => 2,
            Kind::CharDevice { .. } => 3,
            Kind::BlockDevice { .. } => 4,
            Kind::Fifo => 5,
            Kind::Symlink(_) => 7,
        }
    }

    fn mode(&self) -> u16 {
        u16::try_from(self.node.kind.type_bits() | self.node.attributes.mode & 0o7777).unwrap_or(0)
    }

    /// As the kernel packs a device's number, or the number if it does not fit.
    pub(super) fn device(&self) -> Result<Option<u32>, (u32, u32)> {
        self.node.kind.device().map(|(major, minor)| device::packed(major, minor).ok_or((major, minor))).transpose()
    }

    /// The shorter of the two forms that can tell all of it.
    pub(super) fn form(&self, len_bytes: u64, time_s: i64) -> Form {
        let attributes = &self.node.attributes;
        let is_compact = attributes.mtime_s == time_s
            && [attributes.uid, attributes.gid, self.links].iter().all(|number| *number <= u32::from(u16::MAX))
            && len_bytes <= u64::from(u32::MAX);
        if is_compact { Form::Compact } else { Form::Extended }
    }
}

/// The two forms of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Small numbers, and the time that all of them share.
    Compact,
    /// Everything.
    Extended,
}

impl Form {
    pub(super) fn len_bytes(self) -> u64 {
        match self {
            Self::Compact => COMPACT_BYTES,
            Self::Extended => EXTENDED_BYTES,
        }
    }
}

/// How an inode's content is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Storage {
    /// In blocks.
    Plain = 0,
    /// In blocks, but for what is left of the last: that stands behind the inode.
    Inline = 2,
    /// Compressed in blocks, with the compact form of an index behind the inode.
    Packed = 3,
}

/// What an inode tells besides what its node does.
pub(super) struct Told {
    pub(super) form: Form,
    pub(super) storage: Storage,
    pub(super) xattr_units: u16,
    pub(super) len_bytes: u64,
    /// The first block of content, the number of its blocks if it is compressed, or a device's number.
    pub(super) place: u32,
    /// Counted from one; the number that 32-bit programs see.
    pub(super) number: u32,
}

impl Inode<'_> {
    /// Its 32 or 64 bytes.
    pub(super) fn encode(&self, told: &Told) -> Vec<u8> {
        let attributes = &self.node.attributes;
        let format = (told.storage as u16) << 1 | u16::from(told.form == Form::Extended);
        let mut bytes = Vec::with_capacity(64);
        bytes.extend_from_slice(&format.to_le_bytes());
        bytes.extend_from_slice(&told.xattr_units.to_le_bytes());
        bytes.extend_from_slice(&self.mode().to_le_bytes());
        match told.form {
            Form::Compact => {
                let short = |number: u32| u16::try_from(number).unwrap_or(u16::MAX).to_le_bytes();
                bytes.extend_from_slice(&short(self.links));
                bytes.extend_from_slice(&u32::try_from(told.len_bytes).unwrap_or(u32::MAX).to_le_bytes());
                bytes.extend_from_slice(&[0; 4]);
                bytes.extend_from_slice(&told.place.to_le_bytes());
                bytes.extend_from_slice(&told.number.to_le_bytes());
                bytes.extend_from_slice(&short(attributes.uid));
                bytes.extend_from_slice(&short(attributes.gid));
                bytes.extend_from_slice(&[0; 4]);
            }
            Form::Extended => {
                bytes.extend_from_slice(&[0; 2]);
                bytes.extend_from_slice(&told.len_bytes.to_le_bytes());
                bytes.extend_from_slice(&told.place.to_le_bytes());
                bytes.extend_from_slice(&told.number.to_le_bytes());
                bytes.extend_from_slice(&attributes.uid.to_le_bytes());
                bytes.extend_from_slice(&attributes.gid.to_le_bytes());
                bytes.extend_from_slice(&attributes.mtime_s.to_le_bytes());
                bytes.extend_from_slice(&[0; 4]);
                bytes.extend_from_slice(&self.links.to_le_bytes());
                bytes.extend_from_slice(&[0; 16]);
            }
        }
        bytes
    }
}

/// Checks what [`Inode::encode`] relies on.
pub(super) fn check_devices(all: &[Inode<'_>]) -> Result<(), ErofsFault> {
    all.iter().enumerate().try_for_each(|(number, inode)| match inode.device() {
        Ok(_) => Ok(()),
        Err((major, minor)) => Err(ErofsFault::Device { path: Inode::path(all, number), major, minor }),
    })
}

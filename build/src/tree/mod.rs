//! A root file system in memory: names, attributes and links; contents stay in a [`Spool`].
//!
//! Hard links are what they are on a disk: several names of one node. Nothing here touches a real file system by a name
//! that came from an image, so nothing can be written outside: a path is resolved inside the tree, like in a chroot.

mod graft;
mod path;
mod resolve;
mod spool;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use path::{NAME_LIMIT_BYTES, PATH_LIMIT_BYTES, PathFault, TreePath, printable};
pub use spool::{Body, BodyReader, DamagedSpool, Identity, Spool};
pub use walk::Walk;

/// Where the kernel is in a tree.
pub const KERNEL_PATH: &str = "boot/kernel";

/// Where the kernel's command line is in a tree.
pub const CMDLINE_PATH: &str = "boot/cmdline";

/// Where the microcode is in a tree, if there is any.
pub const UCODE_PATH: &str = "boot/ucode.cpio";

/// Most nodes that one tree holds: several times the largest images known, and less than 512 MiB of memory.
pub const NODE_LIMIT: usize = 1_000_000;

/// A node of one tree. Numbers are given in the order of creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u32);

/// Who a node belongs to and when it changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// The lowest twelve bits of `st_mode`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time, in seconds since 1970.
    pub mtime_s: i64,
    /// Extended attributes by their full name, such as `security.capability`.
    pub xattrs: BTreeMap<Box<[u8]>, Box<[u8]>>,
}

/// What a node is.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A folder: its children by name, in byte order.
    Directory(BTreeMap<Box<[u8]>, NodeId>),
    /// A regular file.
    File(Body),
    /// A symbolic link and the text it holds.
    Symlink(Box<[u8]>),
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

/// Where a node comes from, for the records that LinuxKit's `--input-tar` reads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origin {
    /// The image's full reference, or `linuxkit.files`, `linuxkit.volumes`.
    pub source: String,
    /// The place in the YAML: `kernel`, `init[0]`, `onboot[2]`, `files[1]`.
    pub location: String,
}

/// One node.
#[derive(Debug, Clone)]
pub struct Node {
    /// Mode, owner, time.
    pub attributes: Attributes,
    /// What it is.
    pub kind: Kind,
    /// Where it comes from.
    pub origin: Arc<Origin>,
}

/// Why a tree refuses something.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// A component of the path is a file, a device or the like.
    #[error("`{}` in the path `{path}` is no folder", printable(through))]
    NotAFolder {
        /// The path asked for.
        path: TreePath,
        /// The component that is in the way.
        through: Box<[u8]>,
    },
    /// A symbolic link on the way climbs above the root.
    #[error("`{path}` leads through a symbolic link out of the root")]
    Escape {
        /// The path asked for.
        path: TreePath,
    },
    /// More symbolic links on the way than Linux follows.
    #[error("`{path}` leads through more than {} symbolic links", resolve::SYMLINK_LIMIT)]
    SymlinkLoop {
        /// The path asked for.
        path: TreePath,
    },
    /// The links on the way are longer than any real ones.
    #[error("`{path}` leads through symbolic links to more than {} folders", resolve::LINKED_COMPONENTS_LIMIT)]
    LongLinks {
        /// The path asked for.
        path: TreePath,
    },
    /// It would be nested deeper than a path can tell.
    #[error("`{path}` is nested deeper than {} folders", resolve::DEPTH_LIMIT)]
    TooDeep {
        /// The path asked for.
        path: TreePath,
    },
    /// A hard link to what is not there, or is a folder.
    #[error("`{path}` is a hard link to `{target}`, which is no file that came before it")]
    LinkTarget {
        /// The link.
        path: TreePath,
        /// What it names.
        target: TreePath,
    },
    /// The root must be a folder.
    #[error("the root is a folder and nothing else")]
    Root,
    /// More than [`NODE_LIMIT`] nodes.
    #[error("there are more than {NODE_LIMIT} files and folders in one tree")]
    TooManyNodes,
}

/// A root file system.
#[derive(Debug, Clone)]
pub struct Tree {
    nodes: Vec<Node>,
    implied: Attributes,
    origin: Arc<Origin>,
    /// Paths that were given to a node that had a name already, as they were given.
    later_names: BTreeSet<TreePath>,
}

impl Kind {
    /// A folder with nothing in it.
    pub fn directory() -> Self {
        Self::Directory(BTreeMap::new())
    }

    /// The bits of `st_mode` that tell what it is (`S_IFMT` in inode(7)).
    pub fn type_bits(&self) -> u32 {
        match self {
            Self::Fifo => 0o010_000,
            Self::CharDevice { .. } => 0o020_000,
            Self::Directory(_) => 0o040_000,
            Self::BlockDevice { .. } => 0o060_000,
            Self::File(_) => 0o100_000,
            Self::Symlink(_) => 0o120_000,
        }
    }

    /// Major and minor number of a device.
    pub fn device(&self) -> Option<(u32, u32)> {
        match *self {
            Self::CharDevice { major, minor } | Self::BlockDevice { major, minor } => Some((major, minor)),
            _ => None,
        }
    }

    /// A file with this content, held in memory.
    pub fn file(content: impl AsRef<[u8]>) -> Self {
        Self::File(Body::Inline(content.as_ref().into()))
    }
}

impl Attributes {
    /// Root's, with no extended attributes.
    pub fn of_root(mode: u32, mtime_s: i64) -> Self {
        Self { mode, mtime_s, ..Self::default() }
    }
}

impl Tree {
    const ROOT: NodeId = NodeId(0);

    /// An empty root. It and every parent that is supplied gets mode 0755, owner 0:0 and time `mtime_s`.
    pub fn new(mtime_s: i64) -> Self {
        let implied = Attributes::of_root(0o755, mtime_s);
        let origin = Arc::<Origin>::default();
        let root = Node { attributes: implied.clone(), kind: Kind::directory(), origin: origin.clone() };
        Self { nodes: vec![root], implied, origin, later_names: BTreeSet::new() }
    }

    /// From now on, what is put here comes from `origin`.
    pub fn set_origin(&mut self, origin: Origin) {
        self.origin = Arc::new(origin);
    }

    /// The time of what is supplied, in seconds since 1970.
    pub fn implied_mtime_s(&self) -> i64 {
        self.implied.mtime_s
    }

    /// All nodes that are here now come from `origin`.
    pub fn set_origin_of_all(&mut self, origin: Origin) {
        self.set_origin(origin);
        for node in &mut self.nodes {
            node.origin = self.origin.clone();
        }
    }

    /// The node with this number, which this tree gave out.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    /// The node at `path`. Symbolic links are followed on the way, not at the end.
    pub fn get(&self, path: &TreePath) -> Option<&Node> {
        self.find(path).map(|id| self.node(id))
    }

    /// As [`get`](Self::get), its number.
    pub fn find(&self, path: &TreePath) -> Option<NodeId> {
        let Some((folder, name)) = path.split() else { return Some(Self::ROOT) };
        let folder = self.resolve(&folder).ok()?.existing()?;
        self.child(folder, name)
    }

    /// Puts a node at `path`, and folders above it where there are none. A folder that meets a folder gives it its
    /// attributes and leaves its children; anything else replaces what was there, with all below it.
    pub fn put(&mut self, path: &TreePath, attributes: Attributes, kind: Kind) -> Result<NodeId, TreeError> {
        let node = Node { attributes, kind, origin: self.origin.clone() };
        self.put_node(path, node)
    }

    /// Gives the node at `target`, which is no folder, one more name.
    pub fn link(&mut self, path: &TreePath, target: &TreePath) -> Result<(), TreeError> {
        let refuse = || TreeError::LinkTarget { path: path.clone(), target: target.clone() };
        let id = self.find(target).ok_or_else(refuse)?;
        if matches!(self.node(id).kind, Kind::Directory(_)) {
            return Err(refuse());
        }
        self.name_node(path, id)?;
        self.later_names.insert(path.clone());
        Ok(())
    }

    /// Whether `path` is a hard link: a name that was given to a file that had one before.
    pub fn is_later_name(&self, path: &TreePath) -> bool {
        self.later_names.contains(path)
    }

    /// The same, with each hard link made a symbolic one to the file's first name.
    pub fn with_symlinks_for_hard_links(&self) -> Result<Self, TreeError> {
        let mut names: BTreeMap<NodeId, Vec<TreePath>> = BTreeMap::new();
        for (path, id) in self.walk().filter(|(_, id)| !matches!(self.node(*id).kind, Kind::Directory(_))) {
            names.entry(id).or_default().push(path);
        }
        let mut tree = self.clone();
        for (id, names) in names.into_iter().filter(|(_, names)| names.len() > 1) {
            let first = names.iter().find(|path| !self.is_later_name(path)).or(names.first()).cloned();
            let Some(first) = first else { continue };
            for path in names.iter().filter(|path| **path != first) {
                let target = Kind::Symlink(first.seen_from(path).into());
                let node = Node { kind: target, ..self.node(id).clone() };
                tree.put_node(path, node)?;
            }
        }
        Ok(tree)
    }

    /// Takes away what is at `path` with all below it. No symbolic link is followed. Nothing there is no error.
    pub fn remove(&mut self, path: &TreePath) {
        let Some((folder, name)) = path.split() else { return };
        if let Some(id) = self.find_literally(&folder)
            && let Some(children) = self.children_mut(id)
        {
            children.remove(name);
        }
    }

    /// Takes away all that is below the folder at `path`. No symbolic link is followed. No folder there is no error.
    pub fn clear(&mut self, path: &TreePath) {
        if let Some(id) = self.find_literally(path)
            && let Some(children) = self.children_mut(id)
        {
            children.clear();
        }
    }

    /// Every name with its node: a folder before what is in it, siblings in byte order. The root comes first.
    pub fn walk(&self) -> Walk<'_> {
        Walk::new(self)
    }

    /// How many names each node has, by [`NodeId`].
    pub fn link_counts(&self) -> LinkCounts {
        let mut counts = vec![0; self.nodes.len()];
        for (_, id) in self.walk() {
            counts[id.0 as usize] += 1;
        }
        LinkCounts(counts)
    }

    fn put_node(&mut self, path: &TreePath, mut node: Node) -> Result<NodeId, TreeError> {
        let here = match path.split() {
            None => Some(Self::ROOT),
            Some((folder, name)) => {
                let folder = self.make_folder(&folder)?;
                self.child(folder, name)
            }
        };
        if let Some(id) = here
            && let Kind::Directory(children) = &mut self.nodes[id.0 as usize].kind
            && let Kind::Directory(_) = node.kind
        {
            node.kind = Kind::Directory(std::mem::take(children));
            self.nodes[id.0 as usize] = node;
            return Ok(id);
        }
        let id = self.add(node)?;
        self.later_names.remove(path);
        self.name_node(path, id)?;
        Ok(id)
    }

    fn name_node(&mut self, path: &TreePath, id: NodeId) -> Result<(), TreeError> {
        let (folder, name) = path.split().ok_or(TreeError::Root)?;
        let folder = self.make_folder(&folder)?;
        if let Some(children) = self.children_mut(folder) {
            children.insert(name.into(), id);
        }
        Ok(())
    }

    fn add(&mut self, node: Node) -> Result<NodeId, TreeError> {
        if self.nodes.len() >= NODE_LIMIT {
            return Err(TreeError::TooManyNodes);
        }
        let id = u32::try_from(self.nodes.len()).map_err(|_| TreeError::TooManyNodes)?;
        self.nodes.push(node);
        Ok(NodeId(id))
    }

    fn child(&self, folder: NodeId, name: &[u8]) -> Option<NodeId> {
        match &self.node(folder).kind {
            Kind::Directory(children) => children.get(name).copied(),
            _ => None,
        }
    }

    fn children_mut(&mut self, folder: NodeId) -> Option<&mut BTreeMap<Box<[u8]>, NodeId>> {
        match &mut self.nodes[folder.0 as usize].kind {
            Kind::Directory(children) => Some(children),
            _ => None,
        }
    }
}

/// How many names each node of one tree has.
#[derive(Debug, Clone)]
pub struct LinkCounts(Vec<u32>);

impl LinkCounts {
    /// The number of names of `id`.
    pub fn of(&self, id: NodeId) -> u32 {
        self.0[id.0 as usize]
    }
}

#[cfg(test)]
mod tests;

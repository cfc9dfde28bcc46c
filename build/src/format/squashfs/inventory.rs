//! What of a tree is in the image, and the number of each: folders before what is in them, the files of one folder side by
//! side.

use std::collections::{BTreeMap, HashMap};

use crate::tree::{Body, Kind, Node, NodeId, Tree, TreePath};

/// The folder that is empty in the image: the kernel and what goes with it are not for the running system.
const EMPTY_FOLDER: &[u8] = b"boot";

/// All that is in the image.
pub(super) struct Inventory<'a> {
    pub(super) tree: &'a Tree,
    /// Each before those that are in it. The first is the root.
    pub(super) folders: Vec<Folder<'a>>,
    /// By number, the first of which is 1.
    inodes: Vec<NodeId>,
    known: HashMap<NodeId, Known>,
}

/// One folder.
pub(super) struct Folder<'a> {
    pub(super) id: NodeId,
    /// Number of the folder that it is in; the root's is one that does not exist.
    pub(super) parent: u32,
    /// In byte order.
    pub(super) children: Vec<(&'a [u8], NodeId)>,
}

struct Known {
    number: u32,
    names: u32,
}

impl<'a> Inventory<'a> {
    /// All of `tree` but what is below `boot`.
    pub(super) fn of(tree: &'a Tree) -> Self {
        let Some(root) = tree.find(&TreePath::root()) else { unreachable!("every tree has a root") };
        let mut inventory = Self { tree, folders: Vec::new(), inodes: Vec::new(), known: HashMap::new() };
        inventory.count(root);
        let mut open = vec![(root, None)];
        while let Some((id, parent)) = open.pop() {
            let children = children(tree, root, id);
            for (_, child) in &children {
                inventory.count(*child);
            }
            let number = inventory.number(id);
            let is_folder = |id: &NodeId| matches!(tree.node(*id).kind, Kind::Directory(_));
            let folders = children.iter().map(|(_, id)| *id).filter(is_folder);
            open.extend(folders.rev().map(|id| (id, Some(number))));
            inventory.folders.push(Folder { id, parent: parent.unwrap_or(0), children });
        }
        let beyond = u32::try_from(inventory.inodes.len()).unwrap_or(u32::MAX).saturating_add(1);
        if let Some(root) = inventory.folders.first_mut() {
            root.parent = beyond;
        }
        inventory
    }

    /// The node with this number.
    pub(super) fn node(&self, id: NodeId) -> &'a Node {
        self.tree.node(id)
    }

    /// The number of a node that is in the image.
    pub(super) fn number(&self, id: NodeId) -> u32 {
        self.known.get(&id).map_or(0, |known| known.number)
    }

    /// How many names a node has in the image.
    pub(super) fn names(&self, id: NodeId) -> u32 {
        self.known.get(&id).map_or(0, |known| known.names)
    }

    /// How many nodes there are.
    pub(super) fn len(&self) -> usize {
        self.inodes.len()
    }

    /// All nodes, by number.
    pub(super) fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.inodes.iter().copied()
    }

    /// All regular files with some content, by number.
    pub(super) fn files(&self) -> impl Iterator<Item = (NodeId, &'a Body)> {
        self.nodes().filter_map(|id| match &self.node(id).kind {
            Kind::File(body) if !body.is_empty() => Some((id, body)),
            _ => None,
        })
    }

    /// A name of a node, for an error.
    pub(super) fn path(&self, id: NodeId) -> TreePath {
        self.tree.walk().find(|(_, here)| *here == id).map(|(path, _)| path).unwrap_or_default()
    }

    fn count(&mut self, id: NodeId) {
        let next = u32::try_from(self.inodes.len() + 1).unwrap_or(u32::MAX);
        let known = self.known.entry(id).or_insert(Known { number: next, names: 0 });
        known.names += 1;
        if known.names == 1 {
            self.inodes.push(id);
        }
    }
}

fn children(tree: &Tree, root: NodeId, id: NodeId) -> Vec<(&[u8], NodeId)> {
    let of = |id: NodeId| match &tree.node(id).kind {
        Kind::Directory(children) => Some(children),
        _ => None,
    };
    let boot = of(root).and_then(|children: &BTreeMap<_, _>| children.get(EMPTY_FOLDER));
    let children = of(id).filter(|_| boot != Some(&id));
    children.into_iter().flatten().map(|(name, id)| (&name[..], *id)).collect()
}

//! The folders of a volume as one of its two hierarchies has them: who is in which, under which identifier, in the order
//! in which records and path tables stand.

use crate::tree::{Kind, NodeId, Tree, TreePath};

use super::identifier::{Identifier, Identifiers, Namespace};
use super::{FOLDER_LIMIT, IsoError};

/// One hierarchy.
pub(super) struct Listing<'a> {
    pub(super) namespace: Namespace,
    /// In the order of the path table (ECMA-119 6.9.1): by level, then by the parent's place, then by identifier.
    pub(super) folders: Vec<Folder<'a>>,
}

/// A folder.
pub(super) struct Folder<'a> {
    pub(super) node: NodeId,
    /// Its place in the hierarchy; the root's is its own.
    pub(super) parent: usize,
    /// What the path table calls it.
    pub(super) identifier: Box<[u8]>,
    /// In the order of their records (ECMA-119 9.3).
    pub(super) entries: Vec<Entry<'a>>,
}

/// A name in a folder.
pub(super) struct Entry<'a> {
    pub(super) identifier: Box<[u8]>,
    /// Its real name.
    pub(super) name: &'a [u8],
    pub(super) node: NodeId,
    /// The folder's place in the hierarchy, if it is one.
    pub(super) folder: Option<usize>,
}

impl<'a> Listing<'a> {
    pub(super) fn new(tree: &'a Tree, namespace: Namespace) -> Result<Self, IsoError> {
        let root = tree.find(&TreePath::root()).into_iter();
        let folder = |node, parent, identifier| Folder { node, parent, identifier, entries: Vec::new() };
        // The identifier of the root is one zero byte in both.
        let mut folders: Vec<_> = root.map(|node| folder(node, 0, Box::from([0]))).collect();
        let mut next = 0;
        while next < folders.len() {
            let mut entries = Vec::new();
            for (identifier, name, node) in children(tree, folders[next].node, namespace) {
                let is_folder = matches!(tree.node(node).kind, Kind::Directory(_));
                let identifier = identifier.bytes(namespace, is_folder);
                let place = is_folder.then_some(folders.len());
                if is_folder {
                    folders.push(folder(node, next, identifier.clone()));
                }
                entries.push(Entry { identifier, name, node, folder: place });
            }
            folders[next].entries = entries;
            next += 1;
            if folders.len() > FOLDER_LIMIT {
                return Err(IsoError::TooManyFolders);
            }
        }
        Ok(Self { namespace, folders })
    }
}

/// A folder's children that the namespace can tell, sorted by their identifiers.
fn children(tree: &Tree, folder: NodeId, namespace: Namespace) -> Vec<(Identifier, &[u8], NodeId)> {
    let Kind::Directory(children) = &tree.node(folder).kind else { return Vec::new() };
    let mut identifiers = Identifiers::new(namespace);
    let mut named = Vec::with_capacity(children.len());
    for (name, &node) in children {
        let is_folder = match &tree.node(node).kind {
            Kind::Directory(_) => true,
            Kind::File(_) => false,
            _ if namespace == Namespace::Joliet => continue,
            _ => false,
        };
        named.push((identifiers.give(name, is_folder), &**name, node));
    }
    named.sort_by(|(a, ..), (b, ..)| a.cmp(b));
    named
}

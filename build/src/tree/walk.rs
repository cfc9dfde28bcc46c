//! All names of a tree, in the one order that everything is written in.

use std::collections::btree_map;

use super::{Kind, NodeId, Tree, TreePath};

type Children<'a> = btree_map::Iter<'a, Box<[u8]>, NodeId>;

/// Gives each name with its node: a folder before what is in it, siblings in byte order.
#[derive(Debug)]
pub struct Walk<'a> {
    tree: &'a Tree,
    first: Option<(TreePath, NodeId)>,
    open: Vec<(TreePath, Children<'a>)>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(tree: &'a Tree) -> Self {
        Self::below(tree, Tree::ROOT)
    }

    /// From the node `start` on, which gets the empty path.
    pub(super) fn below(tree: &'a Tree, start: NodeId) -> Self {
        Self { tree, first: Some((TreePath::root(), start)), open: Vec::new() }
    }

    fn next_name(&mut self) -> Option<(TreePath, NodeId)> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        loop {
            let (folder, children) = self.open.last_mut()?;
            match children.next() {
                Some((name, &id)) => return Some((folder.join(name), id)),
                None => drop(self.open.pop()),
            }
        }
    }
}

impl Iterator for Walk<'_> {
    type Item = (TreePath, NodeId);

    fn next(&mut self) -> Option<Self::Item> {
        let (path, id) = self.next_name()?;
        if let Kind::Directory(children) = &self.tree.node(id).kind {
            self.open.push((path.clone(), children.iter()));
        }
        Some((path, id))
    }
}

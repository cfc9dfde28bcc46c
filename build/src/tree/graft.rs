//! One tree into another: how several images share one root.
//!
//! Images disagree on whether `/lib` is a folder or a link to `usr/lib`. Whoever comes first, the link stays and what
//! the folder had is found through it, so that no image loses its files (or the kernel its modules) to another's link.

use std::collections::HashMap;

use super::walk::Walk;
use super::{Kind, Node, NodeId, Tree, TreeError, TreePath};

impl Tree {
    /// Puts all of `other` at the folder `at`. What is put later wins; folders are joined.
    pub fn graft(&mut self, at: &TreePath, other: &Tree) -> Result<(), TreeError> {
        let mut placed: HashMap<NodeId, NodeId> = HashMap::new();
        let mut displaced = Vec::new();
        for (below, from) in other.walk() {
            let path = at.append(&below);
            let node = other.node(from);
            let here = self.find(&path);
            match (&node.kind, here.map(|id| &self.node(id).kind)) {
                (Kind::Directory(_), Some(Kind::Symlink(_))) => {
                    self.make_folder(&path)?;
                    continue;
                }
                (Kind::Symlink(_), Some(Kind::Directory(children))) if !children.is_empty() => {
                    displaced.extend(here.map(|id| (path.clone(), id)))
                }
                _ => {}
            }
            if let Some(&id) = placed.get(&from) {
                self.name_node(&path, id)?;
                self.keep_order_of_names(&path, other.is_later_name(&below));
                continue;
            }
            let kind = match &node.kind {
                Kind::Directory(_) => Kind::directory(),
                other => other.clone(),
            };
            let id =
                self.put_node(&path, Node { kind, attributes: node.attributes.clone(), origin: node.origin.clone() })?;
            if !matches!(node.kind, Kind::Directory(_)) {
                placed.insert(from, id);
                self.keep_order_of_names(&path, other.is_later_name(&below));
            }
        }
        displaced.into_iter().try_for_each(|(path, folder)| self.put_back(&path, folder))
    }

    fn keep_order_of_names(&mut self, path: &TreePath, is_later: bool) {
        if is_later {
            self.later_names.insert(path.clone());
        } else {
            self.later_names.remove(path);
        }
    }

    /// What the folder `old` had, now below the link at `path` that replaced it. What is there already stays.
    fn put_back(&mut self, path: &TreePath, old: NodeId) -> Result<(), TreeError> {
        let names: Vec<_> = Walk::below(self, old).skip(1).collect();
        self.make_folder(path)?;
        for (name, id) in names {
            let path = path.append(&name);
            if self.find(&path).is_some() {
                continue;
            }
            let node = self.node(id);
            if matches!(node.kind, Kind::Directory(_)) {
                let node =
                    Node { kind: Kind::directory(), attributes: node.attributes.clone(), origin: node.origin.clone() };
                self.put_node(&path, node)?;
            } else {
                self.name_node(&path, id)?;
            }
        }
        Ok(())
    }
}

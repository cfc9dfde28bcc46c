//! Paths to nodes: symbolic links on the way are followed inside the tree, as in a chroot.

use super::{Kind, NAME_LIMIT_BYTES, Node, NodeId, Tree, TreeError, TreePath};

/// Most symbolic links on one way, as Linux follows (`MAXSYMLINKS`).
pub const SYMLINK_LIMIT: usize = 40;

/// Deepest nesting: no longer path fits into `PATH_MAX`.
pub const DEPTH_LIMIT: usize = 2048;

/// Most components that links may add to one way: what real ones add, a hundred times over. Without it, 40 links of 4 KiB
/// in front of each of a million names would keep a build busy for an hour.
pub const LINKED_COMPONENTS_LIMIT: usize = 1024;

/// How far a path leads: to the deepest folder that is there, and the names below it that are not.
pub(super) struct Resolved {
    folder: NodeId,
    missing: Vec<Box<[u8]>>,
}

impl Resolved {
    /// The folder, if all of the path is there.
    pub(super) fn existing(&self) -> Option<NodeId> {
        self.missing.is_empty().then_some(self.folder)
    }
}

impl Tree {
    /// The folder at `path`, with all links followed, made where it is missing.
    pub(super) fn make_folder(&mut self, path: &TreePath) -> Result<NodeId, TreeError> {
        let Resolved { mut folder, missing } = self.resolve(path)?;
        for name in missing {
            let node = Node { attributes: self.implied.clone(), kind: Kind::directory(), origin: self.origin.clone() };
            let id = self.add(node)?;
            if let Some(children) = self.children_mut(folder) {
                children.insert(name, id);
            }
            folder = id;
        }
        Ok(folder)
    }

    /// Follows `path` to a folder.
    pub(super) fn resolve(&self, path: &TreePath) -> Result<Resolved, TreeError> {
        let mut way = vec![Self::ROOT];
        let mut missing: Vec<Box<[u8]>> = Vec::new();
        let mut todo: Vec<Box<[u8]>> = path.components().rev().map(Into::into).collect();
        let (mut links, mut linked) = (0, 0);
        while let Some(name) = todo.pop() {
            let here = way[way.len() - 1];
            if *name == *b".." {
                match missing.pop() {
                    Some(_) => {}
                    None if here == Self::ROOT => return Err(TreeError::Escape { path: path.clone() }),
                    None => drop(way.pop()),
                }
                continue;
            }
            if way.len() + missing.len() > DEPTH_LIMIT || name.len() > NAME_LIMIT_BYTES {
                return Err(TreeError::TooDeep { path: path.clone() });
            }
            let child = if missing.is_empty() { self.child(here, &name) } else { None };
            match child.map(|id| (id, &self.node(id).kind)) {
                None => missing.push(name),
                Some((id, Kind::Directory(_))) => way.push(id),
                Some((_, Kind::Symlink(target))) => {
                    links += 1;
                    if links > SYMLINK_LIMIT {
                        return Err(TreeError::SymlinkLoop { path: path.clone() });
                    }
                    if target.starts_with(b"/") {
                        way.truncate(1);
                    }
                    let components = target.rsplit(|&byte| byte == b'/');
                    let before = todo.len();
                    todo.extend(components.filter(|name| !matches!(*name, b"" | b".")).map(Into::into));
                    linked += todo.len() - before;
                    if linked > LINKED_COMPONENTS_LIMIT {
                        return Err(TreeError::LongLinks { path: path.clone() });
                    }
                }
                Some(_) => return Err(TreeError::NotAFolder { path: path.clone(), through: name }),
            }
        }
        Ok(Resolved { folder: way[way.len() - 1], missing })
    }

    /// What is at `path` when no link is followed.
    pub(super) fn find_literally(&self, path: &TreePath) -> Option<NodeId> {
        path.components().try_fold(Self::ROOT, |folder, name| self.child(folder, name))
    }
}

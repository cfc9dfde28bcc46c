//! Folders with what is in them, down to what is too small or too deep to show.

use std::collections::BTreeMap;

use serde::Serialize;

use super::listing::{Kind, Listing};
use crate::tree::printable;

/// Deeper files count for the folder at this depth.
const DEPTH_MAX: usize = 10;
/// Most folders and files that are told apart; the rest counts for what it is in.
const NODES_MAX: usize = 200_000;
/// What is smaller than one part in this many of the whole is not shown by itself.
const SHOWN_PARTS: u64 = 2000;

/// A folder, or a file that is large enough to be shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Folder {
    /// Its name in the folder above; the root's is empty.
    pub name: String,
    /// Of all files in it.
    pub bytes: u64,
    /// How many files, links and devices; 1 for a file.
    pub files: u64,
    /// Number of the section that most of it belongs to, counted from 0.
    pub section: usize,
    /// What is in it, the largest first. What is too small is left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<Folder>,
}

#[derive(Default)]
struct Node<'a> {
    bytes: u64,
    files: u64,
    /// Bytes by section.
    sections: BTreeMap<usize, u64>,
    children: BTreeMap<&'a [u8], usize>,
}

/// The root. `section` numbers the section of a name.
pub(super) fn folders(listing: &Listing, section: &dyn Fn(&[u8]) -> usize) -> Folder {
    let mut nodes = vec![Node::default()];
    for (path, entry) in &listing.entries {
        if entry.kind == Kind::Folder {
            continue;
        }
        let section = section(path);
        let mut at = 0;
        let add = |node: &mut Node<'_>| {
            node.bytes = node.bytes.saturating_add(entry.bytes);
            node.files += 1;
            let of_section = node.sections.entry(section).or_default();
            *of_section = of_section.saturating_add(entry.bytes);
        };
        add(&mut nodes[0]);
        for name in path.split(|&byte| byte == b'/').take(DEPTH_MAX) {
            let next = match nodes[at].children.get(name) {
                Some(&next) => next,
                None if nodes.len() >= NODES_MAX => break,
                None => {
                    nodes.push(Node::default());
                    let next = nodes.len() - 1;
                    nodes[at].children.insert(name, next);
                    next
                }
            };
            add(&mut nodes[next]);
            at = next;
        }
    }
    let smallest = nodes[0].bytes / SHOWN_PARTS;
    shown(&nodes, 0, b"", smallest)
}

/// Calls itself once for each level, of which there are [`DEPTH_MAX`] at most.
fn shown(nodes: &[Node<'_>], number: usize, name: &[u8], smallest: u64) -> Folder {
    let node = &nodes[number];
    let large = node.children.iter().filter(|(_, child)| nodes[**child].bytes > smallest);
    let mut children: Vec<Folder> = large.map(|(name, &child)| shown(nodes, child, name, smallest)).collect();
    children.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.name.cmp(&b.name)));
    let section = node.sections.iter().max_by_key(|(section, bytes)| (**bytes, std::cmp::Reverse(**section)));
    Folder {
        name: printable(name).into_owned(),
        bytes: node.bytes,
        files: node.files,
        section: section.map_or(0, |(section, _)| *section),
        children,
    }
}

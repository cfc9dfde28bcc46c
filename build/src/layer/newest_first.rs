//! LinuxKit's way to flatten layers, for `--compat linuxkit`: the newest layer first, and a name that was seen is not looked
//! at again. Opaque whiteouts say nothing then, and a whiteout also hides what its own layer has under the name.

use std::collections::HashMap;

use super::apply::extract;
use super::archive::{Member, MemberKind};
use super::{Archive, LayerError};
use crate::oci::Digest;
use crate::tree::{Tree, TreePath};

/// The tree of `layers`, lowest first.
pub(super) fn flatten(layers: &[(Digest, &Archive)], mtime_s: i64) -> Result<Tree, LayerError> {
    let kept = kept(layers);
    let mut tree = Tree::new(mtime_s);
    // Hard links last: what they name may be in an older layer, or gone.
    for links in [false, true] {
        for ((digest, archive), members) in layers.iter().zip(&kept) {
            for member in members.iter().filter(|member| matches!(member.kind, MemberKind::HardLink(_)) == links) {
                match &member.kind {
                    MemberKind::HardLink(target) if tree.get(target).is_none() => {}
                    _ => extract(std::iter::once(*member), &archive.content, &mut tree)
                        .map_err(|fault| LayerError { digest: *digest, fault })?,
                }
            }
        }
    }
    Ok(tree)
}

/// The members of each layer that are in the flattened image.
fn kept<'a>(layers: &[(Digest, &'a Archive)]) -> Vec<Vec<&'a Member>> {
    /// Whether what is called so, and what is below it, is hidden in older layers.
    type Seen = HashMap<TreePath, bool>;
    let mut seen = Seen::new();
    let is_below_hidden = |seen: &Seen, path: &TreePath| {
        let mut folder = path.split().map(|(folder, _)| folder);
        std::iter::from_fn(|| {
            let next = folder.take()?;
            folder = next.split().map(|(above, _)| above);
            Some(next)
        })
        .any(|folder| seen.get(&folder) == Some(&true))
    };
    let mut kept: Vec<Vec<&Member>> = Vec::new();
    for (_, archive) in layers.iter().rev() {
        let mut members = Vec::new();
        for member in &archive.members {
            let is_folder = matches!(member.kind, MemberKind::Directory);
            let hidden = member.path.split().and_then(|(folder, name)| Some(folder.join(name.strip_prefix(b".wh.")?)));
            let name = hidden.as_ref().filter(|_| !is_folder).unwrap_or(&member.path);
            if seen.contains_key(name) || is_below_hidden(&seen, name) {
                continue;
            }
            seen.insert(name.clone(), hidden.is_some() || !is_folder);
            if hidden.is_none() {
                members.push(member);
            }
        }
        kept.push(members);
    }
    kept.reverse();
    kept
}

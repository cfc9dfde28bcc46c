//! Members into a tree. Whiteouts hide what lower layers left, never what their own layer brings, whatever the order.

use super::archive::{Member, MemberKind};
use super::fault::{ArchiveFault, MemberFault};
use crate::tree::{Body, Kind, Tree, TreePath};

/// What a whiteout's name starts with.
const WHITEOUT: &[u8] = b".wh.";

/// In a folder: all that lower layers have in it is hidden.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Other names of AUFS that say nothing about content.
const AUFS: &[u8] = b".wh..wh.";

enum Mark<'a> {
    Hides(TreePath, &'a [u8]),
    Opaque(TreePath),
    Nothing,
}

pub(super) fn apply(members: &[Member], content: &Body, tree: &mut Tree) -> Result<(), ArchiveFault> {
    for member in members {
        match mark(member) {
            None | Some(Mark::Nothing) => {}
            Some(Mark::Opaque(folder)) => tree.clear(&folder),
            Some(Mark::Hides(folder, b"" | b"." | b"..")) => {
                return Err(refused(member, MemberFault::Whiteout { folder }));
            }
            Some(Mark::Hides(folder, name)) => tree.remove(&folder.join(name)),
        }
    }
    extract(members.iter().filter(|member| mark(member).is_none()), content, tree)
}

pub(super) fn extract<'a>(
    members: impl Iterator<Item = &'a Member>,
    content: &Body,
    tree: &mut Tree,
) -> Result<(), ArchiveFault> {
    for member in members {
        put(member, content, tree).map_err(|fault| refused(member, fault))?;
    }
    Ok(())
}

fn mark(member: &Member) -> Option<Mark<'_>> {
    let path = member.path.as_bytes();
    let start = path.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    let name = &path[start..];
    let hidden = name.strip_prefix(WHITEOUT)?;
    let folder = member.path.split()?.0;
    Some(match name {
        OPAQUE => Mark::Opaque(folder),
        _ if name.starts_with(AUFS) => Mark::Nothing,
        _ => Mark::Hides(folder, hidden),
    })
}

fn put(member: &Member, content: &Body, tree: &mut Tree) -> Result<(), MemberFault> {
    let kind = match &member.kind {
        MemberKind::HardLink(target) => return Ok(tree.link(&member.path, target)?),
        MemberKind::Directory => Kind::directory(),
        // The archive was read to behind this body, so it is all there.
        &MemberKind::File { start, len } => {
            Kind::File(content.slice(start, len).ok_or(MemberFault::Field { field: "size" })?)
        }
        MemberKind::Symlink(target) => Kind::Symlink(target.clone()),
        &MemberKind::CharDevice { major, minor } => Kind::CharDevice { major, minor },
        &MemberKind::BlockDevice { major, minor } => Kind::BlockDevice { major, minor },
        MemberKind::Fifo => Kind::Fifo,
    };
    tree.put(&member.path, member.attributes.clone(), kind)?;
    Ok(())
}

fn refused(member: &Member, fault: MemberFault) -> ArchiveFault {
    ArchiveFault::Member { name: member.path.as_bytes().into(), fault }
}

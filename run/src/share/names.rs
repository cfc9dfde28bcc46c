//! Names and what they lead to: finding, making, moving and removing.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, linkat, mkdirat, mknodat, readlinkat, renameat_with, symlinkat,
    unlinkat,
};
use rustix::io::Errno;

use super::abi::{Body, Fields, Header};
use super::answers::entry;
use super::nodes::{Node, open_at, stat, stat_at};
use super::session::{Done, OpenPath, Session};

/// Longest name (Linux: `NAME_MAX`).
const NAME_LIMIT_BYTES: usize = 255;
/// A folder gives its group to what is made in it.
const SET_GROUP: u16 = 0o2000;

/// A name of something in a folder; never one that leads out of it.
pub(super) fn name<'a>(fields: &mut Fields<'a>) -> Result<&'a CStr, Errno> {
    let name = fields.text().ok_or(Errno::INVAL)?;
    match name.to_bytes() {
        b"" | b"." | b".." => Err(Errno::INVAL),
        bytes if bytes.contains(&b'/') => Err(Errno::INVAL),
        bytes if bytes.len() > NAME_LIMIT_BYTES => Err(Errno::NAMETOOLONG),
        _ => Ok(name),
    }
}

/// A folder of the guest's, open.
pub(super) struct Folder {
    pub(super) node: Arc<Node>,
    pub(super) fd: Arc<OwnedFd>,
}

impl Session {
    pub(super) fn folder(&self, id: u64) -> Result<Folder, Errno> {
        let node = self.nodes.get(id)?;
        if node.kind != FileType::Directory {
            return Err(Errno::NOTDIR);
        }
        let fd = self.nodes.open(&node)?;
        Ok(Folder { node, fd })
    }

    pub(super) fn lookup(&self, header: &Header, mut fields: Fields<'_>) -> Result<Done, Errno> {
        let folder = self.folder(header.node)?;
        let mut body = Body::default();
        self.entry_of(&folder, name(&mut fields)?, &mut body)?;
        Ok(Done::Body(body))
    }

    /// Appends the entry of what has this name, which the guest knows from now on.
    pub(super) fn entry_of(&self, folder: &Folder, name: &CStr, body: &mut Body) -> Result<Arc<Node>, Errno> {
        let stat = stat_at(&folder.fd, name)?;
        let owner = self.owners.shown_in(&stat, &folder.fd, name);
        let node = self.nodes.found(&folder.node, name, &stat)?;
        entry(body, &node, &stat, owner, self.valid_s);
        Ok(node)
    }

    /// Gives what was just made its owner and mode.
    pub(super) fn hand_over(
        &self,
        header: &Header,
        folder: &Folder,
        made: BorrowedFd<'_>,
        mode: u16,
    ) -> Result<(), Errno> {
        let parent = stat(&*folder.fd)?;
        let inherits = parent.stx_mode & SET_GROUP != 0;
        let gid = if !inherits {
            Some(header.gid)
        } else if self.owners.keeps {
            Some(self.owners.shown(&parent, folder.fd.as_fd()).gid)
        } else {
            None
        };
        let stat = stat(made)?;
        let kind = FileType::from_raw_mode(stat.stx_mode.into());
        let mode = match kind {
            FileType::Symlink => None,
            FileType::Directory if inherits => Some(mode | SET_GROUP),
            _ => Some(mode),
        };
        self.set_owner(made, Some(header.uid), gid, mode)
    }

    /// Finishes what was made as `name`; what cannot be handed over does not stay.
    fn made(&self, header: &Header, folder: &Folder, name: &CStr, mode: u16, undo: AtFlags) -> Result<Done, Errno> {
        let finished = open_at(&folder.fd, name, OFlags::PATH, Mode::empty()).and_then(|made| {
            self.hand_over(header, folder, made.as_fd(), mode)?;
            let mut body = Body::default();
            self.entry_of(folder, name, &mut body)?;
            Ok(Done::Body(body))
        });
        if finished.is_err() {
            // The first error is the one to tell.
            let _left_behind = unlinkat(&*folder.fd, name, undo);
        }
        finished
    }

    pub(super) fn symbolic_link(&self, header: &Header, mut fields: Fields<'_>) -> Result<Done, Errno> {
        let folder = self.folder(header.node)?;
        let name = name(&mut fields)?;
        let target = fields.text().ok_or(Errno::INVAL)?;
        self.note(&folder.node, name);
        symlinkat(target, &*folder.fd, name)?;
        self.made(header, &folder, name, 0, AtFlags::empty())
    }

    pub(super) fn make_folder(&self, header: &Header, mut fields: Fields<'_>) -> Result<Done, Errno> {
        let (mode, _umask) = (mode(&mut fields)?, fields.u32());
        let folder = self.folder(header.node)?;
        let name = name(&mut fields)?;
        self.note(&folder.node, name);
        mkdirat(&*folder.fd, name, Mode::RWXU)?;
        self.made(header, &folder, name, mode, AtFlags::REMOVEDIR)
    }

    /// Files, pipes and sockets. A device would be one of the host's for everybody there.
    pub(super) fn make_node(&self, header: &Header, mut fields: Fields<'_>) -> Result<Done, Errno> {
        let kind = FileType::from_raw_mode(Fields(fields.0).u32().ok_or(Errno::INVAL)?);
        let mode = mode(&mut fields)?;
        fields.skip(12).ok_or(Errno::INVAL)?;
        let folder = self.folder(header.node)?;
        let name = name(&mut fields)?;
        match kind {
            FileType::RegularFile | FileType::Fifo | FileType::Socket => {}
            FileType::CharacterDevice | FileType::BlockDevice => return Err(Errno::PERM),
            _ => return Err(Errno::INVAL),
        }
        self.note(&folder.node, name);
        mknodat(&*folder.fd, name, kind, Mode::RUSR | Mode::WUSR, 0)?;
        self.made(header, &folder, name, mode, AtFlags::empty())
    }

    pub(super) fn link(&self, header: &Header, mut fields: Fields<'_>) -> Result<Done, Errno> {
        let node = self.nodes.get(fields.u64().ok_or(Errno::INVAL)?)?;
        let folder = self.folder(header.node)?;
        let name = name(&mut fields)?;
        self.note(&folder.node, name);
        // By way of /proc, since a descriptor alone can be linked by root only.
        let fd = self.nodes.open(&node)?;
        linkat(CWD, OpenPath::of(fd.as_fd()).text(), &*folder.fd, name, AtFlags::SYMLINK_FOLLOW)?;
        let mut body = Body::default();
        self.entry_of(&folder, name, &mut body)?;
        Ok(Done::Body(body))
    }

    pub(super) fn read_link(&self, header: &Header) -> Result<Done, Errno> {
        let node = self.nodes.get(header.node)?;
        if node.kind != FileType::Symlink {
            return Err(Errno::INVAL);
        }
        let target = readlinkat(&*self.nodes.open(&node)?, c"", Vec::new())?;
        Ok(Done::Body(Body(target.into_bytes())))
    }

    pub(super) fn remove(&self, header: &Header, mut fields: Fields<'_>, flags: AtFlags) -> Result<Done, Errno> {
        let folder = self.folder(header.node)?;
        let name = name(&mut fields)?;
        let gone = self.nodes.pin(&stat_at(&folder.fd, name)?);
        self.note(&folder.node, name);
        unlinkat(&*folder.fd, name, flags)?;
        if let Some(gone) = gone {
            self.nodes.left(gone, &folder.node, name);
        }
        Done::empty()
    }

    pub(super) fn rename(&self, header: &Header, mut fields: Fields<'_>, has_flags: bool) -> Result<Done, Errno> {
        let to = fields.u64().ok_or(Errno::INVAL)?;
        let mut flags = RenameFlags::empty();
        if has_flags {
            let bits = fields.u32().ok_or(Errno::INVAL)?;
            flags = RenameFlags::from_bits(bits).ok_or(Errno::INVAL)?;
            fields.skip(4).ok_or(Errno::INVAL)?;
        }
        // A whiteout is a device.
        if flags.contains(RenameFlags::WHITEOUT) {
            return Err(Errno::INVAL);
        }
        let (from, to) = (self.folder(header.node)?, self.folder(to)?);
        let (old, new) = (name(&mut fields)?, name(&mut fields)?);
        let moved = self.nodes.pin(&stat_at(&from.fd, old)?);
        let replaced = stat_at(&to.fd, new).ok().and_then(|stat| self.nodes.pin(&stat));
        self.note(&from.node, old);
        self.note(&to.node, new);
        renameat_with(&*from.fd, old, &*to.fd, new, flags)?;
        let same = match (&moved, &replaced) {
            (Some((moved, _)), Some((replaced, _))) => Arc::ptr_eq(moved, replaced),
            _ => false,
        };
        if let Some(replaced) = replaced.filter(|_| !same) {
            if flags.contains(RenameFlags::EXCHANGE) {
                self.nodes.moved(&replaced.0, &from.node, old);
            } else {
                self.nodes.left(replaced, &to.node, new);
            }
        }
        // Two names of one file stay both.
        if let Some((moved, _)) = moved.filter(|_| !same) {
            self.nodes.moved(&moved, &to.node, new);
        }
        Done::empty()
    }
}

/// The permissions that something new is to have.
pub(super) fn mode(fields: &mut Fields<'_>) -> Result<u16, Errno> {
    let mode = fields.u32().ok_or(Errno::INVAL)? & 0o7777;
    u16::try_from(mode).map_err(|_| Errno::INVAL)
}

//! What files are: their attributes, and those of the whole file system.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use kiln_abi::{TOUCH_NANOSECONDS, TOUCH_SECONDS};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, Uid, chmodat, chownat,
    fstatvfs, ftruncate, utimensat,
};
use rustix::io::Errno;

use super::abi::{Body, Fields, Header, set};
use super::answers::attributes_body;
use super::nodes::{Node, stat};
use super::owners::Owner;
use super::session::{Done, OpenPath, Session};

/// The request for attributes names an open file.
const BY_HANDLE: u32 = 1;

impl Session {
    pub(super) fn get_attributes(&self, header: &Header, mut fields: Fields<'_>) -> Result<Done, Errno> {
        let flags = fields.u32().ok_or(Errno::INVAL)?;
        fields.skip(4).ok_or(Errno::INVAL)?;
        let handle = fields.u64().ok_or(Errno::INVAL)?;
        let node = self.nodes.get(header.node)?;
        if flags & BY_HANDLE != 0
            && let Ok(handle) = self.handles.get(handle)
            && let Ok(file) = handle.file()
        {
            let stat = stat(file)?;
            return Ok(Done::Body(attributes_body(&stat, self.owners.shown(&stat, file.as_fd()), self.valid_s)));
        }
        if !self.owners.keeps {
            let stat = self.nodes.stat(&node)?;
            return Ok(Done::Body(attributes_body(&stat, self.owners.plain(&stat), self.valid_s)));
        }
        let fd = self.nodes.open(&node)?;
        let stat = stat(&*fd)?;
        Ok(Done::Body(attributes_body(&stat, self.owners.shown(&stat, fd.as_fd()), self.valid_s)))
    }

    pub(super) fn set_attributes(&self, header: &Header, fields: Fields<'_>) -> Result<Done, Errno> {
        let asked = Asked::read(fields).ok_or(Errno::INVAL)?;
        let node = self.nodes.get(header.node)?;
        let fd = self.nodes.open(&node)?;
        if asked.is_touch() {
            // Its kernel tells who watches, and that is all.
            let stat = stat(&*fd)?;
            return Ok(Done::Body(attributes_body(&stat, self.owners.shown(&stat, fd.as_fd()), self.valid_s)));
        }
        if self.read_only {
            return Err(Errno::ROFS);
        }
        if asked.valid & (set::UID | set::GID | set::MODE) != 0 {
            self.set_owner(fd.as_fd(), asked.uid(), asked.gid(), asked.mode())?;
        }
        if asked.valid & set::SIZE != 0 {
            self.set_size(&node, &asked)?;
        }
        if asked.valid & set::KILL_PRIVILEGES != 0 {
            self.kill_privileges(fd.as_fd())?;
        }
        if let Some(times) = asked.times() {
            utimensat(CWD, OpenPath::of(fd.as_fd()).text(), &times, AtFlags::empty())?;
        }
        let stat = stat(&*fd)?;
        Ok(Done::Body(attributes_body(&stat, self.owners.shown(&stat, fd.as_fd()), self.valid_s)))
    }

    /// Sets owner and mode of what is open. A file that changes hands runs as nobody's any more.
    pub(super) fn set_owner(
        &self,
        fd: BorrowedFd<'_>,
        uid: Option<u32>,
        gid: Option<u32>,
        mode: Option<u16>,
    ) -> Result<(), Errno> {
        let before = stat(fd)?;
        let shown = self.owners.shown(&before, fd);
        let mode = mode.or_else(|| if uid.or(gid).is_some() { without_privileges(shown.mode) } else { None });
        if self.owners.keeps {
            let (uid, gid) = (uid.unwrap_or(shown.uid), gid.unwrap_or(shown.gid));
            let wanted = Owner { uid, gid, mode: mode.unwrap_or(shown.mode) };
            self.owners.keep(&before, fd, wanted)?;
        } else if uid.or(gid).is_some() {
            let (uid, gid) = self.owners.on_host(uid, gid)?;
            let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
            chownat(fd, c"", uid, gid, AtFlags::EMPTY_PATH)?;
        }
        match mode {
            Some(mode) => {
                let mode = Mode::from_raw_mode(self.owners.host_mode(&before, mode).into());
                chmodat(CWD, OpenPath::of(fd).text(), mode, AtFlags::empty())
            }
            None => Ok(()),
        }
    }

    /// Somebody writes to the file: it must not run as its owner any more.
    pub(super) fn kill_privileges(&self, file: BorrowedFd<'_>) -> Result<(), Errno> {
        let stat = stat(file)?;
        match without_privileges(self.owners.shown(&stat, file).mode) {
            Some(mode) => self.set_owner(file, None, None, Some(mode)),
            None => Ok(()),
        }
    }

    fn set_size(&self, node: &Arc<Node>, asked: &Asked) -> Result<(), Errno> {
        if asked.valid & set::HANDLE != 0
            && let Ok(handle) = self.handles.get(asked.handle)
            && let Ok(file) = handle.file()
            && ftruncate(file, asked.size).is_ok()
        {
            return Ok(());
        }
        self.note_node(node);
        ftruncate(self.open_file(node, OFlags::WRONLY)?, asked.size)
    }

    pub(super) fn stat_fs(&self, header: &Header) -> Result<Done, Errno> {
        let found = fstatvfs(&*self.nodes.open(&self.nodes.get(header.node)?)?)?;
        let word = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        let mut body = Body::default();
        body.u64(found.f_blocks).u64(found.f_bfree).u64(found.f_bavail).u64(found.f_files).u64(found.f_ffree);
        body.u32(word(found.f_bsize)).u32(word(found.f_namemax)).u32(word(found.f_frsize)).u32(0).bytes(&[0; 24]);
        Ok(Done::Body(body))
    }
}

/// A file's mode without the bits that let it run as its owner or group; `None` if it has none of them.
fn without_privileges(mode: u16) -> Option<u16> {
    let is_file = FileType::from_raw_mode(mode.into()) == FileType::RegularFile;
    // Without the group's right to run it, the bit for the group means something else.
    let kept = mode & if mode & 0o010 == 0 { !0o4000 } else { !0o6000 };
    (is_file && kept != mode).then_some(kept & 0o7777)
}

/// What is to be set.
struct Asked {
    valid: u32,
    handle: u64,
    size: u64,
    /// Last use and last change, in seconds and nanoseconds.
    seconds: [u64; 2],
    nanoseconds: [u32; 2],
    mode: u32,
    uid: u32,
    gid: u32,
}

impl Asked {
    fn read(mut fields: Fields<'_>) -> Option<Self> {
        let valid = fields.u32()?;
        fields.skip(4)?;
        let (handle, size, _lock_owner) = (fields.u64()?, fields.u64()?, fields.u64()?);
        let (seconds, _change) = ([fields.u64()?, fields.u64()?], fields.u64()?);
        let (nanoseconds, _change) = ([fields.u32()?, fields.u32()?], fields.u32()?);
        let (mode, _unused) = (fields.u32()?, fields.u32()?);
        let (uid, gid) = (fields.u32()?, fields.u32()?);
        Some(Self { valid, handle, size, seconds, nanoseconds, mode, uid, gid })
    }

    /// The agent in the guest lets others know that the host changed the file.
    fn is_touch(&self) -> bool {
        let kinds =
            set::MODE | set::UID | set::GID | set::SIZE | set::ATIME | set::MTIME | set::ATIME_NOW | set::MTIME_NOW;
        let time = (self.seconds[1].cast_signed(), self.nanoseconds[1]);
        self.valid & kinds == set::MTIME && time == (TOUCH_SECONDS, TOUCH_NANOSECONDS)
    }

    fn uid(&self) -> Option<u32> {
        (self.valid & set::UID != 0).then_some(self.uid)
    }

    fn gid(&self) -> Option<u32> {
        (self.valid & set::GID != 0).then_some(self.gid)
    }

    fn mode(&self) -> Option<u16> {
        (self.valid & set::MODE != 0).then_some((self.mode & 0o7777).try_into().unwrap_or(0))
    }

    fn times(&self) -> Option<Timestamps> {
        if self.valid & (set::ATIME | set::MTIME) == 0 {
            return None;
        }
        let time = |is_set: u32, is_now: u32, at: usize| {
            let tv_nsec = match (self.valid & is_set != 0, self.valid & is_now != 0) {
                (false, _) => UTIME_OMIT,
                (true, true) => UTIME_NOW,
                // Anything else but a part of a second is refused by the kernel, except these two words.
                (true, false) => i64::from(self.nanoseconds[at].min(999_999_999)),
            };
            Timespec { tv_sec: self.seconds[at].cast_signed(), tv_nsec }
        };
        Some(Timestamps {
            last_access: time(set::ATIME, set::ATIME_NOW, 0),
            last_modification: time(set::MTIME, set::MTIME_NOW, 1),
        })
    }
}

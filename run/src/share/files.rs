//! What is in files.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Mode, OFlags, SeekFrom, copy_file_range, fallocate, fcntl_getfl, fdatasync,
    fsync, openat, seek, syncfs, unlinkat,
};
use rustix::io::Errno;

use super::abi::{Body, Fields, Header, OUT_HEADER_BYTES, WRITE_BYTES};
use super::handles::Handle;
use super::names::{Folder, mode, name};
use super::nodes::{Node, open_at};
use super::session::{Done, OpenPath, Session};
use super::{DATA_LIMIT_BYTES, Exchange};

/// What was read before need not be read again, unless the file changed.
const KEEP_CACHE: u32 = 1 << 1;
/// Who opens a file to cut it, or writes to it, may not leave it with the right to run as its owner.
const OPEN_KILLS_PRIVILEGES: u32 = 1;
const WRITE_KILLS_PRIVILEGES: u32 = 1 << 2;
/// What is written are pages of the guest's cache, which a program has mapped and changed.
const WRITE_OF_PAGES: u32 = 1;
/// Most bytes that one request copies on the host: no other waits for long.
const COPY_LIMIT_BYTES: u64 = 64 << 20;

/// What counts of the flags that a guest opens a file with. That nothing be cached, or nobody waited for, is a matter
/// between the guest's kernel and its programs.
const OPEN_FLAGS: OFlags = OFlags::RDWR
    .union(OFlags::WRONLY)
    .union(OFlags::APPEND)
    .union(OFlags::TRUNC)
    .union(OFlags::DSYNC)
    .union(OFlags::SYNC);

impl Session {
    /// Opens a node, if it is a file: anything else could do something by being opened.
    pub(super) fn open_file(&self, node: &Arc<Node>, flags: OFlags) -> Result<File, Errno> {
        match node.kind {
            FileType::RegularFile => {}
            FileType::Directory => return Err(Errno::ISDIR),
            FileType::Symlink => return Err(Errno::LOOP),
            _ => return Err(Errno::NXIO),
        }
        let fd = self.nodes.open(node)?;
        Ok(openat(CWD, OpenPath::of(fd.as_fd()).text(), flags | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())?
            .into())
    }

    fn flags(&self, fields: &mut Fields<'_>) -> Result<OFlags, Errno> {
        let flags = OFlags::from_bits_retain(fields.u32().ok_or(Errno::INVAL)?);
        let wanted = flags & OPEN_FLAGS;
        if self.read_only && wanted.intersects(OFlags::WRONLY | OFlags::RDWR | OFlags::TRUNC) {
            return Err(Errno::ROFS);
        }
        // Both bits at once are none of the three ways to open a file.
        if wanted.contains(OFlags::WRONLY | OFlags::RDWR) { Err(Errno::INVAL) } else { Ok(wanted) }
    }

    fn opened(&self, file: File, body: &mut Body) -> Result<(), Errno> {
        let handle = self.handles.add(Handle::File(file))?;
        body.u64(handle).u32(KEEP_CACHE).u32(0);
        Ok(())
    }

    pub(super) fn open(&self, header: &Header, mut fields: Fields<'_>) -> Result<Done, Errno> {
        let flags = self.flags(&mut fields)?;
        let file = self.open_file(&self.nodes.get(header.node)?, flags)?;
        if fields.u32().is_some_and(|more| more & OPEN_KILLS_PRIVILEGES != 0) {
            self.kill_privileges(file.as_fd())?;
        }
        let mut body = Body::default();
        self.opened(file, &mut body)?;
        Ok(Done::Body(body))
    }

    pub(super) fn create(&self, header: &Header, mut fields: Fields<'_>) -> Result<Done, Errno> {
        let is_exclusive = Fields(fields.0).u32().is_some_and(|flags| flags & OFlags::EXCL.bits() != 0);
        let flags = self.flags(&mut fields)?;
        let mode = mode(&mut fields)?;
        fields.skip(8).ok_or(Errno::INVAL)?;
        let folder = self.folder(header.node)?;
        let name = name(&mut fields)?;
        let new = flags | OFlags::CREATE | OFlags::EXCL;
        self.note(&folder.node, name);
        let made = open_at(&folder.fd, name, new, Mode::RUSR | Mode::WUSR);
        let mut body = Body::default();
        let file = match made {
            Ok(file) => {
                let finished = self.hand_over(header, &folder, file.as_fd(), mode);
                if let Err(error) = finished.and_then(|()| self.entry_of(&folder, name, &mut body).map(drop)) {
                    // What cannot be handed over does not stay; the first error is the one to tell.
                    let _left_behind = unlinkat(&*folder.fd, name, AtFlags::empty());
                    return Err(error);
                }
                file.into()
            }
            Err(Errno::EXIST) if !is_exclusive => self.existing(&folder, name, flags, &mut body)?,
            Err(error) => return Err(error),
        };
        self.opened(file, &mut body)?;
        Ok(Done::Body(body))
    }

    fn existing(&self, folder: &Folder, name: &std::ffi::CStr, flags: OFlags, body: &mut Body) -> Result<File, Errno> {
        let node = self.entry_of(folder, name, body)?;
        self.open_file(&node, flags).inspect_err(|_| self.nodes.forget(node.id, 1))
    }

    pub(super) fn read(&self, mut fields: Fields<'_>, exchange: &dyn Exchange) -> Result<Done, Errno> {
        let (handle, offset) = (fields.u64().ok_or(Errno::INVAL)?, fields.u64().ok_or(Errno::INVAL)?);
        let len = fields.u32().ok_or(Errno::INVAL)?.min(DATA_LIMIT_BYTES);
        let handle = self.handles.get(handle)?;
        let count = exchange.read_from(handle.file()?, offset, OUT_HEADER_BYTES, len).map_err(|error| errno(&error))?;
        Ok(Done::Data(count))
    }

    pub(super) fn write(&self, mut fields: Fields<'_>, exchange: &dyn Exchange) -> Result<Done, Errno> {
        let (handle, offset) = (fields.u64().ok_or(Errno::INVAL)?, fields.u64().ok_or(Errno::INVAL)?);
        let len = fields.u32().ok_or(Errno::INVAL)?;
        if len > DATA_LIMIT_BYTES {
            return Err(Errno::INVAL);
        }
        let flags = fields.u32().ok_or(Errno::INVAL)?;
        let handle = self.handles.get(handle)?;
        if flags & WRITE_KILLS_PRIVILEGES != 0 {
            self.kill_privileges(handle.file()?.as_fd())?;
        }
        let mut file = handle.file()?;
        let again;
        if flags & WRITE_OF_PAGES != 0 && fcntl_getfl(file)?.contains(OFlags::APPEND) {
            // A page has its place, also when whoever changed it appends to the file.
            let path = OpenPath::of(file.as_fd());
            again = openat(CWD, path.text(), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?.into();
            file = &again;
        }
        let count = exchange.write_to(file, offset, WRITE_BYTES, len).map_err(|error| errno(&error))?;
        let mut body = Body::default();
        body.u32(u32::try_from(count).unwrap_or(len)).u32(0);
        Ok(Done::Body(body))
    }

    pub(super) fn release_file(&self, header: &Header, fields: Fields<'_>) -> Result<Done, Errno> {
        // The host tells that a file was closed only if it was open to be written to.
        let handle = Fields(fields.0).u64().and_then(|handle| self.handles.get(handle).ok());
        let is_written =
            |file: &File| fcntl_getfl(file).is_ok_and(|flags| flags.intersects(OFlags::WRONLY | OFlags::RDWR));
        if self.is_watched()
            && handle.is_some_and(|handle| handle.file().is_ok_and(is_written))
            && let Ok(node) = self.nodes.get(header.node)
        {
            self.note_node(&node);
        }
        self.release(fields)
    }

    pub(super) fn release(&self, mut fields: Fields<'_>) -> Result<Done, Errno> {
        self.handles.remove(fields.u64().ok_or(Errno::INVAL)?);
        Done::empty()
    }

    pub(super) fn sync(&self, mut fields: Fields<'_>) -> Result<Done, Errno> {
        let handle = self.handles.get(fields.u64().ok_or(Errno::INVAL)?)?;
        let is_data_only = fields.u32().ok_or(Errno::INVAL)? & 1 != 0;
        let file = handle.file()?;
        if is_data_only {
            fdatasync(file)?
        } else {
            fsync(file)?
        }
        Done::empty()
    }

    pub(super) fn sync_file_system(&self) -> Result<Done, Errno> {
        syncfs(self.open_root()?)?;
        Done::empty()
    }

    fn open_root(&self) -> Result<OwnedFd, Errno> {
        let fd = self.nodes.open(self.nodes.root())?;
        openat(
            CWD,
            OpenPath::of(fd.as_fd()).text(),
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
    }

    pub(super) fn allocate(&self, mut fields: Fields<'_>) -> Result<Done, Errno> {
        let mut next = || fields.u64().ok_or(Errno::INVAL);
        let (handle, offset, len) = (next()?, next()?, next()?);
        let flags = FallocateFlags::from_bits(fields.u32().ok_or(Errno::INVAL)?).ok_or(Errno::OPNOTSUPP)?;
        fallocate(self.handles.get(handle)?.file()?, flags, offset, len)?;
        Done::empty()
    }

    /// Where data or a hole begins. The position is nobody's: reads and writes tell theirs.
    pub(super) fn seek(&self, mut fields: Fields<'_>) -> Result<Done, Errno> {
        let (handle, offset) = (fields.u64().ok_or(Errno::INVAL)?, fields.u64().ok_or(Errno::INVAL)?);
        let to = match fields.u32().ok_or(Errno::INVAL)? {
            3 => SeekFrom::Data(offset),
            4 => SeekFrom::Hole(offset),
            _ => return Err(Errno::INVAL),
        };
        let mut body = Body::default();
        body.u64(seek(self.handles.get(handle)?.file()?, to)?);
        Ok(Done::Body(body))
    }

    pub(super) fn copy_range(&self, mut fields: Fields<'_>) -> Result<Done, Errno> {
        let mut next = || fields.u64().ok_or(Errno::INVAL);
        let (from, mut from_offset, _node) = (next()?, next()?, next()?);
        let (to, mut to_offset, len) = (next()?, next()?, next()?.min(COPY_LIMIT_BYTES));
        let (from, to) = (self.handles.get(from)?, self.handles.get(to)?);
        let len = usize::try_from(len).map_err(|_| Errno::INVAL)?;
        let copied = copy_file_range(from.file()?, Some(&mut from_offset), to.file()?, Some(&mut to_offset), len)?;
        let mut body = Body::default();
        body.u32(u32::try_from(copied).unwrap_or(u32::MAX)).u32(0);
        Ok(Done::Body(body))
    }

    pub(super) fn sync_folder(&self, mut fields: Fields<'_>) -> Result<Done, Errno> {
        let handle = self.handles.get(fields.u64().ok_or(Errno::INVAL)?)?;
        fsync(&handle.folder()?.file)?;
        Done::empty()
    }
}

/// An error of the host's by its number.
fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

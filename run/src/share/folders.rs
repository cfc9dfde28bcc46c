//! What is in folders.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::sync::Mutex;

use rustix::fs::{CWD, FileType, Mode, OFlags, RawDir, SeekFrom, openat, seek};
use rustix::io::Errno;

use super::abi::{Body, Fields, Header, OUT_HEADER_BYTES};
use super::answers::ENTRY_BYTES;
use super::handles::{Handle, OpenFolder};
use super::names::Folder;
use super::session::{Done, OpenPath, Session};

/// The host's longest entry: the longest name and what stands before it.
const LONGEST_BYTES: usize = 280 + align_of::<u64>();
/// Most bytes of one answer.
const ANSWER_LIMIT_BYTES: u64 = 128 << 10;
/// What stands before each name.
const NAME_HEADER_BYTES: usize = 24;
/// How many times longer than on the host a name is in an answer, at most, alone and with its entry: the host's shortest
/// takes 24 bytes.
const GROWTH: usize = 2;
const GROWTH_WITH_ENTRY: usize = 7;
const _: () =
    assert!(24 * GROWTH >= NAME_HEADER_BYTES + 8 && 24 * GROWTH_WITH_ENTRY >= ENTRY_BYTES + NAME_HEADER_BYTES + 8);

/// A name of a folder, as the host tells it.
struct Found<'a> {
    name: &'a CStr,
    inode: u64,
    kind: FileType,
    /// Where the next one is.
    next: u64,
}

impl Found<'_> {
    fn append_to(&self, body: &mut Body) {
        let bytes = self.name.to_bytes();
        body.u64(self.inode).u64(self.next).u32(u32::try_from(bytes.len()).unwrap_or(0));
        body.u32(kind_number(self.kind)).bytes(bytes).pad();
    }

    fn len_bytes(&self) -> usize {
        (NAME_HEADER_BYTES + self.name.count_bytes()).next_multiple_of(8)
    }
}

impl Session {
    pub(super) fn open_folder(&self, header: &Header) -> Result<Done, Errno> {
        let Folder { fd, .. } = self.folder(header.node)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = openat(CWD, OpenPath::of(fd.as_fd()).text(), flags, Mode::empty())?;
        let mut body = Body::default();
        body.u64(self.handles.add(Handle::Folder(Mutex::new(OpenFolder { file: opened.into(), next: Some(0) })))?)
            .u64(0);
        Ok(Done::Body(body))
    }

    pub(super) fn read_folder(&self, _: &Header, fields: Fields<'_>, room: u64) -> Result<Done, Errno> {
        self.names(fields, (room, GROWTH), |found, body, limit| {
            let fits = body.0.len() + found.len_bytes() <= limit;
            if fits {
                found.append_to(body);
            }
            fits
        })
    }

    pub(super) fn read_folder_plus(&self, header: &Header, fields: Fields<'_>, room: u64) -> Result<Done, Errno> {
        let folder = self.folder(header.node)?;
        self.names(fields, (room, GROWTH_WITH_ENTRY), |found, body, limit| {
            let start = body.0.len();
            if start + ENTRY_BYTES + found.len_bytes() > limit {
                return false;
            }
            let is_dots = matches!(found.name.to_bytes(), b"." | b"..");
            if is_dots || self.entry_of(&folder, found.name, body).is_err() {
                // Number 0: only the name is told; one that is gone by now is found to be when it is looked for.
                body.0.resize(start + ENTRY_BYTES, 0);
            }
            found.append_to(body);
            true
        })
    }

    /// Gives the names from where the guest was on to `put`, until it says that there is no room.
    ///
    /// No more is read than fits, `growth` times as long: who goes on where it stopped needs no jump, and on file systems
    /// that count names a jump would miss some when others were removed meanwhile.
    fn names(
        &self,
        mut fields: Fields<'_>,
        (room, growth): (u64, usize),
        mut put: impl FnMut(&Found<'_>, &mut Body, usize) -> bool,
    ) -> Result<Done, Errno> {
        let (handle, offset) = (fields.u64().ok_or(Errno::INVAL)?, fields.u64().ok_or(Errno::INVAL)?);
        let wanted = u64::from(fields.u32().ok_or(Errno::INVAL)?);
        let room = room.saturating_sub(OUT_HEADER_BYTES as u64);
        let limit = usize::try_from(wanted.min(room).min(ANSWER_LIMIT_BYTES)).map_err(|_| Errno::INVAL)?;
        let handle = self.handles.get(handle)?;
        let mut folder = handle.folder()?;
        if folder.next.replace(offset) != Some(offset) {
            seek(&folder.file, SeekFrom::Start(offset))?;
        }
        let mut body = Body::default();
        loop {
            let len = limit.saturating_sub(body.0.len()) / growth;
            if len < LONGEST_BYTES && !body.0.is_empty() {
                return Ok(Done::Body(body));
            }
            let mut buffer = vec![MaybeUninit::uninit(); len.max(LONGEST_BYTES)];
            let mut names = RawDir::new(&folder.file, &mut buffer);
            let mut next;
            loop {
                let name = match names.next() {
                    None => return Ok(Done::Body(body)),
                    Some(Ok(name)) => name,
                    // What was found before is told first.
                    Some(Err(_)) if !body.0.is_empty() => return Ok(Done::Body(body)),
                    Some(Err(error)) => return Err(error),
                };
                let found = Found {
                    name: name.file_name(),
                    inode: name.ino(),
                    kind: name.file_type(),
                    next: name.next_entry_cookie(),
                };
                if !put(&found, &mut body, limit) {
                    folder.next = None;
                    // Nothing at all would look like the end.
                    return if body.0.is_empty() { Err(Errno::INVAL) } else { Ok(Done::Body(body)) };
                }
                next = found.next;
                if names.is_buffer_empty() {
                    break;
                }
            }
            folder.next = Some(next);
        }
    }
}

/// Linux: `DT_REG` and its like, which are the upper bits of a mode.
fn kind_number(kind: FileType) -> u32 {
    if kind == FileType::Unknown { 0 } else { kind.as_raw_mode() >> 12 }
}

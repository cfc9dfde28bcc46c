//! What one guest knows and has open; its requests, each to its place.

use std::ffi::CStr;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::abi::{
    Body, Fields, Header, IN_HEADER_BYTES, MAJOR, MINOR, MINOR_LEAST, OUT_HEADER_BYTES, Operation, WRITE_BYTES, init,
};
use super::handles::Handles;
use super::nodes::{Node, Nodes};
use super::own::OwnChanges;
use super::owners::Owners;
use super::{DATA_LIMIT_BYTES, Exchange, OpenShare, REQUEST_LIMIT_BYTES};

/// Bytes of a page, in which limits are told.
const PAGE_BYTES: u32 = 4_096;
/// Requests that a guest may have under way without anybody waiting for them, such as those that read ahead.
const BACKGROUND: u16 = 64;

/// What is offered to a guest.
const FLAGS: u64 = init::ASYNC_READ
    | init::ATOMIC_O_TRUNC
    | init::BIG_WRITES
    | init::AUTO_INVAL_DATA
    | init::DO_READDIRPLUS
    | init::READDIRPLUS_AUTO
    | init::ASYNC_DIO
    | init::PARALLEL_DIROPS
    | init::MAX_PAGES
    | init::HANDLE_KILLPRIV_V2
    | init::INIT_EXT
    | init::DIRECT_IO_ALLOW_MMAP;

/// A guest that uses a share, from its first request until it starts again.
pub struct Session {
    pub(super) nodes: Nodes,
    pub(super) handles: Handles,
    pub(super) owners: Owners,
    pub(super) read_only: bool,
    /// How long the guest may believe what it was told, in seconds.
    pub(super) valid_s: u32,
    /// Where it notes what it changes, if the host watches the folder.
    own: Option<Arc<OwnChanges>>,
}

/// How a request ended.
pub(super) enum Done {
    /// With this answer.
    Body(Body),
    /// With so many bytes, which are in the answer's room already.
    Data(usize),
    /// Nobody waits for an answer.
    Silent,
}

impl Done {
    pub(super) fn empty() -> Result<Self, Errno> {
        Ok(Self::Body(Body::default()))
    }
}

impl Session {
    pub(super) fn new(share: &OpenShare) -> Result<Self, Errno> {
        let nodes = Nodes::new(Arc::clone(&share.root), share.open_nodes)?;
        let (owners, own) = (share.owners.clone(), share.own.clone());
        let (read_only, valid_s) = (share.read_only, share.cache_s);
        Ok(Self { nodes, handles: Handles::default(), owners, read_only, valid_s, own })
    }

    /// Does what is asked for and answers. Returns the length of the answer; `None` if the request is none at all.
    pub fn serve(&self, exchange: &dyn Exchange) -> Option<u32> {
        // Nearly all are short; the rest is read when it is known to be wanted.
        let mut start = [0; 512];
        let len = exchange.request(&mut start);
        let start = start.get(..len)?;
        let mut long = Vec::new();
        let header = Header::read(&mut Fields(start))?;
        let operation = Operation::of(header.operation);
        let mut request = start;
        if len == 512 && operation != Some(Operation::Write) {
            long.resize(REQUEST_LIMIT_BYTES, 0);
            let len = exchange.request(&mut long);
            request = long.get(..len)?;
        }
        let fields = Fields(request.get(IN_HEADER_BYTES..)?);
        let done = match operation {
            Some(operation) => self.dispatch(operation, &header, fields, exchange),
            None => Err(Errno::NOSYS),
        };
        Some(finish(done, header.unique, exchange))
    }

    fn dispatch(
        &self,
        operation: Operation,
        header: &Header,
        fields: Fields<'_>,
        exchange: &dyn Exchange,
    ) -> Result<Done, Errno> {
        if self.read_only && changes(operation) {
            return Err(Errno::ROFS);
        }
        match operation {
            Operation::Init => {
                self.forget_all();
                init(fields)
            }
            Operation::Destroy => {
                self.forget_all();
                Done::empty()
            }
            Operation::Interrupt => Ok(Done::Silent),
            Operation::Forget => self.forget(header, fields),
            Operation::BatchForget => self.forget_many(exchange),
            Operation::Lookup => self.lookup(header, fields),
            Operation::GetAttributes => self.get_attributes(header, fields),
            Operation::SetAttributes => self.set_attributes(header, fields),
            Operation::StatFs => self.stat_fs(header),
            Operation::ReadLink => self.read_link(header),
            Operation::SymbolicLink => self.symbolic_link(header, fields),
            Operation::MakeNode => self.make_node(header, fields),
            Operation::MakeFolder => self.make_folder(header, fields),
            Operation::Unlink => self.remove(header, fields, AtFlags::empty()),
            Operation::RemoveFolder => self.remove(header, fields, AtFlags::REMOVEDIR),
            Operation::Rename => self.rename(header, fields, false),
            Operation::Rename2 => self.rename(header, fields, true),
            Operation::Link => self.link(header, fields),
            Operation::Open => self.open(header, fields),
            Operation::Create => self.create(header, fields),
            Operation::Read => self.read(fields, exchange),
            Operation::Write => self.write(fields, exchange),
            Operation::Release => self.release_file(header, fields),
            Operation::ReleaseFolder => self.release(fields),
            Operation::Sync => self.sync(fields),
            Operation::SyncFolder => self.sync_folder(fields),
            Operation::SyncFileSystem => self.sync_file_system(),
            Operation::Allocate => self.allocate(fields),
            Operation::Seek => self.seek(fields),
            Operation::CopyRange => self.copy_range(fields),
            Operation::OpenFolder => self.open_folder(header),
            Operation::ReadFolder => self.read_folder(header, fields, exchange.room()),
            Operation::ReadFolderPlus => self.read_folder_plus(header, fields, exchange.room()),
            Operation::SetXattr => self.set_xattr(header, fields),
            Operation::GetXattr => self.get_xattr(header, fields),
            Operation::ListXattr => self.list_xattr(header, fields),
            Operation::RemoveXattr => self.remove_xattr(header, fields),
        }
    }

    /// Whether the host watches the folder.
    pub(super) fn is_watched(&self) -> bool {
        self.own.is_some()
    }

    /// The guest is about to change what has this name.
    pub(super) fn note(&self, folder: &Node, name: &CStr) {
        if let Some(own) = &self.own {
            own.note(folder.file, name);
        }
    }

    /// The guest is about to change this file, or has changed it and closes it.
    pub(super) fn note_node(&self, node: &Node) {
        if let (Some(own), Some((folder, name))) = (&self.own, node.place()) {
            own.note(folder, &name);
        }
    }

    /// A guest that begins, or ends, knows nothing and has nothing open.
    fn forget_all(&self) {
        self.handles.clear();
        self.nodes.clear();
    }

    fn forget(&self, header: &Header, mut fields: Fields<'_>) -> Result<Done, Errno> {
        self.nodes.forget(header.node, fields.u64().unwrap_or(0));
        Ok(Done::Silent)
    }

    /// The list may be longer than any other request; it is read piece by piece.
    fn forget_many(&self, exchange: &dyn Exchange) -> Result<Done, Errno> {
        let mut list = vec![0; DATA_LIMIT_BYTES as usize];
        let len = exchange.request(&mut list);
        let mut fields = Fields(list.get(IN_HEADER_BYTES..len).unwrap_or_default());
        let count = fields.u64().unwrap_or(0) & u64::from(u32::MAX);
        for _ in 0..count {
            let (Some(node), Some(times)) = (fields.u64(), fields.u64()) else { break };
            self.nodes.forget(node, times);
        }
        Ok(Done::Silent)
    }
}

/// Operations that change something whatever their fields say.
fn changes(operation: Operation) -> bool {
    matches!(
        operation,
        Operation::SymbolicLink
            | Operation::MakeNode
            | Operation::MakeFolder
            | Operation::Unlink
            | Operation::RemoveFolder
            | Operation::Rename
            | Operation::Rename2
            | Operation::Link
            | Operation::Create
            | Operation::Write
            | Operation::Allocate
            | Operation::CopyRange
            | Operation::SetXattr
            | Operation::RemoveXattr
    )
}

/// Both sides say what they know.
fn init(mut fields: Fields<'_>) -> Result<Done, Errno> {
    let mut next = || fields.u32().ok_or(Errno::INVAL);
    let (major, minor, read_ahead, flags) = (next()?, next()?, next()?, next()?);
    if major < MAJOR || (major == MAJOR && minor < MINOR_LEAST) {
        return Err(Errno::PROTO);
    }
    let more = if u64::from(flags) & init::INIT_EXT == 0 { 0 } else { next()? };
    let agreed = (u64::from(flags) | u64::from(more) << 32) & FLAGS;
    let [low, high] = [agreed & u64::from(u32::MAX), agreed >> 32].map(|half| u32::try_from(half).unwrap_or(0));
    let mut body = Body::default();
    body.u32(MAJOR).u32(MINOR).u32(read_ahead).u32(low).u16(BACKGROUND).u16(BACKGROUND * 3 / 4);
    body.u32(DATA_LIMIT_BYTES).u32(1).u16(u16::try_from(DATA_LIMIT_BYTES / PAGE_BYTES).unwrap_or(1)).u16(0).u32(high);
    body.bytes(&[0; 28]);
    Ok(Done::Body(body))
}

/// Answers; returns the answer's length.
fn finish(done: Result<Done, Errno>, unique: u64, exchange: &dyn Exchange) -> u32 {
    let (error, body, data_bytes) = match done {
        Ok(Done::Silent) => return 0,
        Ok(Done::Body(body)) if exchange.room() < (OUT_HEADER_BYTES + body.0.len()) as u64 => {
            (Errno::RANGE.raw_os_error(), Body::default(), 0)
        }
        Ok(Done::Body(body)) => (0, body, 0),
        Ok(Done::Data(bytes)) => (0, Body::default(), bytes),
        Err(error) => (error.raw_os_error(), Body::default(), 0),
    };
    let len = u32::try_from(OUT_HEADER_BYTES + body.0.len() + data_bytes).unwrap_or(u32::MAX);
    let mut answer = Body::default();
    answer.u32(len).bytes(&(-error).to_le_bytes()).u64(unique).bytes(&body.0);
    exchange.answer(&answer.0);
    len
}

/// A path to what is open, whatever it is. It ends before what is open is closed, for then the number is another's.
pub(super) struct OpenPath<'a> {
    text: String,
    _open: PhantomData<BorrowedFd<'a>>,
}

impl<'a> OpenPath<'a> {
    pub(super) fn of(fd: BorrowedFd<'a>) -> Self {
        Self { text: format!("/proc/self/fd/{}", fd.as_raw_fd()), _open: PhantomData }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

const _: () = assert!(WRITE_BYTES < 512);

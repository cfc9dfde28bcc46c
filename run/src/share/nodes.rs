//! The files that a guest knows, by number.
//!
//! A node is found again by its folder and its name there, and is opened (as `O_PATH`) only while it is used: descriptors
//! are few, and a guest may know millions of files. What is found under a name must be the same file, or the node is
//! stale. A file that the guest removes while it knows it stays open, for its name leads nowhere any more.

use std::collections::{HashMap, VecDeque};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags, openat2, statx};
use rustix::io::Errno;

use super::abi::ROOT;

/// Most files that one guest can know at once; each takes some 300 bytes.
const NODES_LIMIT: usize = 4 << 20;
/// Deepest folder that can be found again: as deep as the longest path goes.
const DEPTH_LIMIT: usize = 4_096;
/// Open nodes that are looked at for one to close before another is opened.
const CLOSING_TRIES: usize = 64;

/// Names are one component, and no link is followed: nothing leads out of the folder it is in.
const STAYS: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// Looks at what has `name` in the folder `fd`.
pub(super) fn stat_at(fd: &OwnedFd, name: &CStr) -> Result<Statx, Errno> {
    statx(fd, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS | StatxFlags::BTIME)
}

/// Looks at what is open.
pub(super) fn stat(fd: impl AsFd) -> Result<Statx, Errno> {
    statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS | StatxFlags::BTIME)
}

/// Opens what has `name` in the folder `fd`, whatever it is, without touching it or following it.
pub(super) fn open_at(fd: &OwnedFd, name: &CStr, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    openat2(fd, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, mode, STAYS)
}

/// What tells files apart while they exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct FileId {
    device: (u32, u32),
    inode: u64,
}

/// What tells a file from one that has its number later: when it was made, if the host knows.
pub(super) type Born = (i64, u32);

pub(super) fn identity(stat: &Statx) -> (FileId, Born) {
    let device = (stat.stx_dev_major, stat.stx_dev_minor);
    (FileId { device, inode: stat.stx_ino }, (stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec))
}

/// A file that the guest knows.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: u64,
    pub(super) kind: FileType,
    pub(super) file: FileId,
    /// Since it was last looked at as one to close.
    was_used: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    born: Born,
    place: Option<Place>,
    fd: Option<Arc<OwnedFd>>,
}

#[derive(Debug, Clone)]
struct Place {
    folder: Arc<Node>,
    name: CString,
}

impl Place {
    fn is(&self, folder: &Node, name: &CStr) -> bool {
        self.folder.id == folder.id && self.name.as_c_str() == name
    }
}

impl Node {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is(&self, stat: &Statx) -> bool {
        let (file, born) = identity(stat);
        file == self.file && born == self.state().born
    }

    /// Its folder and its name there, while it has one.
    pub(super) fn place(&self) -> Option<(FileId, CString)> {
        self.state().place.as_ref().map(|place| (place.folder.file, place.name.clone()))
    }

    /// Whether it is this file that was found under a name; then that is its place. While it is open, no other file can
    /// have its number, whenever that says it was made.
    fn is_at(&self, stat: &Statx, folder: &Arc<Self>, name: &CStr) -> bool {
        let born = identity(stat).1;
        let mut state = self.state();
        if state.fd.is_none() && state.born != born {
            return false;
        }
        state.born = born;
        let is_there = state.place.as_ref().is_some_and(|place| place.is(folder, name));
        if !is_there && self.id != ROOT {
            state.place = Some(Place { folder: Arc::clone(folder), name: name.to_owned() });
        }
        true
    }

    /// It has this name no more. Without another place it stays open.
    fn left(&self, folder: &Node, name: &CStr) {
        let mut state = self.state();
        if state.place.as_ref().is_some_and(|place| place.is(folder, name)) {
            state.place = None;
        }
    }

    /// Closes it if it can be found again.
    fn close(&self) -> bool {
        let mut state = self.state();
        let is_closed = state.place.is_some();
        if is_closed {
            state.fd = None;
        }
        is_closed
    }
}

impl Drop for Node {
    /// Folders deep in each other go one after the other, not each within the last one's end.
    fn drop(&mut self) {
        let place = |node: &mut Self| node.state.get_mut().unwrap_or_else(PoisonError::into_inner).place.take();
        let mut next = place(self);
        while let Some(Place { folder, .. }) = next {
            next = Arc::into_inner(folder).and_then(|mut folder| place(&mut folder));
        }
    }
}

struct Known {
    node: Arc<Node>,
    /// How often the guest was told of it and did not forget it.
    lookups: u64,
}

struct Table {
    known: HashMap<u64, Known>,
    by_file: HashMap<FileId, u64>,
    last_id: u64,
    /// Those that are open, those first that were opened first.
    open: VecDeque<Weak<Node>>,
}

/// All nodes of one guest.
pub(super) struct Nodes {
    root: Arc<Node>,
    table: Mutex<Table>,
    open_limit: usize,
}

impl Nodes {
    /// The guest knows the root alone. About `open_limit` nodes are open at once.
    pub(super) fn new(root: Arc<OwnedFd>, open_limit: usize) -> Result<Self, Errno> {
        let (file, born) = identity(&stat(&root)?);
        let state = Mutex::new(State { born, place: None, fd: Some(root) });
        let was_used = AtomicBool::new(true);
        let root = Arc::new(Node { id: ROOT, kind: FileType::Directory, file, was_used, state });
        let known = HashMap::from([(ROOT, Known { node: Arc::clone(&root), lookups: 1 })]);
        let by_file = HashMap::from([(file, ROOT)]);
        let table = Table { known, by_file, last_id: ROOT, open: VecDeque::new() };
        Ok(Self { root, table: Mutex::new(table), open_limit })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node of this number, if the guest was told of it.
    pub(super) fn get(&self, id: u64) -> Result<Arc<Node>, Errno> {
        self.table().known.get(&id).map(|known| Arc::clone(&known.node)).ok_or(Errno::NOENT)
    }

    pub(super) fn root(&self) -> &Arc<Node> {
        &self.root
    }

    /// The node of what was found as `name` in `folder`; the guest is told of it once more.
    pub(super) fn found(&self, folder: &Arc<Node>, name: &CStr, stat: &Statx) -> Result<Arc<Node>, Errno> {
        while let Some(node) = self.known(stat) {
            if !node.is_at(stat, folder, name) {
                break;
            }
            if let Some(known) = self.table().known.get_mut(&node.id) {
                known.lookups = known.lookups.saturating_add(1);
                return Ok(node);
            }
        }
        let (file, born) = identity(stat);
        let place = Some(Place { folder: Arc::clone(folder), name: name.to_owned() });
        let mut table = self.table();
        if table.known.len() >= NODES_LIMIT {
            return Err(Errno::NFILE);
        }
        table.last_id += 1;
        let node = Arc::new(Node {
            id: table.last_id,
            kind: FileType::from_raw_mode(stat.stx_mode.into()),
            file,
            was_used: AtomicBool::new(true),
            state: Mutex::new(State { born, place, fd: None }),
        });
        table.by_file.insert(file, node.id);
        table.known.insert(node.id, Known { node: Arc::clone(&node), lookups: 1 });
        Ok(node)
    }

    fn known(&self, stat: &Statx) -> Option<Arc<Node>> {
        let table = self.table();
        let id = table.by_file.get(&identity(stat).0)?;
        Some(Arc::clone(&table.known.get(id)?.node))
    }

    /// The guest forgets that it was told of it so often.
    pub(super) fn forget(&self, id: u64, times: u64) {
        let mut table = self.table();
        let Some(known) = table.known.get_mut(&id).filter(|known| known.node.id != ROOT) else { return };
        known.lookups = known.lookups.saturating_sub(times);
        if known.lookups > 0 {
            return;
        }
        let Some(Known { node, .. }) = table.known.remove(&id) else { return };
        if table.by_file.get(&node.file) == Some(&id) {
            table.by_file.remove(&node.file);
        }
        drop(table);
        node.close();
    }

    /// The guest knows the root alone.
    pub(super) fn clear(&self) {
        let mut table = self.table();
        let mut all = std::mem::take(&mut table.known);
        table.by_file.clear();
        table.by_file.insert(self.root.file, ROOT);
        table.known.extend(all.remove_entry(&ROOT));
        table.open.clear();
        drop(table);
        // Closing takes its time; nobody waits for it at the table.
        drop(all);
    }

    /// Opens a node, unless it is open already.
    ///
    /// # Errors
    /// [`Errno::STALE`] if it is not where it was, [`Errno::NFILE`] if too many that the guest removed are open.
    pub(super) fn open(&self, node: &Arc<Node>) -> Result<Arc<OwnedFd>, Errno> {
        let mut way: Vec<(Arc<Node>, CString)> = Vec::new();
        let mut at = Arc::clone(node);
        let mut fd = loop {
            at.was_used.store(true, Ordering::Relaxed);
            let (fd, place) = {
                let state = at.state();
                if let Some(fd) = &state.fd { (Some(Arc::clone(fd)), None) } else { (None, state.place.clone()) }
            };
            if let Some(fd) = fd {
                break fd;
            }
            let Place { folder, name } = place.filter(|_| way.len() < DEPTH_LIMIT).ok_or(Errno::STALE)?;
            way.push((std::mem::replace(&mut at, folder), name));
        };
        for (node, name) in way.into_iter().rev() {
            let opened = open_at(&fd, &name, OFlags::PATH, Mode::empty()).map_err(stale)?;
            if !node.is(&stat(&opened)?) {
                return Err(Errno::STALE);
            }
            self.make_room(&node)?;
            let opened = Arc::new(opened);
            fd = Arc::clone(node.state().fd.get_or_insert(opened));
        }
        Ok(fd)
    }

    /// Looks at a node, without opening it if that is not needed.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(super) fn stat(&self, node: &Arc<Node>) -> Result<Statx, Errno> {
        let (fd, place) = {
            let state = node.state();
            (state.fd.clone(), state.place.clone())
        };
        match (fd, place) {
            (Some(fd), _) => stat(&fd),
            (None, Some(Place { folder, name })) => {
                let stat = stat_at(&*self.open(&folder)?, &name).map_err(stale)?;
                if node.is(&stat) { Ok(stat) } else { Err(Errno::STALE) }
            }
            (None, None) => Err(Errno::STALE),
        }
    }

    /// Keeps open what has a name that is about to go, if the guest knows it.
    pub(super) fn pin(&self, stat: &Statx) -> Option<(Arc<Node>, Arc<OwnedFd>)> {
        let node = self.known(stat)?;
        // One that cannot be opened is stale afterwards.
        let fd = self.open(&node).ok()?;
        Some((node, fd))
    }

    /// The name that led to the node is gone.
    pub(super) fn left(&self, (node, fd): (Arc<Node>, Arc<OwnedFd>), folder: &Node, name: &CStr) {
        node.state().fd.get_or_insert(fd);
        node.left(folder, name);
    }

    /// The node has another name now.
    pub(super) fn moved(&self, node: &Node, folder: &Arc<Node>, name: &CStr) {
        node.state().place = Some(Place { folder: Arc::clone(folder), name: name.to_owned() });
    }

    /// Counts a node that is about to be open, and closes others that were not used for long.
    fn make_room(&self, node: &Arc<Node>) -> Result<(), Errno> {
        for _ in 0..CLOSING_TRIES {
            let first = {
                let mut table = self.table();
                if table.open.len() < self.open_limit { None } else { table.open.pop_front() }
            };
            let Some(first) = first else { break };
            let Some(candidate) = first.upgrade() else { continue };
            if candidate.was_used.swap(false, Ordering::Relaxed) || !candidate.close() {
                self.table().open.push_back(first);
            }
        }
        let mut table = self.table();
        if table.open.len() >= self.open_limit.saturating_mul(2) {
            return Err(Errno::NFILE);
        }
        table.open.push_back(Arc::downgrade(node));
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, usize) {
        let table = self.table();
        let open = table.open.iter().filter_map(Weak::upgrade).filter(|node| node.state().fd.is_some()).count();
        (table.known.len(), open)
    }
}

/// What is not where it was is stale.
fn stale(error: Errno) -> Errno {
    match error {
        Errno::NOENT | Errno::NOTDIR => Errno::STALE,
        other => other,
    }
}

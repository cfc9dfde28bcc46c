//! A folder of the host's, served to one guest as a FUSE file system (Linux: `include/uapi/linux/fuse.h`).
//!
//! It knows no device: requests come, and answers go, through [`Exchange`]. The guest reaches what is below the folder
//! and nothing else: names are single components, no link is followed here (the guest follows links itself, inside), and
//! nothing but regular files and folders is ever opened. What the host changes is seen at once: the guest is told to keep
//! nothing without asking, unless it may for some seconds; a guest with an agent is told of it too, where that is wanted. Locks hold among the guest's programs; the host knows nothing of them.

mod abi;
mod answers;
mod attributes;
mod files;
mod folders;
mod handles;
pub mod memory;
mod names;
mod nodes;
mod own;
mod owners;
mod session;
mod tell;
#[cfg(test)]
mod tests;
mod watch;
mod xattrs;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::process::{Resource, getrlimit};

pub use self::session::Session;
use crate::config::Share;
use own::OwnChanges;
use owners::Owners;
use tell::Teller;
use watch::Tree;

/// Most bytes of data of one request: 256 pages, the most that Linux asks for.
pub(crate) const DATA_LIMIT_BYTES: u32 = 1 << 20;
/// Most bytes of a request before its data: names, a link's target, or the value of an extended attribute.
pub(crate) const REQUEST_LIMIT_BYTES: usize = (64 << 10) + 4_096;
/// Most folders of a share that is watched.
pub(crate) const WATCHES_LIMIT: usize = 65_536;
/// Descriptors for the nodes of all shares: more would be needed by a guest that works in so many folders at once.
const OPEN_NODES_LIMIT: usize = 16_384;

/// One request and the room for its answer.
pub trait Exchange {
    /// Copies the first bytes of the request, as many as there are and fit; returns how many.
    fn request(&self, to: &mut [u8]) -> usize;

    /// Room for the answer, in bytes.
    fn room(&self) -> u64;

    /// Writes `len` bytes of the request, from byte `from` on, to the file at `offset`; returns how many it took.
    ///
    /// # Errors
    /// The host's.
    fn write_to(&self, file: &File, offset: u64, from: usize, len: u32) -> io::Result<usize>;

    /// Reads at most `len` bytes of the file at `offset` into the answer, from byte `to` on; returns how many came.
    ///
    /// # Errors
    /// The host's.
    fn read_from(&self, file: &File, offset: u64, to: usize, len: u32) -> io::Result<usize>;

    /// Puts these bytes at the answer's start.
    fn answer(&self, bytes: &[u8]);
}

/// A share that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// The folder.
    #[error("cannot share folder `{}`", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// It is too large to be watched.
    #[error(
        "cannot watch all folders below `{}`: leave `watch` out, share less (at most {WATCHES_LIMIT} folders), or allow \
        more with `sysctl fs.inotify.max_user_watches=…` and `fs.inotify.max_user_instances=…`", path.display()
    )]
    Watch {
        /// The folder.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
}

/// A folder that is open, to be served to one guest after the other.
#[derive(Debug, Clone)]
pub struct OpenShare {
    pub(crate) tag: String,
    root: Arc<OwnedFd>,
    owners: Owners,
    read_only: bool,
    /// How long its guest may believe what it was told, in seconds.
    cache_s: u32,
    /// What the guest changes, if the host watches the folder.
    own: Option<Arc<OwnChanges>>,
    /// Ends with the last clone.
    _teller: Option<Arc<Teller>>,
    /// How many of its nodes are open at once.
    open_nodes: usize,
}

impl OpenShare {
    /// Starts to serve a guest that knows nothing yet.
    ///
    /// # Errors
    /// The host does not tell what the folder is.
    pub fn session(&self) -> io::Result<Session> {
        Ok(Session::new(self)?)
    }
}

/// Opens the folders of all shares, in order, for the machine that has this state folder.
///
/// # Errors
/// The first that is no folder, may not be searched, or is too large to be watched.
pub fn open_all(shares: &[Share], state_dir: &Path) -> Result<Vec<OpenShare>, ShareError> {
    let descriptors = getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok());
    let open_nodes = (descriptors.unwrap_or(usize::MAX) / 4).min(OPEN_NODES_LIMIT) / shares.len().max(1);
    let open = |share: &Share| {
        let root = openat(CWD, &share.folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let path = || share.folder.clone();
        let root = Arc::new(root.map_err(|error| ShareError::Folder { path: path(), source: error.into() })?);
        let own = share.watch.then(Arc::<OwnChanges>::default);
        let teller = own.as_ref().map(|own| {
            let tree = Tree::watch(Arc::clone(&root))?;
            Ok::<_, io::Error>(Arc::new(Teller::start(&share.tag, tree, Arc::clone(own), state_dir)?))
        });
        let teller = teller.transpose().map_err(|source| ShareError::Watch { path: path(), source })?;
        Ok(OpenShare {
            tag: share.tag.clone(),
            root,
            own,
            _teller: teller,
            owners: Owners::new(&share.users, &share.groups),
            read_only: share.read_only,
            cache_s: share.cache_s,
            open_nodes,
        })
    };
    shares.iter().map(open).collect()
}

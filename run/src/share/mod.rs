//! A folder of the host's, served to one guest as a FUSE file system (Linux: `include/uapi/linux/fuse.h`).
//!
//! It knows no device: requests come, and answers go, through [`Exchange`]. The guest reaches what is below the folder
//! and nothing else: names are single components, no link is followed here (the guest follows links itself, inside), and
//! nothing but regular files and folders is ever opened. What the host changes is seen at once: the guest is told to keep
//! nothing without asking. Locks hold among the guest's programs; the host knows nothing of them.

mod abi;
mod answers;
mod attributes;
mod files;
mod folders;
mod handles;
mod names;
mod nodes;
mod owners;
mod session;
#[cfg(test)]
mod tests;
mod xattrs;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::process::{Resource, getrlimit};

pub(crate) use self::session::Session;
use crate::config::Share;
use owners::Owners;

/// Most bytes of data of one request: 256 pages, the most that Linux asks for.
pub(crate) const DATA_LIMIT_BYTES: u32 = 1 << 20;
/// Most bytes of a request before its data: names, a link's target, or the value of an extended attribute.
pub(crate) const REQUEST_LIMIT_BYTES: usize = (64 << 10) + 4_096;
/// Descriptors for the nodes of all shares: more would be needed by a guest that works in so many folders at once.
const OPEN_NODES_LIMIT: usize = 16_384;

/// One request and the room for its answer.
pub(crate) trait Exchange {
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
#[error("cannot share folder `{}`", path.display())]
pub struct ShareError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// A folder that is open, to be served to one guest after the other.
#[derive(Debug, Clone)]
pub(crate) struct OpenShare {
    pub(crate) tag: String,
    root: Arc<OwnedFd>,
    owners: Owners,
    read_only: bool,
    /// How many of its nodes are open at once.
    open_nodes: usize,
}

impl OpenShare {
    /// Starts to serve a guest that knows nothing yet.
    pub(crate) fn session(&self) -> io::Result<Session> {
        Ok(Session::new(self)?)
    }
}

/// Opens the folders of all shares, in order.
///
/// # Errors
/// The first that is no folder or may not be searched.
pub(crate) fn open_all(shares: &[Share]) -> Result<Vec<OpenShare>, ShareError> {
    let descriptors = getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok());
    let open_nodes = (descriptors.unwrap_or(usize::MAX) / 4).min(OPEN_NODES_LIMIT) / shares.len().max(1);
    let open = |share: &Share| {
        let root = openat(CWD, &share.folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let root = root.map_err(|error| ShareError { path: share.folder.clone(), source: error.into() })?;
        Ok(OpenShare {
            tag: share.tag.clone(),
            root: Arc::new(root),
            owners: Owners::new(&share.users, &share.groups),
            read_only: share.read_only,
            open_nodes,
        })
    };
    shares.iter().map(open).collect()
}

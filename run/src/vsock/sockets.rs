//! Sockets on the host: those that lead to the guest, and those that the guest is led to.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use kiln_net::publish::{SocketFile, listen_at};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, connect, socket_with};

use crate::config::{Vsock, VsockKind, VsockPort};
use crate::host::Folder;

/// The socket that leads to any port.
pub const CONNECT: &str = "connect";

/// A socket that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum VsockError {
    /// The folder it is in.
    #[error("cannot use the folder `{}` of a vsock port's socket", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// The socket itself.
    #[error("cannot make the socket `{}` of {what}", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What it leads to.
        what: String,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// Nothing to wait with.
    #[error("cannot wait for the sockets of vsock ports")]
    Wait(#[source] io::Error),
}

/// Where a socket leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// To a port of the guest's.
    Port(u32, VsockKind),
    /// To the one that is named first.
    Named,
}

/// A socket that programs connect to.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) socket: OwnedFd,
    pub(super) target: Target,
    /// Somebody may wait to be let in.
    pub(super) is_pending: bool,
    /// Goes before the folder that it is named in.
    _file: SocketFile,
    _folder: Option<Folder>,
}

impl Listener {
    /// Lets somebody in; `None` if nobody waits.
    ///
    /// # Errors
    /// The host has no more descriptors.
    pub(super) fn accept(&self) -> io::Result<Option<OwnedFd>> {
        loop {
            return match accept_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) => Ok(Some(socket)),
                Err(Errno::AGAIN) => Ok(None),
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(error) => Err(error.into()),
            };
        }
    }
}

/// All sockets of one machine.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) listeners: Vec<Listener>,
    to_host: HashMap<u32, PathBuf>,
    folder: Folder,
}

impl Sockets {
    /// Listens everywhere. What an earlier run left in the folder, which is this machine's, is removed.
    pub(super) fn open(config: &Vsock, state_dir: &Path) -> Result<Self, VsockError> {
        let folder_error = |path: &Path, source| VsockError::Folder { path: path.into(), source };
        let folder = Folder::open(state_dir).map_err(|source| folder_error(state_dir, source))?;
        remove_left_over(state_dir).map_err(|source| folder_error(state_dir, source))?;
        let mut listeners = Vec::new();
        for VsockPort { port, kind, path } in &config.to_guest {
            let failed = |path: &Path, source| VsockError::Socket {
                path: path.into(),
                what: format!("vsock port {port}"),
                source,
            };
            let target = Target::Port(*port, *kind);
            let listener = match path {
                None => {
                    let name = to_guest_name(*port);
                    listen(folder.file(&name), target, None).map_err(|source| failed(&state_dir.join(name), source))?
                }
                Some(path) => {
                    let parent = path.parent().unwrap_or(Path::new("."));
                    let above = Folder::open(parent).map_err(|source| folder_error(parent, source))?;
                    let short = above.file(path.file_name().unwrap_or_default());
                    listen(short, target, Some(above)).map_err(|source| failed(path, source))?
                }
            };
            listeners.push(listener);
        }
        let named = listen(folder.file(CONNECT), Target::Named, None);
        listeners.push(named.map_err(|source| VsockError::Socket {
            path: state_dir.join(CONNECT),
            what: "vsock ports".into(),
            source,
        })?);
        let to_host = config.to_host.iter().filter_map(|port| Some((port.port, port.path.clone()?))).collect();
        Ok(Self { listeners, to_host, folder })
    }

    /// Connects to the program that stands for a port of the host's, if there is one.
    pub(super) fn connect(&self, port: u32, kind: VsockKind) -> io::Result<OwnedFd> {
        let connect_at = |path: &Path| -> io::Result<OwnedFd> {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = socket_with(AddressFamily::UNIX, socket_type(kind), flags, None)?;
            connect(&socket, &SocketAddrUnix::new(path)?)?;
            Ok(socket)
        };
        match self.to_host.get(&port) {
            None => connect_at(&self.folder.file(format!("host.{port:08x}"))),
            Some(path) => {
                let above = Folder::open(path.parent().unwrap_or(Path::new(".")))?;
                connect_at(&above.file(path.file_name().unwrap_or_default()))
            }
        }
    }
}

/// The name of the socket that leads to a port of the guest's, in the state folder.
#[must_use]
pub fn to_guest_name(port: u32) -> String {
    format!("guest.{port:08x}")
}

fn socket_type(kind: VsockKind) -> SocketType {
    match kind {
        VsockKind::Stream => SocketType::STREAM,
        VsockKind::SeqPacket => SocketType::SEQPACKET,
    }
}

fn listen(path: PathBuf, target: Target, folder: Option<Folder>) -> io::Result<Listener> {
    let kind = match target {
        Target::Port(_, kind) => kind,
        Target::Named => VsockKind::Stream,
    };
    let (socket, file) = listen_at(&path, socket_type(kind))?;
    Ok(Listener { socket, target, is_pending: true, _file: file, _folder: folder })
}

/// Removes the sockets of ports that a killed run had.
fn remove_left_over(state_dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(state_dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let port = name.to_str().and_then(|name| name.strip_prefix("guest."));
        if port.is_some_and(|port| port.len() == 8) && entry.file_type()?.is_socket() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

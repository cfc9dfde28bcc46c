//! Sockets between host and guest.

use std::path::PathBuf;

/// The number of the host, at which guests find it (Linux: `VMADDR_CID_HOST`).
pub const HOST_CID: u32 = 2;
/// The number that a guest has unless another one is asked for: the first that it may have.
pub const DEFAULT_CID: u32 = 3;
/// Most ports that have a socket of their own: each is a descriptor.
pub const MAX_VSOCK_PORTS: usize = 1024;

/// The socket device of a machine. Whatever ports are named, the state folder has the socket `connect`, which leads to any
/// port of the guest's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vsock {
    /// The guest's number, from 3 on.
    pub cid: u32,
    /// Sockets that lead to ports of the guest's: kiln listens. Without a path it is `guest.%08x` in the state folder.
    pub to_guest: Vec<VsockPort>,
    /// Sockets that ports of the host's lead to: another program listens. Those that are not named here, and those
    /// without a path, lead to `host.%08x` in the state folder.
    pub to_host: Vec<VsockPort>,
}

impl Default for Vsock {
    fn default() -> Self {
        Self { cid: DEFAULT_CID, to_guest: Vec::new(), to_host: Vec::new() }
    }
}

/// A port and its socket on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VsockPort {
    /// The port; neither 0 nor the largest number, which means any.
    pub port: u32,
    /// What it carries.
    pub kind: VsockKind,
    /// The socket.
    pub path: Option<PathBuf>,
}

/// What a connection carries, and of which type its socket on the host is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum VsockKind {
    /// Bytes (`SOCK_STREAM`).
    #[default]
    Stream,
    /// Messages (`SOCK_SEQPACKET`).
    SeqPacket,
}

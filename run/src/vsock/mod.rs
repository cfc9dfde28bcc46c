//! Connections between programs on the host and ports of the guest (virtio-vsock), without a network.
//!
//! On the host every port is a Unix socket. Who connects to one that kiln listens at reaches the guest's port of that
//! number; a guest that connects to a port of the host's reaches the program that listens at the socket of that number.
//! One thread serves all connections of a machine ([`Muxer`]); what the guest sends and the program does not read waits in a
//! buffer that the guest knows the size of. Knows nothing of queues: packets come and go through [`Payload`] and [`Inbox`].

mod backlog;
mod client;
mod connection;
mod credit;
mod guest;
pub mod memory;
mod muxer;
pub mod packet;
mod sockets;
mod words;

use std::path::Path;

pub use client::connect_to_guest;
pub use guest::{Inbox, Payload, Received};
pub use muxer::{MAX_CONNECTIONS, Muxer};
pub use sockets::{CONNECT, VsockError, to_guest_name};

use crate::config::Vsock;
use crate::lent::{Lent, Taken};

/// The sockets of a machine, open over its resets. Their files go with the last clone.
#[derive(Debug, Clone)]
pub struct OpenVsock {
    cid: u32,
    muxer: Lent<Muxer>,
}

impl OpenVsock {
    /// Opens all sockets. The state folder exists, and is this machine's.
    ///
    /// # Errors
    /// A socket that cannot be had.
    pub fn open(config: &Vsock, state_dir: &Path) -> Result<Self, VsockError> {
        // Each connection is a descriptor of this process.
        kiln_net::limits::raise();
        Ok(Self { cid: config.cid, muxer: Lent::new(Box::new(Muxer::open(config, state_dir)?)) })
    }

    /// The guest's number.
    #[must_use]
    pub fn cid(&self) -> u32 {
        self.cid
    }

    /// The connections, until the value is dropped. `None` while somebody has them.
    #[must_use]
    pub fn take(&self) -> Option<Taken<Muxer>> {
        self.muxer.take()
    }
}

#[cfg(test)]
mod tests;

//! Devices of ours on QEMU's bus: the back end of vhost-user (QEMU's "Vhost-user Protocol"). QEMU keeps the registers and
//! tells where the queues are; the device serves them, in guest memory that both have mapped.
//!
//! A QEMU that says what it should not loses its device, and nothing else happens.

mod backend;
mod calls;
mod kick;
mod memory;

use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use vhost::vhost_user::{BackendReqHandler, Error};

use self::backend::Backend;
use crate::opened::Opened;
use crate::share::OpenShare;
use crate::virtio::VirtioDevice;
use crate::virtio::fs::{QUEUE_SIZE, VirtioFs};
use crate::virtio::vsock::VirtioVsock;
use crate::vsock::OpenVsock;

/// A device that QEMU puts on its bus and leaves to us.
pub struct Served {
    /// QEMU's word for it with what it must be told, without the `chardev`: `vhost-user-vsock-pci`.
    pub device_word: String,
    /// How many of the device's queues QEMU leaves to us, from the first one on.
    pub queues: usize,
    /// The device.
    pub device: Box<dyn VirtioDevice>,
}

impl std::fmt::Debug for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Served").field("device_word", &self.device_word).finish_non_exhaustive()
    }
}

/// The devices of a machine that QEMU leaves to us, made anew for each start of it.
pub(super) fn devices(opened: &Opened) -> Vec<Served> {
    // QEMU keeps the queue of events to itself.
    let vsock = |vsock: &OpenVsock| Served {
        device_word: "vhost-user-vsock-pci".into(),
        queues: 2,
        device: Box::new(VirtioVsock::new(vsock.clone())),
    };
    // Guests with one processor use one queue for requests, and QEMU tells nothing of those that are not used.
    let share = |share: &OpenShare| Served {
        device_word: format!("vhost-user-fs-pci,tag={},num-request-queues=1,queue-size={QUEUE_SIZE}", share.tag),
        queues: 2,
        device: Box::new(VirtioFs::new(share.clone())),
    };
    opened.vsock.iter().map(vsock).chain(opened.shares.iter().map(share)).collect()
}

/// Serves the device until QEMU closes `socket` or breaks the protocol. The device is reset when this returns.
pub(super) fn serve(served: &mut Served, socket: UnixStream) {
    let backend = Arc::new(Mutex::new(Backend::new(&mut *served.device, served.queues)));
    let mut requests = BackendReqHandler::from_stream(socket, backend);
    loop {
        match requests.handle_request() {
            Ok(()) | Err(Error::SocketRetry(_)) => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests;

//! The device as its driver configures it.

use std::{io, sync::Arc};

use super::{spec::config, worker::Worker};
use crate::{
    share::{OpenShare, Session},
    virtio::{Activation, Chain, VirtioDevice, read_at, spec::DeviceType, thread::DeviceThread},
};

/// Requests that may wait, in descriptors: one to read 1 MiB takes 260.
pub(crate) const QUEUE_SIZE: u16 = 1024;
/// Queues for requests; each has a thread, so that one that waits for a disk holds only its queue up.
const REQUEST_QUEUES: u32 = 2;
/// The queue for what must not wait behind requests, and those for requests.
const QUEUES: usize = 1 + REQUEST_QUEUES as usize;

/// A shared folder, each of whose queues is served on a thread of its own while it is active.
pub struct VirtioFs {
    share: OpenShare,
    /// What the guest knows: it may stop its queues and go on; only its first request makes it know nothing again.
    session: Option<Arc<Session>>,
    /// While it is active.
    threads: Vec<DeviceThread>,
}

impl VirtioFs {
    /// The device of this share.
    #[must_use]
    pub(crate) fn new(share: OpenShare) -> Self {
        Self { share, session: None, threads: Vec::new() }
    }

    fn config(&self) -> [u8; config::BYTES] {
        let mut bytes = [0; config::BYTES];
        for (to, from) in bytes.iter_mut().zip(self.share.tag.bytes().take(config::TAG_BYTES)) {
            *to = from;
        }
        bytes[config::REQUEST_QUEUES..].copy_from_slice(&REQUEST_QUEUES.to_le_bytes());
        bytes
    }
}

impl VirtioDevice for VirtioFs {
    fn device_type(&self) -> DeviceType {
        DeviceType::FileSystem
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE; QUEUES]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_at(&self.config(), offset, data);
    }

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        let session = match &self.session {
            Some(session) => Arc::clone(session),
            None => Arc::clone(self.session.insert(Arc::new(self.share.session()?))),
        };
        for ring in activation.rings.into_iter().flatten() {
            let name = format!("share-{}-{}", self.share.tag, ring.number());
            let worker = Worker {
                session: Arc::clone(&session),
                memory: activation.memory.clone(),
                ring,
                signal: Arc::clone(&activation.signal),
                chain: Chain::default(),
            };
            self.threads.push(DeviceThread::start(name, worker, Arc::clone(&activation.signal))?);
        }
        Ok(())
    }

    fn reset(&mut self) {
        DeviceThread::end_all(std::mem::take(&mut self.threads));
    }
}

impl Drop for VirtioFs {
    fn drop(&mut self) {
        self.reset();
    }
}

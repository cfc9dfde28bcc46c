//! The device as its driver configures it.

use std::{
    io,
    sync::Arc,
    thread::{Builder, JoinHandle},
};

use super::{spec::config, worker::Worker};
use crate::{
    event::{Flag, serve},
    share::{OpenShare, Session},
    virtio::{Activation, Chain, VirtioDevice, spec::DeviceType},
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
    threads: Vec<(JoinHandle<()>, Flag)>,
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
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        for (to, from) in data.iter_mut().zip(self.config().iter().skip(offset)) {
            *to = *from;
        }
    }

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        let session = match &self.session {
            Some(session) => Arc::clone(session),
            None => Arc::clone(self.session.insert(Arc::new(self.share.session()?))),
        };
        for ring in activation.rings.into_iter().flatten() {
            let name = format!("share-{}-{}", self.share.tag, ring.number());
            let stop = Flag::new()?;
            let stopped = stop.try_clone()?;
            let mut worker = Worker {
                session: Arc::clone(&session),
                memory: activation.memory.clone(),
                ring,
                signal: Arc::clone(&activation.signal),
                chain: Chain::default(),
            };
            let thread = Builder::new().name(name).spawn(move || {
                if serve(&mut worker, &stopped).is_err() {
                    worker.signal.needs_reset();
                }
            })?;
            self.threads.push((thread, stop));
        }
        Ok(())
    }

    fn reset(&mut self) {
        for (_, stop) in &self.threads {
            stop.raise();
        }
        for (thread, _) in self.threads.drain(..) {
            // A panic of the thread is our own mistake; the panic hook has told of it.
            let _panicked = thread.join();
        }
    }
}

impl Drop for VirtioFs {
    fn drop(&mut self) {
        self.reset();
    }
}

//! The device as its driver configures it.

use std::{
    io,
    thread::{Builder, JoinHandle},
};

use super::{spec::feature, worker::Worker};
use crate::{
    event::{Flag, serve},
    virtio::{Activation, VirtioDevice, spec::DeviceType},
    vsock::OpenVsock,
};

/// Packets that may wait each way, in descriptors.
const QUEUE_SIZE: u16 = 256;
/// Events that may wait.
const EVENT_QUEUE_SIZE: u16 = 16;

/// A socket device, served on a thread of its own while it is active.
pub struct VirtioVsock {
    vsock: OpenVsock,
    /// While it is active.
    serving: Option<Serving>,
}

struct Serving {
    thread: JoinHandle<()>,
    stop: Flag,
}

impl VirtioVsock {
    /// A device of these sockets.
    #[must_use]
    pub fn new(vsock: OpenVsock) -> Self {
        Self { vsock, serving: None }
    }
}

impl VirtioDevice for VirtioVsock {
    fn device_type(&self) -> DeviceType {
        DeviceType::Socket
    }

    fn features(&self) -> u64 {
        feature::STREAM | feature::SEQPACKET
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE, QUEUE_SIZE, EVENT_QUEUE_SIZE]
    }

    /// The guest's number (5.10.4).
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let config = u64::from(self.vsock.cid()).to_le_bytes();
        for (to, from) in data.iter_mut().zip(config.iter().skip(offset)) {
            *to = *from;
        }
    }

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        let mut rings = activation.rings.into_iter();
        // A driver that enables only one way gets none.
        let (Some(Some(receive)), Some(Some(transmit))) = (rings.next(), rings.next()) else { return Ok(()) };
        let events = rings.next().flatten();
        let stop = Flag::new()?;
        let stopped = stop.try_clone()?;
        let muxer = self.vsock.take().ok_or(io::ErrorKind::ResourceBusy)?;
        let guest = (activation.memory, activation.signal);
        let mut worker = Worker::new(muxer, guest, (receive, transmit, events), activation.features);
        let thread = Builder::new().name("kiln-vsock".into()).spawn(move || {
            if serve(&mut worker, &stopped).is_err() {
                worker.signal_loss();
            }
        })?;
        self.serving = Some(Serving { thread, stop });
        Ok(())
    }

    fn reset(&mut self) {
        if let Some(Serving { thread, stop }) = self.serving.take() {
            stop.raise();
            // The connections end with the thread, even with one that panicked.
            let _panicked = thread.join();
        }
    }
}

impl Drop for VirtioVsock {
    fn drop(&mut self) {
        self.reset();
    }
}

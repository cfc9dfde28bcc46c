//! The device as its driver configures it.

use std::{io, sync::Arc};

use super::{spec::feature, worker::Worker};
use crate::{
    virtio::{Activation, VirtioDevice, read_at, spec::DeviceType, thread::DeviceThread},
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
    serving: Option<DeviceThread>,
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
        read_at(&u64::from(self.vsock.cid()).to_le_bytes(), offset, data);
    }

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        let mut rings = activation.rings.into_iter();
        // A driver that enables only one way gets none.
        let (Some(Some(receive)), Some(Some(transmit))) = (rings.next(), rings.next()) else { return Ok(()) };
        let events = rings.next().flatten();
        let muxer = self.vsock.take().ok_or(io::ErrorKind::ResourceBusy)?;
        let signal = Arc::clone(&activation.signal);
        let guest = (activation.memory, activation.signal);
        let worker = Worker::new(muxer, guest, (receive, transmit, events), activation.features);
        self.serving = Some(DeviceThread::start("kiln-vsock".into(), worker, signal)?);
        Ok(())
    }

    fn reset(&mut self) {
        // The connections end with the thread, even with one that panicked.
        drop(self.serving.take());
    }
}

impl Drop for VirtioVsock {
    fn drop(&mut self) {
        self.reset();
    }
}

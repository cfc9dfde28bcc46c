//! The device as its driver configures it.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use kiln_net::wire::Mac;

use super::{
    spec::{config, feature},
    worker::{Rings, Worker},
};
use crate::{
    cable::Cable,
    virtio::{Activation, VirtioDevice, read_at, spec::DeviceType, thread::DeviceThread},
};

/// Frames that may wait each way, in descriptors.
const QUEUE_SIZE: u16 = 1024;
/// Commands that may wait, in descriptors. Drivers give one after the other.
const COMMANDS: u16 = 64;

/// A network card, served on a thread of its own while it is active.
pub struct VirtioNet {
    mac: Mac,
    mtu: u16,
    cable: Cable,
    /// Whether somebody was at the other end of the cable when the worker last looked.
    is_up: Arc<AtomicBool>,
    /// While it is active.
    serving: Option<DeviceThread>,
}

impl VirtioNet {
    /// A card of address `mac`, whose packets are at most `mtu` bytes long.
    #[must_use]
    pub fn new(cable: Cable, mac: Mac, mtu: u16) -> Self {
        Self { mac, mtu, cable, is_up: Arc::new(AtomicBool::new(true)), serving: None }
    }

    fn config(&self) -> [u8; config::BYTES] {
        let mut bytes = [0; config::BYTES];
        bytes[..6].copy_from_slice(&self.mac.0);
        let status = if self.is_up.load(Ordering::SeqCst) { config::LINK_UP } else { 0 };
        bytes[config::STATUS..][..2].copy_from_slice(&status.to_le_bytes());
        bytes[config::MAX_QUEUE_PAIRS..][..2].copy_from_slice(&1_u16.to_le_bytes());
        bytes[config::MTU..][..2].copy_from_slice(&self.mtu.to_le_bytes());
        bytes
    }
}

impl VirtioDevice for VirtioNet {
    fn device_type(&self) -> DeviceType {
        DeviceType::Net
    }

    fn features(&self) -> u64 {
        let mut features = feature::MAC | feature::MTU | feature::STATUS | feature::MRG_RXBUF;
        let takes = self.cable.takes();
        // What is cut gets new checksums: the one needs the other (5.1.3.1).
        if takes.checksum {
            features |= feature::CSUM | feature::GUEST_CSUM | feature::CTRL_VQ | feature::CTRL_GUEST_OFFLOADS;
            if takes.segmentation {
                features |= feature::HOST_TSO4 | feature::HOST_TSO6 | feature::GUEST_TSO4 | feature::GUEST_TSO6;
            }
            if takes.datagrams {
                features |= feature::HOST_USO | feature::GUEST_USO4 | feature::GUEST_USO6;
            }
        }
        features
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE, QUEUE_SIZE, COMMANDS]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_at(&self.config(), offset, data);
    }

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        let mut rings = activation.rings.into_iter();
        // A driver that enables only one way gets none.
        let (Some(Some(receive)), Some(Some(transmit))) = (rings.next(), rings.next()) else { return Ok(()) };
        let link = self.cable.take().ok_or(io::ErrorKind::ResourceBusy)?;
        let signal = Arc::clone(&activation.signal);
        let guest = (activation.memory, activation.signal);
        let other_end = (link, Arc::clone(&self.is_up));
        let control = rings.next().flatten().filter(|_| activation.features & feature::CTRL_VQ != 0);
        let rings = Rings { receive, transmit, control };
        let worker = Worker::new(other_end, self.cable.start(), guest, rings, activation.features)?;
        self.serving = Some(DeviceThread::start("kiln-net".into(), worker, signal)?);
        Ok(())
    }

    fn reset(&mut self) {
        // The link goes back when the thread ends; that of one that panicked went with it.
        drop(self.serving.take());
    }
}

impl Drop for VirtioNet {
    fn drop(&mut self) {
        self.reset();
    }
}

//! Virtio devices (Virtual I/O Device specification, version 1.2): what every device has in common.
//!
//! A device knows neither the bus it sits on nor how its interrupts travel: that is the transport's ([`transport`]).
//! Before [`VirtioDevice::activate`] a device owns no queue and no guest memory; [`VirtioDevice::reset`] gives all back.
//! A driver that breaks the rules stops its device, which then asks for a reset: nothing it does can end this process.

pub mod balloon;
pub mod block;
pub mod console;
pub mod fs;
pub mod net;
pub mod rng;
pub mod spec;
pub mod transport;
pub mod vsock;

#[cfg(test)]
pub(crate) mod mock;
mod queue;
mod receive;
mod thread;

pub use queue::{Chain, Layout, Misuse, Ring};

use std::{io, sync::Arc};

use crate::mem::GuestMemory;

/// A virtio device, driven by a transport.
///
/// The transport calls `activate` once, then `reset`, then perhaps `activate` again. Configuration accesses may come at
/// any time, with any offset and length, and must not panic.
pub trait VirtioDevice: Send {
    /// What kind of device this is.
    fn device_type(&self) -> spec::DeviceType;

    /// Feature bits of this kind of device (bits 0 to 23 and 50 to 127); the transport adds those of the queues.
    fn features(&self) -> u64;

    /// Largest size of each queue, in descriptors: powers of two.
    fn queue_sizes(&self) -> &[u16];

    /// The driver reads the device's configuration. `data` holds zeros when the call comes.
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// The driver writes the device's configuration. Most devices have nothing there to write.
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    /// The driver is ready: the device serves its queues from here on, and only from here on. Must not wait for a guest.
    fn activate(&mut self, activation: Activation) -> io::Result<()>;

    /// Gives back all that `activate` brought, before it returns: no thread touches guest memory afterwards. Also called
    /// when the device is not active.
    fn reset(&mut self);
}

/// Reads `data` at `offset` of a device's configuration. What lies behind its end stays as it is.
fn read_at(config: &[u8], offset: u64, data: &mut [u8]) {
    let offset = usize::try_from(offset).unwrap_or(usize::MAX);
    for (to, from) in data.iter_mut().zip(config.iter().skip(offset)) {
        *to = *from;
    }
}

/// All that a device owns while it is active.
#[derive(Debug)]
pub struct Activation {
    /// Guest memory.
    pub memory: GuestMemory,
    /// The queues by number; `None` for those that the driver did not enable.
    pub rings: Vec<Option<Ring>>,
    /// The way to tell the driver something.
    pub signal: Arc<dyn Signal>,
    /// Features that device and driver agreed on.
    pub features: u64,
}

/// How a device reaches its driver. Callable from any thread; never waits.
pub trait Signal: Send + Sync + std::fmt::Debug {
    /// Buffers of queue number `queue` were used.
    fn queue_used(&self, queue: u16);

    /// The device's configuration changed.
    fn config_changed(&self);

    /// The driver broke the rules: the device has stopped, and only a reset helps (2.1.1, `DEVICE_NEEDS_RESET`).
    fn needs_reset(&self);
}

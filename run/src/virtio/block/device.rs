//! The device as its driver configures it.

use std::{
    io,
    thread::{Builder, JoinHandle},
};

use super::{
    request::{Id, MAX_RANGE_SECTORS, MAX_RANGES},
    spec::{ID_BYTES, config, feature},
    worker::Worker,
};
use crate::{
    block::{BlockBackend, SECTOR_BYTES},
    event::{Flag, serve},
    virtio::{Activation, Chain, VirtioDevice, spec::DeviceType},
};

/// Requests that may wait, in descriptors.
const QUEUE_SIZE: u16 = 256;
/// Data pieces of one request: what fits the queue beside header and status.
const SEG_MAX: u32 = QUEUE_SIZE as u32 - 2;
/// Size of a logical block in bytes: a sector, which suits any guest and any boot medium.
const BLOCK_BYTES: u32 = 512;
/// Physical blocks are 2^3 sectors, 4 KiB: what host file systems and disks like best.
const PHYSICAL_BLOCK_EXP: u8 = 3;
const MIN_IO_SECTORS: u16 = 1 << PHYSICAL_BLOCK_EXP;

/// A disk. It serves requests on a thread of its own while it is active.
pub struct VirtioBlock {
    id: Id,
    thread_name: String,
    capacity_sectors: u64,
    read_only: bool,
    state: State,
}

enum State {
    Idle(Box<dyn BlockBackend>),
    Active {
        thread: JoinHandle<Worker>,
        stop: Flag,
    },
    /// The thread could not be started or panicked; the bytes went with it.
    Lost,
}

impl VirtioBlock {
    /// A disk over `backend`. The guest can read `serial`, of which 20 bytes count. The thread gets the name
    /// `thread_name`, of which the system shows 15 bytes.
    #[must_use]
    pub fn new(backend: Box<dyn BlockBackend>, serial: &str, thread_name: &str) -> Self {
        let mut id = [0; ID_BYTES];
        for (to, from) in id.iter_mut().zip(serial.bytes()) {
            *to = from;
        }
        Self {
            id,
            thread_name: thread_name.to_owned(),
            capacity_sectors: backend.len_bytes() / SECTOR_BYTES,
            read_only: backend.is_read_only(),
            state: State::Idle(backend),
        }
    }

    fn config(&self) -> [u8; config::BYTES] {
        let mut bytes = [0; config::BYTES];
        let mut set = |offset: usize, value: &[u8]| {
            for (to, from) in bytes.iter_mut().skip(offset).zip(value) {
                *to = *from;
            }
        };
        set(config::CAPACITY, &self.capacity_sectors.to_le_bytes());
        set(config::SEG_MAX, &SEG_MAX.to_le_bytes());
        set(config::BLK_SIZE, &BLOCK_BYTES.to_le_bytes());
        set(config::PHYSICAL_BLOCK_EXP, &[PHYSICAL_BLOCK_EXP]);
        set(config::MIN_IO_SIZE, &MIN_IO_SECTORS.to_le_bytes());
        set(config::MAX_DISCARD_SECTORS, &MAX_RANGE_SECTORS.to_le_bytes());
        set(config::MAX_DISCARD_SEG, &MAX_RANGES.to_le_bytes());
        set(config::DISCARD_ALIGNMENT, &u32::from(MIN_IO_SECTORS).to_le_bytes());
        set(config::MAX_WRITE_ZEROES_SECTORS, &MAX_RANGE_SECTORS.to_le_bytes());
        set(config::MAX_WRITE_ZEROES_SEG, &MAX_RANGES.to_le_bytes());
        set(config::WRITE_ZEROES_MAY_UNMAP, &[1]);
        bytes
    }
}

impl VirtioDevice for VirtioBlock {
    fn device_type(&self) -> DeviceType {
        DeviceType::Block
    }

    fn features(&self) -> u64 {
        let write = if self.read_only { feature::RO } else { feature::DISCARD | feature::WRITE_ZEROES };
        feature::SEG_MAX | feature::BLK_SIZE | feature::FLUSH | feature::TOPOLOGY | write
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        for (to, from) in data.iter_mut().zip(self.config().iter().skip(offset)) {
            *to = *from;
        }
    }

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        // A driver that enables no queue asks for nothing.
        let Some(ring) = activation.rings.into_iter().next().flatten() else { return Ok(()) };
        let stop = Flag::new()?;
        let stopped = stop.try_clone()?;
        let State::Idle(backend) = std::mem::replace(&mut self.state, State::Lost) else {
            return Err(io::ErrorKind::ResourceBusy.into());
        };
        let mut worker = Worker {
            backend,
            memory: activation.memory,
            ring,
            signal: activation.signal,
            id: self.id,
            features: activation.features,
            chain: Chain::default(),
        };
        let thread = Builder::new().name(self.thread_name.clone()).spawn(move || {
            if serve(&mut worker, &stopped).is_err() {
                worker.signal.needs_reset();
            }
            worker
        })?;
        self.state = State::Active { thread, stop };
        Ok(())
    }

    fn reset(&mut self) {
        match std::mem::replace(&mut self.state, State::Lost) {
            State::Active { thread, stop } => {
                stop.raise();
                if let Ok(worker) = thread.join() {
                    self.state = State::Idle(worker.backend);
                }
            }
            other => self.state = other,
        }
    }
}

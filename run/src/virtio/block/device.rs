//! The device as its driver configures it.

use std::{io, sync::Arc};

use super::{
    pool::Pool,
    request::{Facts, Id, MAX_RANGE_SECTORS, MAX_RANGES},
    spec::{ID_BYTES, config, feature},
    worker::{Disk, Worker},
};
use crate::{
    block::{BlockBackend, SECTOR_BYTES},
    virtio::{Activation, VirtioDevice, read_at, spec::DeviceType, thread::DeviceThread},
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

/// Most queues: more than any disk keeps busy.
pub const MAX_QUEUES: u16 = 8;

/// A disk. Each of its queues is served on a thread of its own while it is active.
pub struct VirtioBlock {
    backend: Arc<dyn BlockBackend>,
    id: Id,
    thread_name: String,
    is_write_through: bool,
    queue_sizes: Vec<u16>,
    /// While it is active.
    serving: Option<Serving>,
}

struct Serving {
    threads: Vec<DeviceThread>,
    _pool: Pool,
}

/// How a disk is offered.
#[derive(Debug, Clone, Copy)]
pub struct BlockOptions<'a> {
    /// What the guest can read as its serial number; 20 bytes count.
    pub serial: &'a str,
    /// Name of its threads, of which the system shows 15 bytes.
    pub thread_name: &'a str,
    /// How many queues, from 1 to [`MAX_QUEUES`].
    pub queues: u16,
    /// Each write is safe when it is done: the driver cannot ask for that, and need not.
    pub is_write_through: bool,
}

impl VirtioBlock {
    /// A disk over `backend`.
    #[must_use]
    pub fn new(backend: Arc<dyn BlockBackend>, options: BlockOptions<'_>) -> Self {
        let mut id = [0; ID_BYTES];
        for (to, from) in id.iter_mut().zip(options.serial.bytes()) {
            *to = from;
        }
        Self {
            backend,
            id,
            thread_name: options.thread_name.to_owned(),
            is_write_through: options.is_write_through,
            queue_sizes: vec![QUEUE_SIZE; options.queues.clamp(1, MAX_QUEUES).into()],
            serving: None,
        }
    }

    fn config(&self) -> [u8; config::BYTES] {
        let mut bytes = [0; config::BYTES];
        let mut set = |offset: usize, value: &[u8]| {
            for (to, from) in bytes.iter_mut().skip(offset).zip(value) {
                *to = *from;
            }
        };
        set(config::CAPACITY, &(self.backend.len_bytes() / SECTOR_BYTES).to_le_bytes());
        set(config::SEG_MAX, &SEG_MAX.to_le_bytes());
        set(config::BLK_SIZE, &BLOCK_BYTES.to_le_bytes());
        set(config::PHYSICAL_BLOCK_EXP, &[PHYSICAL_BLOCK_EXP]);
        set(config::MIN_IO_SIZE, &MIN_IO_SECTORS.to_le_bytes());
        set(config::NUM_QUEUES, &u16::try_from(self.queue_sizes.len()).unwrap_or(1).to_le_bytes());
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
        let write = if self.backend.is_read_only() { feature::RO } else { feature::DISCARD | feature::WRITE_ZEROES };
        let flush = if self.is_write_through { 0 } else { feature::FLUSH };
        let queues = if self.queue_sizes.len() > 1 { feature::MQ } else { 0 };
        feature::SEG_MAX | feature::BLK_SIZE | feature::TOPOLOGY | write | flush | queues
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_at(&self.config(), offset, data);
    }

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        let Activation { memory, rings, signal, features } = activation;
        let (backend, name) = (Arc::clone(&self.backend), &self.thread_name);
        let pool = Pool::new(Arc::clone(&backend), memory.clone(), features, format!("{name}-io"));
        let facts =
            Facts { len_bytes: backend.len_bytes(), is_read_only: backend.is_read_only(), id: self.id, features };
        let disk = Disk { backend, memory, signal, facts, hand: pool.hand() };
        let serving = self.serving.insert(Serving { threads: vec![], _pool: pool });
        // A driver that enables no queue asks for nothing.
        for ring in rings.into_iter().flatten() {
            let name = if ring.number() == 0 { name.clone() } else { format!("{name}.{}", ring.number()) };
            let worker = Worker::new(disk.clone(), ring)?;
            serving.threads.push(DeviceThread::start(name, worker, Arc::clone(&disk.signal))?);
        }
        Ok(())
    }

    fn reset(&mut self) {
        let Some(Serving { threads, _pool }) = self.serving.take() else { return };
        DeviceThread::end_all(threads);
    }
}

impl Drop for VirtioBlock {
    fn drop(&mut self) {
        self.reset();
    }
}

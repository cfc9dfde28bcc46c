//! Plays the guest's driver: drives a device through the PCI bus, over rings in guest memory, with no machine around
//! it.

use std::{
    collections::BTreeMap,
    io,
    os::fd::AsRawFd,
    sync::{Arc, Mutex},
};

use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::{
    epoll::{ControlOperation, Epoll, EpollEvent, EventSet},
    eventfd::{EFD_NONBLOCK, EventFd},
};

use super::{
    VirtioDevice,
    spec::{feature, status},
    transport::{Resources, VirtioPci},
};
use crate::{
    bus::BusDevice,
    hv::{Doorbells, MsiLine, MsiLines, MsiMessage},
    mem::GuestMemory,
    pci::{HostBridge, PciAddress, PciBus, Windows, memory_range},
};

pub const MEMORY_BYTES: u64 = 1 << 20;
const MEMORY_LEN: usize = 1 << 20;
pub const ECAM: u64 = 0xE000_0000;
/// The function's configuration space.
pub const CONFIG: u64 = ECAM + (1 << 15);
pub const WINDOW: std::ops::Range<u64> = 0xC000_0000..0xD000_0000;

/// Structures of the BAR by kind of capability.
pub const COMMON: u8 = 1;
pub const NOTIFY: u8 = 2;
pub const ISR: u8 = 3;
pub const DEVICE: u8 = 4;

/// Descriptor flags.
pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

/// Size of every queue that the driver sets up.
pub const QUEUE_SIZE: u16 = 16;
const QUEUES_START: u64 = 0x1000;
const QUEUE_BYTES: u64 = 0x3000;
const QUEUE_LEN: usize = 0x3000;
const BUFFERS_START: u64 = 0x4_0000;
/// Buffers begin below this; what was put before that many bytes is long done.
const BUFFERS_END: u64 = 0xC_0000;

/// A line's number and its new message.
pub type Change = (u32, Option<MsiMessage>);

/// The hypervisor as devices see it; remembers what it was asked for.
#[derive(Default)]
pub struct FakeHost {
    pub lines: Mutex<Vec<EventFd>>,
    /// The changes of each call.
    pub connects: Mutex<Vec<Vec<Change>>>,
    pub doorbells: Mutex<BTreeMap<u64, EventFd>>,
}

impl MsiLines for FakeHost {
    fn allocate(&self) -> io::Result<MsiLine> {
        let mut lines = self.lines.lock().unwrap();
        let event = EventFd::new(EFD_NONBLOCK)?;
        lines.push(event.try_clone()?);
        Ok(MsiLine { number: u32::try_from(lines.len() - 1).unwrap(), event })
    }

    fn connect(&self, changes: &[(&MsiLine, Option<MsiMessage>)]) -> io::Result<()> {
        let changes = changes.iter().map(|(line, message)| (line.number, *message)).collect();
        self.connects.lock().unwrap().push(changes);
        Ok(())
    }
}

impl Doorbells for FakeHost {
    fn attach(&self, address: u64, event: &EventFd) -> io::Result<()> {
        assert!(self.doorbells.lock().unwrap().insert(address, event.try_clone()?).is_none(), "attached twice");
        Ok(())
    }

    fn detach(&self, address: u64, _event: &EventFd) -> io::Result<()> {
        self.doorbells.lock().unwrap().remove(&address).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// A buffer of a request.
#[derive(Debug, Clone)]
pub enum Buffer {
    /// For the device to read.
    Out(Vec<u8>),
    /// For the device to fill: so many bytes.
    In(u32),
}

/// What came back of a request.
#[derive(Debug, PartialEq, Eq)]
pub struct Used {
    /// Bytes that the device says it has written.
    pub written: u32,
    /// All buffers that it could fill, one after the other.
    pub filled: Vec<u8>,
}

struct Sent {
    head: u16,
    fillable: Vec<(u64, u32)>,
}

#[derive(Default)]
pub struct DriverQueue {
    avail: u16,
    used: u16,
    next_descriptor: u16,
    sent: Vec<Sent>,
    /// Requests that have ended before those that were put earlier: first descriptor and bytes written.
    ended: BTreeMap<u32, u32>,
}

/// The driver of one device.
pub struct Driver {
    pub memory: GuestMemory,
    pub host: Arc<FakeHost>,
    range: Arc<Mutex<dyn BusDevice>>,
    /// Offsets of the structures in the BAR by kind.
    structures: BTreeMap<u8, u64>,
    multiplier: u64,
    pub bar: u64,
    queues: Vec<DriverQueue>,
    next_buffer: u64,
}

impl Driver {
    /// Puts `device` on a bus and finds it there, as a driver does.
    pub fn find(device: Box<dyn VirtioDevice>) -> Self {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), MEMORY_LEN)]).unwrap();
        let host = Arc::new(FakeHost::default());
        let resources = Resources { memory: memory.clone(), lines: host.clone(), doorbells: host.clone() };
        let mut bus = PciBus::new(Windows { low: WINDOW, high: 1 << 32..1 << 33 });
        bus.add(PciAddress::HOST_BRIDGE, Box::new(HostBridge::new(Some(ECAM)))).unwrap();
        let function = VirtioPci::new(device, resources).unwrap();
        bus.add(PciAddress::new(1, 0).unwrap(), Box::new(function)).unwrap();
        bus.assign_bars().unwrap();
        let mut driver = Self {
            memory,
            host,
            range: memory_range(&Arc::new(Mutex::new(bus)), 0),
            structures: BTreeMap::new(),
            multiplier: 0,
            bar: 0,
            queues: Vec::new(),
            next_buffer: BUFFERS_START,
        };
        driver.write(CONFIG + 4, &6_u16.to_le_bytes());
        driver.bar = driver.read_u64(CONFIG + 0x10) & !0xf;
        driver.read_capabilities();
        driver
    }

    fn read_capabilities(&mut self) {
        let mut at = u64::from(self.read_u8(CONFIG + 0x34));
        while at != 0 {
            let kind = self.read_u8(CONFIG + at + 3);
            if self.read_u8(CONFIG + at) == 9 {
                let offset = u64::from(self.read_u32(CONFIG + at + 8));
                self.structures.insert(kind, offset);
                if kind == NOTIFY {
                    self.multiplier = u64::from(self.read_u32(CONFIG + at + 16));
                }
            }
            at = u64::from(self.read_u8(CONFIG + at + 1));
        }
    }

    pub fn read(&self, address: u64, data: &mut [u8]) {
        data.fill(0xff);
        self.range.lock().unwrap().read(address, data);
    }

    pub fn write(&self, address: u64, data: &[u8]) {
        self.range.lock().unwrap().write(address, data);
    }

    pub fn read_u8(&self, address: u64) -> u8 {
        let mut data = [0];
        self.read(address, &mut data);
        data[0]
    }

    pub fn read_u16(&self, address: u64) -> u16 {
        let mut data = [0; 2];
        self.read(address, &mut data);
        u16::from_le_bytes(data)
    }

    pub fn read_u32(&self, address: u64) -> u32 {
        let mut data = [0; 4];
        self.read(address, &mut data);
        u32::from_le_bytes(data)
    }

    pub fn read_u64(&self, address: u64) -> u64 {
        u64::from(self.read_u32(address)) | u64::from(self.read_u32(address + 4)) << 32
    }

    /// Address of a field of one of the BAR's structures.
    pub fn at(&self, structure: u8, offset: u64) -> u64 {
        self.bar + self.structures[&structure] + offset
    }

    pub fn status(&self) -> u8 {
        self.read_u8(self.at(COMMON, 0x14))
    }

    /// Adds a status bit.
    pub fn add_status(&self, bit: u8) {
        let status = self.status() | bit;
        self.write(self.at(COMMON, 0x14), &[status]);
    }

    pub fn reset(&mut self) {
        self.write(self.at(COMMON, 0x14), &[0]);
        self.queues.clear();
        self.next_buffer = BUFFERS_START;
    }

    pub fn offered(&self) -> u64 {
        let half = |select: u32| {
            self.write(self.at(COMMON, 0), &select.to_le_bytes());
            u64::from(self.read_u32(self.at(COMMON, 4)))
        };
        half(0) | half(1) << 32
    }

    pub fn accept(&self, features: u64) {
        for (select, half) in [(0_u32, features & 0xffff_ffff), (1, features >> 32)] {
            self.write(self.at(COMMON, 8), &select.to_le_bytes());
            self.write(self.at(COMMON, 12), &u32::try_from(half).unwrap().to_le_bytes());
        }
    }

    /// From reset to `FEATURES_OK` with these features, of those that are offered.
    pub fn negotiate(&self, features: u64) {
        self.add_status(status::ACKNOWLEDGE);
        self.add_status(status::DRIVER);
        self.accept(features & self.offered());
        self.add_status(status::FEATURES_OK);
        assert_ne!(self.status() & status::FEATURES_OK, 0);
    }

    /// Where queue number `queue` has its descriptors, available and used rings.
    pub fn ring_addresses(queue: u16) -> (u64, u64, u64) {
        let start = QUEUES_START + QUEUE_BYTES * u64::from(queue);
        (start, start + 0x1000, start + 0x2000)
    }

    pub fn set_up_queue(&mut self, queue: u16) {
        let (descriptors, avail, used) = Self::ring_addresses(queue);
        self.memory.write_slice(&[0; QUEUE_LEN], GuestAddress(descriptors)).unwrap();
        self.write(self.at(COMMON, 0x16), &queue.to_le_bytes());
        self.write(self.at(COMMON, 0x18), &QUEUE_SIZE.to_le_bytes());
        self.write(self.at(COMMON, 0x1A), &(queue + 1).to_le_bytes());
        for (offset, address) in [(0x20, descriptors), (0x28, avail), (0x30, used)] {
            self.write(self.at(COMMON, offset), &address.to_le_bytes()[..4]);
            self.write(self.at(COMMON, offset + 4), &address.to_le_bytes()[4..]);
        }
        self.write(self.at(COMMON, 0x1C), &1_u16.to_le_bytes());
        self.queues.resize_with(usize::from(queue) + 1, DriverQueue::default);
    }

    /// Switches MSI-X on: vector n has message n at an address of its own.
    pub fn enable_msix(&self) {
        let msix = CONFIG + self.capability(0x11);
        let table = self.bar + u64::from(self.read_u32(msix + 4) & !7);
        let vectors = self.host.lines.lock().unwrap().len();
        for vector in 0..vectors as u64 {
            let entry = table + 16 * vector;
            self.write(entry, &(0xFEE0_0000_u32).to_le_bytes());
            self.write(entry + 8, &u32::try_from(vector).unwrap().to_le_bytes());
            self.write(entry + 12, &0_u32.to_le_bytes());
        }
        self.write(msix + 2, &0x8000_u16.to_le_bytes());
        self.write(self.at(COMMON, 0x10), &0_u16.to_le_bytes());
    }

    /// Offset of a capability in configuration space.
    pub fn capability(&self, id: u8) -> u64 {
        let mut at = u64::from(self.read_u8(CONFIG + 0x34));
        while self.read_u8(CONFIG + at) != id {
            at = u64::from(self.read_u8(CONFIG + at + 1));
            assert_ne!(at, 0, "no such capability");
        }
        at
    }

    /// From reset to `DRIVER_OK`, with all features and all queues.
    pub fn start(&mut self) {
        self.start_with(u64::MAX);
    }

    pub fn start_with(&mut self, features: u64) {
        self.negotiate(features | feature::VERSION_1);
        self.enable_msix();
        for queue in 0..self.read_u16(self.at(COMMON, 0x12)) {
            self.set_up_queue(queue);
        }
        self.add_status(status::DRIVER_OK);
    }

    /// Writes a descriptor.
    pub fn describe(&self, table: u64, index: u16, address: u64, len: u32, flags: u16, next: u16) {
        let at = GuestAddress(table + 16 * u64::from(index));
        self.memory.write_obj(address.to_le(), at).unwrap();
        self.memory.write_obj(len.to_le(), GuestAddress(at.0 + 8)).unwrap();
        self.memory.write_obj(flags.to_le(), GuestAddress(at.0 + 12)).unwrap();
        self.memory.write_obj(next.to_le(), GuestAddress(at.0 + 14)).unwrap();
    }

    /// Makes the chain at `head` available, and says so.
    pub fn offer(&mut self, queue: u16, head: u16) {
        let (_, avail, _) = Self::ring_addresses(queue);
        let state = &mut self.queues[usize::from(queue)];
        let slot = u64::from(state.avail % QUEUE_SIZE);
        self.memory.write_obj(head.to_le(), GuestAddress(avail + 4 + 2 * slot)).unwrap();
        state.avail = state.avail.wrapping_add(1);
        self.memory.write_obj(state.avail.to_le(), GuestAddress(avail + 2)).unwrap();
    }

    pub fn notify(&self, queue: u16) {
        let address = self.at(NOTIFY, self.multiplier * u64::from(queue));
        let doorbell = self.host.doorbells.lock().unwrap().get(&address).map(|event| event.try_clone().unwrap());
        match doorbell {
            Some(event) => event.write(1).unwrap(),
            None => self.write(address, &queue.to_le_bytes()),
        }
    }

    /// Makes a request available without saying so.
    pub fn put(&mut self, queue: u16, buffers: &[Buffer]) {
        let (table, ..) = Self::ring_addresses(queue);
        let first = self.queues[usize::from(queue)].next_descriptor;
        let mut fillable = Vec::new();
        for (n, buffer) in buffers.iter().enumerate() {
            let index = (first + u16::try_from(n).unwrap()) % QUEUE_SIZE;
            let next = (index + 1) % QUEUE_SIZE;
            let more = if n + 1 < buffers.len() { NEXT } else { 0 };
            if self.next_buffer >= BUFFERS_END {
                self.next_buffer = BUFFERS_START;
            }
            let address = self.next_buffer;
            let (len, flags) = match buffer {
                Buffer::Out(bytes) => {
                    self.memory.write_slice(bytes, GuestAddress(address)).unwrap();
                    (u32::try_from(bytes.len()).unwrap(), more)
                }
                Buffer::In(len) => {
                    fillable.push((address, *len));
                    (*len, more | WRITE)
                }
            };
            self.next_buffer += u64::from(len);
            self.describe(table, index, address, len, flags, next);
        }
        let state = &mut self.queues[usize::from(queue)];
        state.next_descriptor = (first + u16::try_from(buffers.len()).unwrap()) % QUEUE_SIZE;
        state.sent.push(Sent { head: first, fillable });
        self.offer(queue, first);
    }

    /// Sends a request and waits for its end.
    pub fn request(&mut self, queue: u16, buffers: &[Buffer]) -> Used {
        self.put(queue, buffers);
        self.notify(queue);
        self.finished(queue)
    }

    /// Waits for the end of the request that was put first.
    pub fn finished(&mut self, queue: u16) -> Used {
        let sent = self.queues[usize::from(queue)].sent.remove(0);
        let written = loop {
            if let Some(written) = self.queues[usize::from(queue)].ended.remove(&sent.head.into()) {
                break written;
            }
            let (head, written) = self.next_used(queue);
            self.queues[usize::from(queue)].ended.insert(head, written);
        };
        let mut filled = Vec::new();
        for (address, len) in sent.fillable {
            let mut bytes = vec![0; len as usize];
            self.memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
            filled.extend(bytes);
        }
        Used { written, filled }
    }

    /// Waits for the next used buffer: its first descriptor and bytes written.
    fn next_used(&mut self, queue: u16) -> (u32, u32) {
        let (_, avail, used) = Self::ring_addresses(queue);
        let next = self.queues[usize::from(queue)].used;
        let event_at = GuestAddress(avail + 4 + 2 * u64::from(QUEUE_SIZE));
        self.memory.write_obj(next.to_le(), event_at).unwrap();
        while u16::from_le(self.memory.read_obj::<u16>(GuestAddress(used + 2)).unwrap()) == next {
            self.wait(queue + 1);
        }
        let entry = used + 4 + 8 * u64::from(next % QUEUE_SIZE);
        let head = u32::from_le(self.memory.read_obj::<u32>(GuestAddress(entry)).unwrap());
        let written = u32::from_le(self.memory.read_obj::<u32>(GuestAddress(entry + 4)).unwrap());
        self.queues[usize::from(queue)].used = next.wrapping_add(1);
        (head, written)
    }

    /// Waits until a vector fires.
    pub fn wait(&self, vector: u16) {
        let event = self.host.lines.lock().unwrap()[usize::from(vector)].try_clone().unwrap();
        let epoll = Epoll::new().unwrap();
        epoll.ctl(ControlOperation::Add, event.as_raw_fd(), EpollEvent::new(EventSet::IN, 0)).unwrap();
        let fired = epoll.wait(10_000, &mut [EpollEvent::default()]).unwrap();
        assert_eq!(fired, 1, "vector {vector} does not fire; status {:#x}", self.status());
        event.read().unwrap();
    }

    /// Whether a vector has fired since it was last asked.
    pub fn fired(&self, vector: u16) -> bool {
        self.host.lines.lock().unwrap()[usize::from(vector)].read().is_ok()
    }

    /// Waits until the device asks for a reset.
    pub fn wait_for_break_down(&self) {
        while self.status() & status::DEVICE_NEEDS_RESET == 0 {
            self.wait(0);
        }
    }
}

/// The same numbers for the same seed (xorshift64).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, limit: u16) -> u16 {
        u16::try_from(self.next() % u64::from(limit)).unwrap()
    }
}

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::thread::{JoinHandle, spawn};

use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestRegionMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::*;
use crate::event::EventThread;
use crate::mem::GuestMemory;
use crate::virtio::rng::VirtioRng;
use crate::virtio::spec::feature;

const GUEST_START: u64 = 0x10_0000;
const MEMORY_BYTES: usize = 0x10_0000;
const THEIRS: u64 = 0x7f00_0000_0000;
const DESCRIPTORS: u64 = 0x1000;
const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x3000;
const BUFFER: u64 = 0x4000;
const QUEUE_SIZE: u16 = 16;

/// Plays QEMU, with a guest that has one queue of a random number generator.
struct Qemu {
    frontend: Frontend,
    memory: GuestMemory,
    file: File,
    kick: EventFd,
    call: EventFd,
    serving: JoinHandle<()>,
    _events: EventThread,
    offered: u16,
}

impl Qemu {
    fn start() -> Self {
        let events = EventThread::start("devices").unwrap();
        let device = Box::new(VirtioRng::new(events.events()));
        let mut served = Served { device_word: "vhost-user-rng-pci".into(), queues: 1, device };
        let (ours, theirs) = UnixStream::pair().unwrap();
        let serving = spawn(move || serve(&mut served, theirs));
        let file = tempfile::tempfile().unwrap();
        file.set_len(MEMORY_BYTES as u64).unwrap();
        let region = FileOffset::new(file.try_clone().unwrap(), 0);
        let region = GuestRegionMmap::from_range(GuestAddress(GUEST_START), MEMORY_BYTES, Some(region)).unwrap();
        Self {
            frontend: Frontend::from_stream(ours, 1),
            memory: GuestMemory::from_regions(vec![region]).unwrap(),
            file,
            kick: EventFd::new(EFD_NONBLOCK).unwrap(),
            call: EventFd::new(0).unwrap(),
            serving,
            _events: events,
            offered: 0,
        }
    }

    fn at(offset: u64) -> GuestAddress {
        GuestAddress(GUEST_START + offset)
    }

    fn negotiate(&mut self) {
        self.frontend.set_owner().unwrap();
        let features = self.frontend.get_features().unwrap();
        let protocol = self.frontend.get_protocol_features().unwrap();
        self.frontend.set_protocol_features(protocol).unwrap();
        // Without the ring's events, so that each buffer is told of.
        self.frontend.set_features(features & !feature::EVENT_IDX).unwrap();
    }

    fn set_up(&mut self, done: u16) {
        self.frontend
            .set_mem_table(&[VhostUserMemoryRegionInfo {
                guest_phys_addr: GUEST_START,
                memory_size: MEMORY_BYTES as u64,
                userspace_addr: THEIRS,
                mmap_offset: 0,
                mmap_handle: self.file.as_raw_fd(),
            }])
            .unwrap();
        self.frontend.set_vring_num(0, QUEUE_SIZE).unwrap();
        self.frontend.set_vring_base(0, done).unwrap();
        let addresses = VringConfigData {
            queue_max_size: QUEUE_SIZE,
            queue_size: QUEUE_SIZE,
            flags: 0,
            desc_table_addr: THEIRS + DESCRIPTORS,
            used_ring_addr: THEIRS + USED,
            avail_ring_addr: THEIRS + AVAILABLE,
            log_addr: None,
        };
        self.frontend.set_vring_addr(0, &addresses).unwrap();
        self.frontend.set_vring_kick(0, &self.kick).unwrap();
        self.frontend.set_vring_call(0, &self.call).unwrap();
        self.frontend.set_vring_enable(0, true).unwrap();
    }

    /// Has the device fill a buffer, waits for its interrupt, and gives what is in it.
    fn random(&mut self) -> [u8; 64] {
        self.memory.write_slice(&[0; 64], Self::at(BUFFER)).unwrap();
        let descriptor = [(GUEST_START + BUFFER).to_le_bytes(), (64_u64 | 2 << 32).to_le_bytes()].concat();
        self.memory.write_slice(&descriptor, Self::at(DESCRIPTORS)).unwrap();
        let slot = AVAILABLE + 4 + 2 * u64::from(self.offered % QUEUE_SIZE);
        self.memory.write_obj(0_u16, Self::at(slot)).unwrap();
        self.offered += 1;
        self.memory.write_obj(self.offered.to_le(), Self::at(AVAILABLE + 2)).unwrap();
        self.kick.write(1).unwrap();
        self.call.read().unwrap();
        assert_eq!(self.memory.read_obj::<u16>(Self::at(USED + 2)).unwrap(), self.offered);
        let mut filled = [0; 64];
        self.memory.read_slice(&mut filled, Self::at(BUFFER)).unwrap();
        filled
    }
}

#[test]
fn what_is_no_message_ends_the_service() {
    for bytes in [&b""[..], b"GET / HTTP/1.0\r\n\r\n", &[0xff; 4096], &[1, 0, 0, 0, 1, 0, 0, 0, 0xff, 0xff, 0, 0]] {
        let events = EventThread::start("devices").unwrap();
        let device = Box::new(VirtioRng::new(events.events()));
        let mut served = Served { device_word: String::new(), queues: 1, device };
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let serving = spawn(move || serve(&mut served, theirs));
        // It may be gone already.
        let _gone = ours.write_all(bytes);
        ours.shutdown(std::net::Shutdown::Write).unwrap();
        let _reset = ours.read_to_end(&mut Vec::new());
        serving.join().unwrap();
    }
}

#[test]
fn queues_that_cannot_be_are_refused() {
    let mut qemu = Qemu::start();
    qemu.negotiate();
    let outside = VringConfigData {
        queue_max_size: QUEUE_SIZE,
        queue_size: QUEUE_SIZE,
        flags: 0,
        desc_table_addr: THEIRS + MEMORY_BYTES as u64,
        used_ring_addr: THEIRS + USED,
        avail_ring_addr: THEIRS + AVAILABLE,
        log_addr: None,
    };
    qemu.frontend.set_vring_num(0, QUEUE_SIZE).unwrap();
    qemu.frontend.set_vring_addr(0, &outside).unwrap();
    qemu.frontend.set_vring_kick(0, &qemu.kick).unwrap();
    qemu.frontend.set_vring_enable(0, true).unwrap();
    // Now all is known, and the queue lies outside of memory.
    let _sent = qemu.frontend.set_mem_table(&[VhostUserMemoryRegionInfo {
        guest_phys_addr: GUEST_START,
        memory_size: MEMORY_BYTES as u64,
        userspace_addr: THEIRS,
        mmap_offset: 0,
        mmap_handle: qemu.file.as_raw_fd(),
    }]);
    qemu.frontend.get_features().expect_err("the service has ended");
    qemu.serving.join().unwrap();
}

#[test]
fn a_device_works_in_memory_of_another_process_and_goes_on_where_it_stopped() {
    let mut qemu = Qemu::start();
    qemu.negotiate();
    qemu.set_up(0);
    let first = qemu.random();
    assert_ne!(first, qemu.random());
    // As a machine that is paused.
    qemu.frontend.set_vring_enable(0, false).unwrap();
    let done = qemu.frontend.get_vring_base(0).unwrap();
    assert_eq!(done, 2);
    qemu.set_up(2);
    assert_ne!(first, qemu.random());
    // As one that starts again.
    assert_eq!(qemu.frontend.get_vring_base(0).unwrap(), 3);
    qemu.memory.write_slice(&[0; 0x4000], Qemu::at(0)).unwrap();
    qemu.offered = 0;
    qemu.set_up(0);
    assert_ne!(qemu.random(), [0; 64]);
    drop(qemu.frontend);
    qemu.serving.join().unwrap();
}

use vm_memory::{Bytes, GuestAddress};

use super::{BalloonHandle, GuestStats, VirtioBalloon};
use crate::event::EventThread;
use crate::virtio::mock::{Buffer, DEVICE, Driver, MEMORY_BYTES, NEXT, Used, WRITE};

const INFLATE: u16 = 0;
const DEFLATE: u16 = 1;
const STATS: u16 = 2;
const REPORTING: u16 = 4;

/// A page that no buffer of the mock driver is in.
const PAGE: u64 = 0xD_0000;

struct Rig {
    driver: Driver,
    handle: BalloonHandle,
    _events: EventThread,
}

/// A balloon whose driver is up.
fn rig() -> Rig {
    let events = EventThread::start("test").unwrap();
    let handle = BalloonHandle::new(MEMORY_BYTES).unwrap();
    let mut driver = Driver::find(Box::new(VirtioBalloon::new(handle.clone(), events.events())));
    driver.start();
    Rig { driver, handle, _events: events }
}

impl Rig {
    /// Writes something to `count` pages from [`PAGE`] on.
    fn fill(&self, count: u64) {
        for page in 0..count {
            self.driver.memory.write_obj(!page, GuestAddress(PAGE + page * 4096)).unwrap();
        }
    }

    /// Which of `count` pages from [`PAGE`] on are still as [`Self::fill`] left them.
    fn kept(&self, count: u64) -> Vec<u64> {
        let word = |page: u64| self.driver.memory.read_obj::<u64>(GuestAddress(PAGE + page * 4096)).unwrap();
        (0..count).filter(|page| word(*page) != 0).collect()
    }

    /// Puts a chain of these ranges into a queue.
    fn put(&mut self, queue: u16, ranges: &[(u64, u32)], flags: u16) {
        let (table, ..) = Driver::ring_addresses(queue);
        for (index, (address, len)) in (0..).zip(ranges) {
            let more = if usize::from(index) + 1 < ranges.len() { NEXT } else { 0 };
            self.driver.describe(table, index, *address, *len, flags | more, index + 1);
        }
        self.driver.offer(queue, 0);
        self.driver.notify(queue);
    }
}

fn numbers(pages: &[u64]) -> Vec<Buffer> {
    let bytes = pages.iter().flat_map(|page| u32::try_from(*page).unwrap().to_le_bytes()).collect();
    vec![Buffer::Out(bytes)]
}

fn stats(entries: &[(u16, u64)]) -> Vec<u8> {
    entries.iter().flat_map(|(tag, value)| tag.to_le_bytes().into_iter().chain(value.to_le_bytes())).collect()
}

#[test]
fn a_request_of_more_pages_than_any_driver_names_stops_the_device() {
    let mut rig = rig();
    let all = u32::try_from(MEMORY_BYTES).unwrap();
    rig.put(INFLATE, &[(0, all), (0, 4)], 0);
    rig.driver.wait_for_break_down();
}

#[test]
fn a_second_buffer_for_statistics_stops_the_device() {
    let mut rig = rig();
    let buffer = [Buffer::Out(stats(&[(4, 1)]))];
    rig.driver.put(STATS, &buffer);
    rig.driver.put(STATS, &buffer);
    rig.driver.notify(STATS);
    rig.driver.wait_for_break_down();
}

#[test]
fn pages_outside_of_memory_and_halves_of_numbers_are_passed_over() {
    let mut rig = rig();
    rig.fill(1);
    let buffers = [&numbers(&[0x100, 0xffff_ffff, PAGE >> 12])[..], &[Buffer::Out(vec![0xD0, 0])]].concat();
    assert_eq!(rig.driver.request(INFLATE, &buffers), Used { written: 0, filled: vec![] });
    assert_eq!(rig.kept(1), [0; 0]);
}

#[test]
fn pages_in_the_balloon_are_the_hosts_and_come_back_as_zeros() {
    let mut rig = rig();
    rig.fill(8);
    let first = PAGE >> 12;
    rig.driver.request(INFLATE, &numbers(&[first + 3, first + 2, first + 6, first + 7, first]));
    assert_eq!(rig.kept(8), [1, 4, 5]);
    rig.driver.request(DEFLATE, &numbers(&[first, first + 1]));
    rig.fill(8);
    assert_eq!(rig.kept(8).len(), 8);
}

#[test]
fn reported_pages_are_the_hosts_in_the_queue_of_old_drivers_too() {
    for queue in [REPORTING, REPORTING - 1] {
        let mut rig = rig();
        rig.fill(8);
        rig.put(queue, &[(PAGE + 4096, 2 * 4096), (PAGE + 5 * 4096, 4096)], WRITE);
        rig.driver.wait(queue + 1);
        assert_eq!(rig.kept(8), [0, 3, 4, 6, 7], "queue {queue}");
    }
}

#[test]
fn the_driver_reads_the_target_and_says_what_it_gave() {
    let mut rig = rig();
    rig.handle.set_target(3 * 4096 - 1);
    rig.driver.wait(0);
    let read =
        |rig: &Rig| (rig.driver.read_u32(rig.driver.at(DEVICE, 0)), rig.driver.read_u32(rig.driver.at(DEVICE, 4)));
    assert_eq!(read(&rig), (3, 0));
    rig.driver.write(rig.driver.at(DEVICE, 4), &2_u32.to_le_bytes());
    rig.driver.write(rig.driver.at(DEVICE, 0), &9_u32.to_le_bytes());
    rig.driver.write(rig.driver.at(DEVICE, 5), &[9]);
    assert_eq!(read(&rig), (3, 2));
    rig.driver.write(rig.driver.at(DEVICE, 4), &u32::MAX.to_le_bytes());
    rig.handle.set_target(u64::MAX);
    assert_eq!(read(&rig), (256, 256), "no more than there is");
    rig.driver.reset();
    assert_eq!(rig.handle.state().actual_bytes, 0);
}

#[test]
fn statistics_come_when_they_are_asked_for() {
    let mut rig = rig();
    assert_eq!(rig.handle.state().stats, GuestStats::default(), "the driver does not answer");
    rig.driver.put(STATS, &[Buffer::Out(stats(&[(4, 1000), (9, 7), (5, 3000)]))]);
    rig.driver.notify(STATS);
    let asking = rig.handle.clone();
    let asked = std::thread::spawn(move || {
        // Until the answer came in time: the driver may be slower than the one who asks is patient.
        loop {
            let said = asking.state().stats;
            if said.free_bytes == Some(2000) {
                return said;
            }
        }
    });
    rig.driver.finished(STATS);
    rig.driver.put(STATS, &[Buffer::Out(stats(&[(4, 2000), (6, 2500)]))]);
    rig.driver.notify(STATS);
    let said = asked.join().unwrap();
    assert_eq!(said, GuestStats { free_bytes: Some(2000), available_bytes: Some(2500), total_bytes: None });
}

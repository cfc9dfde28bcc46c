use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use kiln_net::Millis;
use kiln_net::link::Link;
use kiln_net::port::{Abilities, GuestFrame, GuestPort};
use kiln_net::wire::{Headers, Ip, Mac, Macs, Protocol, SegmentKind};

use super::VirtioNet;
use super::spec::{command, config, feature, header};
use crate::cable::Cable;
use crate::event::Flag;
use crate::virtio::mock::{Buffer, DEVICE, Driver, NEXT, WRITE};
use crate::virtio::spec::status;

const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
const CONTROL: u16 = 2;

/// Sends every frame back, with how many came before it in front.
struct Mirror {
    never: Flag,
    count: u8,
}

impl Link for Mirror {
    fn fd(&self) -> BorrowedFd<'_> {
        self.never.as_fd()
    }

    fn takes(&self) -> Abilities {
        Abilities::ALL
    }

    fn from_guest(&mut self, frame: &dyn GuestFrame, port: &mut dyn GuestPort, _now: Millis) {
        let mut bytes = Vec::new();
        frame.copy_to(0..frame.len_bytes(), &mut bytes);
        // Lost, if there is no room.
        let _ = port.send(Headers::whole(&[self.count]), &bytes);
        self.count += 1;
    }

    fn turn(&mut self, _port: &mut dyn GuestPort, _now: Millis) -> io::Result<bool> {
        Ok(false)
    }

    fn deadline(&self) -> Option<Millis> {
        None
    }
}

fn cable() -> Cable {
    Cable::new(Box::new(Mirror { never: Flag::new().unwrap(), count: 0 }))
}

fn driver(cable: &Cable) -> Driver {
    Driver::find(Box::new(VirtioNet::new(cable.clone(), Mac([0x52, 0x54, 0, 1, 2, 3]), 9000)))
}

/// A frame behind its header, which is all zeros.
fn framed(frame: &[u8]) -> Buffer {
    Buffer::Out([&[0; header::BYTES], frame].concat())
}

fn send(driver: &mut Driver, frame: &[u8]) {
    driver.put(TRANSMIT, &[framed(frame)]);
    driver.notify(TRANSMIT);
    assert_eq!(driver.finished(TRANSMIT).written, 0);
}

#[test]
fn chains_that_hold_no_frame_are_given_back_and_the_next_is_served() {
    let cable = cable();
    let mut driver = driver(&cable);
    driver.start();
    driver.put(RECEIVE, &[Buffer::In(2000)]);
    for buffers in [vec![Buffer::Out(vec![0; header::BYTES - 1])], vec![Buffer::In(64)], vec![Buffer::Out(vec![9; 1])]]
    {
        driver.put(TRANSMIT, &buffers);
        driver.notify(TRANSMIT);
        assert_eq!(driver.finished(TRANSMIT).written, 0);
    }
    send(&mut driver, b"frame");
    let used = driver.finished(RECEIVE);
    assert_eq!(used.filled[header::BYTES..][..6], *b"\0frame");
    assert_eq!(used.written as usize, header::BYTES + 6);
}

#[test]
fn the_driver_hears_that_a_frame_was_taken_even_if_nothing_comes() {
    let never = Flag::new().unwrap();
    let mut driver = driver(&Cable::new(Box::new(Loose { changed: never, is_up: true })));
    driver.start();
    driver.put(TRANSMIT, &[framed(b"frame")]);
    driver.notify(TRANSMIT);
    driver.wait(TRANSMIT + 1);
    assert_eq!(driver.finished(TRANSMIT).written, 0);
}

#[test]
fn a_broken_ring_stops_the_card_and_a_reset_brings_it_back_with_its_cable() {
    let cable = cable();
    let mut driver = driver(&cable);
    driver.start();
    driver.put(RECEIVE, &[Buffer::In(2000)]);
    send(&mut driver, b"one");
    assert_eq!(driver.finished(RECEIVE).filled[header::BYTES], 0);
    // A chain that leads to itself.
    let (table, ..) = Driver::ring_addresses(TRANSMIT);
    driver.describe(table, 9, 0x4_0000, 64, NEXT, 9);
    driver.offer(TRANSMIT, 9);
    driver.notify(TRANSMIT);
    driver.wait_for_break_down();
    driver.reset();
    driver.start();
    driver.put(RECEIVE, &[Buffer::In(2000)]);
    send(&mut driver, b"two");
    assert_eq!(driver.finished(RECEIVE).filled[header::BYTES], 1, "the same end of the cable");
}

#[test]
fn a_buffer_outside_of_memory_breaks_the_card_down() {
    let cable = cable();
    let mut driver = driver(&cable);
    driver.start();
    let (table, ..) = Driver::ring_addresses(RECEIVE);
    driver.describe(table, 0, 1 << 40, 2000, WRITE, 0);
    driver.offer(RECEIVE, 0);
    driver.put(TRANSMIT, &[framed(b"frame")]);
    driver.notify(TRANSMIT);
    driver.wait_for_break_down();
}

#[test]
fn a_cable_that_somebody_else_has_is_not_taken_and_comes_back() {
    let cable = cable();
    let taken = cable.take();
    let mut driver = driver(&cable);
    driver.start();
    assert_ne!(driver.status() & status::DEVICE_NEEDS_RESET, 0);
    drop(taken);
    driver.reset();
    driver.start();
    driver.put(RECEIVE, &[Buffer::In(2000)]);
    send(&mut driver, b"frame");
    assert_eq!(driver.finished(RECEIVE).filled[header::BYTES..][..6], *b"\0frame");
}

#[test]
fn a_frame_longer_than_a_buffer_lies_in_several() {
    let cable = cable();
    let mut driver = driver(&cable);
    driver.start();
    for _ in 0..4 {
        driver.put(RECEIVE, &[Buffer::In(600)]);
    }
    let frame: Vec<u8> = (0..1500_u16).map(|n| n.to_le_bytes()[0]).collect();
    send(&mut driver, &frame);
    let used: Vec<_> = (0..3).map(|_| driver.finished(RECEIVE)).collect();
    let written: Vec<u32> = used.iter().map(|used| used.written).collect();
    assert_eq!(written, [600, 600, 313]);
    let mut bytes: Vec<u8> = used.into_iter().flat_map(|used| used.filled).collect();
    bytes.truncate(1513);
    assert_eq!(bytes[10..12], 3_u16.to_le_bytes(), "the number of buffers");
    assert!(bytes[header::BYTES + 1..] == frame);
}

#[test]
fn without_mergeable_buffers_a_frame_that_is_too_long_is_lost_and_the_next_is_not() {
    let cable = cable();
    let mut driver = driver(&cable);
    driver.start_with(!feature::MRG_RXBUF);
    driver.put(RECEIVE, &[Buffer::In(600)]);
    driver.put(RECEIVE, &[Buffer::In(600)]);
    send(&mut driver, &[7; 1000]);
    send(&mut driver, b"short");
    let used = driver.finished(RECEIVE);
    assert_eq!((used.written, used.filled[header::BYTES]), (18, 1));
    assert_eq!(used.filled[10..12], 1_u16.to_le_bytes());
}

/// A link whose other end comes and goes.
struct Loose {
    changed: Flag,
    is_up: bool,
}

impl Link for Loose {
    fn fd(&self) -> BorrowedFd<'_> {
        self.changed.as_fd()
    }

    fn takes(&self) -> Abilities {
        Abilities::default()
    }

    fn from_guest(&mut self, _frame: &dyn GuestFrame, _port: &mut dyn GuestPort, _now: Millis) {}

    fn turn(&mut self, _port: &mut dyn GuestPort, _now: Millis) -> io::Result<bool> {
        self.is_up ^= self.changed.take();
        Ok(false)
    }

    fn deadline(&self) -> Option<Millis> {
        None
    }

    fn is_up(&self) -> bool {
        self.is_up
    }
}

#[test]
fn the_driver_is_told_when_the_other_end_of_the_cable_is_lost_and_when_it_is_there_again() {
    let changed = Flag::new().unwrap();
    let cable = Cable::new(Box::new(Loose { changed: changed.try_clone().unwrap(), is_up: true }));
    let mut driver = driver(&cable);
    let is_up = |driver: &Driver| driver.read_u16(driver.at(DEVICE, config::STATUS as u64)) == config::LINK_UP;
    driver.start();
    assert!(is_up(&driver));
    for wanted in [false, true, false] {
        changed.raise();
        driver.wait(0);
        assert_eq!(is_up(&driver), wanted);
        assert_eq!(driver.status() & status::DEVICE_NEEDS_RESET, 0);
    }
    // Nothing changed: it is not told again.
    send(&mut driver, b"frame");
    assert!(!driver.fired(0));
    driver.reset();
    driver.start();
    assert!(!is_up(&driver), "a driver that comes later sees it too");
}

/// Gives every frame back as it is, or done as far as the driver wants it.
struct Reflecting {
    never: Flag,
    takes: Abilities,
}

impl Link for Reflecting {
    fn fd(&self) -> BorrowedFd<'_> {
        self.never.as_fd()
    }

    fn takes(&self) -> Abilities {
        self.takes
    }

    fn from_guest(&mut self, frame: &dyn GuestFrame, port: &mut dyn GuestPort, _now: Millis) {
        let mut bytes = Vec::new();
        frame.copy_to(0..frame.len_bytes(), &mut bytes);
        assert!(port.send_frame(&bytes, &frame.offload()));
    }

    fn turn(&mut self, _port: &mut dyn GuestPort, _now: Millis) -> io::Result<bool> {
        Ok(false)
    }

    fn deadline(&self) -> Option<Millis> {
        None
    }
}

fn reflecting(takes: Abilities) -> Cable {
    Cable::new(Box::new(Reflecting { never: Flag::new().unwrap(), takes }))
}

/// Three datagrams of 1,000 bytes in one frame.
fn datagrams() -> Buffer {
    let macs = Macs { source: Mac([2; 6]), destination: Mac([4; 6]) };
    let address = |last| IpAddr::from([10, 0, 2, last]);
    let mut headers = Headers::udp(macs, &Ip::new(address(15), address(2), Protocol::UDP), 9, 7, 3_000);
    headers.set_segment_bytes(1_000);
    Buffer::Out([&headers.offload().bytes(0), headers.bytes(), &[7; 3_000]].concat())
}

/// The frames that come back of what [`datagrams`] is: flags, kind of segments and length of each.
fn reflected(driver: &mut Driver) -> Vec<(u8, u8, u32)> {
    for _ in 0..6 {
        driver.put(RECEIVE, &[Buffer::In(4_000)]);
    }
    driver.request(TRANSMIT, &[datagrams()]);
    let mut frames = Vec::new();
    let mut content_bytes = 0;
    while content_bytes < 3_000 {
        let used = driver.finished(RECEIVE);
        frames.push((used.filled[0], used.filled[1], used.written));
        content_bytes += used.written - 54;
    }
    driver.reset();
    frames
}

/// Sets the offloads that count from now on; gives the answer.
fn set_offloads(driver: &mut Driver, offloads: u64) -> u8 {
    let command = [&[command::GUEST_OFFLOADS, command::GUEST_OFFLOADS_SET][..], &offloads.to_le_bytes()].concat();
    driver.request(CONTROL, &[Buffer::Out(command), Buffer::In(1)]).filled[0]
}

#[test]
fn commands_that_are_none_are_refused_and_the_next_is_done() {
    let mut driver = driver(&reflecting(Abilities::ALL));
    driver.start_with(!feature::GUEST_USO6);
    let set = [command::GUEST_OFFLOADS, command::GUEST_OFFLOADS_SET];
    for command in [
        vec![0],
        set.to_vec(),
        [&set[..], &[0; 7]].concat(),
        vec![command::GUEST_OFFLOADS, 1, 0, 0, 0, 0, 0, 0, 0, 0],
        vec![0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ] {
        let used = driver.request(CONTROL, &[Buffer::Out(command), Buffer::In(1)]);
        assert_eq!((used.written, &used.filled[..]), (1, &[command::ERROR][..]));
    }
    assert_eq!(driver.request(CONTROL, &[Buffer::In(1)]).filled, [command::ERROR]);
    for offloads in [feature::GUEST_USO6, feature::MAC, u64::MAX] {
        assert_eq!(set_offloads(&mut driver, offloads), command::ERROR, "never agreed on");
    }
    for _ in 0..40 {
        assert_eq!(set_offloads(&mut driver, feature::GUEST_CSUM), command::OK);
    }
    // No room for an answer.
    driver.put(CONTROL, &[Buffer::Out(vec![0; 10])]);
    driver.notify(CONTROL);
    driver.wait_for_break_down();
}

#[test]
fn frames_are_as_the_driver_takes_them_and_it_may_change_its_mind() {
    let mut driver = driver(&reflecting(Abilities::ALL));
    let whole = [(1, SegmentKind::Udp as u8, 3_054)];
    let complete = [(0, 0, 1_054); 3];
    driver.start();
    assert_eq!(reflected(&mut driver), whole);
    driver.start_with(!(feature::GUEST_USO4 | feature::GUEST_USO6));
    assert_eq!(reflected(&mut driver), complete);
    driver.start_with(!feature::GUEST_CSUM);
    assert_eq!(reflected(&mut driver), complete, "one needs the other");
    for (offloads, wanted) in [
        (0, &complete[..]),
        (feature::GUEST_CSUM | feature::GUEST_TSO4 | feature::GUEST_TSO6, &complete),
        (feature::GUEST_OFFLOADS, &whole),
    ] {
        driver.start();
        // Off first, so that the second command is what counts.
        assert_eq!(set_offloads(&mut driver, 0), command::OK);
        assert_eq!(set_offloads(&mut driver, offloads), command::OK);
        assert_eq!(reflected(&mut driver), wanted, "{offloads:#x}");
    }
    driver.start();
    assert_eq!(reflected(&mut driver), whole, "all of it counts again after a reset");
}

#[test]
fn a_card_offers_what_its_cable_takes() {
    let all = feature::GUEST_OFFLOADS
        | feature::CSUM
        | feature::HOST_TSO4
        | feature::HOST_TSO6
        | feature::HOST_USO
        | feature::CTRL_VQ
        | feature::CTRL_GUEST_OFFLOADS;
    let datagrams = feature::HOST_USO | feature::GUEST_USO4 | feature::GUEST_USO6;
    for (takes, offered) in [
        (Abilities::ALL, all),
        (Abilities { datagrams: false, ..Abilities::ALL }, all & !datagrams),
        (Abilities { checksum: false, ..Abilities::ALL }, 0),
        (Abilities::default(), 0),
    ] {
        assert_eq!(driver(&reflecting(takes)).offered() & all, offered, "{takes:?}");
    }
}

#[test]
fn the_driver_learns_address_link_and_mtu() {
    let cable = cable();
    let driver = driver(&cable);
    let mut bytes = [0; config::BYTES];
    driver.read(driver.at(DEVICE, 0), &mut bytes);
    assert_eq!(bytes, [0x52, 0x54, 0, 1, 2, 3, 1, 0, 1, 0, 0x28, 0x23]);
    let offered = driver.offered();
    for bit in
        [feature::MAC, feature::STATUS, feature::MTU, feature::MRG_RXBUF, feature::GUEST_CSUM, feature::HOST_TSO4]
    {
        assert_ne!(offered & bit, 0, "{bit:#x}");
    }
}

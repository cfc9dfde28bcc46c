use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};

use super::VirtioVsock;
use super::spec::feature;
use crate::config::{Vsock, VsockKind, VsockPort};
use crate::virtio::mock::{Buffer, DEVICE, Driver, NEXT, Used};
use crate::vsock::OpenVsock;
use crate::vsock::packet::{HEADER_BYTES, Header, op, shutdown};

const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
const EVENTS: u16 = 2;
const CID: u32 = 0x1234;

struct Rig {
    driver: Driver,
    folder: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let to_guest = vec![VsockPort { port: 5, kind: VsockKind::Stream, path: None }];
        let vsock = OpenVsock::open(&Vsock { cid: CID, to_guest, to_host: vec![] }, folder.path()).unwrap();
        Self { driver: Driver::find(Box::new(VirtioVsock::new(vsock))), folder }
    }

    fn started() -> Self {
        let mut rig = Self::new();
        rig.start();
        rig
    }

    fn start(&mut self) {
        self.driver.start();
        for _ in 0..8 {
            self.driver.put(RECEIVE, &[Buffer::In(4096)]);
        }
        self.driver.notify(RECEIVE);
    }

    fn connect(&self) -> UnixStream {
        UnixStream::connect(self.folder.path().join("guest.00000005")).unwrap()
    }

    fn send(&mut self, header: &Header, data: &[u8]) {
        let header = Header { len: u32::try_from(data.len()).unwrap(), ..*header };
        // Headers and data lie in one buffer or in two.
        let buffers = [Buffer::Out(header.bytes().to_vec()), Buffer::Out(data.to_vec())];
        let used = self.driver.request(TRANSMIT, if data.is_empty() { &buffers[..1] } else { &buffers });
        assert_eq!(used.written, 0);
    }

    fn packet(&mut self) -> (Header, Vec<u8>) {
        let Used { written, filled } = self.driver.finished(RECEIVE);
        let (header, data) = filled.split_first_chunk::<HEADER_BYTES>().unwrap();
        let header = Header::from_bytes(header);
        assert_eq!(written, u32::try_from(HEADER_BYTES).unwrap() + header.len);
        (header, data[..header.len as usize].to_vec())
    }
}

/// The guest takes the connection.
fn response(header: &Header) -> Header {
    Header { buf_alloc: 1 << 20, ..header.back(op::RESPONSE) }
}

#[test]
fn a_broken_ring_stops_the_device_and_a_reset_brings_it_back() {
    let mut rig = Rig::started();
    // A chain that leads to itself.
    let (table, ..) = Driver::ring_addresses(TRANSMIT);
    rig.driver.describe(table, 9, 0x4_0000, 64, NEXT, 9);
    rig.driver.offer(TRANSMIT, 9);
    rig.driver.notify(TRANSMIT);
    rig.driver.wait_for_break_down();
    rig.driver.reset();
    rig.start();
    let _stream = rig.connect();
    assert_eq!(rig.packet().0.op, op::REQUEST);
}

#[test]
fn chains_that_hold_no_packet_are_given_back_and_the_next_is_served() {
    let mut rig = Rig::new();
    rig.driver.start();
    for len in [1, u32::try_from(HEADER_BYTES).unwrap(), 4096] {
        rig.driver.put(RECEIVE, &[Buffer::In(len)]);
    }
    rig.driver.notify(RECEIVE);
    for buffers in [vec![Buffer::Out(vec![0; HEADER_BYTES - 1])], vec![Buffer::In(64)]] {
        assert_eq!(rig.driver.request(TRANSMIT, &buffers).written, 0);
    }
    let _stream = rig.connect();
    assert_eq!((rig.driver.finished(RECEIVE).written, rig.driver.finished(RECEIVE).written), (0, 0));
    assert_eq!(rig.packet().0.op, op::REQUEST);
}

#[test]
fn data_lies_in_as_many_packets_as_it_needs() {
    let mut rig = Rig::started();
    let mut stream = rig.connect();
    let header = response(&rig.packet().0);
    let data: Vec<u8> = (0..9000_u32).map(|n| n.to_le_bytes()[0]).collect();
    stream.write_all(&data).unwrap();
    rig.send(&header, &[]);
    let packets: Vec<_> = (0..3).map(|_| rig.packet()).collect();
    assert!(packets.iter().all(|(header, _)| header.op == op::DATA));
    assert!(packets.into_iter().flat_map(|(_, data)| data).collect::<Vec<_>>() == data);
    rig.send(&Header { op: op::DATA, ..header }, b"and back");
    rig.send(&Header { op: op::SHUTDOWN, flags: shutdown::BOTH, ..header }, &[]);
    assert_eq!(rig.packet().0.op, op::RESET);
    let mut heard = String::new();
    stream.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "and back");
}

#[test]
fn a_guest_reaches_a_program_that_listens() {
    let mut rig = Rig::started();
    let listener = UnixListener::bind(rig.folder.path().join("host.0000004d")).unwrap();
    let header = Header {
        src_cid: CID.into(),
        dst_cid: 2,
        src_port: 1,
        dst_port: 77,
        kind: 1,
        op: op::REQUEST,
        ..Header::default()
    };
    rig.send(&header, &[]);
    assert_eq!(rig.packet().0.op, op::RESPONSE);
    rig.send(&Header { op: op::DATA, ..header }, b"hello");
    let mut heard = [0; 5];
    listener.accept().unwrap().0.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"hello");
}

#[test]
fn a_driver_that_starts_again_hears_that_its_connections_are_gone() {
    let mut rig = Rig::started();
    let mut stream = rig.connect();
    let header = response(&rig.packet().0);
    rig.send(&header, &[]);
    rig.driver.reset();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "so does the program");
    rig.start();
    rig.driver.put(EVENTS, &[Buffer::In(8)]);
    rig.driver.notify(EVENTS);
    let event = rig.driver.finished(EVENTS);
    assert_eq!((event.written, &event.filled[..4]), (4, &[0; 4][..]));
    rig.driver.reset();
    rig.start();
    rig.driver.put(EVENTS, &[Buffer::In(8)]);
    rig.driver.notify(EVENTS);
    let _stream = rig.connect();
    assert_eq!(rig.packet().0.op, op::REQUEST);
    assert!(!rig.driver.fired(EVENTS + 1), "nothing was lost");
}

#[test]
fn the_driver_learns_its_number_and_what_the_device_carries() {
    let rig = Rig::new();
    let mut config = [0; 10];
    rig.driver.read(rig.driver.at(DEVICE, 0), &mut config);
    assert_eq!(config, [0x34, 0x12, 0, 0, 0, 0, 0, 0, 0, 0]);
    let offered = rig.driver.offered();
    assert_eq!(offered & 0xff, feature::STREAM | feature::SEQPACKET);
}

#[test]
fn without_messages_in_the_features_nobody_sends_any() {
    let mut rig = Rig::new();
    rig.driver.start_with(!feature::SEQPACKET);
    rig.driver.put(RECEIVE, &[Buffer::In(4096)]);
    let header = Header {
        src_cid: CID.into(),
        dst_cid: 2,
        src_port: 1,
        dst_port: 77,
        kind: 2,
        op: op::REQUEST,
        ..Header::default()
    };
    rig.send(&header, &[]);
    assert_eq!(rig.packet().0.op, op::RESET);
}

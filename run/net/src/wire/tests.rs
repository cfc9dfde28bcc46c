use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::*;
use crate::chance::Chance;

const MACS: Macs = Macs { source: Mac([2, 0, 0, 0, 0, 1]), destination: Mac([2, 0, 0, 0, 0, 2]) };

fn v4(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 2, last).into()
}

fn v6(last: u16) -> IpAddr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last).into()
}

fn segment() -> Tcp {
    let mut sack = SackBlocks::default();
    sack.push(Seq(10), Seq(20));
    sack.push(Seq(30), Seq(40));
    Tcp {
        source_port: 80,
        destination_port: 40_000,
        seq: Seq(u32::MAX),
        ack: Seq(7),
        flags: TcpFlags::ACK | TcpFlags::PSH,
        window: 1000,
        options: TcpOptions { sack, timestamps: Some(Timestamps { value: 1, echo: 2 }), ..TcpOptions::default() },
    }
}

fn frame(addresses: (IpAddr, IpAddr), payload: &[u8]) -> Vec<u8> {
    let ip = Ip::new(addresses.0, addresses.1, Protocol::TCP);
    let mut headers = Headers::tcp(MACS, &ip, &segment(), payload.len());
    assert_eq!(headers.bytes().len(), Headers::tcp_len_bytes(addresses.0, &segment()));
    headers.complete_checksum(payload);
    [headers.bytes(), payload].concat()
}

#[test]
fn no_frame_that_is_cut_or_changed_makes_the_reader_fall() {
    for addresses in [(v4(2), v4(15)), (v6(2), v6(15))] {
        let whole = frame(addresses, b"payload");
        for len in 0..whole.len() {
            assert!(Frame::read(&whole[..len], len).is_err(), "{len}");
        }
        let mut chance = Chance::new(1);
        for _ in 0..200_000 {
            let mut changed = whole.clone();
            for _ in 0..3 {
                chance.change(&mut changed);
            }
            if let Ok(Frame { body: Body::Ip { payload, .. }, .. }) = Frame::read(&changed, changed.len()) {
                assert!(payload.start <= payload.end && payload.end <= changed.len());
            }
        }
    }
}

#[test]
fn what_is_written_is_what_is_read() {
    for addresses in [(v4(2), v4(15)), (v6(2), v6(15))] {
        let bytes = frame(addresses, b"payload");
        let read = Frame::read(&bytes, bytes.len()).unwrap();
        assert_eq!((read.ethernet.source, read.ethernet.destination), (MACS.source, MACS.destination));
        let Body::Ip { ip, segment: Segment::Tcp(tcp), payload } = read.body else { panic!("{read:?}") };
        assert_eq!((ip.source, ip.destination), addresses);
        assert_eq!(tcp, segment());
        assert_eq!(bytes[payload], *b"payload");
        // The sum over a segment with its checksum is that of nothing.
        let start = if addresses.0.is_ipv4() { 34 } else { 54 };
        let mut sum = Checksum::of_pseudo_header(addresses.0, addresses.1, 6, bytes.len() - start);
        sum.add(&bytes[start..]);
        assert_eq!(sum.finish(), 0);
    }
}

#[test]
fn padding_behind_a_packet_is_not_payload() {
    let ip = Ip::new(v4(15), v4(2), Protocol::UDP);
    let mut headers = Headers::udp(MACS, &ip, 68, 67, 3);
    headers.complete_checksum(b"abc");
    let bytes = [headers.bytes(), b"abc", &[0; 15]].concat();
    let Body::Ip { segment, payload, .. } = Frame::read(&bytes, bytes.len()).unwrap().body else { panic!() };
    assert_eq!(segment, Segment::Udp(Udp { source_port: 68, destination_port: 67, len_bytes: 11 }));
    assert_eq!(bytes[payload], *b"abc");
}

#[test]
fn options_that_lie_about_their_length_are_refused() {
    let plain = {
        let ip = Ip::new(v4(15), v4(2), Protocol::TCP);
        let tcp = Tcp { options: TcpOptions { mss: Some(1460), ..TcpOptions::default() }, ..segment() };
        Headers::tcp(MACS, &ip, &tcp, 0).bytes().to_vec()
    };
    for (len, fine) in [(0, false), (1, false), (2, true), (3, true), (4, true), (5, false), (255, false)] {
        let mut bytes = plain.clone();
        bytes[14 + 20 + 20 + 1] = len;
        // A length that leaves no whole option behind it is one too.
        let read = Frame::read(&bytes, bytes.len());
        if !fine || len == 4 {
            assert_eq!(read.is_ok(), fine, "{len} {read:?}");
        }
    }
}

#[test]
fn parts_of_packets_are_told_from_whole_ones() {
    let ip = Ip::new(v4(15), v4(2), Protocol::TCP);
    let mut bytes = Headers::tcp(MACS, &ip, &segment(), 0).bytes().to_vec();
    bytes[14 + 6] = 0x20;
    let sum = {
        bytes[24..26].fill(0);
        let mut sum = Checksum::default();
        sum.add(&bytes[14..34]);
        sum.finish()
    };
    bytes[24..26].copy_from_slice(&sum.to_be_bytes());
    let Body::Ip { ip, segment, .. } = Frame::read(&bytes, bytes.len()).unwrap().body else { panic!() };
    assert_eq!(segment, Segment::Opaque);
    assert_eq!(ip.fragment, Some(Fragment { id: 0, offset_bytes: 0, has_more: true }));
}

#[test]
fn an_arp_answer_says_who_has_the_address() {
    let asked = Arp {
        operation: ArpOperation::Request,
        sender_mac: MACS.destination,
        sender: Ipv4Addr::new(10, 0, 2, 15),
        target: Ipv4Addr::new(10, 0, 2, 2),
    };
    let answer = asked.answer(MACS.source);
    let Frame { ethernet, body: Body::Arp(read) } = Frame::read(&answer, answer.len()).unwrap() else { panic!() };
    assert_eq!((ethernet.source, ethernet.destination), (MACS.source, MACS.destination));
    assert_eq!(
        read,
        Arp { operation: ArpOperation::Reply, sender_mac: MACS.source, sender: asked.target, target: asked.sender }
    );
}

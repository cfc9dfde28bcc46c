//! Long segments, cut on their way out and joined on their way in.

use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use super::*;
use crate::port::{GuestFrame, GuestPort, Reading, Shape};
use crate::wire::{Body, Checksum, Frame, Headers, Ip, Mac, Macs, Protocol, Segment, Seq, Tcp, TcpFlags, TcpOptions};

const SEGMENT_BYTES: usize = 1_448;

fn headers(address: IpAddr, payload_bytes: usize) -> Headers {
    let macs = Macs { source: Mac([2, 0, 0, 0, 0, 1]), destination: Mac([2, 0, 0, 0, 0, 2]) };
    let tcp = Tcp {
        source_port: 1,
        destination_port: 2,
        seq: Seq(u32::MAX - 1_000),
        ack: Seq(5),
        flags: TcpFlags::ACK | TcpFlags::PSH,
        window: 100,
        options: TcpOptions::default(),
    };
    let mut headers = Headers::tcp(macs, &Ip::new(address, address, Protocol::TCP), &tcp, payload_bytes);
    if payload_bytes > SEGMENT_BYTES {
        headers.set_segment_bytes(SEGMENT_BYTES.try_into().unwrap());
    }
    headers
}

/// What came, as frames; and whether each is right.
fn came(socket: &UnixStream, joins: bool) -> Vec<(Vec<u8>, Offload)> {
    let mut incoming = Incoming::new(Framing::Plain);
    assert!(incoming.fill(socket.as_fd()).unwrap());
    let mut frames = Vec::new();
    let mut take = |frame: &dyn GuestFrame| {
        let mut bytes = Vec::new();
        frame.copy_to(0..frame.len_bytes(), &mut bytes);
        assert!(bytes.starts_with(frame.head().get(..bytes.len()).unwrap_or(frame.head())));
        let read = Frame::read(frame.head(), frame.len_bytes()).unwrap();
        let Body::Ip { segment: Segment::Tcp(_), payload, .. } = read.body else { panic!("no segment") };
        let (mut to, from) = UnixStream::pair().unwrap();
        let range = payload.start + 1..payload.end;
        assert_eq!(frame.send_to(range.clone(), from.as_fd()).unwrap(), range.len());
        let mut sent = vec![0; range.len()];
        to.read_exact(&mut sent).unwrap();
        assert!(sent == bytes[range]);
        frames.push((bytes, frame.offload()));
    };
    incoming.frames(joins, &mut take).unwrap();
    incoming.give_back();
    assert!(!incoming.is_idle(), "no memory is left");
    frames
}

fn payload_of(frame: &[u8]) -> &[u8] {
    let Body::Ip { ip, payload, .. } = Frame::read(frame, frame.len()).unwrap().body else { panic!("no packet") };
    let start = if ip.source.is_ipv4() { 34 } else { 54 };
    let mut sum = Checksum::of_pseudo_header(ip.source, ip.destination, ip.protocol.0, frame.len() - start);
    sum.add(&frame[start..]);
    assert_eq!(sum.finish(), 0, "TCP's checksum");
    &frame[payload]
}

#[test]
fn what_is_cut_on_its_way_comes_back_as_one() {
    for address in ["10.0.2.15", "fd00::15"] {
        for len in [1, SEGMENT_BYTES, SEGMENT_BYTES + 1, 3 * SEGMENT_BYTES, 60_001] {
            let payload: Vec<u8> = (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect();
            let (ours, theirs) = UnixStream::pair().unwrap();
            let (mut source, socket) = UnixStream::pair().unwrap();
            source.write_all(&payload).unwrap();
            let mut port = StreamPort::new(ours.into(), Framing::Plain);
            let headers = headers(address.parse().unwrap(), len);
            let shape = Shape { header_bytes: headers.bytes().len(), segment_bytes: SEGMENT_BYTES };
            assert!(port.reach(shape) >= len);
            assert_eq!(port.receive(shape, len, socket.as_fd(), Reading::Take).unwrap(), len);
            port.send_received(headers.clone());
            port.flush().unwrap();
            let cut = came(&theirs, false);
            assert_eq!(cut.len(), len.div_ceil(SEGMENT_BYTES));
            assert!(cut.iter().all(|(frame, _)| payload_of(frame).len() <= SEGMENT_BYTES));
            let joined: Vec<u8> = cut.iter().flat_map(|(frame, _)| payload_of(frame)).copied().collect();
            assert!(joined == payload, "{address} {len}");

            port.give_back();
            assert!(!port.is_idle() && port.send(headers, &payload), "there is memory again when it is needed");
            port.flush().unwrap();
            let whole = came(&theirs, true);
            assert_eq!(whole.len(), 1, "{address} {len}");
            let mut again = Vec::new();
            whole[0].1.finish(&whole[0].0, |frame| again.push(frame.to_vec())).unwrap();
            assert!(again.iter().eq(cut.iter().map(|(frame, _)| frame)), "{address} {len}");
        }
    }
}

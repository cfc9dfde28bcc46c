//! Connections against a guest that loses, doubles and turns around frames, with real sockets and a clock that is turned
//! by hand.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Range;

mod script;

use super::*;
use crate::chance::Chance;
use crate::memory::{MemoryFrame, MemoryPort};
use crate::poll::{Owner, Ready, Token};
use crate::wire::{Body, Frame, Headers, Ip, Mac, Macs, Protocol, SackBlocks, Segment, Seq, Tcp, TcpFlags, TcpOptions};

const MACS: Macs = Macs { source: Mac([2, 0, 0, 0, 0, 1]), destination: Mac([2, 0, 0, 0, 0, 2]) };

fn read(frame: &[u8]) -> (Tcp, Range<usize>) {
    match Frame::read(frame, frame.len()).unwrap().body {
        Body::Ip { segment: Segment::Tcp(tcp), payload, .. } => (tcp, payload),
        other => panic!("{other:?}"),
    }
}

/// A guest's end of a connection: simple, and right.
struct Guest {
    to_send: Vec<u8>,
    first: Seq,
    acknowledged: Seq,
    edge: Seq,
    received: Vec<u8>,
    /// The number of the first byte of `received`.
    start: Seq,
    ahead: BTreeMap<u32, Vec<u8>>,
    saw_fin: bool,
    is_established: bool,
    was_reset: bool,
    window: u16,
    out: Vec<(TcpFlags, Seq, Range<usize>)>,
}

impl Guest {
    fn new(to_send: Vec<u8>, first: Seq) -> Self {
        Self {
            to_send,
            first,
            acknowledged: first,
            edge: first,
            received: Vec::new(),
            start: Seq(0),
            ahead: BTreeMap::new(),
            saw_fin: false,
            is_established: false,
            was_reset: false,
            window: 400,
            out: Vec::new(),
        }
    }

    fn next_wanted(&self) -> Seq {
        self.start + u32::try_from(self.received.len()).unwrap() + u32::from(self.saw_fin)
    }

    fn take(&mut self, frame: &[u8]) {
        let (tcp, payload) = read(frame);
        if tcp.flags.has(TcpFlags::RST) {
            self.was_reset = true;
        }
        if tcp.flags.has(TcpFlags::SYN) {
            self.is_established = true;
            self.start = tcp.seq + 1;
        }
        if tcp.flags.has(TcpFlags::ACK) && !tcp.ack.is_before(self.acknowledged) {
            self.acknowledged = tcp.ack;
            let scale = if tcp.flags.has(TcpFlags::SYN) { 0 } else { WINDOW_SCALE };
            self.edge = tcp.ack + (u32::from(tcp.window) << scale);
        }
        if !self.is_established {
            return;
        }
        if !payload.is_empty() {
            self.ahead.insert(tcp.seq.since(self.start).max(0).cast_unsigned(), frame[payload.clone()].to_vec());
        }
        loop {
            let have = u32::try_from(self.received.len()).unwrap();
            let fits =
                self.ahead.iter().find(|(at, bytes)| **at <= have && **at as usize + bytes.len() > have as usize);
            let Some((at, bytes)) = fits else { break };
            let new = bytes[(have - at) as usize..].to_vec();
            self.received.extend(new);
        }
        let end = tcp.seq + u32::try_from(payload.len()).unwrap();
        if tcp.flags.has(TcpFlags::FIN) && end == self.start + u32::try_from(self.received.len()).unwrap() {
            self.saw_fin = true;
        }
        let is_probe = tcp.seq.is_before(self.next_wanted());
        if !payload.is_empty() || tcp.flags.has(TcpFlags::FIN) || tcp.flags.has(TcpFlags::SYN) || is_probe {
            self.out.push((TcpFlags::ACK, self.acknowledged.max(self.first + 1), 0..0));
        }
    }

    fn sack(&self) -> SackBlocks {
        let have = u32::try_from(self.received.len()).unwrap();
        let mut blocks = SackBlocks::default();
        for (at, bytes) in self.ahead.range(have + 1..) {
            blocks.push(self.start + *at, self.start + *at + u32::try_from(bytes.len()).unwrap());
        }
        blocks
    }

    /// All that its window allows, again and again from the first byte that is not acknowledged.
    fn send_all(&mut self) {
        if !self.is_established {
            self.out.push((TcpFlags::SYN, self.first, 0..0));
            return;
        }
        let len = self.to_send.len();
        let mut at = (self.acknowledged.since(self.first + 1)).max(0).cast_unsigned() as usize;
        for _ in 0..20 {
            let seq = self.first + 1 + u32::try_from(at).unwrap();
            let room = self.edge.since(seq).max(0).cast_unsigned() as usize;
            let piece = at.min(len)..(at + room.min(1000)).min(len);
            if at == len && self.acknowledged != seq + 1 {
                self.out.push((TcpFlags::ACK | TcpFlags::FIN, seq, 0..0));
            }
            if piece.is_empty() {
                break;
            }
            at = piece.end;
            self.out.push((TcpFlags::ACK, seq, piece));
        }
    }

    fn frame(&self, (flags, seq, piece): &(TcpFlags, Seq, Range<usize>), key: FlowKey) -> MemoryFrame {
        let is_syn = flags.has(TcpFlags::SYN);
        let options = match is_syn {
            true => {
                TcpOptions { mss: Some(1000), window_scale: Some(4), sack_permitted: true, ..TcpOptions::default() }
            }
            false => TcpOptions { sack: self.sack(), ..TcpOptions::default() },
        };
        let tcp = Tcp {
            source_port: key.guest.port(),
            destination_port: key.remote.port(),
            seq: *seq,
            ack: if is_syn { Seq(0) } else { self.next_wanted() },
            flags: *flags,
            window: self.window,
            options,
        };
        let payload = &self.to_send[piece.clone()];
        let ip = Ip::new(key.guest.ip(), key.remote.ip(), Protocol::TCP);
        let mut headers = Headers::tcp(MACS, &ip, &tcp, payload.len());
        headers.complete_checksum(payload);
        MemoryFrame::whole([headers.bytes(), payload].concat())
    }
}

fn happened(is_readable: bool, is_writable: bool) -> Ready {
    Ready {
        token: Token { owner: Owner::Tcp, place: 0, generation: 0 },
        is_readable,
        is_writable,
        has_ended: is_readable,
    }
}

fn pair(keeping: Keeping) -> (StreamSocket, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let theirs = listener.accept().unwrap().0;
    ours.set_nonblocking(true).unwrap();
    theirs.set_nonblocking(true).unwrap();
    (StreamSocket::new(ours.into(), keeping).unwrap(), theirs)
}

fn key() -> FlowKey {
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    FlowKey { guest: address("10.0.2.15:40000"), remote: address("192.0.2.1:80") }
}

/// A connection, its guest, and the peer behind the socket.
struct Bench {
    flow: Option<Flow>,
    guest: Guest,
    peer: TcpStream,
    port: MemoryPort,
    budget: Budget,
    now: Millis,
    lost: u64,
    chance: Chance,
}

impl Bench {
    fn new(to_send: Vec<u8>, chance: u64, lost: u64) -> Self {
        Self::keeping(Keeping::Kernel, to_send, chance, lost)
    }

    fn keeping(keeping: Keeping, to_send: Vec<u8>, chance: u64, lost: u64) -> Self {
        let (socket, peer) = pair(keeping);
        let guest = Guest::new(to_send, Seq(u32::MAX - 5_000));
        let syn = read(&guest.frame(&(TcpFlags::SYN, guest.first, 0..0), key()).bytes).0;
        let flow = Flow::outbound(key(), &syn, socket, Seq(u32::MAX - 70_000), (1460, 0));
        let mut bench = Self {
            flow: Some(flow),
            guest,
            peer,
            port: MemoryPort::new(64),
            budget: Budget::new(1 << 20),
            now: 1000,
            lost,
            chance: Chance::new(chance),
        };
        bench.with(|flow, cx| flow.ready(happened(false, true), cx));
        bench
    }

    fn with(&mut self, act: impl FnOnce(&mut Flow, &mut Context<'_>) -> Result<(), Ending>) {
        let Some(flow) = &mut self.flow else { return };
        let mut cx =
            Context { now: self.now, port: &mut self.port, macs: MACS, link_mtu: 1500, budget: &mut self.budget };
        if act(flow, &mut cx).is_err() {
            self.flow.take().unwrap().close(&mut cx);
        }
    }

    fn is_lost(&mut self) -> bool {
        self.lost > 0 && self.chance.below(100) < self.lost
    }

    /// Frames go both ways; some are lost, doubled or late.
    fn exchange(&mut self) {
        self.now += 20;
        self.with(|flow, cx| flow.ready(happened(true, true), cx));
        self.with(|flow, cx| flow.timer(cx));
        self.with(|flow, cx| flow.flush(cx).map(drop));
        let mut frames = self.port.take_frames();
        if self.lost > 0 && frames.len() > 2 {
            let (a, b) = (self.chance.index(&frames), self.chance.index(&frames));
            frames.swap(a, b);
        }
        for frame in frames {
            if !self.is_lost() {
                self.guest.take(&frame);
            }
            if self.is_lost() {
                self.guest.take(&frame);
            }
        }
        self.guest.send_all();
        for sent in std::mem::take(&mut self.guest.out) {
            if self.is_lost() {
                continue;
            }
            let frame = self.guest.frame(&sent, key());
            let (tcp, payload) = read(&frame.bytes);
            self.with(|flow, cx| flow.segment(&tcp, (&frame, payload), cx));
        }
        self.with(|flow, cx| flow.flush(cx).map(drop));
    }
}

fn bytes(len: usize, seed: u64) -> Vec<u8> {
    Chance::new(seed).bytes(len)
}

/// Reads what is there; `None` at the end.
fn read_some(peer: &mut TcpStream, to: &mut Vec<u8>) -> Option<()> {
    let mut buffer = [0; 10_000];
    match peer.read(&mut buffer) {
        Ok(0) => None,
        Ok(len) => {
            to.extend_from_slice(&buffer[..len]);
            Some(())
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Some(()),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn every_byte_arrives_both_ways_whatever_is_lost() {
    let losses = [(1, 0), (2, 1), (3, 10), (4, 30), (5, 30), (6, 50)];
    for (keeping, (seed, lost)) in [Keeping::Kernel, Keeping::Here].iter().flat_map(|k| losses.map(|loss| (*k, loss))) {
        let (up, down) = (bytes(150_000, seed), bytes(120_000, seed + 100));
        let mut bench = Bench::keeping(keeping, up.clone(), seed, lost);
        let (mut arrived, mut written, mut at_end) = (Vec::new(), 0, false);
        for _ in 0..200_000 {
            if written < down.len() {
                match bench.peer.write(&down[written..]) {
                    Ok(len) => written += len,
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                }
                if written == down.len() {
                    bench.peer.shutdown(std::net::Shutdown::Write).unwrap();
                }
            }
            at_end |= read_some(&mut bench.peer, &mut arrived).is_none();
            bench.exchange();
            if bench.flow.is_none() {
                break;
            }
        }
        assert!(bench.flow.is_none() && at_end && bench.guest.saw_fin, "{lost} % lost: it ends");
        assert!(!bench.guest.was_reset);
        assert_eq!(arrived.len(), up.len(), "{lost} % lost");
        assert!(arrived == up && bench.guest.received == down, "{lost} % lost");
        assert_eq!(bench.budget.left_bytes(), 1 << 20, "nothing is held at the end");
    }
}

#[test]
fn a_peer_that_reads_nothing_closes_the_window_and_nothing_is_dropped() {
    let up = bytes(12 << 20, 9);
    let mut bench = Bench::new(up.clone(), 9, 0);
    for _ in 0..20_000 {
        bench.exchange();
    }
    let edge = bench.guest.edge;
    assert!(edge.since(bench.guest.acknowledged) < 2000, "the window is closed");
    assert!(bench.guest.acknowledged.since(bench.guest.first) < 12 << 20);
    assert!(bench.budget.left_bytes() < 1 << 20);
    let mut arrived = Vec::new();
    while arrived.len() < up.len() {
        read_some(&mut bench.peer, &mut arrived).unwrap();
        bench.exchange();
    }
    assert!(arrived == up);
}

#[test]
fn a_guest_without_a_window_is_asked_until_it_has_one() {
    let mut bench = Bench::new(Vec::new(), 1, 0);
    bench.guest.window = 0;
    bench.peer.write_all(b"hello").unwrap();
    for _ in 0..100 {
        bench.exchange();
    }
    assert!(bench.guest.received.is_empty());
    bench.guest.window = 400;
    for _ in 0..2000 {
        bench.exchange();
    }
    assert_eq!(bench.guest.received, b"hello");
}

#[test]
fn a_reset_goes_through_both_ways() {
    let mut bench = Bench::new(bytes(10, 1), 1, 0);
    for _ in 0..3 {
        bench.exchange();
    }
    // Data that nobody read makes the close a reset.
    drop(std::mem::replace(&mut bench.peer, pair(Keeping::Kernel).1));
    for _ in 0..5 {
        bench.exchange();
    }
    assert!(bench.guest.was_reset && bench.flow.is_none());

    let mut bench = Bench::new(Vec::new(), 1, 0);
    bench.guest.to_send = bytes(10, 1);
    for _ in 0..3 {
        bench.exchange();
    }
    let next = bench.guest.acknowledged;
    for (seq, ends) in [(next + 5, false), (Seq(next.0.wrapping_sub(9)), false), (next, true)] {
        let frame = bench.guest.frame(&(TcpFlags::RST, seq, 0..0), key());
        let (tcp, payload) = read(&frame.bytes);
        bench.with(|flow, cx| flow.segment(&tcp, (&frame, payload), cx));
        assert_eq!(bench.flow.is_none(), ends, "{seq:?}");
    }
    assert!(bench.peer.take_error().unwrap().is_some(), "the peer is told");
}

#[test]
fn a_half_that_is_closed_leaves_the_other_open() {
    let mut bench = Bench::new(b"question".to_vec(), 1, 0);
    let mut asked = Vec::new();
    for _ in 0..10 {
        bench.exchange();
    }
    while read_some(&mut bench.peer, &mut asked).is_some() {}
    assert_eq!(asked, b"question");
    bench.peer.write_all(b"answer").unwrap();
    for _ in 0..10 {
        bench.exchange();
    }
    assert_eq!(bench.guest.received, b"answer");
    assert!(!bench.guest.saw_fin && bench.flow.is_some());
}

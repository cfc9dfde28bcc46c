//! As much as a guest may have at once: alone in its process, whose descriptors and memory are counted.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::{Command, Stdio};

use kiln_net::Millis;
use kiln_net::limits::{self, Limits};
use kiln_net::link::Link;
use kiln_net::memory::{MemoryFrame, MemoryPort};
use kiln_net::packets::ToGuest;
use kiln_net::stack::{Network, Stack};
use kiln_net::wire::{Body, Frame, Headers, Ip, Mac, Macs, Protocol, Segment, Seq, Tcp, TcpFlags, TcpOptions};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// The guest's first port.
const FIRST_PORT: u16 = 10_000;
/// Connections that wait at one listener: what Linux allows unless told otherwise.
const BACKLOG: i32 = 4_096;
/// Fewer than wait at a listener.
const BATCH: usize = 500;
/// What one idle connection may cost here, in bytes; the kernel's part is not counted.
const CONNECTION_BYTES: u64 = 2 << 10;
/// How long anything may take.
const LIMIT_MS: Millis = 30_000;

/// What the guest got.
struct Got {
    port: u16,
    from: u16,
    tcp: Option<Tcp>,
    payload: Vec<u8>,
}

struct Guest {
    stack: Stack,
    port: MemoryPort,
    macs: Macs,
    now: Millis,
}

impl Guest {
    fn new() -> Self {
        let network = Network { host_loopback: true, ..Network::default() };
        let macs = Macs { source: Mac([0x52, 0x54, 0, 0, 0, 9]), destination: network.gateway_mac };
        Self { stack: Stack::new(network).unwrap(), port: MemoryPort::new(4 * BATCH), macs, now: 10_000 }
    }

    fn gives(&mut self, frame: Vec<u8>) {
        self.stack.from_guest(&MemoryFrame::whole(frame), &mut self.port, self.now);
    }

    fn tcp(&mut self, (from, to): (u16, u16), (flags, seq, ack): (TcpFlags, Seq, Seq), payload: &[u8]) {
        let (window, options) = (60_000, TcpOptions::default());
        let tcp = Tcp { source_port: from, destination_port: to, seq, ack, flags, window, options };
        let ip = Ip::new(GUEST.into(), GATEWAY.into(), Protocol::TCP);
        let mut headers = Headers::tcp(self.macs, &ip, &tcp, payload.len());
        headers.complete_checksum(payload);
        self.gives([headers.bytes(), payload].concat());
    }

    fn datagram(&mut self, from: u16, to: SocketAddr, payload: &[u8]) {
        let mut port = MemoryPort::new(1);
        ToGuest { port: &mut port, macs: self.macs, mtu: 1_500, id: 1 }
            .datagram((SocketAddr::new(GUEST.into(), from), to), payload);
        port.take_frames().into_iter().for_each(|frame| self.gives(frame));
    }

    fn turn(&mut self) -> Vec<Got> {
        self.now += 1;
        self.stack.turn(&mut self.port, self.now).unwrap();
        let read = |frame: Vec<u8>| match Frame::read(&frame, frame.len()).unwrap().body {
            Body::Ip { segment: Segment::Tcp(tcp), payload, .. } => {
                let payload = frame[payload].to_vec();
                Some(Got { port: tcp.destination_port, from: tcp.source_port, tcp: Some(tcp), payload })
            }
            Body::Ip { segment: Segment::Udp(udp), payload, .. } => {
                let payload = frame[payload].to_vec();
                Some(Got { port: udp.destination_port, from: udp.source_port, tcp: None, payload })
            }
            _ => None,
        };
        self.port.take_frames().into_iter().filter_map(read).collect()
    }

    /// Turns until `count` frames came that `wanted` takes.
    fn until(&mut self, count: usize, mut wanted: impl FnMut(&mut Self, Got) -> bool) {
        let (mut left, end) = (count, self.now + LIMIT_MS);
        while left > 0 {
            assert!(self.now < end, "{left} of {count} did not come");
            for got in self.turn() {
                left -= usize::from(wanted(self, got));
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
}

/// One connection of the guest's: its port, the other one, and the number of the peer's next byte.
type Open = (u16, u16, Seq);

fn opened(guest: &mut Guest, ends: &[(u16, u16)]) -> Vec<Open> {
    let mut open = Vec::new();
    for batch in ends.chunks(BATCH) {
        for ends in batch {
            guest.tcp(*ends, (TcpFlags::SYN, Seq(0), Seq(0)), &[]);
        }
        guest.until(batch.len(), |guest, got| {
            let Some(tcp) = got.tcp.filter(|tcp| tcp.flags.has(TcpFlags::SYN)) else { return false };
            let next = tcp.seq + 1;
            guest.tcp((got.port, got.from), (TcpFlags::ACK, Seq(1), next), &[]);
            open.push((got.port, got.from, next));
            true
        });
    }
    open
}

/// Memory of this process, in bytes.
fn memory_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// The limit of open files of a process, as it is told.
fn soft_limit(pid: u32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    line.split_whitespace().next().unwrap().to_owned()
}

/// One test, because it changes what all of the process may have.
#[test]
fn a_guest_has_ten_thousand_connections_and_a_thousand_ports_at_once_where_the_host_allows() {
    let hard = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(1_024), maximum: hard }).unwrap();
    assert!(Limits::of_process().connections < 1_000);
    limits::raise();
    let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    limits::give_back(child.id());
    assert_eq!(soft_limit(child.id()), "1024");
    child.kill().unwrap();
    child.wait().unwrap();

    let limits = Limits::of_process();
    if limits.connections < 10_000 {
        eprintln!("the hard limit of open files, {hard:?}, allows {} connections", limits.connections);
    }
    let mut guest = Guest::new();
    let before = descriptors();
    connections(&mut guest, limits.connections);
    guest.stack.change_guest();
    assert_eq!((guest.stack.connections(), descriptors()), (0, before), "nothing is left");
    ports(&mut guest, limits.datagram_ports);
    guest.stack.change_guest();
    assert_eq!((guest.stack.connections(), descriptors()), (0, before), "nothing is left");
}

fn connections(guest: &mut Guest, count: usize) {
    // Nobody takes those that wait: that would need as many descriptors again.
    let listeners: Vec<TcpListener> = (0..count.div_ceil(BACKLOG as usize - BATCH))
        .map(|_| {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            rustix::net::listen(&listener, BACKLOG).unwrap();
            listener
        })
        .collect();
    let to: Vec<u16> = listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
    let ends: Vec<(u16, u16)> = (FIRST_PORT..).zip(to.iter().copied().cycle()).take(count).collect();
    let memory = memory_bytes();
    let open = opened(guest, &ends);
    assert_eq!(guest.stack.connections(), count);
    let more = memory_bytes().saturating_sub(memory);
    assert!(more < count as u64 * CONNECTION_BYTES, "{count} connections took {more} bytes");

    // One more is refused; those that are there go on.
    guest.tcp((9, to[0]), (TcpFlags::SYN, Seq(0), Seq(0)), &[]);
    guest.until(1, |_, got| got.port == 9 && got.tcp.is_some_and(|tcp| tcp.flags.has(TcpFlags::RST)));
    for batch in open.chunks(BATCH) {
        for (port, from, next) in batch {
            guest.tcp((*port, *from), (TcpFlags::ACK | TcpFlags::PSH, Seq(1), *next), &port.to_be_bytes());
        }
        guest.until(batch.len(), |_, got| got.tcp.is_some_and(|tcp| tcp.ack == Seq(3)));
    }
    let mut streams = Vec::new();
    for listener in &listeners {
        for _ in 0..20 {
            let (mut stream, _) = listener.accept().unwrap();
            let mut word = [0; 2];
            stream.read_exact(&mut word).unwrap();
            stream.write_all(&word).unwrap();
            streams.push(stream);
        }
    }
    guest.until(streams.len(), |_, got| got.payload == got.port.to_be_bytes());
}

fn ports(guest: &mut Guest, count: usize) {
    let peer = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    peer.set_read_timeout(Some(std::time::Duration::from_millis(LIMIT_MS))).unwrap();
    let to = SocketAddr::new(IpAddr::V4(GATEWAY), peer.local_addr().unwrap().port());
    let before = descriptors();
    let all: Vec<u16> = (FIRST_PORT..).take(count).collect();
    for batch in all.chunks(100) {
        for port in batch {
            guest.datagram(*port, to, &port.to_be_bytes());
        }
        // They go at the end of a turn.
        drop(guest.turn());
        for _ in batch {
            let mut word = [0; 2];
            let (_, from) = peer.recv_from(&mut word).unwrap();
            peer.send_to(&word, from).unwrap();
        }
        guest.until(batch.len(), |_, got| got.tcp.is_none() && got.payload == got.port.to_be_bytes());
    }
    assert_eq!(descriptors() - before, count);
    for port in 1..100 {
        guest.datagram(port, to, b"x");
    }
    drop(guest.turn());
    assert_eq!(descriptors() - before, count, "one more takes the place of one that is silent");
}

//! A whole stack against frames that are made by hand, with real sockets of this machine.

use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType};

use super::*;
use crate::memory::{MemoryFrame, MemoryPort};
use crate::packets::ToGuest;
use crate::publish::Transport;
use crate::wire::{Arp, ETHERNET_HEADER_BYTES, EtherType, Ethernet, Protocol, Seq, Tcp, TcpFlags, TcpOptions, Udp};
use crate::{echo, ndp};

const GUEST: Mac = Mac([0x52, 0x54, 0, 0, 0, 9]);

fn network() -> Network {
    let v6 = NetworkV6 { outwards: Outwards::Never, ..NetworkV6::default() };
    Network { host_loopback: true, v6: Some(v6), ..Network::default() }
}

/// A guest and its network.
struct Bench {
    stack: Stack,
    port: MemoryPort,
    now: Millis,
}

impl Bench {
    fn new(network: Network) -> Self {
        Self { stack: Stack::new(network).unwrap(), port: MemoryPort::new(1_000), now: 10_000 }
    }

    fn macs(&self) -> Macs {
        Macs { source: GUEST, destination: self.stack.network.gateway_mac }
    }

    fn gives(&mut self, frame: Vec<u8>) {
        self.stack.from_guest(&MemoryFrame::whole(frame), &mut self.port, self.now);
    }

    /// Frames that the guest's own kernel would make of a packet.
    fn sends(&mut self, with: impl FnOnce(&mut ToGuest<'_>)) {
        let mut port = MemoryPort::new(1_000);
        with(&mut ToGuest { port: &mut port, macs: self.macs(), mtu: 1_500, id: 1 });
        port.take_frames().into_iter().for_each(|frame| self.gives(frame));
    }

    fn message(&mut self, ip: Ip, message: &[u8]) {
        self.sends(|guest| guest.message(ip, message.to_vec()));
    }

    fn datagram(&mut self, from: &str, to: SocketAddr, payload: &[u8]) {
        let from = from.parse().unwrap();
        self.sends(|guest| guest.datagram((from, to), payload));
    }

    fn tcp(&mut self, (from, to): (SocketAddr, SocketAddr), (flags, seq, ack): (TcpFlags, Seq, Seq), payload: &[u8]) {
        let options = match flags.has(TcpFlags::SYN) {
            true => TcpOptions { mss: Some(1_440), window_scale: Some(7), ..TcpOptions::default() },
            false => TcpOptions::default(),
        };
        let (source_port, destination_port) = (from.port(), to.port());
        let tcp = Tcp { source_port, destination_port, seq, ack, flags, window: 60_000, options };
        let ip = Ip::new(from.ip(), to.ip(), Protocol::TCP);
        let mut headers = Headers::tcp(self.macs(), &ip, &tcp, payload.len());
        headers.complete_checksum(payload);
        self.gives([headers.bytes(), payload].concat());
    }

    /// What the guest gets in one turn.
    fn turn(&mut self) -> Vec<(Ip, Segment, Vec<u8>)> {
        self.stack.turn(&mut self.port, self.now).unwrap();
        let frames = self.port.take_frames();
        frames
            .iter()
            .filter_map(|frame| {
                let read = Frame::read(frame, frame.len()).unwrap();
                assert_eq!(read.ethernet.source, self.stack.network.gateway_mac);
                match read.body {
                    Body::Ip { ip, segment, payload } => Some((ip, segment, frame[payload].to_vec())),
                    _ => None,
                }
            })
            .collect()
    }

    /// The first thing that the guest gets, however long the host takes for it.
    fn next(&mut self) -> (Ip, Segment, Vec<u8>) {
        loop {
            if let Some(first) = self.turn().into_iter().next() {
                return first;
            }
            std::thread::yield_now();
        }
    }
}

fn v6(last: u16) -> IpAddr {
    let NetworkV6 { prefix, .. } = NetworkV6::default();
    Ipv6Addr::from_bits(prefix.to_bits() | u128::from(last)).into()
}

fn solicitation(target: IpAddr) -> Vec<u8> {
    let IpAddr::V6(target) = target else { panic!() };
    [&[135, 0, 0, 0, 0, 0, 0, 0], &target.octets()[..], &[1, 1], &GUEST.0].concat()
}

fn on_link(source: IpAddr, destination: IpAddr) -> Ip {
    Ip { hop_limit: 255, ..Ip::new(source, destination, Protocol::ICMPV6) }
}

#[test]
fn a_guest_finds_the_gateway_and_the_name_server_and_nobody_else() {
    let mut bench = Bench::new(network());
    let link_local = ndp::link_local(bench.stack.network.gateway_mac).into();
    for (target, is_ours) in [(v6(2), true), (v6(3), true), (link_local, true), (v6(4), false), (v6(0x15), false)] {
        let IpAddr::V6(address) = target else { panic!() };
        bench.message(on_link(v6(0x15), ndp::solicited_node(address).into()), &solicitation(target));
        let answers = bench.turn();
        assert_eq!(answers.len(), usize::from(is_ours), "{target}");
        if let Some((ip, _, message)) = answers.first() {
            assert_eq!((ip.source, ip.destination, ip.hop_limit), (target, v6(0x15), 255));
            assert_eq!(message[..1], [136]);
            assert_eq!(message[26..], bench.stack.network.gateway_mac.0);
            assert!(ndp::has_checksum(ip, message));
        }
    }
    // Is it free? The gateway's is not, and everybody hears so.
    let nobody = Ipv6Addr::UNSPECIFIED.into();
    bench.message(on_link(nobody, ndp::ALL_NODES.into()), &solicitation(v6(2)));
    assert_eq!(bench.next().0.destination, IpAddr::from(ndp::ALL_NODES));
    bench.message(on_link(nobody, ndp::ALL_NODES.into()), &solicitation(v6(0x77)));
    assert!(bench.turn().is_empty());
}

#[test]
fn a_router_that_leads_nowhere_says_so() {
    for (outwards, lifetime) in [(Outwards::Never, [0, 0]), (Outwards::Always, [7, 8])] {
        let mut network = network();
        network.v6 = Some(NetworkV6 { outwards, ..NetworkV6::default() });
        let mut bench = Bench::new(network);
        assert!(bench.turn().is_empty() && bench.stack.deadline().is_none(), "nobody is there to be told");
        bench.message(on_link(Ipv6Addr::UNSPECIFIED.into(), ndp::ALL_NODES.into()), &[133, 0, 0, 0, 0, 0, 0, 0]);
        let (ip, _, message) = bench.next();
        assert_eq!((ip.hop_limit, &message[..1], &message[6..8]), (255, &[134][..], &lifetime[..]));
        bench.message(on_link(v6(9), ndp::ALL_NODES.into()), &[133, 0, 0, 0, 0, 0, 0, 0]);
        assert!(bench.turn().is_empty(), "not twice at once");
        bench.now = bench.stack.deadline().unwrap();
        assert_eq!(bench.next().2[..1], [134], "and from time to time without being asked");
    }
}

#[test]
fn a_guest_speaks_only_for_itself() {
    let mut bench = Bench::new(network());
    let gateway = v6(2);
    let claims = [(134, v6(9)), (136, v6(9)), (137, v6(9))];
    for (kind, source) in claims {
        bench.message(on_link(source, ndp::ALL_NODES.into()), &[&[kind, 0, 0, 0][..], &[0; 60]].concat());
    }
    for source in [gateway, v6(3), "2001:db8::1".parse().unwrap(), "::1".parse().unwrap()] {
        bench.message(on_link(source, gateway), &[128, 0, 0, 0, 0, 1, 0, 1]);
    }
    bench.datagram("192.0.2.1:9", "10.0.2.2:9".parse().unwrap(), b"");
    bench.datagram("10.0.2.2:9", "10.0.2.2:9".parse().unwrap(), b"");
    assert!(bench.turn().is_empty());
    assert_eq!(bench.stack.drops(), Drops { spoofed: 9, ..Drops::default() });
    bench.message(on_link(v6(9), gateway), &[128, 0, 0, 0, 0, 1, 0, 1, 7, 7]);
    let (ip, _, message) = bench.next();
    assert_eq!((ip.source, &message[4..]), (gateway, &[0, 1, 0, 1, 7, 7][..]));
    assert_eq!(message[0], 129);
}

#[test]
fn dhcpv6_is_answered_on_the_link() {
    let mut bench = Bench::new(network());
    let solicit = [&[1, 1, 2, 3, 0, 1, 0, 4, 0, 3, 0, 1, 0, 3, 0, 12][..], &[0; 12], &[0, 14, 0, 0]].concat();
    bench.datagram("[fe80::9]:546", "[ff02::1:2]:547".parse().unwrap(), &solicit);
    let (ip, segment, answer) = bench.next();
    assert_eq!(ip.destination, "fe80::9".parse::<IpAddr>().unwrap());
    assert!(matches!(segment, Segment::Udp(Udp { source_port: 547, destination_port: 546, .. })));
    let IpAddr::V6(address) = v6(0x15) else { panic!() };
    assert!(answer[0] == 7 && answer.windows(16).any(|window| window == address.octets()));
}

#[test]
fn a_link_that_is_too_small_has_no_ipv6() {
    let mut small = network();
    small.lease.mtu = 1_279;
    let mut bench = Bench::new(small);
    bench.message(on_link(v6(9), v6(2)), &[128, 0, 0, 0, 0, 1, 0, 1]);
    assert!(bench.turn().is_empty());
    assert_eq!(bench.stack.drops().unserved, 1);
}

#[test]
fn connections_and_datagrams_go_out_over_both_families() {
    for (local, gateway, guest) in [
        ("127.0.0.1:0", IpAddr::from([10, 0, 2, 2]), "10.0.2.15:4000"),
        ("[::1]:0", v6(2), "[fd6b:696c:6e00::15]:4000"),
    ] {
        let listener = TcpListener::bind(local).unwrap();
        let remote = SocketAddr::new(gateway, listener.local_addr().unwrap().port());
        let from: SocketAddr = guest.parse().unwrap();
        let mut bench = Bench::new(network());
        bench.tcp((from, remote), (TcpFlags::SYN, Seq(9), Seq(0)), b"");
        let (_, segment, _) = bench.next();
        let Segment::Tcp(answer) = segment else { panic!("{segment:?}") };
        assert!(answer.flags.has(TcpFlags::SYN | TcpFlags::ACK));
        assert_eq!(answer.options.mss, Some(if from.is_ipv4() { 1_460 } else { 1_440 }));
        bench.tcp((from, remote), (TcpFlags::ACK, Seq(10), answer.seq + 1), b"question");
        bench.turn();
        let mut peer = listener.accept().unwrap().0;
        let mut asked = [0; 8];
        peer.read_exact(&mut asked).unwrap();
        peer.write_all(&[7; 1_441]).unwrap();
        let mut lens = Vec::new();
        while lens.iter().sum::<usize>() < 1_441 {
            lens.extend(bench.turn().iter().map(|(_, _, payload)| payload.len()));
        }
        assert_eq!(lens.iter().max(), Some(&1_440), "no segment is longer than the link allows");

        let socket = UdpSocket::bind(local).unwrap();
        let remote = SocketAddr::new(gateway, socket.local_addr().unwrap().port());
        bench.datagram(guest, remote, b"hello");
        bench.turn();
        let mut buffer = [0; 9];
        let (len, whom) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"hello");
        socket.send_to(b"answer", whom).unwrap();
        let (ip, _, payload) = bench.next();
        assert_eq!((ip.source, ip.destination, &payload[..]), (gateway, from.ip(), &b"answer"[..]));
    }
}

#[test]
fn many_datagrams_in_one_frame_go_out_and_come_back() {
    for (local, gateway, guest) in [
        ("127.0.0.1:0", IpAddr::from([10, 0, 2, 2]), "10.0.2.15:4000"),
        ("[::1]:0", v6(2), "[fd6b:696c:6e00::15]:4000"),
    ] {
        let socket = UdpSocket::bind(local).unwrap();
        let remote = SocketAddr::new(gateway, socket.local_addr().unwrap().port());
        let from: SocketAddr = guest.parse().unwrap();
        let mut bench = Bench::new(network());
        let payload: Vec<u8> = (0..10_100_u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let ip = Ip::new(from.ip(), remote.ip(), Protocol::UDP);
        let mut headers = Headers::udp(bench.macs(), &ip, from.port(), remote.port(), payload.len());
        headers.set_segment_bytes(1_000);
        let frame = MemoryFrame { bytes: [headers.bytes(), &payload].concat(), offload: headers.offload() };
        bench.stack.from_guest(&frame, &mut bench.port, bench.now);
        bench.turn();
        let mut buffer = [0; 2_000];
        for wanted in payload.chunks(1_000) {
            let (len, whom) = socket.recv_from(&mut buffer).unwrap();
            assert!(buffer[..len] == *wanted);
            socket.send_to(wanted, whom).unwrap();
        }
        let mut back = Vec::new();
        while back.len() < payload.len() {
            for (ip, _, piece) in bench.turn() {
                assert!((ip.source, ip.destination) == (gateway, from.ip()) && piece.len() <= 1_000);
                back.extend(piece);
            }
        }
        assert!(back == payload);
    }
}

#[test]
fn a_server_on_one_loopback_is_reached_over_both_families() {
    for (local, other, gateway, guest) in [
        ("127.0.0.1", "[::1]", v6(2), "[fd6b:696c:6e00::15]:4000"),
        ("[::1]", "127.0.0.1", IpAddr::from([10, 0, 2, 2]), "10.0.2.15:4000"),
    ] {
        // Whoever holds the port on the other loopback does not listen there.
        let (listener, _held) = loop {
            let listener = TcpListener::bind(format!("{local}:0")).unwrap();
            let port = listener.local_addr().unwrap().port();
            let other: SocketAddr = format!("{other}:{port}").parse().unwrap();
            let family = if other.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            let held = rustix::net::socket(family, SocketType::STREAM, None).unwrap();
            if rustix::net::bind(&held, &other).is_ok() {
                break (listener, held);
            }
        };
        let remote = SocketAddr::new(gateway, listener.local_addr().unwrap().port());
        let from: SocketAddr = guest.parse().unwrap();
        let mut bench = Bench::new(network());
        let ask = |seq: Seq, bench: &mut Bench| {
            bench.tcp((from, remote), (TcpFlags::SYN, seq, Seq(0)), b"");
            let (ip, Segment::Tcp(answer), _) = bench.next() else { panic!("no segment") };
            assert_eq!((ip.source, ip.destination), (gateway, from.ip()));
            answer
        };
        let answer = ask(Seq(9), &mut bench);
        assert!(answer.flags.has(TcpFlags::SYN | TcpFlags::ACK), "{answer:?}");
        bench.tcp((from, remote), (TcpFlags::ACK, Seq(10), answer.seq + 1), b"question");
        bench.turn();
        let mut asked = [0; 8];
        let mut peer = listener.accept().unwrap().0;
        peer.read_exact(&mut asked).unwrap();
        assert_eq!(&asked, b"question");
        bench.tcp((from, remote), (TcpFlags::RST, Seq(18), Seq(0)), b"");
        drop((listener, peer));
        let answer = ask(Seq(99), &mut bench);
        assert!(answer.flags.has(TcpFlags::RST), "nobody listens any more: {answer:?}");
        assert!(bench.turn().is_empty(), "and it is told once");
    }
}

#[test]
fn our_own_names_are_answered_over_connections_too() {
    let addresses = [("10.0.2.15:4000", IpAddr::from([10, 0, 2, 3])), ("[fd6b:696c:6e00::15]:4000", v6(3))];
    for (from, dns) in addresses {
        let mut bench = Bench::new(network());
        let ends = (from.parse().unwrap(), SocketAddr::new(dns, 53));
        for _ in 0..2 {
            // The second one is the first one again.
            bench.tcp(ends, (TcpFlags::SYN, Seq(9), Seq(0)), b"");
        }
        let (_, Segment::Tcp(answer), _) = bench.next() else { panic!() };
        assert!(answer.flags.has(TcpFlags::SYN | TcpFlags::ACK));
        let next = answer.seq + 1;
        bench.tcp(ends, (TcpFlags::ACK, Seq(10), next), b"");
        let name = b"\x07gateway\x04kiln\x08internal\0\0\x01\0\x01";
        let question = [&[0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], name].concat();
        let len = u16::try_from(question.len()).unwrap().to_be_bytes();
        bench.tcp(ends, (TcpFlags::ACK | TcpFlags::FIN, Seq(10), next), &[&len, &question[..]].concat());
        let message = loop {
            let (_, _, payload) = bench.next();
            if !payload.is_empty() {
                break payload;
            }
        };
        assert_eq!(usize::from(u16::from_be_bytes([message[0], message[1]])), message.len() - 2);
        assert_eq!((&message[2..4], &message[message.len() - 4..]), (&[0xab, 0xcd][..], &[10, 0, 2, 2][..]));
        let sent = u32::try_from(message.len()).unwrap();
        let fin = Seq(10) + u32::try_from(question.len()).unwrap() + 3;
        // The connection ends as others do.
        bench.tcp(ends, (TcpFlags::ACK, fin, next + sent + 1), b"");
        bench.turn();
        assert_eq!((bench.stack.connections(), bench.stack.dns.is_waiting()), (0, false));
    }
}

#[test]
fn no_more_connections_to_the_name_server_than_it_bears() {
    let mut bench = Bench::new(network());
    let most = Limits::of_process().questions / 4;
    for port in 0..200 {
        let ends = (([10, 0, 2, 15], 4000 + port).into(), ([10, 0, 2, 3], 53).into());
        bench.tcp(ends, (TcpFlags::SYN, Seq(9), Seq(0)), b"");
        bench.turn();
    }
    assert_eq!(bench.stack.connections(), most);
    bench.stack.change_guest();
    bench.turn();
    assert!(!bench.stack.dns.is_waiting(), "none is left of the guest before");
}

#[test]
fn what_the_host_cannot_reach_is_said_to_be_unreachable() {
    // The discard prefix leads nowhere on hosts that have a route to it, and others have none.
    let mut bench = Bench::new(network());
    let remote: SocketAddr = "[100::1]:80".parse().unwrap();
    let unroutable = UdpSocket::bind("[::]:0").unwrap().connect(remote).is_err();
    if unroutable {
        bench.tcp(("[fd6b:696c:6e00::15]:4000".parse().unwrap(), remote), (TcpFlags::SYN, Seq(9), Seq(0)), b"");
        assert_eq!(bench.next().2[..1], [1]);
        bench.datagram("[fd6b:696c:6e00::15]:4000", remote, b"hello");
        assert_eq!(bench.next().2[..1], [1]);
    }
}

#[test]
fn long_datagrams_go_through_both_ways_in_parts() {
    for (local, gateway, guest) in [
        ("127.0.0.1:0", IpAddr::from([10, 0, 2, 2]), "10.0.2.15:4000"),
        ("[::1]:0", v6(2), "[fd6b:696c:6e00::15]:4000"),
    ] {
        let socket = UdpSocket::bind(local).unwrap();
        let remote = SocketAddr::new(gateway, socket.local_addr().unwrap().port());
        let mut bench = Bench::new(network());
        let question: Vec<u8> = (0..60_000_u32).map(|at| at.to_le_bytes()[0]).collect();
        bench.datagram(guest, remote, &question);
        bench.turn();
        let mut buffer = vec![0; 65_536];
        let (len, whom) = socket.recv_from(&mut buffer).unwrap();
        assert!(buffer[..len] == question);
        socket.send_to(&question, whom).unwrap();
        let mut parts = Vec::new();
        while parts.iter().map(Vec::len).sum::<usize>() < question.len() + 8 {
            parts.extend(bench.turn().into_iter().map(|(_, _, content)| content));
        }
        assert!(parts.concat()[8..] == question);
        assert!(bench.stack.fragments.is_empty());
    }
}

#[test]
fn a_guest_hears_that_nobody_listens() {
    for (local, gateway, guest, unreachable) in [
        ("127.0.0.1:0", IpAddr::from([10, 0, 2, 2]), "10.0.2.15:4000", [3, 3]),
        ("[::1]:0", v6(2), "[fd6b:696c:6e00::15]:4000", [1, 4]),
    ] {
        let closed = UdpSocket::bind(local).unwrap().local_addr().unwrap();
        let mut bench = Bench::new(network());
        bench.datagram(guest, SocketAddr::new(gateway, closed.port()), b"hello");
        let (ip, _, message) = bench.next();
        assert_eq!((ip.source, &message[..2]), (gateway, &unreachable[..]));
        // The guest's own packet: its kernel finds the socket by it.
        let quoted = Frame::read(
            &[&[0; 12][..], if ip.source.is_ipv4() { &[8, 0] } else { &[0x86, 0xdd] }, &message[8..]].concat(),
            message.len() + 6,
        );
        let Body::Ip { ip: quoted, segment: Segment::Udp(udp), .. } = quoted.unwrap().body else { panic!() };
        assert_eq!((quoted.destination, udp.source_port, udp.destination_port), (gateway, 4000, closed.port()));
        for _ in 0..3 * ERRORS_A_SECOND {
            bench.datagram(guest, SocketAddr::new(gateway, closed.port()), b"hello");
            bench.turn();
        }
        assert_eq!(bench.stack.errors_left, 0, "but not too often");
    }
}

#[test]
fn what_may_not_be_reached_is_said_to_be_forbidden() {
    let mut bench = Bench::new(Network { host_loopback: false, ..network() });
    for (guest, to, forbidden) in [
        ("10.0.2.15:9", "169.254.169.254:80", Some([3, 13])),
        ("10.0.2.15:9", "10.0.2.2:22", Some([3, 13])),
        ("[fd6b:696c:6e00::15]:9", "[::ffff:127.0.0.1]:22", Some([1, 1])),
        ("10.0.2.15:9", "239.255.255.250:1900", None),
        ("10.0.2.15:9", "255.255.255.255:9", None),
    ] {
        bench.datagram(guest, to.parse().unwrap(), b"hello");
        let answers: Vec<_> =
            bench.turn().into_iter().map(|(ip, _, message)| (ip.source, [message[0], message[1]])).collect();
        let to: SocketAddr = to.parse().unwrap();
        assert_eq!(answers, forbidden.map(|code| (to.ip(), code)).into_iter().collect::<Vec<_>>(), "{to}");
    }
    assert_eq!(bench.stack.drops(), Drops { refused: 5, ..Drops::default() });
}

#[test]
fn connections_beyond_the_limit_are_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let remote = SocketAddr::new([10, 0, 2, 2].into(), listener.local_addr().unwrap().port());
    let mut bench = Bench::new(network());
    bench.stack.tcp.set_limit(3);
    let mut answers = Vec::new();
    for port in 1..=5 {
        bench.tcp((([10, 0, 2, 15], port).into(), remote), (TcpFlags::SYN, Seq(9), Seq(0)), b"");
    }
    while answers.len() < 5 {
        answers.extend(bench.turn().into_iter().map(|(_, segment, _)| match segment {
            Segment::Tcp(tcp) => tcp.flags.has(TcpFlags::RST),
            other => panic!("{other:?}"),
        }));
    }
    assert_eq!(answers.iter().filter(|is_refused| **is_refused).count(), 2);
    assert_eq!(bench.stack.connections(), 3);
}

#[test]
fn a_published_port_leads_to_the_family_on_which_somebody_is_there() {
    let own: SocketAddr = "[fd6b:696c:6e00::15]:80".parse().unwrap();
    let gateways = [IpAddr::from([10, 0, 2, 2]), v6(2)];
    for (local, is_v6_first) in [("127.0.0.1:0", false), ("[::1]:0", true)] {
        for is_refused in [true, false] {
            let mut bench = Bench::new(network());
            let host = bench.stack.publish(Published::at(local.parse().unwrap(), 80, Transport::Tcp)).unwrap();
            // How the guest is called for somebody.
            let called = |bench: &mut Bench, client: &TcpStream| loop {
                let port = client.local_addr().unwrap().port();
                let call = bench.turn().into_iter().find_map(|(ip, segment, _)| match segment {
                    Segment::Tcp(syn) if syn.source_port == port => Some((ip, syn)),
                    _ => None,
                });
                if let Some(call) = call {
                    return call;
                }
                std::thread::yield_now();
            };
            // Before it has an IPv6 address there is one way only.
            let early = TcpStream::connect(host.ip().unwrap()).unwrap();
            assert_eq!(called(&mut bench, &early).0.destination, IpAddr::from([10, 0, 2, 15]));
            bench.message(on_link(Ipv6Addr::UNSPECIFIED.into(), own.ip()), &solicitation(own.ip()));
            let mut client = TcpStream::connect(host.ip().unwrap()).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            let (ip, syn) = called(&mut bench, &client);
            let wanted = usize::from(is_v6_first);
            assert_eq!((ip.source, ip.destination.is_ipv6()), (gateways[wanted], is_v6_first));
            let ends = |ip: &Ip, tcp: &Tcp| {
                (SocketAddr::new(ip.destination, tcp.destination_port), SocketAddr::new(ip.source, tcp.source_port))
            };
            if is_refused {
                bench.tcp(ends(&ip, &syn), (TcpFlags::RST | TcpFlags::ACK, Seq(0), syn.seq + 1), b"");
            } else if is_v6_first {
                bench.now += 1_500;
                bench.turn();
                bench.now += 3_000;
            } else {
                continue;
            }
            let (ip, syn) = called(&mut bench, &client);
            assert_eq!(ip.source, gateways[1 - wanted], "the other one");
            let ends = ends(&ip, &syn);
            bench.tcp(ends, (TcpFlags::SYN | TcpFlags::ACK, Seq(70), syn.seq + 1), b"");
            bench.turn();
            bench.tcp(ends, (TcpFlags::ACK, Seq(71), syn.seq + 1), b"answer");
            bench.turn();
            let mut buffer = [0; 6];
            client.read_exact(&mut buffer).unwrap();
            assert_eq!(buffer, *b"answer");
        }
    }
}

#[test]
fn a_port_where_nobody_is_over_either_family_is_refused() {
    let mut bench = Bench::new(network());
    let local = "127.0.0.1:0".parse().unwrap();
    let host = bench.stack.publish(Published::at(local, 80, Transport::Tcp)).unwrap();
    let own = v6(0x15);
    bench.message(on_link(Ipv6Addr::UNSPECIFIED.into(), own), &solicitation(own));
    let mut client = TcpStream::connect(host.ip().unwrap()).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    for _ in 0..2 {
        let (ip, segment, _) = bench.next();
        let Segment::Tcp(syn) = segment else { panic!("{segment:?}") };
        let ends = (SocketAddr::new(ip.destination, syn.destination_port), SocketAddr::new(ip.source, syn.source_port));
        bench.tcp(ends, (TcpFlags::RST | TcpFlags::ACK, Seq(0), syn.seq + 1), b"");
    }
    assert_eq!(bench.stack.connections(), 0);
    assert_eq!(client.read(&mut [0; 9]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn a_published_datagram_goes_to_the_family_on_which_somebody_is_there() {
    let mut bench = Bench::new(network());
    let local = "127.0.0.1:0".parse().unwrap();
    let host = bench.stack.publish(Published::at(local, 80, Transport::Udp)).unwrap().ip().unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let ask = |question: &[u8]| client.send_to(question, host).unwrap();
    // What the guest's kernel says when a datagram finds nobody.
    let refuse = |bench: &mut Bench, (ip, segment, payload): &(Ip, Segment, Vec<u8>)| {
        let Segment::Udp(udp) = segment else { panic!("{segment:?}") };
        let headers = Headers::udp(bench.macs(), ip, udp.source_port, udp.destination_port, payload.len());
        let quoted = [&headers.bytes()[ETHERNET_HEADER_BYTES..], payload].concat();
        let code = if ip.source.is_ipv4() { 3 } else { 4 };
        bench.sends(|guest| echo::send_unreachable(code, (ip, &quoted), guest));
    };
    let gateways = [IpAddr::from([10, 0, 2, 2]), v6(2)];
    ask(b"early");
    let early = bench.next();
    refuse(&mut bench, &early);
    assert!(bench.turn().is_empty(), "there is no other way yet");
    bench.message(on_link(Ipv6Addr::UNSPECIFIED.into(), v6(0x15)), &solicitation(v6(0x15)));
    ask(b"one");
    let over_v4 = bench.next();
    assert_eq!((over_v4.0.source, &over_v4.2[..]), (gateways[0], &b"one"[..]));
    refuse(&mut bench, &over_v4);
    let over_v6 = bench.next();
    assert_eq!((over_v6.0.source, over_v6.0.destination, &over_v6.2[..]), (gateways[1], v6(0x15), &b"one"[..]));
    refuse(&mut bench, &over_v4);
    refuse(&mut bench, &over_v6);
    assert!(bench.turn().is_empty(), "each way is tried once");
    ask(b"two");
    let (ip, segment, _) = bench.next();
    let Segment::Udp(udp) = segment else { panic!("{segment:?}") };
    assert_eq!(ip.source, gateways[1]);
    bench.datagram(&format!("[{}]:80", v6(0x15)), SocketAddr::new(ip.source, udp.source_port), b"answer");
    let mut buffer = [0; 9];
    let (len, from) = client.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..len], from), (&b"answer"[..], host));
}

#[test]
fn clients_that_look_alike_are_told_apart() {
    let mut bench = Bench::new(network());
    let published = |host: &str, transport| Published::at(host.parse().unwrap(), 80, transport);
    let one = bench.stack.publish(published("127.0.0.1:0", Transport::Tcp)).unwrap().ip().unwrap();
    let other = bench.stack.publish(published("[::1]:0", Transport::Tcp)).unwrap().ip().unwrap();
    let _first = TcpStream::connect(one).unwrap();
    let (first_ip, segment, _) = bench.next();
    let Segment::Tcp(first) = segment else { panic!() };
    // The same port of another address: the guest sees the gateway both times.
    let taken = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), first.source_port);
    let socket = rustix::net::socket(AddressFamily::INET6, SocketType::STREAM, None).unwrap();
    if rustix::net::bind(&socket, &taken).is_ok() {
        rustix::net::connect(&socket, &other).unwrap();
        let (second_ip, segment, _) = bench.next();
        let Segment::Tcp(second) = segment else { panic!() };
        assert_eq!((first_ip.source, first_ip.destination), (second_ip.source, second_ip.destination));
        assert_ne!(second.source_port, first.source_port);
    }
}

#[test]
fn arp_is_answered_for_what_is_here() {
    let mut bench = Bench::new(network());
    for (last, is_ours) in [(2, true), (3, true), (15, false), (77, false)] {
        let mut frame =
            Ethernet { destination: Mac::BROADCAST, source: GUEST, ether_type: EtherType::ARP }.bytes().to_vec();
        frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
        frame.extend(GUEST.0);
        frame.extend([10, 0, 2, 15, 0, 0, 0, 0, 0, 0, 10, 0, 2, last]);
        bench.gives(frame);
        let answers = bench.port.take_frames();
        assert_eq!(answers.len(), usize::from(is_ours), "{last}");
        for answer in answers {
            let Body::Arp(Arp { sender_mac, .. }) = Frame::read(&answer, answer.len()).unwrap().body else { panic!() };
            assert_eq!(sender_mac, bench.stack.network.gateway_mac);
        }
    }
}

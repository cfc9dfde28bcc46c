//! Machines on one network, each in memory.

use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, send, socket_with};

use super::*;
use crate::chance::Chance;
use crate::link::testing::Got;
use crate::memory::MemoryFrame;
use crate::wire::{
    ArpOperation, Body, EtherType, Ethernet, Frame, Ip, Macs, Offload, Protocol, SegmentKind, Segments, Seq, Tcp,
    TcpFlags, TcpOptions,
};

/// A network's folder that goes with the test.
struct Net(tempfile::TempDir);

impl Net {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn folder(&self) -> PathBuf {
        self.0.path().join("net")
    }

    fn join(&self, name: &str, last: u8) -> Result<Machine, JoinError> {
        self.join_with(name, last, None, Network::default())
    }

    fn join_with(&self, name: &str, last: u8, wanted: Option<[u8; 4]>, network: Network) -> Result<Machine, JoinError> {
        let mac = mac(last);
        let member = Member::join(&self.folder(), (name, mac), wanted.map(Ipv4Addr::from), network)?;
        let mut got = Got::new();
        got.abilities = Abilities::ALL;
        Ok(Machine { member, got, mac })
    }
}

struct Machine {
    member: Member,
    got: Got,
    mac: Mac,
}

fn mac(last: u8) -> Mac {
    Mac([0x52, 0x54, 0, 0, 0, last])
}

impl Machine {
    fn turn(&mut self) {
        while self.member.turn(&mut self.got, 0).unwrap() {}
    }

    fn send(&mut self, frame: Vec<u8>) {
        self.member.from_guest(&MemoryFrame::whole(frame), &mut self.got, 0);
    }

    fn to(&self, other: &Self, text: &str) -> Vec<u8> {
        let addresses = (self.member.address().into(), other.member.address().into());
        udp((self.mac, other.mac), addresses, (7, 8), text.as_bytes())
    }

    fn take(&mut self) -> Vec<Vec<u8>> {
        self.turn();
        self.got.frames.drain(..).map(|(frame, _)| frame).collect()
    }
}

/// Lets all of them meet.
fn meet(machines: &mut [&mut Machine]) {
    for _ in 0..3 {
        machines.iter_mut().for_each(|machine| machine.turn());
    }
    machines.iter_mut().for_each(|machine| machine.got.frames.clear());
}

fn udp((source, destination): (Mac, Mac), (from, to): (IpAddr, IpAddr), ports: (u16, u16), content: &[u8]) -> Vec<u8> {
    let ip = Ip::new(from, to, Protocol::UDP);
    let mut headers = Headers::udp(Macs { source, destination }, &ip, ports.0, ports.1, content.len());
    headers.complete_checksum(content);
    [headers.bytes(), content].concat()
}

fn icmpv6((source, destination): (Mac, Mac), (from, to): (&str, &str), message: &[u8]) -> Vec<u8> {
    let mut ip = Ip::new(from.parse::<IpAddr>().unwrap(), to.parse().unwrap(), Protocol::ICMPV6);
    ip.hop_limit = 255;
    let mut sum = crate::wire::Checksum::of_pseudo_header(ip.source, ip.destination, 58, message.len());
    sum.add(message);
    let mut message = message.to_vec();
    message[2..4].copy_from_slice(&sum.finish().to_be_bytes());
    [Headers::ip(Macs { source, destination }, &ip, message.len()).bytes(), &message].concat()
}

/// A neighbour's message about `target`, with `mac` in its option.
fn neighbor(kind: u8, target: &str, mac: Mac) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, 0x20, 0, 0, 0];
    message.extend(target.parse::<Ipv6Addr>().unwrap().octets());
    message.extend([kind - 134, 1]);
    message.extend(mac.0);
    message
}

fn arp(source: Mac, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let header = Ethernet { destination: Mac::BROADCAST, source, ether_type: EtherType::ARP }.bytes();
    let fixed = [0, 1, 8, 0, 6, 4, 0, 1];
    [&header[..], &fixed, &source.0, &sender, &[0; 6], &target].concat()
}

fn answer(frames: &[Vec<u8>]) -> Option<(Mac, Ipv4Addr)> {
    frames.iter().find_map(|frame| match Frame::read(frame, frame.len()).unwrap().body {
        Body::Arp(arp) if arp.operation == ArpOperation::Reply => Some((arp.sender_mac, arp.sender)),
        _ => None,
    })
}

#[test]
fn a_folder_that_others_can_enter_is_no_network() {
    let net = Net::new();
    std::fs::create_dir(net.folder()).unwrap();
    std::fs::set_permissions(net.folder(), std::fs::Permissions::from_mode(0o755)).unwrap();
    assert!(matches!(net.join("a", 1).map(|_| ()).unwrap_err(), JoinError::NotPrivate { .. }));
    std::fs::remove_dir(net.folder()).unwrap();
    std::os::unix::fs::symlink(net.0.path(), net.folder()).unwrap();
    assert!(matches!(net.join("a", 1).map(|_| ()).unwrap_err(), JoinError::NotPrivate { .. }));
    std::fs::remove_file(net.folder()).unwrap();
    std::fs::write(net.folder(), "").unwrap();
    assert!(matches!(net.join("a", 1).map(|_| ()).unwrap_err(), JoinError::Host { .. }));
}

#[test]
fn addresses_are_the_lowest_free_ones_and_stay_with_their_names() {
    let net = Net::new();
    let address = |machine: &Machine| machine.member.address().octets()[3];
    let (a, b, c) = (net.join("a", 1).unwrap(), net.join("b", 2).unwrap(), net.join("c", 3).unwrap());
    assert_eq!([&a, &b, &c].map(address), [15, 16, 17]);
    drop((a, b));
    let b = net.join("b", 2).unwrap();
    assert_eq!(address(&b), 16, "it comes back");
    let d = net.join("d", 4).unwrap();
    assert_eq!(address(&d), 18, "what is somebody's is given away last");
    let a = net.join("a", 1).unwrap();
    assert_eq!(address(&a), 15);
}

#[test]
fn a_member_that_was_killed_leaves_nothing_that_disturbs() {
    let net = Net::new();
    let mut a = net.join("a", 1).unwrap();
    let mut b = net.join("b", 2).unwrap();
    meet(&mut [&mut a, &mut b]);
    assert_eq!((a.member.others(), b.member.others()), (1, 1));
    // As a process that is killed: descriptors are closed, files stay.
    let socket = net.folder().join("16.sock");
    std::fs::hard_link(&socket, net.folder().join("copy")).unwrap();
    drop(b);
    std::fs::rename(net.folder().join("copy"), &socket).unwrap();
    meet(&mut [&mut a]);
    assert_eq!(a.member.others(), 0);
    let mut c = net.join("c", 3).unwrap();
    assert!(!socket.exists(), "whoever joins next cleans up");
    let mut b = net.join("b", 2).unwrap();
    meet(&mut [&mut a, &mut b, &mut c]);
    assert_eq!([&a, &b, &c].map(|machine| machine.member.others()), [2, 2, 2]);
}

#[test]
fn what_cannot_be_told_apart_is_refused_and_names_get_numbers() {
    let net = Net::new();
    let _a = net.join("Web Server", 1).unwrap();
    let b = net.join("web_server", 2).unwrap();
    assert_eq!((b.member.name(), net.join("", 3).unwrap().member.name()), ("web-server-2", "machine"));
    assert_eq!(net.join("gateway", 3).unwrap().member.name(), "gateway-2", "that is somebody else's name");
    let error = net.join("c", 1).map(|_| ()).unwrap_err().to_string();
    assert!(error.starts_with("the hardware address 52:54:00:00:00:01 is taken by `web-server`"), "{error}");
    let wanted = |address| net.join_with("c", 3, Some(address), Network::default()).map(|_| ());
    assert_eq!(
        wanted([10, 0, 2, 16]).unwrap_err().to_string(),
        "the address 10.0.2.16 is taken by `web-server-2`, on the same network"
    );
    for bad in [[10, 0, 2, 2], [10, 0, 2, 3], [10, 0, 2, 0], [10, 0, 2, 255], [10, 0, 3, 9]] {
        assert!(matches!(wanted(bad).unwrap_err(), JoinError::NoAddress { .. }), "{bad:?}");
    }
    wanted([10, 0, 2, 200]).unwrap();
    let mut other = Network::default();
    other.lease.prefix_bits = 25;
    let error = net.join_with("c", 3, None, other).map(|_| ()).unwrap_err().to_string();
    assert_eq!(error, "the network has the subnet 10.0.2.0/24, not 10.0.2.0/25: `web-server` is on it already");
}

#[test]
fn a_subnet_has_room_for_so_many_and_no_more() {
    let net = Net::new();
    let small = || {
        let mut network = Network::default();
        network.lease.prefix_bits = 28;
        network.lease.gateway = Ipv4Addr::new(10, 0, 2, 18);
        network.lease.dns = Ipv4Addr::new(10, 0, 2, 19);
        network
    };
    // Number 15 of 16 is the broadcast address, so none of those that are given is inside.
    assert!(matches!(net.join_with("a", 1, None, small()).map(|_| ()).unwrap_err(), JoinError::Full));
    net.join_with("a", 1, Some([10, 0, 2, 20]), small()).unwrap();
}

#[test]
fn machines_hear_each_other_and_nobody_else() {
    let (net, other) = (Net::new(), Net::new());
    let (mut a, mut b, mut c) = (net.join("a", 1).unwrap(), net.join("b", 2).unwrap(), net.join("c", 3).unwrap());
    let mut stranger = other.join("s", 2).unwrap();
    meet(&mut [&mut a, &mut b, &mut c, &mut stranger]);
    let frame = a.to(&b, "hello");
    a.send(frame.clone());
    assert_eq!(b.take(), [frame]);
    let group = udp((a.mac, Mac::BROADCAST), (a.member.address().into(), Ipv4Addr::BROADCAST.into()), (7, 8), b"all");
    a.send(group.clone());
    assert_eq!([b.take(), c.take()], [[group.clone()], [group]]);
    assert!(stranger.take().is_empty() && a.take().is_empty());
    // Whoever is not there is told nothing, and lost.
    let frame = udp((a.mac, mac(9)), (a.member.address().into(), [10, 0, 2, 99].into()), (7, 8), b"");
    a.send(frame);
    assert_eq!(a.member.lost(), 1);
}

#[test]
fn a_long_segment_stays_whole_and_is_cut_for_who_cannot_take_it() {
    let net = Net::new();
    let (mut a, mut b) = (net.join("a", 1).unwrap(), net.join("b", 2).unwrap());
    meet(&mut [&mut a, &mut b]);
    let ip = Ip::new(a.member.address().into(), b.member.address().into(), Protocol::TCP);
    let (seq, ack, flags) = (Seq(1), Seq(2), TcpFlags(0x10));
    let tcp = Tcp { source_port: 1, destination_port: 2, seq, ack, flags, window: 9, options: TcpOptions::default() };
    let payload = vec![5; 60_000];
    let mut headers = Headers::tcp(Macs { source: a.mac, destination: b.mac }, &ip, &tcp, payload.len());
    headers.set_segment_bytes(1_460);
    let frame = [headers.bytes(), &payload].concat();
    a.member.from_guest(&MemoryFrame { bytes: frame.clone(), offload: headers.offload() }, &mut a.got, 0);
    b.turn();
    let segments = Segments { kind: SegmentKind::TcpV4, header_bytes: 54, payload_bytes: 1_460 };
    let offload = Offload { checksum_start: 34, checksum_offset: 16, segments: Some(segments) };
    assert!(b.got.frames == [(frame.clone(), offload)]);
    b.got.frames.clear();
    b.got.abilities = Abilities::default();
    a.member.from_guest(&MemoryFrame { bytes: frame, offload: headers.offload() }, &mut a.got, 0);
    b.turn();
    assert_eq!(b.got.frames.len(), 60_000_usize.div_ceil(1_460));
    assert!(b.got.frames.iter().all(|(frame, offload)| frame.len() <= 1_514 && offload.is_done()));
}

#[test]
fn nobody_is_somebody_else() {
    let net = Net::new();
    let (mut a, mut b, mut c) = (net.join("a", 1).unwrap(), net.join("b", 2).unwrap(), net.join("c", 3).unwrap());
    meet(&mut [&mut a, &mut b, &mut c]);
    let v4 = |last: u8| IpAddr::from([10, 0, 2, last]);
    let gateway = Network::default().gateway_mac;
    let own = "fe80::5054:ff:fe00:1";
    for (what, frame) in [
        ("another's hardware address", udp((c.mac, b.mac), (v4(15), v4(16)), (7, 8), b"")),
        ("the gateway's hardware address", udp((gateway, b.mac), (v4(15), v4(16)), (7, 8), b"")),
        ("another's address", udp((a.mac, b.mac), (v4(17), v4(16)), (7, 8), b"")),
        ("the gateway's address", udp((a.mac, b.mac), (v4(2), v4(16)), (7, 8), b"")),
        ("an address from outside", udp((a.mac, b.mac), ([192, 0, 2, 1].into(), v4(16)), (7, 8), b"")),
        ("an answer of DHCP", udp((a.mac, b.mac), (v4(15), v4(16)), (67, 68), b"")),
        ("a question of DHCP to a neighbour", udp((a.mac, b.mac), (v4(15), v4(16)), (68, 67), b"")),
        ("a router", icmpv6((a.mac, b.mac), (own, "ff02::1"), &[134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0])),
        ("a router for all", icmpv6((a.mac, Mac([0x33, 0x33, 0, 0, 0, 1])), (own, "ff02::1"), &[134; 16])),
        ("a redirect", icmpv6((a.mac, b.mac), (own, "fe80::2"), &[137; 40])),
        (
            "the gateway's neighbour",
            icmpv6((a.mac, b.mac), (own, "ff02::1"), &neighbor(136, "fd6b:696c:6e00::2", a.mac)),
        ),
        (
            "another's neighbour",
            icmpv6((a.mac, b.mac), (own, "ff02::1"), &neighbor(136, "fe80::5054:ff:fe00:3", a.mac)),
        ),
        ("its DHCPv6 address", icmpv6((a.mac, b.mac), (own, "ff02::1"), &neighbor(136, "fd6b:696c:6e00::17", a.mac))),
        ("another's link-layer address", icmpv6((a.mac, b.mac), (own, "ff02::1"), &neighbor(136, own, c.mac))),
        (
            "another's IPv6 address",
            icmpv6((a.mac, b.mac), ("fe80::5054:ff:fe00:3", "fe80::2"), &[128, 0, 0, 0, 1, 1, 1, 1]),
        ),
        (
            "ARP",
            [&Ethernet { destination: b.mac, source: a.mac, ether_type: EtherType::ARP }.bytes()[..], &[0; 28]]
                .concat(),
        ),
        (
            "something unknown",
            [&Ethernet { destination: b.mac, source: a.mac, ether_type: EtherType(0x88b5) }.bytes()[..], &[0; 46]]
                .concat(),
        ),
        ("a frame for another", udp((a.mac, c.mac), (v4(15), v4(16)), (7, 8), b"")),
    ] {
        // Also past the sender's own process, which may be anything.
        let offload = Offload::default();
        let others: Vec<_> = b.member.peers.iter().cloned().collect();
        let who = others.iter().find(|who| who.mac == a.mac).unwrap();
        assert!(!b.member.subnet.lets_in(b.mac, &frame, who, others.iter()), "{what}");
        a.member.from_guest(&MemoryFrame { bytes: frame, offload }, &mut a.got, 0);
        let got = b.take();
        assert!(got.is_empty(), "{what}: {got:x?}");
    }
    // What a good neighbour says comes through.
    for message in [neighbor(136, own, a.mac), neighbor(135, "fe80::77", a.mac), vec![128, 0, 0, 0, 1, 1, 1, 1]] {
        let frame = icmpv6((a.mac, b.mac), (own, "fe80::5054:ff:fe00:2"), &message);
        a.send(frame.clone());
        assert_eq!(b.take(), [frame]);
    }
}

#[test]
fn questions_for_addresses_are_answered_where_they_are_asked() {
    let net = Net::new();
    let (mut a, mut b) = (net.join("a", 1).unwrap(), net.join("b", 2).unwrap());
    meet(&mut [&mut a, &mut b]);
    a.send(arp(a.mac, [10, 0, 2, 15], [10, 0, 2, 16]));
    assert_eq!(answer(&a.take()), Some((b.mac, [10, 0, 2, 16].into())));
    a.send(arp(a.mac, [10, 0, 2, 15], [10, 0, 2, 2]));
    assert_eq!(answer(&a.take()), Some((Network::default().gateway_mac, [10, 0, 2, 2].into())));
    a.send(arp(a.mac, [10, 0, 2, 15], [10, 0, 2, 99]));
    assert_eq!(answer(&a.take()), None);
    assert!(b.take().is_empty(), "nobody else hears of it");
    // Of IPv6: who surely has the address is asked alone, else everybody is.
    let mut c = net.join("c", 3).unwrap();
    meet(&mut [&mut a, &mut b, &mut c]);
    let solicited = Mac([0x33, 0x33, 0xff, 0, 0, 2]);
    let known = neighbor(135, "fe80::5054:ff:fe00:2", a.mac);
    a.send(icmpv6((a.mac, solicited), ("fe80::5054:ff:fe00:1", "ff02::1:ff00:2"), &known));
    assert_eq!((b.take().len(), c.take().len()), (1, 0));
    let unknown = neighbor(135, "fd6b:696c:6e00::abcd", a.mac);
    a.send(icmpv6((a.mac, solicited), ("fe80::5054:ff:fe00:1", "ff02::1:ff00:2"), &unknown));
    assert_eq!((b.take().len(), c.take().len()), (1, 1));
}

/// The addresses that a machine's name server tells of a name.
fn asked(machine: &mut Machine, name: &str, kind: u16) -> Vec<Vec<u8>> {
    let mut question = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for part in name.split('.') {
        question.push(u8::try_from(part.len()).unwrap());
        question.extend(part.as_bytes());
    }
    question.push(0);
    question.extend([kind.to_be_bytes(), [0, 1]].concat());
    let addresses: (IpAddr, IpAddr) = (machine.member.address().into(), [10, 0, 2, 3].into());
    machine.take();
    machine.send(udp((machine.mac, Network::default().gateway_mac), addresses, (4_000, 53), &question));
    let frames = machine.take();
    let Some(frame) = frames.iter().find(|frame| frame.len() >= 42 + question.len()) else { return Vec::new() };
    let message = &frame[42..];
    let count = usize::from(u16::from_be_bytes([message[6], message[7]]));
    let record_bytes = 12 + if kind == 1 { 4 } else { 16 };
    let records = message[question.len()..].chunks(record_bytes).take(count);
    records.map(|record| record[12..].to_vec()).collect()
}

#[test]
fn names_of_the_others_are_known_as_long_as_they_are_there() {
    let net = Net::new();
    let mut a = net.join("a", 1).unwrap();
    let mut web = net.join("Web", 2).unwrap();
    meet(&mut [&mut a, &mut web]);
    assert_eq!(asked(&mut a, "web.kiln.internal", 1), [[10, 0, 2, 16]]);
    assert_eq!(asked(&mut a, "a.kiln.internal", 1), [[10, 0, 2, 15]]);
    assert_eq!(asked(&mut web, "A.kiln.internal", 1), [[10, 0, 2, 15]]);
    drop(web);
    meet(&mut [&mut a]);
    assert!(asked(&mut a, "web.kiln.internal", 1).is_empty());
}

#[test]
fn names_mean_the_ipv6_addresses_that_machines_say_they_have() {
    const AAAA: u16 = 28;
    let net = Net::new();
    let (mut a, mut web) = (net.join("a", 1).unwrap(), net.join("web", 2).unwrap());
    meet(&mut [&mut a, &mut web]);
    assert!(asked(&mut a, "web.kiln.internal", AAAA).is_empty(), "nobody says so yet");
    let all = Mac([0x33, 0x33, 0, 0, 0, 1]);
    let [given, made] = ["fd6b:696c:6e00::16", "fd6b:696c:6e00:0:5054:ff:fe00:2"];
    // Others than those that are surely its own may be gone tomorrow.
    for address in [given, "fd6b:696c:6e00::99", "fe80::5054:ff:fe00:2", "fd6b:696c:6e00::15"] {
        let mut claim = neighbor(135, address, web.mac);
        // Who has no address yet tells none (RFC 4861 section 4.3).
        claim.truncate(24);
        web.send(icmpv6((web.mac, all), ("::", "ff02::1"), &claim));
    }
    a.turn();
    let octets = |address: &str| address.parse::<Ipv6Addr>().unwrap().octets().to_vec();
    for machine in [&mut a, &mut web] {
        assert_eq!(asked(machine, "web.kiln.internal", AAAA), [octets(given)]);
        assert_eq!(asked(machine, "web.kiln.internal", 1), [[10, 0, 2, 16]]);
    }
    web.send(icmpv6((web.mac, all), (made, "ff02::1"), &neighbor(136, made, web.mac)));
    a.turn();
    assert_eq!(asked(&mut a, "web.kiln.internal", AAAA), [octets(given), octets(made)]);
    // Who comes later hears of it as well.
    let mut late = net.join("late", 3).unwrap();
    meet(&mut [&mut a, &mut web, &mut late]);
    assert_eq!(asked(&mut late, "web.kiln.internal", AAAA), [octets(given), octets(made)]);
    drop(web);
    meet(&mut [&mut a, &mut late]);
    assert!(asked(&mut late, "web.kiln.internal", AAAA).is_empty());
}

#[test]
fn a_stuck_machine_costs_the_others_nothing_but_its_own_frames() {
    let net = Net::new();
    let (mut a, mut stuck, mut b) =
        (net.join("a", 1).unwrap(), net.join("stuck", 2).unwrap(), net.join("b", 3).unwrap());
    meet(&mut [&mut a, &mut stuck, &mut b]);
    let frame = a.to(&stuck, &"x".repeat(1_400));
    for _ in 0..5_000 {
        a.send(frame.clone());
    }
    assert!(a.member.lost() > 0 && !a.member.is_full());
    let frame = a.to(&b, "hello");
    a.send(frame.clone());
    assert_eq!(b.take(), [frame]);
    // What was kept for it is bounded, and comes when it goes on.
    let mut came = 0;
    loop {
        let frames = stuck.take().len();
        if frames == 0 {
            break;
        }
        came += frames;
        a.turn();
    }
    assert_eq!(came as u64 + a.member.lost(), 5_000);
}

#[test]
fn strangers_who_say_nothing_or_nonsense_are_put_off() {
    let net = Net::new();
    let mut a = net.join("a", 1).unwrap();
    let path = net.folder().join("15.sock");
    let call = |words: &[u8]| {
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::NONBLOCK, None).unwrap();
        connect(&socket, &rustix::net::SocketAddrUnix::new(&path).unwrap()).unwrap();
        if !words.is_empty() {
            send(&socket, words, rustix::net::SendFlags::empty()).unwrap();
        }
        socket
    };
    let long = [7; 3_000];
    let calls = [&b""[..], b"hello", b"kiln\x01", b"kiln\x01\0\0\0\x63", b"kiln\x02\0\0\0\x0f", &long].map(call);
    a.turn();
    assert_eq!(a.member.others(), 0);
    a.member.turn(&mut a.got, 5_000).unwrap();
    a.member.turn(&mut a.got, 10_000).unwrap();
    for socket in &calls {
        let error = send(socket, b"x", rustix::net::SendFlags::NOSIGNAL).unwrap_err();
        assert_eq!(error, rustix::io::Errno::PIPE);
    }
}

#[test]
fn many_come_and_go_in_any_order() {
    let net = Net::new();
    let mut there: Vec<Machine> = Vec::new();
    let mut chance = Chance::new(7);
    for round in 0..60_u8 {
        if there.len() > 2 && chance.below(2) == 0 {
            there.remove(chance.index(&there));
        } else {
            there.push(net.join(&format!("m{round}"), round).unwrap());
        }
        for _ in 0..2 {
            there.iter_mut().for_each(Machine::turn);
        }
        let count = there.len() - 1;
        assert!(there.iter().all(|machine| machine.member.others() == count), "round {round}");
    }
    let mut addresses: Vec<_> = there.iter().map(|machine| machine.member.address()).collect();
    addresses.dedup();
    assert_eq!(addresses.len(), there.len());
}

#[test]
fn no_frame_of_anybody_stops_it() {
    let net = Net::new();
    let (mut a, mut b) = (net.join("a", 1).unwrap(), net.join("b", 2).unwrap());
    meet(&mut [&mut a, &mut b]);
    let ip = Ip::new(a.member.address().into(), b.member.address().into(), Protocol::TCP);
    let (seq, ack, flags) = (Seq(1), Seq(2), TcpFlags(0x10));
    let tcp = Tcp { source_port: 1, destination_port: 2, seq, ack, flags, window: 9, options: TcpOptions::default() };
    let mut headers = Headers::tcp(Macs { source: a.mac, destination: b.mac }, &ip, &tcp, 300);
    headers.set_segment_bytes(100);
    let segment = ([headers.bytes(), &[7; 300]].concat(), headers.offload());
    let solicited = Mac([0x33, 0x33, 0xff, 0, 0, 2]);
    let asked = neighbor(135, "fe80::5054:ff:fe00:2", a.mac);
    let seeds = [
        segment,
        (a.to(&b, "hello"), Offload::default()),
        (arp(a.mac, [10, 0, 2, 15], [10, 0, 2, 16]), Offload::default()),
        (icmpv6((a.mac, solicited), ("fe80::5054:ff:fe00:1", "ff02::1:ff00:2"), &asked), Offload::default()),
    ];
    let mut chance = Chance::new(7);
    // A guest for which everything must be done on the way.
    b.got.abilities = Abilities::default();
    for _ in 0..20_000 {
        let (mut frame, mut offload) = seeds[chance.index(&seeds)].clone();
        for _ in 0..chance.below(4) {
            chance.change(&mut frame);
        }
        if chance.below(4) == 0 {
            frame.truncate(chance.index(&frame));
        }
        if chance.below(4) == 0 {
            offload.checksum_start = u16::try_from(chance.below(500)).unwrap();
            offload.checksum_offset = u16::try_from(chance.below(80)).unwrap();
        }
        a.member.from_guest(&MemoryFrame { bytes: frame, offload }, &mut a.got, 0);
        a.turn();
        b.turn();
        assert!(b.got.frames.iter().all(|(_, offload)| offload.is_done()));
        a.got.frames.clear();
        b.got.frames.clear();
    }
    let frame = a.to(&b, "still there");
    a.send(frame.clone());
    assert_eq!(b.take(), [frame]);
}

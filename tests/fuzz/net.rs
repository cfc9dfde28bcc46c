//! What a guest sends, and a whole network that it is sent to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::OnceLock;

use kiln_net::dhcp::Lease;
use kiln_net::dhcpv6::LeaseV6;
use kiln_net::dns::{Forwarder, Names, Servers};
use kiln_net::link::Link;
use kiln_net::memory::{MemoryFrame, MemoryPort};
use kiln_net::ndp;
use kiln_net::packets::ToGuest;
use kiln_net::policy::{Block, OwnAddresses, Policy};
use kiln_net::poll::Poll;
use kiln_net::publish::{Published, Transport};
use kiln_net::stack::{Network, Stack};
use kiln_net::wire::{
    Body, Checksum, Fragment, Frame, Headers, Ip, Mac, Macs, Offload, Protocol, Segment, Seq, Tcp, TcpFlags,
    TcpOptions, Timestamps,
};

const GUEST: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
/// Steps of one input.
const STEPS_LIMIT: usize = 400;

/// A frame, as it is and with the checksum of IPv4 put right, and what virtio-net's header says of it.
pub fn frame(data: &[u8]) {
    let mut mended = data.to_vec();
    mend_ipv4(&mut mended);
    for bytes in [data, &mended] {
        if let Ok(Frame { body: Body::Ip { payload, .. }, .. }) = Frame::read(bytes, bytes.len()) {
            assert!(payload.start <= payload.end && payload.end <= bytes.len());
        }
        let Some((header, frame)) = bytes.split_first_chunk() else { continue };
        let Ok(offload) = Offload::read(header, frame.len()) else { continue };
        let mut total = 0;
        let _refused = offload.finish(frame, |piece| {
            assert!(piece.len() <= frame.len());
            total += piece.len();
        });
        assert!(total <= 40 * (frame.len() + 1), "{total} of {}", frame.len());
    }
}

fn mend_ipv4(frame: &mut [u8]) {
    let Some(header_bytes) = frame.get(14).map(|byte| usize::from(byte & 0xf) * 4) else { return };
    if let Some(header) = frame.get_mut(14..14 + header_bytes).filter(|header| header.len() >= 20) {
        header[10..12].fill(0);
        let mut sum = Checksum::default();
        sum.add(header);
        header[10..12].copy_from_slice(&sum.finish().to_be_bytes());
    }
}

/// A message for the DHCP server.
pub fn dhcp(data: &[u8]) {
    let lease: Lease = Network::default().lease;
    if let Some(answer) = lease.answer(data) {
        assert!(answer.bytes.len() <= 1_400 && answer.bytes[0] == 2);
    }
}

/// Messages about the link: neighbours, routers, and the DHCP server of IPv6.
pub fn link(data: &[u8]) {
    let address = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
    let lease = LeaseV6 { address, dns: address, server: GUEST, search: &[] };
    if let Some(answer) = lease.answer(data) {
        assert!(answer.len() <= 1_400);
    }
    let ip = Ip { hop_limit: 255, ..Ip::new(address.into(), ndp::ALL_NODES.into(), Protocol::ICMPV6) };
    let mut message = data.to_vec();
    if let Some(field) = message.get_mut(2..4) {
        field.fill(0);
        let mut sum = Checksum::of_pseudo_header(ip.source, ip.destination, ip.protocol.0, data.len());
        sum.add(&message);
        message[2..4].copy_from_slice(&sum.finish().to_be_bytes());
    }
    let _ours = ndp::read(&ip, &message);
}

/// A question for the name server, and a rule.
pub fn names(data: &[u8]) {
    let known = [("gateway.kiln.internal".to_owned(), IpAddr::from([10, 0, 2, 2]))];
    let mut forwarder = Forwarder::new(Names::new(known), Servers::of_file("/nowhere"), 9);
    let ends = (SocketAddr::from(([10, 0, 2, 15], 9)), SocketAddr::from(([10, 0, 2, 3], 53)));
    let poll = Poll::new().expect("a descriptor");
    if let Some(answer) = forwarder.ask(ends, data, &poll, 0) {
        assert!(answer.bytes[..2] == data[..2] && answer.bytes[2] & 0x80 != 0);
    }
    let text = String::from_utf8_lossy(data);
    let Ok(block) = text.parse::<Block>() else { return };
    let policy = Policy { allow: vec![block], deny: vec![] };
    let mut own = OwnAddresses::default();
    let inside = SocketAddr::new(block.address, block.port.unwrap_or(1));
    if policy.check(inside, |address| own.has(address, 0)).is_ok() {
        assert!(!inside.ip().is_loopback() && !inside.ip().is_multicast());
    }
}

/// Sockets of this machine that everything of the stack's is led to, so that no input talks to anybody else.
struct Ends {
    tcp: TcpListener,
    udp: UdpSocket,
}

fn ends() -> &'static Ends {
    static ENDS: OnceLock<Ends> = OnceLock::new();
    ENDS.get_or_init(|| {
        let ends = (|| {
            let ends = Ends { tcp: TcpListener::bind("127.0.0.1:0")?, udp: UdpSocket::bind("127.0.0.1:0")? };
            ends.tcp.set_nonblocking(true)?;
            ends.udp.set_nonblocking(true)?;
            std::io::Result::Ok(ends)
        })();
        ends.expect("sockets of the loopback")
    })
}

/// Bytes, read as numbers. At their end all is 0.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// A network, and its guest, that does what the input says.
struct World {
    stack: Stack,
    port: MemoryPort,
    now: u64,
    published: SocketAddr,
    /// Connections to the published port, and those that came from the guest.
    streams: Vec<TcpStream>,
    /// Ends of connections that the guest knows of, with the numbers that come next there.
    known: Vec<(SocketAddr, SocketAddr, Seq, Seq)>,
}

/// A sequence of frames and other events.
pub fn stack(data: &[u8]) {
    let nothing =
        Policy { allow: vec![], deny: vec!["0.0.0.0/0".parse().expect("a rule"), "::/0".parse().expect("a rule")] };
    let network = Network { host_loopback: true, policy: nothing, resolvers: "/nowhere".into(), ..Network::default() };
    let mut stack = Stack::new(network).expect("a descriptor");
    let host = SocketAddr::from(([127, 0, 0, 1], 0));
    let published =
        stack.publish(Published::at(host, 80, Transport::Tcp)).expect("a free port").ip().expect("an address");
    let mut world =
        World { stack, port: MemoryPort::new(64), now: 1_000, published, streams: Vec::new(), known: Vec::new() };
    let mut input = Input(data);
    for _ in 0..STEPS_LIMIT {
        if input.0.is_empty() {
            break;
        }
        world.step(&mut input);
        world.turn();
    }
    // Everything ends in time.
    for _ in 0..40 {
        world.now += 40_000;
        world.turn();
    }
}

impl World {
    fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() % 10 {
            0 => self.raw(input),
            1 => self.now += u64::from(input.word()),
            2 => self.datagram(input),
            3 => self.icmp(input),
            4 => self.fragment(input),
            5 => {
                if self.streams.len() < 8
                    && let Ok(stream) = TcpStream::connect(self.published)
                    && stream.set_nonblocking(true).is_ok()
                {
                    self.streams.push(stream);
                }
            }
            6 => self.peer(input),
            _ => self.tcp(input),
        }
    }

    fn gives(&mut self, frame: Vec<u8>) {
        // Whatever is led to the loopback goes to our own sockets.
        if let Ok(Frame { body: Body::Ip { ip, segment, .. }, .. }) = Frame::read(&frame, frame.len()) {
            let port = match segment {
                Segment::Tcp(tcp) => tcp.destination_port,
                Segment::Udp(udp) => udp.destination_port,
                Segment::Icmp => 0,
                Segment::Opaque => 1,
            };
            let is_gateway = ip.destination != IpAddr::from([10, 0, 2, 3]);
            if is_gateway && ![0, 53, 67, 547].contains(&port) && !self.is_ours(port) {
                return;
            }
        }
        self.stack.from_guest(&MemoryFrame::whole(frame), &mut self.port, self.now);
    }

    fn is_ours(&self, port: u16) -> bool {
        let known = self.known.iter().any(|(_, remote, ..)| remote.port() == port);
        let own = [ends().tcp.local_addr(), ends().udp.local_addr()];
        known || own.into_iter().flatten().any(|address| address.port() == port)
    }

    fn raw(&mut self, input: &mut Input<'_>) {
        let kind: u16 = match input.byte() % 4 {
            0 => 0x0806,
            1 => 0x86dd,
            2 => input.word(),
            _ => 0x0800,
        };
        let len = usize::from(input.byte());
        let mut frame = [&[0x52, 0x55, 10, 0, 2, 2][..], &GUEST.0, &kind.to_be_bytes(), input.bytes(len)].concat();
        if kind == 0x0800 {
            mend_ipv4(&mut frame);
        }
        self.gives(frame);
    }

    /// A packet as a guest's kernel would make it.
    fn packet(&mut self, make: impl FnOnce(&mut ToGuest<'_>)) {
        let mut port = MemoryPort::new(100);
        let macs = Macs { source: GUEST, destination: Mac([0x52, 0x55, 10, 0, 2, 2]) };
        make(&mut ToGuest { port: &mut port, macs, mtu: 1_500, id: 1 });
        port.take_frames().into_iter().for_each(|frame| self.gives(frame));
    }

    fn addresses(input: &mut Input<'_>) -> (IpAddr, IpAddr) {
        let v6 = |last: u16| IpAddr::from(Ipv6Addr::new(0xfd6b, 0x696c, 0x6e00, 0, 0, 0, 0, last));
        match input.byte() % 8 {
            0 => (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::BROADCAST.into()),
            1 => (v6(0x15), v6(2)),
            2 => (v6(0x15), v6(3)),
            3 => ("fe80::1".parse().expect("an address"), "ff02::1:2".parse().expect("an address")),
            4 => (v6(input.word()), v6(input.word())),
            5 => ([10, 0, 2, 15].into(), [10, 0, 2, 3].into()),
            6 => ([10, 0, 2, input.byte()].into(), [10, 0, input.byte(), input.byte()].into()),
            _ => ([10, 0, 2, 15].into(), [10, 0, 2, 2].into()),
        }
    }

    fn datagram(&mut self, input: &mut Input<'_>) {
        let (source, destination) = Self::addresses(input);
        let (from, to) = match input.byte() % 5 {
            0 => (68, 67),
            1 => (546, 547),
            2 => (u16::from(input.byte()), 53),
            3 => (input.word(), input.word()),
            _ => (u16::from(input.byte()), ends().udp.local_addr().map_or(53, |address| address.port())),
        };
        let len = usize::from(input.word() % 3_000);
        let mut payload = input.bytes(len).to_vec();
        if input.byte().is_multiple_of(4) {
            payload.resize(len, 7);
        }
        self.packet(|guest| {
            guest.datagram((SocketAddr::new(source, from), SocketAddr::new(destination, to)), &payload)
        });
    }

    fn icmp(&mut self, input: &mut Input<'_>) {
        let (source, destination) = Self::addresses(input);
        // Echoes to this machine would be answered by it.
        let protocol = if source.is_ipv4() { Protocol::ICMP } else { Protocol::ICMPV6 };
        let hop_limit = if input.byte().is_multiple_of(4) { 64 } else { 255 };
        let len = usize::from(input.byte());
        let message = input.bytes(len).to_vec();
        self.packet(|guest| guest.message(Ip { hop_limit, ..Ip::new(source, destination, protocol) }, message));
    }

    fn fragment(&mut self, input: &mut Input<'_>) {
        let (source, _) = Self::addresses(input);
        // To the name server, which takes only questions.
        let destination: IpAddr = match source {
            IpAddr::V4(_) => [10, 0, 2, 3].into(),
            IpAddr::V6(_) => "fd6b:696c:6e00::3".parse().expect("an address"),
        };
        let protocol = [Protocol::UDP, Protocol::TCP, Protocol::ICMP, Protocol::ICMPV6][usize::from(input.byte() % 4)];
        let offset_bytes = input.word() & if input.byte().is_multiple_of(2) { 0x38 } else { 0xfff8 };
        let fragment =
            Fragment { id: u32::from(input.byte() % 4), offset_bytes, has_more: input.byte().is_multiple_of(2) };
        let len = usize::from(input.byte());
        let content = input.bytes(len).to_vec();
        let ip = Ip { fragment: Some(fragment), ..Ip::new(source, destination, protocol) };
        self.packet(|guest| {
            let headers = Headers::ip(guest.macs, &ip, content.len());
            kiln_net::port::GuestPort::send(guest.port, headers, &content);
        });
    }

    fn tcp(&mut self, input: &mut Input<'_>) {
        let choice = usize::from(input.byte());
        let (from, to, seq, ack) = match self.known.get(choice % (self.known.len() + 1)) {
            Some(known) => *known,
            None => {
                let port = ends().tcp.local_addr().map_or(53, |address| address.port());
                let (source, destination) = match choice % 3 {
                    0 => (
                        "fd6b:696c:6e00::15".parse().expect("an address"),
                        "fd6b:696c:6e00::2".parse().expect("an address"),
                    ),
                    _ => (IpAddr::from([10, 0, 2, 15]), IpAddr::from([10, 0, 2, 2])),
                };
                let from = SocketAddr::new(source, 4_000 + u16::from(input.byte() % 8));
                (from, SocketAddr::new(destination, port), Seq(u32::from(input.word())), Seq(0))
            }
        };
        let flags = TcpFlags(match input.byte() % 8 {
            0 => input.byte(),
            1 => 0x02,
            2 => 0x12,
            3 => 0x11,
            4 => 0x04,
            _ => 0x10,
        });
        let near = |input: &mut Input<'_>| match input.byte() % 4 {
            0 => i32::from(input.word()) - 0x8000,
            _ => 0,
        };
        let moved = |seq: Seq, by: i32| Seq(seq.0.wrapping_add_signed(by));
        let (seq, ack) = (moved(seq, near(input)), moved(ack, near(input)));
        let bits = input.byte();
        let mut options = TcpOptions {
            mss: (bits & 1 != 0).then(|| input.word()),
            window_scale: (bits & 2 != 0).then(|| input.byte() % 15),
            sack_permitted: bits & 4 != 0,
            timestamps: (bits & 8 != 0).then(|| Timestamps { value: input.word().into(), echo: input.word().into() }),
            ..TcpOptions::default()
        };
        for _ in 0..(bits >> 4) % 5 {
            let start = moved(ack, i32::from(input.word()) - 100);
            options.sack.push(start, start + u32::from(input.word()));
        }
        let len = usize::from(input.word() % 1_400);
        let mut payload = input.bytes(len.min(40)).to_vec();
        payload.resize(len, 7);
        let window = input.word();
        let tcp = Tcp { source_port: from.port(), destination_port: to.port(), seq, ack, flags, window, options };
        let macs = Macs { source: GUEST, destination: Mac([0x52, 0x55, 10, 0, 2, 2]) };
        let ip = Ip::new(from.ip(), to.ip(), Protocol::TCP);
        let mut headers = Headers::tcp(macs, &ip, &tcp, payload.len());
        headers.complete_checksum(&payload);
        self.gives([headers.bytes(), &payload].concat());
    }

    /// The other side of a connection does something.
    fn peer(&mut self, input: &mut Input<'_>) {
        use std::io::{Read, Write};
        while let Ok((stream, _)) = ends().tcp.accept() {
            if self.streams.len() < 8 && stream.set_nonblocking(true).is_ok() {
                self.streams.push(stream);
            }
        }
        let choice = usize::from(input.byte());
        let Some(at) = choice.checked_rem(self.streams.len()) else { return };
        let len = usize::from(input.word());
        match input.byte() % 5 {
            0 => drop(self.streams.swap_remove(at)),
            1 => drop(self.streams[at].shutdown(std::net::Shutdown::Write)),
            2 => drop(self.streams[at].write(&vec![9; len])),
            _ => drop(self.streams[at].read(&mut vec![0; len])),
        }
    }

    /// What comes for the guest is right, whatever it sent.
    fn turn(&mut self) {
        // As long as there is something to do, but not for ever: the others have their turn, too.
        for _ in 0..4 {
            let more = self.stack.turn(&mut self.port, self.now).expect("the host's poll works");
            for frame in self.port.take_frames() {
                self.check(&frame);
            }
            if !more {
                break;
            }
        }
        let mut buffer = [0; 4_096];
        while let Ok((len, from)) = ends().udp.recv_from(&mut buffer) {
            // Lost, perhaps.
            let _ = ends().udp.send_to(&buffer[..len], from);
        }
    }

    fn check(&mut self, frame: &[u8]) {
        let read = Frame::read(frame, frame.len()).expect("a frame for the guest is a frame");
        let Body::Ip { ip, segment, payload } = read.body else { return };
        assert!(frame.len() <= 1_514, "{}", frame.len());
        let content = match (&segment, ip.source) {
            (Segment::Opaque, _) => return,
            (_, IpAddr::V4(_)) => &frame[34..],
            (_, IpAddr::V6(_)) => &frame[54..],
        };
        let mut sum = match ip.protocol {
            Protocol::ICMP => Checksum::default(),
            _ => Checksum::of_pseudo_header(ip.source, ip.destination, ip.protocol.0, content.len()),
        };
        sum.add(content);
        assert_eq!(sum.finish(), 0, "its checksum is right: {ip:?} {segment:?}");
        let Segment::Tcp(tcp) = segment else { return };
        let (from, to) =
            (SocketAddr::new(ip.destination, tcp.destination_port), SocketAddr::new(ip.source, tcp.source_port));
        let numbers = u32::try_from(payload.len()).expect("a frame is short")
            + u32::from(tcp.flags.has(TcpFlags::SYN))
            + u32::from(tcp.flags.has(TcpFlags::FIN));
        let known = (from, to, tcp.ack, tcp.seq + numbers);
        let place = self.known.iter().position(|(guest, remote, ..)| (*guest, *remote) == (from, to));
        match place.and_then(|place| self.known.get_mut(place)) {
            Some(place) => *place = known,
            None => self.known.push(known),
        }
        self.known.truncate(32);
    }
}

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept, bind, connect, listen, recv,
    send, socket_with,
};
use tempfile::TempDir;

use super::memory::MemoryInbox;
use super::packet::{END_OF_MESSAGE, Header, op, shutdown};
use super::*;
use crate::config::{VsockKind, VsockPort};

const CID: u32 = 7;
const PORT: u32 = 0x946;
const ALLOC: u32 = 1 << 20;

struct Guest {
    folder: TempDir,
    state: PathBuf,
    muxer: Muxer,
    buffers: MemoryInbox,
}

impl Guest {
    fn start() -> Self {
        Self::start_with(|folder| Vsock {
            cid: CID,
            to_guest: vec![
                VsockPort { port: PORT, kind: VsockKind::Stream, path: None },
                VsockPort { port: 9, kind: VsockKind::SeqPacket, path: Some(folder.join("messages")) },
            ],
            to_host: vec![VsockPort { port: 10, kind: VsockKind::Stream, path: Some(folder.join("ten")) }],
        })
    }

    fn start_with(config: impl FnOnce(&Path) -> Vsock) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Longer than any socket's name may be.
        let state = folder.path().join("deep/".repeat(40));
        fs::create_dir_all(&state).unwrap();
        let mut muxer = Muxer::open(&config(folder.path()), &state).unwrap();
        assert!(!muxer.start(true));
        let buffers = MemoryInbox { left: usize::MAX, bytes: 4096, packets: VecDeque::new() };
        Self { folder, state, muxer, buffers }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.state.join(name)
    }

    /// The same for a program whose own paths are short.
    fn connect(&self, name: &str) -> UnixStream {
        let folder = crate::host::Folder::open(&self.state).unwrap();
        let stream = UnixStream::connect(folder.file(name)).unwrap();
        stream.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        stream
    }

    fn listen(&self, port: u32) -> UnixListener {
        let folder = crate::host::Folder::open(&self.state).unwrap();
        UnixListener::bind(folder.file(format!("host.{port:08x}"))).unwrap()
    }

    /// All there is for the guest now.
    fn packets(&mut self) -> Vec<(Header, Vec<u8>)> {
        loop {
            let has_seen_all = self.muxer.look().unwrap();
            if !self.muxer.to_guest(&mut self.buffers) && has_seen_all {
                return self.buffers.packets.drain(..).collect();
            }
        }
    }

    /// The one packet there is for the guest.
    #[track_caller]
    fn packet(&mut self) -> (Header, Vec<u8>) {
        let packets = self.packets();
        assert_eq!(packets.len(), 1, "{packets:?}");
        packets.into_iter().next().unwrap()
    }

    fn say(&mut self, header: &Header, data: &[u8]) {
        let header = Header { len: u32::try_from(data.len()).unwrap(), ..*header };
        self.muxer.from_guest(&header, &data.to_vec());
    }

    /// A connection that a program on the host made, and the guest's header for it.
    fn connected(&mut self) -> (UnixStream, Header) {
        let stream = self.connect("guest.00000946");
        let (request, _) = self.packet();
        assert_eq!((request.op, request.dst_port, request.dst_cid), (op::REQUEST, PORT, CID.into()));
        let header = answer(&request);
        self.say(&Header { op: op::RESPONSE, ..header }, &[]);
        (stream, header)
    }

    /// One that the guest made.
    fn accepted(&mut self, port: u32, kind: u16) -> Header {
        let header = Header { dst_port: port, kind, ..from_guest() };
        self.say(&Header { op: op::REQUEST, ..header }, &[]);
        let (response, _) = self.packet();
        assert_eq!((response.op, response.src_port, response.dst_port), (op::RESPONSE, port, header.src_port));
        header
    }
}

fn from_guest() -> Header {
    Header {
        src_cid: CID.into(),
        dst_cid: 2,
        src_port: 5000,
        dst_port: 77,
        kind: 1,
        buf_alloc: ALLOC,
        ..Header::default()
    }
}

/// The header with which the guest answers.
fn answer(header: &Header) -> Header {
    Header { buf_alloc: ALLOC, ..header.back(0) }
}

fn is_closed(stream: &UnixStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    matches!((&*stream).read(&mut [0]), Ok(0))
}

#[test]
fn what_belongs_to_no_connection_is_reset_and_a_reset_is_not_answered() {
    let mut guest = Guest::start();
    for header in [
        Header { op: op::DATA, ..from_guest() },
        Header { op: op::RESPONSE, ..from_guest() },
        Header { op: op::SHUTDOWN, flags: 3, ..from_guest() },
        Header { op: 0xffff, ..from_guest() },
        Header { op: op::REQUEST, kind: 3, ..from_guest() },
        Header { op: op::REQUEST, dst_cid: 99, ..from_guest() },
        // Nobody listens.
        Header { op: op::REQUEST, ..from_guest() },
    ] {
        guest.say(&header, &[]);
        let (reset, _) = guest.packet();
        assert_eq!(reset, Header { op: op::RESET, buf_alloc: 0, kind: header.kind, ..answer(&header) });
    }
    guest.say(&Header { op: op::RESET, ..from_guest() }, &[]);
    guest.say(&Header { op: op::REQUEST, src_cid: 8, ..from_guest() }, &[]);
    assert_eq!(guest.packets(), []);
    guest.buffers.left = 0;
    for _ in 0..256 {
        assert!(!guest.muxer.is_full());
        guest.say(&Header { op: op::DATA, ..from_guest() }, &[]);
    }
    assert!(guest.muxer.is_full(), "a guest that takes no answers gets no more of them");
}

#[test]
fn a_guest_that_breaks_the_rules_of_a_connection_loses_it() {
    type Break = fn(&mut Guest, Header);
    let breaks: [Break; 5] = [
        |guest, header| guest.say(&Header { op: op::REQUEST, ..header }, &[]),
        |guest, header| guest.say(&Header { op: op::RESPONSE, ..header }, &[]),
        |guest, header| guest.say(&Header { op: 99, ..header }, &[]),
        // More than it was allowed.
        |guest, header| guest.say(&Header { op: op::DATA, ..header }, &vec![0; (256 << 10) + 1]),
        // Not as much as it says.
        |guest, header| guest.muxer.from_guest(&Header { op: op::DATA, len: 9, ..header }, &vec![0; 8]),
    ];
    for break_it in breaks {
        let mut guest = Guest::start();
        let (stream, header) = guest.connected();
        break_it(&mut guest, header);
        assert_eq!(guest.packets().last().unwrap().0.op, op::RESET);
        assert!(is_closed(&stream));
        assert!(guest.muxer.connections().is_empty());
    }
}

#[test]
fn a_program_on_the_host_reaches_a_port_and_both_ways_end_by_themselves() {
    let mut guest = Guest::start();
    let (mut stream, header) = guest.connected();
    stream.write_all(b"to the guest").unwrap();
    assert_eq!(guest.packet().1, b"to the guest");
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let (ended, _) = guest.packet();
    assert_eq!((ended.op, ended.flags), (op::SHUTDOWN, shutdown::SEND));
    // The other way still works.
    guest.say(&Header { op: op::DATA, ..header }, b"to the host");
    guest.say(&Header { op: op::SHUTDOWN, flags: shutdown::SEND, ..header }, &[]);
    let mut heard = String::new();
    stream.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "to the host");
    let (over, _) = guest.packet();
    assert_eq!((over.op, over.flags), (op::SHUTDOWN, shutdown::BOTH));
    guest.say(&Header { op: op::RESET, ..header }, &[]);
    assert!(guest.muxer.connections().is_empty());
    assert_eq!(guest.packets(), []);
}

#[test]
fn a_program_that_is_gone_has_said_all_that_it_said() {
    let mut guest = Guest::start();
    let mut stream = guest.connect("guest.00000946");
    stream.write_all(b"last words").unwrap();
    drop(stream);
    let header = answer(&guest.packet().0);
    guest.say(&Header { op: op::RESPONSE, ..header }, &[]);
    let packets = guest.packets();
    let told: Vec<_> = packets.iter().map(|(header, data)| (header.op, header.flags, data.as_slice())).collect();
    assert_eq!(told.last(), Some(&(op::SHUTDOWN, shutdown::BOTH, &b""[..])), "{told:?}");
    assert!(told.contains(&(op::DATA, 0, b"last words")), "{told:?}");
}

#[test]
fn a_guest_that_closes_has_said_all_that_it_said() {
    let mut guest = Guest::start();
    let listener = guest.listen(77);
    let header = guest.accepted(77, 1);
    let (mut stream, _) = listener.accept().unwrap();
    // More than a socket takes at once.
    let data: Vec<u8> = (0..220_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    for piece in data.chunks(60_000) {
        guest.say(&Header { op: op::DATA, ..header }, piece);
    }
    guest.say(&Header { op: op::SHUTDOWN, flags: shutdown::BOTH, ..header }, &[]);
    assert!(guest.packets().iter().all(|(header, _)| header.op == op::CREDIT_UPDATE), "not before all is written");
    let mut heard: Vec<u8> = Vec::new();
    let mut chunk = vec![0; 50_000];
    while heard.len() < data.len() {
        let len = stream.read(&mut chunk).unwrap();
        heard.extend(&chunk[..len]);
        guest.packets().iter().for_each(|(header, _)| assert!(matches!(header.op, op::CREDIT_UPDATE | op::RESET)));
    }
    assert!(heard == data);
    assert!(is_closed(&stream) && guest.muxer.connections().is_empty());
}

#[test]
fn the_guest_may_send_again_when_a_slow_program_has_read() {
    let mut guest = Guest::start();
    let listener = guest.listen(77);
    let mut header = guest.accepted(77, 1);
    let (mut stream, _) = listener.accept().unwrap();
    let (mut sent, mut forwarded, mut heard) = (0_usize, 0_usize, 0_usize);
    let mut chunk = vec![0; 3000];
    while heard < 3 << 20 {
        // As much as it may.
        while sent - forwarded + 4096 <= 256 << 10 {
            let data: Vec<u8> = (sent..sent + 4096).map(|n| n.to_le_bytes()[1]).collect();
            header.op = op::DATA;
            guest.say(&header, &data);
            sent += 4096;
            for (header, _) in guest.packets() {
                assert_eq!((header.op, header.buf_alloc), (op::CREDIT_UPDATE, 256 << 10));
                forwarded = header.fwd_cnt as usize;
            }
        }
        let waiting: usize = guest.muxer.connections().values().map(connection::Connection::waiting).sum();
        assert!(waiting <= 256 << 10);
        let len = stream.read(&mut chunk).unwrap();
        for (n, byte) in (heard..).zip(&chunk[..len]) {
            assert_eq!(*byte, n.to_le_bytes()[1]);
        }
        heard += len;
        for (header, _) in guest.packets() {
            forwarded = header.fwd_cnt as usize;
        }
    }
}

#[test]
fn the_host_sends_what_the_guest_has_room_for_and_asks_once() {
    let mut guest = Guest::start();
    let mut stream = guest.connect("guest.00000946");
    let header = Header { buf_alloc: 10_000, ..answer(&guest.packet().0) };
    guest.say(&Header { op: op::RESPONSE, ..header }, &[]);
    let data: Vec<u8> = (0..100_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    stream.write_all(&data).unwrap();
    drop(stream);
    let mut heard: Vec<u8> = Vec::new();
    let mut ops = Vec::new();
    while heard.len() < data.len() {
        let packets = guest.packets();
        let before = heard.len();
        heard.extend(packets.iter().flat_map(|(_, data)| data));
        assert!(heard.len() - before <= 10_000 && heard.len() > before);
        ops.extend(packets.iter().map(|(header, _)| header.op));
        assert_eq!(guest.packets(), [], "it asks once");
        let fwd_cnt = u32::try_from(heard.len()).unwrap();
        guest.say(&Header { op: op::CREDIT_UPDATE, fwd_cnt, ..header }, &[]);
    }
    assert!(heard == data);
    assert!(ops.contains(&op::CREDIT_REQUEST));
    assert_eq!(guest.packet().0.flags, shutdown::BOTH);
}

#[test]
fn nothing_is_lost_while_the_guest_has_no_buffers() {
    let mut guest = Guest::start();
    guest.buffers.left = 0;
    let mut streams: Vec<_> = (0..20).map(|_| guest.connect("guest.00000946")).collect();
    assert_eq!(guest.packets(), []);
    let mut headers = Vec::new();
    for _ in 0..20 {
        guest.buffers.left = 1;
        let header = answer(&guest.packet().0);
        guest.say(&Header { op: op::RESPONSE, ..header }, &[]);
        headers.push(header);
    }
    for stream in &mut streams {
        stream.write_all(&[7; 10_000]).unwrap();
    }
    let mut heard = 0;
    while heard < 200_000 {
        guest.buffers.left = 1;
        heard += guest.packet().1.len();
    }
    assert_eq!(heard, 200_000);
}

#[test]
fn the_port_is_named_on_the_common_socket_in_either_way() {
    let mut guest = Guest::start();
    for wrong in ["GET / HTTP/1.0\r\n", "00000003.00000946\n", "CONNECT x\n", &"x".repeat(40)] {
        let mut stream = guest.connect(CONNECT);
        stream.write_all(wrong.as_bytes()).unwrap();
        assert_eq!(guest.packets(), [], "{wrong}");
        // What it said and nobody read makes it a reset.
        stream.set_nonblocking(true).unwrap();
        assert!(!matches!(stream.read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock), "{wrong}");
    }
    for (line, has_word) in [("CONNECT 2374\n", true), ("00000007.00000946\n", false)] {
        let mut stream = guest.connect(CONNECT);
        let (first, rest) = line.split_at(5);
        stream.write_all(first.as_bytes()).unwrap();
        assert_eq!(guest.packets(), []);
        stream.write_all(format!("{rest}data behind it\n").as_bytes()).unwrap();
        let (request, _) = guest.packet();
        assert_eq!((request.op, request.dst_port), (op::REQUEST, PORT));
        let header = answer(&request);
        guest.say(&Header { op: op::RESPONSE, ..header }, &[]);
        assert_eq!(guest.packet().1, b"data behind it\n");
        guest.say(&Header { op: op::DATA, ..header }, b"heard\n");
        guest.say(&Header { op: op::SHUTDOWN, flags: shutdown::BOTH, ..header }, &[]);
        assert_eq!(guest.packet().0.op, op::RESET);
        let mut heard = String::new();
        stream.read_to_string(&mut heard).unwrap();
        let word = if has_word { format!("OK {}\n", request.src_port) } else { String::new() };
        assert_eq!(heard, format!("{word}heard\n"));
    }
    // The guest refuses: the program sees an end.
    let mut stream = guest.connect(CONNECT);
    stream.write_all(b"CONNECT 1\n").unwrap();
    let header = answer(&guest.packet().0);
    guest.say(&Header { op: op::RESET, ..header }, &[]);
    assert!(is_closed(&stream));
}

#[test]
fn a_program_of_ours_connects_and_is_told_if_nobody_listens() {
    let patience = std::time::Duration::from_secs(10);
    let nobody = tempfile::tempdir().unwrap();
    assert_eq!(connect_to_guest(nobody.path(), 1, patience).unwrap_err().kind(), io::ErrorKind::NotFound);
    for (op, is_there) in [(op::RESPONSE, true), (op::RESET, false)] {
        let mut guest = Guest::start();
        let state = guest.state.clone();
        let connecting = std::thread::spawn(move || connect_to_guest(&state, PORT, patience));
        let request = loop {
            if let Some((request, _)) = guest.packets().pop() {
                break request;
            }
            std::thread::yield_now();
        };
        guest.say(&Header { op, ..answer(&request) }, &[]);
        guest.packets();
        let connected = connecting.join().unwrap();
        assert_eq!(connected.map(drop).map_err(|error| error.kind()).is_ok(), is_there);
    }
}

fn message_socket() -> OwnedFd {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
}

#[test]
fn messages_keep_their_ends_both_ways() {
    let mut guest = Guest::start();
    let program = message_socket();
    connect(&program, &SocketAddrUnix::new(guest.folder.path().join("messages")).unwrap()).unwrap();
    let (request, _) = guest.packet();
    assert_eq!((request.kind, request.dst_port), (2, 9));
    let header = answer(&request);
    guest.say(&Header { op: op::RESPONSE, ..header }, &[]);
    for message in [vec![1; 10_000], vec![], vec![2; 3]] {
        send(&program, &message, SendFlags::empty()).unwrap();
    }
    let packets = guest.packets();
    let told: Vec<_> = packets.iter().map(|(header, data)| (data.len(), header.flags)).collect();
    assert_eq!(told, [(4096, 0), (4096, 0), (1808, END_OF_MESSAGE), (0, END_OF_MESSAGE), (3, END_OF_MESSAGE)]);
    guest.say(&Header { op: op::DATA, ..header }, &[3; 500]);
    guest.say(&Header { op: op::DATA, flags: END_OF_MESSAGE, ..header }, &[4; 500]);
    guest.say(&Header { op: op::DATA, flags: END_OF_MESSAGE, ..header }, b"short");
    let mut buffer = vec![0; 4096];
    assert_eq!(recv(&program, &mut buffer[..], RecvFlags::empty()).unwrap().0, 1000);
    assert_eq!(recv(&program, &mut buffer[..], RecvFlags::empty()).unwrap().0, 5);
    drop(program);
    assert_eq!(guest.packet().0.flags, shutdown::BOTH);
}

#[test]
fn messages_that_cannot_be_end_their_connection() {
    // Longer than the guest ever takes.
    let mut guest = Guest::start();
    let program = message_socket();
    connect(&program, &SocketAddrUnix::new(guest.folder.path().join("messages")).unwrap()).unwrap();
    let header = Header { buf_alloc: 1000, ..answer(&guest.packet().0) };
    guest.say(&Header { op: op::RESPONSE, ..header }, &[]);
    send(&program, &[1; 1001], SendFlags::empty()).unwrap();
    assert_eq!(guest.packet().0.op, op::RESET);
    // So many that nobody takes.
    let folder = crate::host::Folder::open(&guest.state).unwrap();
    let listener = message_socket();
    bind(&listener, &SocketAddrUnix::new(folder.file("host.0000004d")).unwrap()).unwrap();
    listen(&listener, 1).unwrap();
    let header = guest.accepted(77, 2);
    let program = accept(&listener).unwrap();
    for _ in 0..4000 {
        guest.say(&Header { op: op::DATA, flags: END_OF_MESSAGE, ..header }, &[]);
    }
    assert_eq!(guest.packets().last().unwrap().0.op, op::RESET);
    drop(program);
    // The guest wants bytes, the program messages.
    guest.say(&Header { op: op::REQUEST, src_port: 5001, ..from_guest() }, &[]);
    assert_eq!(guest.packet().0.op, op::RESET);
}

#[test]
fn a_port_of_the_hosts_may_lead_to_any_path() {
    let mut guest = Guest::start();
    let listener = UnixListener::bind(guest.folder.path().join("ten")).unwrap();
    let header = guest.accepted(10, 1);
    let (mut stream, _) = listener.accept().unwrap();
    guest.say(&Header { op: op::DATA, ..header }, b"here");
    let mut heard = [0; 4];
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"here");
}

#[test]
fn thousands_of_connections_live_side_by_side() {
    const COUNT: usize = 2000;
    let mut guest = Guest::start();
    kiln_net::limits::raise();
    let mut streams: Vec<UnixStream> = Vec::new();
    for _ in 0..COUNT {
        let (stream, _) = guest.connected();
        streams.push(stream);
    }
    assert_eq!(guest.muxer.connections().len(), COUNT);
    for (number, stream) in (0..).zip(&mut streams) {
        stream.write_all(&u32::to_le_bytes(number)).unwrap();
    }
    let packets = guest.packets();
    assert_eq!(packets.len(), COUNT);
    for (header, data) in packets {
        guest.say(&Header { op: op::DATA, ..answer(&header) }, &data);
    }
    for (number, stream) in (0..).zip(&mut streams) {
        let mut back = [0; 4];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(u32::from_le_bytes(back), number);
    }
    drop(streams);
    for (header, _) in guest.packets() {
        assert_eq!(header.flags, shutdown::BOTH);
        guest.say(&Header { op: op::RESET, ..answer(&header) }, &[]);
    }
    assert!(guest.muxer.connections().is_empty());
}

#[test]
fn a_guest_that_ends_takes_its_connections_and_who_waits_gets_the_next() {
    let mut guest = Guest::start();
    let (stream, header) = guest.connected();
    guest.muxer.end();
    assert!(is_closed(&stream));
    let mut early = guest.connect("guest.00000946");
    early.write_all(b"early").unwrap();
    assert!(guest.muxer.start(true), "the next guest should know");
    guest.muxer.reset_lost();
    let packets = guest.packets();
    assert_eq!(packets[0].0, Header { op: op::RESET, buf_alloc: 0, ..answer(&header) });
    let (request, _) = packets[1];
    guest.say(&Header { op: op::RESPONSE, ..answer(&request) }, &[]);
    assert_eq!(guest.packet().1, b"early");
}

#[test]
fn sockets_are_the_users_alone_replace_what_was_left_and_go_with_the_machine() {
    let guest = Guest::start();
    let (state, folder) = (guest.state.clone(), guest.folder.path().to_owned());
    for path in [guest.path("guest.00000946"), guest.path(CONNECT), folder.join("messages")] {
        assert_eq!(fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let Guest { folder: _folder, muxer, .. } = guest;
    drop(muxer);
    let names = || fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
    assert_eq!(names(), [""; 0]);
    // Left by a run that was killed.
    for name in ["guest.00000001", "guest.00000946", "host.00000001", CONNECT] {
        drop(UnixListener::bind(crate::host::Folder::open(&state).unwrap().file(name)).unwrap());
    }
    let ports = vec![VsockPort { port: PORT, kind: VsockKind::Stream, path: None }];
    let config = Vsock { to_guest: ports, ..Vsock::default() };
    let open = Muxer::open(&config, &state).unwrap();
    let mut found = names();
    found.sort();
    assert_eq!(found, [CONNECT, "guest.00000946", "host.00000001"]);
    drop(open);
    assert_eq!(names(), ["host.00000001"]);
    let long = folder.join("x".repeat(120));
    let ports = vec![VsockPort { port: 1, kind: VsockKind::Stream, path: Some(long) }];
    let error = Muxer::open(&Vsock { to_guest: ports, ..Vsock::default() }, &state).map(drop).unwrap_err();
    assert!(error.to_string().contains("of vsock port 1"), "{error}");
    let gone = vec![VsockPort { port: 1, kind: VsockKind::Stream, path: Some("/nonexistent/a".into()) }];
    assert!(Muxer::open(&Vsock { to_guest: gone, ..Vsock::default() }, &state).is_err());
}

//! Ports of the host that lead to ports of the guest.

mod proxy;

use std::collections::{BTreeMap, HashMap};
use std::fs::Permissions;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fmt, fs, io};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect,
    getpeername, getsockname, listen, recvfrom, sendto, socket_with,
    sockopt::{set_ipv6_v6only, set_socket_reuseaddr},
};

use crate::Millis;
use crate::poll::{Owner, Poll, Ready, Token};
use crate::udp::DATAGRAM_LIMIT_BYTES;

/// Connections that wait to be taken.
const BACKLOG: i32 = 1_024;
/// Datagrams that one port gives in one turn.
const TURN_LIMIT: usize = 64;
/// Those who sent datagrams to one port and may be answered; when one more comes, the one that is silent longest goes.
const CLIENTS_LIMIT: usize = 1_024;
/// Ports that stand in for those of clients that look alike to the guest: the dynamic ones (RFC 6335 section 6).
const STAND_INS: RangeInclusive<u16> = FIRST_STAND_IN..=65_535;
/// The first of them.
pub(crate) const FIRST_STAND_IN: u16 = 49_152;
/// Longest path of a socket (unix(7)), less the zero byte.
const PATH_BYTES: usize = 107;

/// What a port carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A port of the host, and where it leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Where the host listens.
    pub host: Host,
    /// The guest's port.
    pub guest_port: u16,
    /// What it carries.
    pub transport: Transport,
    /// Whether connections begin with who made them (PROXY protocol 2).
    pub tells_caller: bool,
}

/// Where the host listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// An address and a port; port 0 lets the host choose.
    Ip(SocketAddr),
    /// The path of a socket, for streams.
    Unix(PathBuf),
}

impl Host {
    /// The address, if it is one.
    pub fn ip(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

impl Published {
    /// A port of the address `host` that leads to one of the guest's.
    pub fn at(host: SocketAddr, guest_port: u16, transport: Transport) -> Self {
        Self { host: Host::Ip(host), guest_port, transport, tells_caller: false }
    }
}

/// A port of the host that is open and leads nowhere yet. Closed when dropped.
#[derive(Debug)]
pub struct OpenPort {
    socket: OwnedFd,
    published: Published,
    _file: Option<SocketFile>,
}

impl OpenPort {
    /// Opens it. Whoever connects waits until it leads somewhere.
    ///
    /// # Errors
    /// The host's: the port is taken, or not for everybody.
    pub fn open(published: Published) -> io::Result<Self> {
        match &published.host {
            Host::Ip(address) => {
                let (socket, address) = open_at(*address, published.transport)?;
                Ok(Self { socket, published: Published { host: Host::Ip(address), ..published }, _file: None })
            }
            Host::Unix(path) => {
                let (socket, file) = listen_at(path, SocketType::STREAM)?;
                Ok(Self { socket, published, _file: Some(file) })
            }
        }
    }

    /// What it is, with the port that it got.
    pub fn published(&self) -> &Published {
        &self.published
    }
}

fn open_at(host: SocketAddr, transport: Transport) -> io::Result<(OwnedFd, SocketAddr)> {
    let family = if host.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let kind = match transport {
        Transport::Tcp => SocketType::STREAM,
        Transport::Udp => SocketType::DGRAM,
    };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    if host.is_ipv6() {
        // IPv4 has a socket of its own.
        set_ipv6_v6only(&socket, true)?;
    }
    if transport == Transport::Tcp {
        // A port that was open a moment ago is free.
        set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, &host)?;
    if transport == Transport::Tcp {
        listen(&socket, BACKLOG)?;
    }
    let address = SocketAddr::try_from(getsockname(&socket)?).map_err(io::Error::from)?;
    Ok((socket, address))
}

/// A socket's file, which goes with it.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and number, to tell it from one that took its place.
    file: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.file) {
            // Gone already, perhaps with its folder.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Listens at `path`, for this user alone. A socket that a program left there which has ended is replaced.
///
/// # Errors
/// Somebody listens there, something else is there, or the path is too long for a socket's name.
pub fn listen_at(path: &Path, kind: SocketType) -> io::Result<(OwnedFd, SocketFile)> {
    let name = SocketAddrUnix::new(path).map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidFilename, format!("a socket's path has at most {PATH_BYTES} bytes"))
    })?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, kind, flags, None)?;
    if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        let probe = socket_with(AddressFamily::UNIX, kind, flags, None)?;
        if connect(&probe, &name) == Err(rustix::io::Errno::CONNREFUSED) {
            fs::remove_file(path)?;
        }
    }
    bind(&socket, &name)?;
    // Nobody can have connected yet.
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    let found = fs::symlink_metadata(path)?;
    listen(&socket, BACKLOG)?;
    Ok((socket, SocketFile { path: path.to_owned(), file: (found.dev(), found.ino()) }))
}

#[derive(Debug)]
struct Opened {
    port: OpenPort,
    /// Who is who: as the guest sees them, as they are, and when they spoke last.
    clients: HashMap<SocketAddr, (SocketAddr, Millis)>,
    /// Nobody was there over IPv4: datagrams go over IPv6.
    is_over_v6: bool,
    /// The last datagram that went over the family that is tried now, and who sent it: should nobody be there, it goes
    /// over the other one.
    unanswered: Option<(SocketAddr, Vec<u8>)>,
}

/// How the guest sees somebody.
pub(crate) trait Seen {
    /// Over IPv4.
    fn by_v4(&self, from: SocketAddr) -> SocketAddr;

    /// Over IPv6; `None` if the guest has no such address.
    fn by_v6(&self, from: SocketAddr) -> Option<SocketAddr>;
}

/// The published ports of a guest. Its clones are the same ports, for other threads: they may come and go while the guest
/// runs.
#[derive(Debug, Clone)]
pub struct Publications {
    table: Arc<Mutex<Table>>,
    poll: Poll,
}

#[derive(Debug, Default)]
struct Table {
    opened: BTreeMap<u32, Opened>,
    next: u32,
}

/// Somebody who connected.
#[derive(Debug)]
pub struct Caller {
    /// The connection.
    pub socket: OwnedFd,
    /// Who it is. Over a Unix socket nobody has an address.
    pub from: Option<SocketAddr>,
    /// The guest's port.
    pub guest_port: u16,
    /// What the guest is told first; for a Unix socket there is always something, or nothing to tell.
    pub first: Option<Vec<u8>>,
}

/// A datagram for the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// Who sent it, as the guest sees it.
    pub from: SocketAddr,
    /// The guest's port.
    pub guest_port: u16,
    /// What it says.
    pub bytes: Vec<u8>,
}

impl Publications {
    /// No ports yet. What happens to them is told by `poll`.
    pub fn new(poll: &Poll) -> Self {
        Self { table: Arc::default(), poll: poll.clone() }
    }

    /// An open port leads to the guest from now on; gives the number by which it can be taken back.
    ///
    /// # Errors
    /// The host's: no more descriptors can be waited for.
    pub fn add(&self, port: OpenPort) -> io::Result<u32> {
        let mut table = self.lock();
        let place = table.next;
        table.next = table.next.wrapping_add(1);
        self.poll.add(port.socket.as_fd(), Token { owner: Owner::Publish, place, generation: 0 })?;
        let opened = Opened { port, clients: HashMap::new(), is_over_v6: false, unanswered: None };
        table.opened.insert(place, opened);
        Ok(place)
    }

    /// Closes a port; connections that came through it stay. `None` if there is none of that number.
    pub fn remove(&self, number: u32) -> Option<Published> {
        Some(self.lock().opened.remove(&number)?.port.published)
    }

    /// All ports, with their numbers.
    pub fn list(&self) -> Vec<(u32, Published)> {
        self.lock().opened.iter().map(|(number, opened)| (*number, opened.port.published.clone())).collect()
    }

    /// Those who connected.
    pub(crate) fn accept(&self, ready: Ready) -> Vec<Caller> {
        let table = self.lock();
        let Some(opened) = table.opened.get(&ready.token.place) else { return Vec::new() };
        if opened.port.published.transport != Transport::Tcp {
            return Vec::new();
        }
        let Published { host, guest_port, tells_caller, .. } = &opened.port.published;
        let is_unix = matches!(host, Host::Unix(_));
        let mut callers = Vec::new();
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        while let Ok(socket) = accept_with(&opened.port.socket, flags) {
            let from = getpeername(&socket).ok().flatten().and_then(|from| SocketAddr::try_from(from).ok());
            if from.is_none() && !is_unix {
                // One that is gone already has no name any more.
                continue;
            }
            let to = getsockname(&socket).ok().and_then(|to| SocketAddr::try_from(to).ok());
            let first = if *tells_caller { Some(proxy::header(from.zip(to))) } else { is_unix.then(Vec::new) };
            callers.push(Caller { socket, from, guest_port: *guest_port, first });
        }
        callers
    }

    /// Datagrams that came, and whether there may be more.
    pub(crate) fn receive(&self, ready: Ready, now: Millis, seen: &impl Seen) -> (Vec<Datagram>, bool) {
        let mut table = self.lock();
        let place = ready.token.place;
        let published = table.opened.get(&place).map(|opened| &opened.port.published);
        let Some(guest_port) = published.filter(|port| port.transport == Transport::Udp).map(|port| port.guest_port)
        else {
            return (Vec::new(), false);
        };
        let mut datagrams = Vec::new();
        let mut buffer = vec![0; DATAGRAM_LIMIT_BYTES];
        for _ in 0..TURN_LIMIT {
            let Some(opened) = table.opened.get(&place) else { break };
            let (len, from) = match recvfrom(&opened.port.socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((len, _, from)) => (len, from),
                // An answer of ours reached nobody.
                Err(rustix::io::Errno::CONNREFUSED) => continue,
                Err(_) => return (datagrams, false),
            };
            let Some(from) = from.and_then(|from| SocketAddr::try_from(from).ok()) else { continue };
            let over_v6 = seen.by_v6(from).filter(|_| opened.is_over_v6);
            let wanted = over_v6.unwrap_or_else(|| seen.by_v4(from));
            let Some(shown) = table.shown(place, guest_port, from, wanted) else { continue };
            table.heard(place, shown, from, now);
            let bytes = buffer.get(..len).unwrap_or_default().to_vec();
            if let Some(opened) = table.opened.get_mut(&place) {
                opened.unanswered = Some((from, bytes.clone()));
            }
            datagrams.push(Datagram { from: shown, guest_port, bytes });
        }
        (datagrams, true)
    }

    /// The guest says that nobody is at its end `guest`, where a datagram went that it saw coming from `shown`. What comes
    /// from now on goes over the other family, and so does that datagram, if it has not been there yet.
    pub(crate) fn refused(
        &self,
        guest: SocketAddr,
        shown: SocketAddr,
        now: Millis,
        seen: &impl Seen,
    ) -> Option<Datagram> {
        let mut table = self.lock();
        let place = table.of_guest(guest.port()).find(|(_, opened)| opened.clients.contains_key(&shown))?.0;
        let opened = table.opened.get_mut(&place)?;
        if opened.is_over_v6 != guest.is_ipv6() {
            // Of what went before.
            return None;
        }
        let (from, bytes) = opened.unanswered.take()?;
        let wanted = if guest.is_ipv6() { seen.by_v4(from) } else { seen.by_v6(from)? };
        opened.is_over_v6 = !opened.is_over_v6;
        let from =
            table.shown(place, guest.port(), from, wanted).inspect(|shown| table.heard(place, *shown, from, now))?;
        Some(Datagram { from, guest_port: guest.port(), bytes })
    }

    /// Sends a datagram of the guest's if it answers one that came to a published port; false if it does not.
    pub(crate) fn send(&self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) -> bool {
        let mut table = self.lock();
        let answered =
            table.of_guest(from.port()).find_map(|(place, opened)| Some((place, opened.clients.get(&to)?.0)));
        let Some((place, client)) = answered else { return false };
        let Some(opened) = table.opened.get_mut(&place) else { return false };
        opened.unanswered = None;
        // Lost, as any datagram may be.
        let _ = sendto(&opened.port.socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL, &client);
        true
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// The UDP ports that lead to this one of the guest's.
    fn of_guest(&self, guest_port: u16) -> impl Iterator<Item = (u32, &Opened)> {
        let is_port = move |opened: &Opened| {
            opened.port.published.transport == Transport::Udp && opened.port.published.guest_port == guest_port
        };
        self.opened.iter().filter(move |(_, opened)| is_port(opened)).map(|(place, opened)| (*place, opened))
    }

    /// How the guest sees `from`, who sent something to the port at `place`: as `wanted`, unless somebody else looks so.
    fn shown(&self, place: u32, guest_port: u16, from: SocketAddr, wanted: SocketAddr) -> Option<SocketAddr> {
        let is_free = |shown: &SocketAddr| {
            self.of_guest(guest_port).all(|(other, opened)| {
                opened.clients.get(shown).is_none_or(|(client, _)| other == place && *client == from)
            })
        };
        candidates(wanted).find(is_free)
    }

    fn heard(&mut self, place: u32, shown: SocketAddr, from: SocketAddr, now: Millis) {
        let Some(opened) = self.opened.get_mut(&place) else { return };
        if opened.clients.len() >= CLIENTS_LIMIT && !opened.clients.contains_key(&shown) {
            let oldest = opened.clients.iter().min_by_key(|(_, (_, spoke))| *spoke).map(|(client, _)| *client);
            oldest.map(|client| opened.clients.remove(&client));
        }
        opened.clients.insert(shown, (from, now));
    }
}

/// Addresses under which the guest may see somebody: their own first.
pub(crate) fn candidates(wanted: SocketAddr) -> impl Iterator<Item = SocketAddr> {
    std::iter::once(wanted).chain(STAND_INS.map(move |port| SocketAddr::new(wanted.ip(), port)))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    /// Everybody looks like this.
    struct Gateway(SocketAddr);

    impl Seen for Gateway {
        fn by_v4(&self, _: SocketAddr) -> SocketAddr {
            self.0
        }

        fn by_v6(&self, _: SocketAddr) -> Option<SocketAddr> {
            None
        }
    }

    fn open(transport: Transport, host: &str) -> io::Result<OpenPort> {
        OpenPort::open(Published::at(host.parse().unwrap(), 80, transport))
    }

    fn ready(place: u32) -> Ready {
        Ready {
            token: Token { owner: Owner::Publish, place, generation: 0 },
            is_readable: true,
            is_writable: false,
            has_ended: false,
        }
    }

    #[test]
    fn a_port_that_is_taken_is_refused_and_one_that_was_removed_is_free() {
        let poll = Poll::new().unwrap();
        let ports = Publications::new(&poll);
        for transport in [Transport::Tcp, Transport::Udp] {
            let port = open(transport, "127.0.0.1:0").unwrap();
            let taken = port.published().host.to_string();
            assert!(!taken.ends_with(":0"));
            let number = ports.add(port).unwrap();
            assert_eq!(open(transport, &taken).unwrap_err().kind(), io::ErrorKind::AddrInUse);
            assert_eq!(ports.remove(number).map(|published| published.host.to_string()), Some(taken.clone()));
            assert_eq!(ports.remove(number), None);
            open(transport, &taken).unwrap();
        }
        assert_eq!(ports.list(), []);
    }

    #[test]
    fn a_socket_file_that_was_left_is_replaced_and_one_in_use_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.sock");
        let open = || {
            let host = Host::Unix(path.clone());
            OpenPort::open(Published { host, guest_port: 80, transport: Transport::Tcp, tells_caller: false })
        };
        // Left by somebody who ended.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let port = open().unwrap();
        assert_eq!(open().unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(port);
        assert!(!path.exists());
        fs::write(&path, "a file").unwrap();
        assert_eq!(open().unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let long = folder.path().join("x".repeat(120));
        assert!(listen_at(&long, SocketType::STREAM).unwrap_err().to_string().contains("107"));
    }

    #[test]
    fn clients_that_look_alike_to_the_guest_are_told_apart() {
        let poll = Poll::new().unwrap();
        let ports = Publications::new(&poll);
        let gateway: SocketAddr = "10.0.2.2:7".parse().unwrap();
        let mut seen = Vec::new();
        let clients = ["127.0.0.1:0", "127.0.0.2:0"].map(|address| UdpSocket::bind(address).unwrap());
        for client in &clients {
            let port = open(Transport::Udp, "127.0.0.1:0").unwrap();
            let host = port.published().host.ip().unwrap();
            let place = ports.add(port).unwrap();
            client.send_to(b"hello", host).unwrap();
            let (datagrams, _) = ports.receive(ready(place), 0, &Gateway(gateway));
            let [Datagram { from, guest_port: 80, bytes }] = &datagrams[..] else { panic!("{datagrams:?}") };
            assert_eq!(bytes, b"hello");
            seen.push(*from);
        }
        assert_ne!(seen[0], seen[1]);
        let guest = "10.0.2.15:80".parse().unwrap();
        for (client, (seen, word)) in clients.iter().zip(seen.into_iter().zip([b"to one", b"to two"])) {
            assert!(ports.send(guest, seen, word));
            let mut buffer = [0; 16];
            let (len, _) = client.recv_from(&mut buffer).unwrap();
            assert_eq!(buffer[..len], word[..]);
        }
        assert!(!ports.send(guest, "10.0.2.2:9".parse().unwrap(), b"to nobody"));
    }
}

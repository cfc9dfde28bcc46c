//! Names: questions go to the host's name servers as they are, and answers come back as they are; a few names of our own
//! are answered here (RFC 1035).

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::SystemTime;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, send, socket_with};

use crate::Millis;
use crate::poll::{Owner, Poll, Ready, Token};

/// Questions on their way at once; one more is not asked, and the guest asks again.
const PENDING_LIMIT: usize = 256;
/// After so long the next server is asked.
const PATIENCE_MS: Millis = 2_000;
/// After so long the guest is told that it failed.
const GIVE_UP_MS: Millis = 10_000;
/// How long the host's list of servers counts before it is looked at again.
const LIST_MS: Millis = 1_000;
const HEADER_BYTES: usize = 12;
const ANSWER_LIMIT_BYTES: usize = 65_535;
const NAME_LIMIT_BYTES: usize = 255;
const DNS_PORT: u16 = 53;

/// Seconds that an answer of ours counts: names follow the machine's state.
const OWN_TTL_S: u32 = 5;

/// A question on its way.
#[derive(Debug)]
struct Pending {
    socket: OwnedFd,
    from: SocketAddr,
    to: SocketAddr,
    question: Vec<u8>,
    asked: Millis,
    first_asked: Millis,
    server: usize,
}

/// An answer for the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Who asked.
    pub to: SocketAddr,
    /// Whom it asked.
    pub from: SocketAddr,
    /// The datagram's payload.
    pub bytes: Vec<u8>,
}

/// Passes questions on.
#[derive(Debug)]
pub struct Forwarder {
    names: HashMap<String, IpAddr>,
    servers: Servers,
    pending: HashMap<u32, Pending>,
    next: u32,
}

/// The host's name servers, as a file like `/etc/resolv.conf` lists them.
#[derive(Debug)]
pub struct Servers {
    path: PathBuf,
    list: Vec<SocketAddr>,
    changed: Option<SystemTime>,
    looked: Option<Millis>,
}

impl Servers {
    /// Those that the file at `path` lists, now and whenever it changes.
    pub fn of_file(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), list: Vec::new(), changed: None, looked: None }
    }

    fn list(&mut self, now: Millis) -> &[SocketAddr] {
        if self.looked.is_none_or(|looked| now.saturating_sub(looked) >= LIST_MS) {
            self.looked = Some(now);
            let changed = std::fs::metadata(&self.path).and_then(|metadata| metadata.modified()).ok();
            if changed.is_none() || changed != self.changed {
                self.changed = changed;
                self.list = std::fs::read_to_string(&self.path).map(|text| servers_in(&text)).unwrap_or_default();
            }
        }
        &self.list
    }
}

fn servers_in(text: &str) -> Vec<SocketAddr> {
    let addresses = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let address = words.next().filter(|word| *word == "nameserver").and(words.next())?;
        address.parse::<IpAddr>().ok()
    });
    let mut servers: Vec<_> = addresses.map(|address| SocketAddr::new(address, DNS_PORT)).take(4).collect();
    if servers.is_empty() {
        // As the C library does.
        servers.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), DNS_PORT));
    }
    servers
}

impl Forwarder {
    /// Knows `names`, in lower case and without a dot at the end, and asks `servers` for all others.
    pub fn new(names: HashMap<String, IpAddr>, servers: Servers) -> Self {
        Self { names, servers, pending: HashMap::new(), next: 0 }
    }

    /// From now on `name` means `address`, or is asked for elsewhere.
    pub fn set_name(&mut self, name: &str, address: Option<IpAddr>) {
        match address {
            Some(address) => self.names.insert(name.into(), address),
            None => self.names.remove(name),
        };
    }

    /// Where a guest's connection to the name server leads.
    pub fn server(&mut self, now: Millis) -> Option<SocketAddr> {
        self.servers.list(now).first().copied()
    }

    /// The guest at `from` asks `to`. What is known here is answered at once.
    pub fn ask(
        &mut self,
        (from, to): (SocketAddr, SocketAddr),
        question: &[u8],
        poll: &Poll,
        now: Millis,
    ) -> Option<Answer> {
        // A question, not an answer.
        if question.len() < HEADER_BYTES || question[2] & 0x80 != 0 {
            return None;
        }
        if let Some(bytes) = self.own_answer(question) {
            return Some(Answer { to: from, from: to, bytes });
        }
        let is_asked = |pending: &Pending| pending.from == from && pending.question == question;
        if self.pending.len() >= PENDING_LIMIT || self.pending.values().any(is_asked) {
            return None;
        }
        let server = self.servers.list(now).first().copied();
        let place = self.next;
        self.next = self.next.wrapping_add(1);
        let asked = server
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
            .and_then(|server| send_question(server, question, place, poll));
        match asked {
            Ok(socket) => {
                let question = question.to_vec();
                self.pending
                    .insert(place, Pending { socket, from, to, question, asked: now, first_asked: now, server: 0 });
                None
            }
            Err(_) => Some(Answer { to: from, from: to, bytes: failure(question) }),
        }
    }

    /// A server answered.
    pub fn ready(&mut self, ready: Ready) -> Option<Answer> {
        let pending = self.pending.get(&ready.token.place)?;
        let mut buffer = vec![0; ANSWER_LIMIT_BYTES];
        loop {
            // Errors, such as nobody listening, end in the next server being asked.
            let (len, _) = recv(&pending.socket, &mut buffer[..], RecvFlags::DONTWAIT).ok()?;
            if buffer.get(..2) == pending.question.get(..2) && len >= HEADER_BYTES {
                buffer.truncate(len);
                let Pending { from, to, .. } = self.pending.remove(&ready.token.place)?;
                return Some(Answer { to: from, from: to, bytes: buffer });
            }
        }
    }

    /// Asks the next server where one is silent, and gives up on old questions.
    pub fn sweep(&mut self, poll: &Poll, now: Millis) -> Vec<Answer> {
        let servers = self.servers.list(now).to_vec();
        let mut failed = Vec::new();
        for (place, pending) in &mut self.pending {
            if now.saturating_sub(pending.first_asked) >= GIVE_UP_MS {
                failed.push(*place);
            } else if now.saturating_sub(pending.asked) >= PATIENCE_MS && !servers.is_empty() {
                pending.server += 1;
                pending.asked = now;
                let server = servers[pending.server % servers.len()];
                if let Ok(socket) = send_question(server, &pending.question, *place, poll) {
                    pending.socket = socket;
                }
            }
        }
        let answer =
            |pending: Pending| Answer { to: pending.from, from: pending.to, bytes: failure(&pending.question) };
        failed.into_iter().filter_map(|place| self.pending.remove(&place)).map(answer).collect()
    }

    /// Whether [`sweep`](Self::sweep) is to be called.
    pub fn is_waiting(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The answer to a question for a name of our own.
    fn own_answer(&self, question: &[u8]) -> Option<Vec<u8>> {
        /// Type A, type AAAA, class Internet.
        const A: u16 = 1;
        const AAAA: u16 = 28;
        const INTERNET: u16 = 1;
        let (name, end) = first_name(question)?;
        let address = *self.names.get(&name)?;
        let word =
            |at: usize| question.get(at..).and_then(|rest| rest.first_chunk()).map(|word| u16::from_be_bytes(*word));
        let (kind, class) = (word(end)?, word(end + 2)?);
        let mut bytes = question.get(..end + 4)?.to_vec();
        // An answer that we know for sure, recursion available.
        bytes[2] = 0x84 | bytes[2] & 0x01;
        bytes[3] = 0x80;
        bytes[4..HEADER_BYTES].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
        let data = match (kind, class, address) {
            (A, INTERNET, IpAddr::V4(address)) => address.octets().to_vec(),
            (AAAA, INTERNET, IpAddr::V6(address)) => address.octets().to_vec(),
            // The name is there, an address of that kind is not.
            _ => return Some(bytes),
        };
        bytes[7] = 1;
        // The name stands at the start of the question.
        bytes.extend([0xc0, 12]);
        bytes.extend(kind.to_be_bytes());
        bytes.extend(class.to_be_bytes());
        bytes.extend(OWN_TTL_S.to_be_bytes());
        bytes.extend([0, u8::try_from(data.len()).unwrap_or(0)]);
        bytes.extend(data);
        Some(bytes)
    }
}

fn send_question(server: SocketAddr, question: &[u8], place: u32, poll: &Poll) -> io::Result<OwnedFd> {
    let family = if server.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    // A socket of its own for each: the kernel chooses a port that nobody can guess.
    let socket = socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    connect(&socket, &server)?;
    send(&socket, question, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
    poll.add(socket.as_fd(), Token { owner: Owner::Dns, place, generation: 0 })?;
    Ok(socket)
}

/// "The server failed" (RFC 1035 section 4.1.1): never "no such name", which would be believed.
fn failure(question: &[u8]) -> Vec<u8> {
    let mut bytes = question.to_vec();
    if let Some([flags, code]) = bytes.get_mut(2..4) {
        *flags |= 0x80;
        *code = 0x82;
    }
    bytes
}

/// The name in the first question, in lower case, and where it ends.
fn first_name(message: &[u8]) -> Option<(String, usize)> {
    let mut at = HEADER_BYTES;
    let mut name = String::new();
    loop {
        let len = usize::from(*message.get(at)?);
        at += 1;
        match len {
            0 => return Some((name, at)),
            // Nothing stands before it that a first name could point at.
            64.. => return None,
            _ => {}
        }
        let label = std::str::from_utf8(message.get(at..at + len)?).ok()?;
        at += len;
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(&label.to_ascii_lowercase());
        if name.len() > NAME_LIMIT_BYTES {
            return None;
        }
    }
}

/// A name as it stands in messages; `None` if it cannot stand there.
pub fn name_bytes(name: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(name.len() + 2);
    for label in name.trim_end_matches('.').split('.') {
        let len = u8::try_from(label.len()).ok().filter(|len| (1..64).contains(len))?;
        bytes.push(len);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    (bytes.len() <= NAME_LIMIT_BYTES).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    fn question(name: &str, kind: u16) -> Vec<u8> {
        let mut bytes = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        bytes.extend(name_bytes(name).unwrap());
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0, 1]);
        bytes
    }

    fn forwarder(servers: &str) -> (Forwarder, tempfile::NamedTempFile) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), servers).unwrap();
        let names = HashMap::from([("gateway.kiln.internal".to_owned(), IpAddr::from([10, 0, 2, 2]))]);
        (Forwarder::new(names, Servers::of_file(file.path())), file)
    }

    fn ends() -> (SocketAddr, SocketAddr) {
        ("10.0.2.15:4000".parse().unwrap(), "10.0.2.3:53".parse().unwrap())
    }

    #[test]
    fn what_is_no_question_is_not_asked() {
        let (mut forwarder, _file) = forwarder("");
        let poll = Poll::new().unwrap();
        let whole = question("gateway.kiln.internal", 1);
        for len in 0..HEADER_BYTES {
            assert_eq!(forwarder.ask(ends(), &whole[..len], &poll, 0), None);
        }
        let mut answer = whole.clone();
        answer[2] |= 0x80;
        assert_eq!(forwarder.ask(ends(), &answer, &poll, 0), None);
        assert!(!forwarder.is_waiting());
        assert_eq!(first_name(&[&whole[..12], &[0xc0, 12]].concat()), None);
    }

    #[test]
    fn our_own_names_are_answered_here() {
        let (mut forwarder, _file) = forwarder("");
        let poll = Poll::new().unwrap();
        let answer = forwarder.ask(ends(), &question("Gateway.Kiln.Internal", 1), &poll, 0).unwrap();
        assert_eq!(answer.to, ends().0);
        assert_eq!(answer.bytes[..8], [0xab, 0xcd, 0x85, 0x80, 0, 1, 0, 1]);
        assert!(answer.bytes.ends_with(&[0, 4, 10, 0, 2, 2]));
        let none = forwarder.ask(ends(), &question("gateway.kiln.internal", 28), &poll, 0).unwrap();
        assert_eq!(none.bytes[3..8], [0x80, 0, 1, 0, 0]);
    }

    #[test]
    fn a_question_goes_to_the_server_and_its_answer_back_as_it_is() {
        // Port 53 is not ours to take: the list is set by hand.
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (mut forwarder, _file) = forwarder("nameserver 192.0.2.1");
        forwarder.servers.list(0);
        forwarder.servers.list = vec![server.local_addr().unwrap()];
        let poll = Poll::new().unwrap();
        let asked = question("example.test", 16);
        assert_eq!(forwarder.ask(ends(), &asked, &poll, 0), None);
        assert_eq!(forwarder.ask(ends(), &asked, &poll, 1), None, "asked again, it is not sent again");
        let mut buffer = [0; 600];
        let (len, from) = server.recv_from(&mut buffer).unwrap();
        assert_eq!(buffer[..len], asked);
        server.set_nonblocking(true).unwrap();
        assert!(server.recv_from(&mut buffer).is_err());
        server.send_to(b"zz a wrong number", from).unwrap();
        let answer = [&asked[..], b"answer"].concat();
        server.send_to(&answer, from).unwrap();
        let got = loop {
            if let Some(got) = poll.ready().unwrap().into_iter().find_map(|ready| forwarder.ready(ready)) {
                break got;
            }
        };
        assert_eq!(got, Answer { to: ends().0, from: ends().1, bytes: answer });
        assert!(!forwarder.is_waiting());
    }

    #[test]
    fn silent_servers_are_a_failure_in_the_end() {
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let other = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (mut forwarder, _file) = forwarder("");
        forwarder.servers.list(0);
        forwarder.servers.list = vec![silent.local_addr().unwrap(), other.local_addr().unwrap()];
        forwarder.servers.looked = Some(u64::MAX);
        let poll = Poll::new().unwrap();
        let asked = question("example.test", 1);
        forwarder.ask(ends(), &asked, &poll, 0);
        assert!(forwarder.sweep(&poll, PATIENCE_MS).is_empty());
        let mut buffer = [0; 600];
        assert_eq!(other.recv(&mut buffer).unwrap(), asked.len(), "the next one is asked");
        let failed = forwarder.sweep(&poll, GIVE_UP_MS);
        assert_eq!(failed[0].bytes[2..4], [0x81, 0x82]);
        assert!(!forwarder.is_waiting());
    }

    #[test]
    fn servers_are_read_as_the_c_library_reads_them() {
        let text =
            "# nameserver 1.1.1.1\n  nameserver 192.0.2.1 \nsearch x\nnameserver\nnameserver ::1\nnameserver x\n";
        let servers: Vec<SocketAddr> = ["192.0.2.1:53", "[::1]:53"].iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(servers_in(text), servers);
        assert_eq!(servers_in(""), ["127.0.0.1:53".parse().unwrap()]);
    }
}

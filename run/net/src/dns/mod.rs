//! Names: questions go to the host's name servers as they are, but for their number, and answers come back as they are; a
//! few names of our own are answered here (RFC 1035).

mod conversation;
mod message;
mod names;
mod servers;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, send, socket_with, socketpair,
};

use crate::Millis;
use crate::poll::{Owner, Poll, Ready, Token};
use conversation::{Conversation, Surroundings};
use message::{HEADER_BYTES, Question, failure, is_question};

pub use message::name_bytes;
pub use names::{DOMAIN, Names};
pub use servers::Servers;

/// After so long the next server is asked.
const PATIENCE_MS: Millis = 2_000;
/// After so long the guest is told that it failed.
const GIVE_UP_MS: Millis = 10_000;
const ANSWER_LIMIT_BYTES: usize = 65_535;
pub(crate) const DNS_PORT: u16 = 53;
/// Our end of a guest's connection, and the one to a server.
const CONVERSATION_DESCRIPTORS: usize = 2;

/// A question on its way.
#[derive(Debug)]
struct Pending {
    socket: OwnedFd,
    from: SocketAddr,
    to: SocketAddr,
    /// As the guest sent it.
    question: Vec<u8>,
    /// The number under which it is asked: the guest's may be easy to guess.
    number: [u8; 2],
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
    names: Names,
    servers: Servers,
    pending: HashMap<u32, Pending>,
    conversations: HashMap<u32, Conversation>,
    /// Descriptors of questions on their way; one more question is not asked, and the guest asks again.
    limit: usize,
    next: u32,
}

impl Forwarder {
    /// Knows `names`, and asks `servers` for all others, at most `limit` at once.
    pub fn new(names: Names, servers: Servers, limit: usize) -> Self {
        Self { names, servers, pending: HashMap::new(), conversations: HashMap::new(), limit, next: 0 }
    }

    /// From now on `name` means `addresses`; with none of them, nothing of our own.
    pub fn set_name(&mut self, name: &str, addresses: &[IpAddr]) {
        self.names.set(name, addresses);
    }

    /// The other end of a guest's connection to the name server; `None` if there are too many.
    pub fn open(&mut self, poll: &Poll, now: Millis) -> Option<OwnedFd> {
        let conversations = self.conversations.len() + 1;
        if conversations > (self.limit / 4).max(1) || self.descriptors() + CONVERSATION_DESCRIPTORS > self.limit {
            return None;
        }
        let place = self.take_place();
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (theirs, ours) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).ok()?;
        let token = Token { owner: Owner::Dns, place, generation: 0 };
        self.conversations.insert(place, Conversation::new(ours, token, poll, now).ok()?);
        Some(theirs)
    }

    fn descriptors(&self) -> usize {
        self.pending.len() + CONVERSATION_DESCRIPTORS * self.conversations.len()
    }

    fn take_place(&mut self) -> u32 {
        let place = self.next;
        self.next = self.next.wrapping_add(1);
        place
    }

    /// The guest at `from` asks `to`. What is known here is answered at once.
    pub fn ask(
        &mut self,
        (from, to): (SocketAddr, SocketAddr),
        question: &[u8],
        poll: &Poll,
        now: Millis,
    ) -> Option<Answer> {
        if !is_question(question) {
            return None;
        }
        if let Some(bytes) = Question::read(question).and_then(|question| self.names.answer(&question)) {
            return Some(Answer { to: from, from: to, bytes });
        }
        let is_asked = |pending: &Pending| pending.from == from && pending.question == question;
        if self.descriptors() >= self.limit || self.pending.values().any(is_asked) {
            return None;
        }
        let place = self.take_place();
        let number = random_number();
        for (server, address) in self.servers.list(now).iter().enumerate() {
            if let Ok(socket) = send_question(*address, (question, number), place, poll) {
                let question = question.to_vec();
                let (asked, first_asked) = (now, now);
                self.pending.insert(place, Pending { socket, from, to, question, number, asked, first_asked, server });
                return None;
            }
        }
        Some(Answer { to: from, from: to, bytes: failure(question) })
    }

    /// A server answered, or nobody is there: then the next one is asked at once.
    pub fn ready(&mut self, ready: Ready, poll: &Poll, now: Millis) -> Option<Answer> {
        let place = ready.token.place;
        if let Some(conversation) = self.conversations.get_mut(&place) {
            let servers = self.servers.list(now).to_vec();
            if conversation.turn(&Surroundings { names: &self.names, servers, poll, now }).is_err() {
                self.conversations.remove(&place);
            }
            return None;
        }
        let pending = self.pending.get(&place)?;
        let mut buffer = vec![0; ANSWER_LIMIT_BYTES];
        loop {
            match recv(&pending.socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((len, _)) if len < HEADER_BYTES || buffer.get(..2) != Some(&pending.number) => {}
                Ok((len, _)) => {
                    buffer.truncate(len);
                    buffer.get_mut(..2)?.copy_from_slice(pending.question.get(..2)?);
                    let Pending { from, to, .. } = self.pending.remove(&place)?;
                    return Some(Answer { to: from, from: to, bytes: buffer });
                }
                Err(rustix::io::Errno::AGAIN) => return None,
                Err(_) => return self.ask_next(place, poll, now),
            }
        }
    }

    /// Asks the server behind the one that is asked now. When all were asked, and none is there, it has failed.
    fn ask_next(&mut self, place: u32, poll: &Poll, now: Millis) -> Option<Answer> {
        let servers = self.servers.list(now).to_vec();
        let pending = self.pending.get_mut(&place)?;
        while pending.server + 1 < servers.len() {
            pending.server += 1;
            pending.asked = now;
            if let Ok(socket) = send_question(servers[pending.server], (&pending.question, pending.number), place, poll)
            {
                pending.socket = socket;
                return None;
            }
        }
        let Pending { from, to, question, .. } = self.pending.remove(&place)?;
        Some(Answer { to: from, from: to, bytes: failure(&question) })
    }

    /// Asks the next server where one is silent, and gives up on old questions.
    pub fn sweep(&mut self, poll: &Poll, now: Millis) -> Vec<Answer> {
        self.conversations.retain(|_, conversation| !conversation.is_silent(now));
        let servers = self.servers.list(now).to_vec();
        let mut failed = Vec::new();
        for (place, pending) in &mut self.pending {
            if now.saturating_sub(pending.first_asked) >= GIVE_UP_MS {
                failed.push(*place);
            } else if now.saturating_sub(pending.asked) >= PATIENCE_MS && !servers.is_empty() {
                // Around and around: a server may only have lost the question.
                pending.server = (pending.server + 1) % servers.len();
                pending.asked = now;
                let server = servers[pending.server];
                if let Ok(socket) = send_question(server, (&pending.question, pending.number), *place, poll) {
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
        !self.pending.is_empty() || !self.conversations.is_empty()
    }
}

/// Two bytes that nobody can guess.
fn random_number() -> [u8; 2] {
    // Keyed anew by the standard library each time.
    let [a, b, ..] = RandomState::new().hash_one(0).to_ne_bytes();
    [a, b]
}

fn send_question(
    server: SocketAddr,
    (question, number): (&[u8], [u8; 2]),
    place: u32,
    poll: &Poll,
) -> io::Result<OwnedFd> {
    let family = if server.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    // A socket of its own for each: the kernel chooses a port that nobody can guess.
    let socket = socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    connect(&socket, &server)?;
    let numbered = [&number[..], question.get(2..).unwrap_or_default()].concat();
    send(&socket, &numbered, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
    poll.add(socket.as_fd(), Token { owner: Owner::Dns, place, generation: 0 })?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use message::tests::question;
    use std::net::UdpSocket;

    fn forwarder(servers: &str) -> (Forwarder, tempfile::NamedTempFile) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), servers).unwrap();
        let names = [("gateway.kiln.internal".to_owned(), [10, 0, 2, 2].into())];
        (Forwarder::new(Names::new(names), Servers::of_file(file.path()), 9), file)
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
        assert_eq!(buffer[2..len], asked[2..], "all but its number");
        server.set_nonblocking(true).unwrap();
        assert!(server.recv_from(&mut buffer).is_err());
        let number = [buffer[0], buffer[1]];
        server.send_to(&[&[!number[0], number[1]][..], b" a wrong number"].concat(), from).unwrap();
        server.send_to(&[&number[..], &asked[2..], b"answer"].concat(), from).unwrap();
        let answer = [&asked[..], b"answer"].concat();
        let got = loop {
            if let Some(got) = poll.ready().unwrap().into_iter().find_map(|ready| forwarder.ready(ready, &poll, 2)) {
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
    fn a_server_that_is_not_there_is_passed_over_at_once() {
        let gone = || UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let poll = Poll::new().unwrap();
        let asked = question("example.test", 1);
        for last in [server.local_addr().unwrap(), gone()] {
            let (mut forwarder, _file) = forwarder("");
            forwarder.servers.list = vec![gone(), last];
            forwarder.servers.looked = Some(u64::MAX);
            assert_eq!(forwarder.ask(ends(), &asked, &poll, 0), None);
            let is_there = server.local_addr().unwrap() == last;
            server.set_nonblocking(true).unwrap();
            let failed = loop {
                let answers = poll.ready().unwrap().into_iter().filter_map(|ready| forwarder.ready(ready, &poll, 0));
                let failed = answers.last();
                if failed.is_some() || is_there && server.recv(&mut [0; 600]).is_ok() {
                    break failed;
                }
            };
            assert_eq!(failed.map(|answer| answer.bytes[3]), (!is_there).then_some(0x82));
        }
    }
}

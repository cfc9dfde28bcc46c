//! Questions over a connection (RFC 1035 section 4.2.2, RFC 7766): each message stands behind its length. Those about our
//! own names are answered here; the others go on to a server of the host's, whose answers come back between ours.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::Names;
use super::message::{Question, failure, is_question};
use crate::Millis;
use crate::poll::{Poll, Token};
use crate::tcp::connecting_to;

/// A message's length is two bytes.
const LENGTH_BYTES: usize = 2;
/// While so much waits for one side, nothing is read that could add to it. A message that is begun is ended, so at most
/// 64 KiB more wait.
const WAITING_LIMIT_BYTES: usize = 64 << 10;
/// Read at once.
const PIECE_BYTES: usize = 16 << 10;
/// A connection on which nothing is said for so long is closed (RFC 7766 section 6.2.3: "of the order of seconds").
const SILENCE_MS: Millis = 30_000;

/// A stream of messages, and what waits on both of its ways.
#[derive(Debug)]
struct Side {
    socket: OwnedFd,
    /// Received: at most one message, not whole yet, when nobody reads.
    incoming: Vec<u8>,
    /// To be sent.
    outgoing: Vec<u8>,
    /// Something of this was sent.
    has_sent: bool,
    has_ended: bool,
}

impl Side {
    fn new(socket: OwnedFd) -> Self {
        Self { socket, incoming: Vec::new(), outgoing: Vec::new(), has_sent: false, has_ended: false }
    }

    fn is_full(&self) -> bool {
        self.outgoing.len() >= WAITING_LIMIT_BYTES
    }

    fn put(&mut self, message: &[u8]) {
        self.outgoing.extend(framed(message));
    }

    /// Sends what it takes. True if that was something.
    fn flush(&mut self) -> io::Result<bool> {
        if self.outgoing.is_empty() {
            return Ok(false);
        }
        match send(&self.socket, &self.outgoing, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(len) => {
                self.outgoing.drain(..len);
                self.has_sent |= len > 0;
                Ok(len > 0)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads a piece. True if there was one, or the end.
    fn fill(&mut self) -> io::Result<bool> {
        if self.has_ended {
            return Ok(false);
        }
        let len = self.incoming.len();
        self.incoming.resize(len + PIECE_BYTES, 0);
        let read = recv(&self.socket, self.incoming.get_mut(len..).unwrap_or_default(), RecvFlags::DONTWAIT);
        self.incoming.truncate(len + read.map_or(0, |(count, _)| count));
        match read {
            Ok((count, _)) => {
                self.has_ended = count == 0;
                Ok(true)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The whole messages that came.
    fn messages(&mut self) -> Vec<Vec<u8>> {
        split(&mut self.incoming)
    }
}

/// A message behind its length; nothing if it is too long, which none is that was read or made here.
fn framed(message: &[u8]) -> Vec<u8> {
    let len = u16::try_from(message.len()).map(u16::to_be_bytes);
    len.map(|len| [&len[..], message].concat()).unwrap_or_default()
}

/// Takes the whole messages from the start of `bytes`.
fn split(bytes: &mut Vec<u8>) -> Vec<Vec<u8>> {
    let (mut messages, mut at) = (Vec::new(), 0);
    while let Some([high, low]) = bytes.get(at..).and_then(|rest| rest.first_chunk::<LENGTH_BYTES>()) {
        let end = at + LENGTH_BYTES + usize::from(u16::from_be_bytes([*high, *low]));
        let Some(message) = bytes.get(at + LENGTH_BYTES..end) else { break };
        messages.push(message.to_vec());
        at = end;
    }
    bytes.drain(..at);
    messages
}

/// Where a conversation gets what it does not know.
pub(super) struct Surroundings<'a> {
    pub(super) names: &'a Names,
    pub(super) servers: Vec<SocketAddr>,
    pub(super) poll: &'a Poll,
    pub(super) now: Millis,
}

/// A guest's connection to the name server.
#[derive(Debug)]
pub(super) struct Conversation {
    guest: Side,
    server: Option<Side>,
    token: Token,
    /// Which server is asked, and the next one if it is not there.
    place: usize,
    /// Questions that the server has not answered.
    owed: usize,
    spoke: Millis,
}

/// The conversation is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Over;

impl Conversation {
    /// With who is at the other end of `guest`. All its sockets are polled under `token`.
    pub(super) fn new(guest: OwnedFd, token: Token, poll: &Poll, now: Millis) -> io::Result<Self> {
        poll.add(guest.as_fd(), token)?;
        Ok(Self { guest: Side::new(guest), server: None, token, place: 0, owed: 0, spoke: now })
    }

    pub(super) fn is_silent(&self, now: Millis) -> bool {
        now.saturating_sub(self.spoke) >= SILENCE_MS
    }

    /// Does all that can be done now.
    ///
    /// # Errors
    /// Nothing more will come, or one side speaks something else.
    pub(super) fn turn(&mut self, around: &Surroundings<'_>) -> Result<(), Over> {
        loop {
            let mut has_moved = self.guest.flush().map_err(|_| Over)?;
            has_moved |= self.turn_server(around)?;
            if !self.guest.is_full() && !self.server.as_ref().is_some_and(Side::is_full) {
                has_moved |= self.guest.fill().map_err(|_| Over)?;
                for message in self.guest.messages() {
                    self.asked(&message, around)?;
                }
            }
            if !has_moved {
                break;
            }
            self.spoke = around.now;
        }
        let is_over = self.guest.has_ended && self.owed == 0 && self.guest.outgoing.is_empty();
        if is_over { Err(Over) } else { Ok(()) }
    }

    /// The guest asks.
    fn asked(&mut self, message: &[u8], around: &Surroundings<'_>) -> Result<(), Over> {
        if !is_question(message) {
            return Err(Over);
        }
        if let Some(answer) = Question::read(message).and_then(|question| around.names.answer(&question)) {
            self.guest.put(&answer);
            return Ok(());
        }
        self.owed += 1;
        match &mut self.server {
            Some(server) => server.put(message),
            None => {
                self.place = 0;
                self.call(framed(message), around);
            }
        }
        Ok(())
    }

    /// Connects to the first server from `place` on that can be called. If there is none, all questions have failed.
    fn call(&mut self, mut waiting: Vec<u8>, around: &Surroundings<'_>) {
        self.server = None;
        while let Some(address) = around.servers.get(self.place) {
            self.place += 1;
            let called = connecting_to(*address)
                .and_then(|socket| around.poll.add(socket.as_fd(), self.token).map(|()| Side::new(socket)));
            if let Ok(mut server) = called {
                server.outgoing = waiting;
                self.server = Some(server);
                return;
            }
        }
        for question in split(&mut waiting) {
            self.guest.put(&failure(&question));
        }
        self.owed = 0;
    }

    fn turn_server(&mut self, around: &Surroundings<'_>) -> Result<bool, Over> {
        let Some(server) = &mut self.server else { return Ok(false) };
        let is_full = self.guest.is_full();
        let mut turn = || Ok::<_, io::Error>(server.flush()? | (!is_full && server.fill()?));
        let Ok(has_moved) = turn() else {
            // One that never was there: the next is asked the same.
            if server.has_sent {
                return Err(Over);
            }
            let waiting = std::mem::take(&mut server.outgoing);
            self.call(waiting, around);
            return Ok(true);
        };
        for message in server.messages() {
            self.guest.put(&message);
            // A transfer of a zone has many.
            self.owed = self.owed.saturating_sub(1);
        }
        if server.has_ended {
            // A server may close what is idle; the next question calls again.
            if self.owed > 0 {
                return Err(Over);
            }
            self.server = None;
        }
        Ok(has_moved)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    use super::super::message::tests::question;
    use super::*;
    use crate::poll::Owner;

    const TOKEN: Token = Token { owner: Owner::Dns, place: 0, generation: 0 };

    struct Bench {
        guest: UnixStream,
        conversation: Conversation,
        names: Names,
        servers: Vec<SocketAddr>,
        poll: Poll,
    }

    impl Bench {
        fn new(servers: Vec<SocketAddr>) -> Self {
            let (guest, ours) = UnixStream::pair().unwrap();
            guest.set_nonblocking(true).unwrap();
            ours.set_nonblocking(true).unwrap();
            let poll = Poll::new().unwrap();
            let conversation = Conversation::new(ours.into(), TOKEN, &poll, 0).unwrap();
            let names = Names::new([("gateway.kiln.internal".to_owned(), [10, 0, 2, 2].into())]);
            Self { guest, conversation, names, servers, poll }
        }

        fn turn(&mut self) -> Result<(), Over> {
            let Self { names, servers, poll, .. } = self;
            self.conversation.turn(&Surroundings { names, servers: servers.clone(), poll, now: 1 })
        }

        /// Turns until the guest has a whole message.
        fn answer(&mut self) -> Vec<u8> {
            let mut bytes = Vec::new();
            loop {
                self.turn().unwrap();
                let mut byte = [0];
                while bytes.len() < 2 || bytes.len() < 2 + usize::from(u16::from_be_bytes([bytes[0], bytes[1]])) {
                    match self.guest.read(&mut byte) {
                        Ok(1) => bytes.push(byte[0]),
                        Ok(_) => panic!("an end"),
                        Err(_) => break,
                    }
                }
                if bytes.len() >= 2 && bytes.len() == 2 + usize::from(u16::from_be_bytes([bytes[0], bytes[1]])) {
                    return bytes.split_off(2);
                }
                std::thread::yield_now();
            }
        }
    }

    fn server() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    fn read_framed(stream: &mut TcpStream) -> Vec<u8> {
        let mut len = [0; 2];
        stream.read_exact(&mut len).unwrap();
        let mut message = vec![0; u16::from_be_bytes(len).into()];
        stream.read_exact(&mut message).unwrap();
        message
    }

    #[test]
    fn who_speaks_something_else_is_sent_away() {
        let mut answer = question("gateway.kiln.internal", 1);
        answer[2] |= 0x80;
        for bytes in [vec![0, 0], framed(b"too short"), framed(&answer)] {
            let mut bench = Bench::new(vec![]);
            bench.guest.write_all(&bytes).unwrap();
            assert_eq!(bench.turn(), Err(Over), "{bytes:?}");
        }
    }

    #[test]
    fn our_own_names_are_answered_however_they_are_cut() {
        let mut bench = Bench::new(vec![]);
        let asked = framed(&question("Gateway.kiln.internal", 1));
        for byte in &asked {
            bench.guest.write_all(&[*byte]).unwrap();
            bench.turn().unwrap();
        }
        assert!(bench.answer().ends_with(&[0, 4, 10, 0, 2, 2]));
        bench.guest.write_all(&[&asked[..], &asked].concat()).unwrap();
        bench.guest.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(bench.turn(), Err(Over), "the guest has said all, and has its answers");
        let mut both = Vec::new();
        drop(bench.conversation);
        bench.guest.read_to_end(&mut both).unwrap();
        assert_eq!(split(&mut both).len(), 2);
    }

    #[test]
    fn other_names_are_asked_of_a_server_and_ours_are_answered_meanwhile() {
        let (listener, address) = server();
        let gone = server().1;
        let mut bench = Bench::new(vec![gone, address]);
        let (other, own) = (question("example.test", 1), question("gateway.kiln.internal", 1));
        bench.guest.write_all(&framed(&other)).unwrap();
        bench.guest.write_all(&framed(&own)).unwrap();
        assert!(bench.answer().ends_with(&[10, 0, 2, 2]));
        listener.set_nonblocking(true).unwrap();
        let mut stream = loop {
            bench.turn().unwrap();
            if let Ok((stream, _)) = listener.accept() {
                break stream;
            }
        };
        stream.set_nonblocking(false).unwrap();
        // The socket was not connected at the first turn, perhaps.
        while bench.conversation.server.as_ref().is_none_or(|server| !server.has_sent) {
            bench.turn().unwrap();
        }
        assert_eq!(read_framed(&mut stream), other, "the first server is not there, the next one is asked");
        let long = [&other[..], &[7; 40_000]].concat();
        stream.write_all(&framed(&long)).unwrap();
        assert!(bench.answer() == long);
        // It closes what is idle: the next question calls again.
        drop(stream);
        while bench.conversation.server.is_some() {
            bench.turn().unwrap();
        }
        bench.guest.write_all(&framed(&other)).unwrap();
        bench.turn().unwrap();
        assert!(bench.conversation.server.is_some());
    }

    #[test]
    fn no_server_is_a_failure_and_one_that_goes_away_an_end() {
        let asked = question("example.test", 1);
        let gone = server().1;
        for servers in [vec![], vec![gone]] {
            let mut bench = Bench::new(servers);
            bench.guest.write_all(&framed(&asked)).unwrap();
            assert_eq!(bench.answer()[2..4], [0x81, 0x82]);
        }
        let (listener, address) = server();
        let mut bench = Bench::new(vec![address]);
        bench.guest.write_all(&framed(&asked)).unwrap();
        while bench.conversation.server.as_ref().is_none_or(|server| !server.has_sent) {
            bench.turn().unwrap();
        }
        drop(listener.accept().unwrap());
        while bench.turn().is_ok() {}
    }

    #[test]
    fn who_reads_nothing_costs_a_bounded_amount() {
        let mut bench = Bench::new(vec![]);
        let asked = framed(&question("gateway.kiln.internal", 1)).repeat(100);
        let mut sent = 0;
        while let Ok(len) = bench.guest.write(&asked[sent % asked.len()..]) {
            sent += len;
            bench.turn().unwrap();
        }
        let Side { incoming, outgoing, .. } = &bench.conversation.guest;
        assert!(outgoing.len() < 2 * WAITING_LIMIT_BYTES && incoming.len() < WAITING_LIMIT_BYTES);
        assert!(!bench.conversation.is_silent(SILENCE_MS) && bench.conversation.is_silent(SILENCE_MS + 1));
    }
}

//! The client of DHCPv6, without socket and clock (RFC 8415 section 18.2).

use std::net::Ipv6Addr;

use super::message::{Kind, Lease, Reply, Request, identity};
use crate::retry::{Random, wait};
use crate::{Millis, SECOND};

/// SOL_MAX_RT and INF_MAX_RT (section 7.6) are an hour; a name server that comes late should be heard of sooner.
const LONGEST_WAIT: Millis = 120 * SECOND;
const REQUESTS: u32 = 10;
const RENEWAL_WAIT: Millis = 10 * SECOND;
const LONGEST_RENEWAL_WAIT: Millis = 600 * SECOND;
/// IRT_DEFAULT and IRT_MINIMUM (section 7.6), in seconds.
const REFRESH_S: u32 = 86_400;
const LEAST_REFRESH_S: u32 = 600;

/// What the routers say is to be asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// Nothing.
    #[default]
    Off,
    /// Everything but an address.
    Information,
    /// An address, and everything else.
    Address,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Send this to all servers on the link.
    Send(Vec<u8>),
    /// The address, if any, and the servers are the card's from now on.
    Take(Box<Reply>),
    /// The address is over.
    Drop(&'static str),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Off,
    Soliciting,
    /// A server, and what it has.
    Requesting(Vec<u8>, Ipv6Addr),
    Bound(Vec<u8>, Lease, Millis),
    Asking,
    Informed,
}

/// The client of one card.
#[derive(Debug)]
pub struct Client {
    identity: Vec<u8>,
    random: Random,
    mode: Mode,
    state: State,
    transaction: u32,
    began: Millis,
    sent: u32,
    due: Option<Millis>,
}

impl Client {
    /// A client that asks for nothing yet.
    pub fn new(mac: [u8; 6], random: Random) -> Self {
        let identity = identity(mac);
        Self { identity, random, mode: Mode::Off, state: State::Off, transaction: 0, began: 0, sent: 0, due: None }
    }

    /// A router said this. What has begun goes on if it is the same.
    pub fn set_mode(&mut self, now: Millis, mode: Mode, acts: &mut Vec<Act>) {
        // An address is not given up because one router of several knows of none.
        if mode == self.mode || (self.mode == Mode::Address && mode != Mode::Off) {
            return;
        }
        self.drop_lease("the router wants it", acts);
        self.mode = mode;
        self.begin(now);
    }

    /// The lease, while there is one.
    pub fn lease(&self) -> Option<&Lease> {
        match &self.state {
            State::Bound(_, lease, _) => Some(lease),
            _ => None,
        }
    }

    /// When to [`turn`](Self::turn) it again.
    pub fn due(&self) -> Option<Millis> {
        self.due
    }

    /// Does what is due.
    pub fn turn(&mut self, now: Millis, acts: &mut Vec<Act>) {
        if self.due.is_none_or(|due| due > now) {
            return;
        }
        match self.state.clone() {
            State::Off => self.due = None,
            State::Soliciting => self.send(now, Kind::Solicit, None, None, acts),
            State::Requesting(..) if self.sent >= REQUESTS => {
                self.begin(now);
                self.turn(now, acts);
            }
            State::Requesting(server, address) => self.send(now, Kind::Request, Some(&server), Some(address), acts),
            State::Bound(server, lease, since) => self.extend(now, &server, lease, since, acts),
            State::Informed => {
                self.begin(now);
                self.turn(now, acts);
            }
            State::Asking => self.send(now, Kind::Information, None, None, acts),
        }
    }

    /// A message arrived.
    pub fn receive(&mut self, now: Millis, bytes: &[u8], acts: &mut Vec<Act>) {
        if self.sent == 0 {
            return;
        }
        let Some(reply) = Reply::read(bytes, self.transaction, &self.identity) else { return };
        match (&self.state, reply.kind, reply.lease) {
            (State::Soliciting, Kind::Advertise, Some(lease)) => {
                self.enter(now, State::Requesting(reply.server, lease.address));
                self.turn(now, acts);
            }
            (State::Soliciting, Kind::Reply, Some(lease)) if reply.is_rapid => self.take(now, lease, reply, acts),
            (State::Requesting(server, _), Kind::Reply, Some(lease)) if *server == reply.server => {
                self.take(now, lease, reply, acts);
            }
            (State::Bound(_, bound, _), Kind::Reply, Some(lease)) if bound.address == lease.address => {
                self.take(now, lease, reply, acts);
            }
            (State::Asking, Kind::Reply, _) => {
                let refresh = reply.refresh_s.unwrap_or(REFRESH_S).max(LEAST_REFRESH_S);
                self.state = State::Informed;
                self.sent = 0;
                self.due = after(now, refresh);
                acts.push(Act::Take(Box::new(Reply { lease: None, ..reply })));
            }
            _ => {}
        }
    }

    /// Gives the lease back.
    pub fn release(&mut self, now: Millis, acts: &mut Vec<Act>) {
        if let State::Bound(server, lease, _) = self.state.clone() {
            self.transaction = self.random.number() >> 8;
            self.began = now;
            acts.push(Act::Send(self.request(now, Kind::Release, Some(&server), Some(lease.address))));
        }
        self.drop_lease("released", acts);
        self.mode = Mode::Off;
        self.begin(now);
    }

    fn drop_lease(&mut self, why: &'static str, acts: &mut Vec<Act>) {
        if self.lease().is_some() {
            acts.push(Act::Drop(why));
        }
    }

    fn begin(&mut self, now: Millis) {
        let state = match self.mode {
            Mode::Off => State::Off,
            Mode::Information => State::Asking,
            Mode::Address => State::Soliciting,
        };
        self.enter(now, state);
    }

    fn enter(&mut self, now: Millis, state: State) {
        self.due = (state != State::Off).then_some(now);
        self.state = state;
        self.transaction = self.random.number() >> 8;
        self.began = now;
        self.sent = 0;
    }

    fn take(&mut self, now: Millis, lease: Lease, reply: Reply, acts: &mut Vec<Act>) {
        self.state = State::Bound(reply.server.clone(), lease, now);
        self.sent = 0;
        self.due = after(now, lease.renewal_s);
        acts.push(Act::Take(Box::new(reply)));
    }

    fn extend(&mut self, now: Millis, server: &[u8], lease: Lease, since: Millis, acts: &mut Vec<Act>) {
        let Some(end) = after(since, lease.valid_s) else {
            self.due = None;
            return;
        };
        if now >= end {
            self.drop_lease("it is over and no server answers", acts);
            self.begin(now);
            return self.turn(now, acts);
        }
        if self.sent == 0 {
            self.transaction = self.random.number() >> 8;
            self.began = now;
        }
        self.sent = self.sent.saturating_add(1);
        let rebinding = after(since, lease.rebinding_s).unwrap_or(end);
        let (kind, server, next) =
            if now >= rebinding { (Kind::Rebind, None, end) } else { (Kind::Renew, Some(server), rebinding) };
        acts.push(Act::Send(self.request(now, kind, server, Some(lease.address))));
        let wait = self.random.around(wait(RENEWAL_WAIT, LONGEST_RENEWAL_WAIT, self.sent));
        self.due = Some(now.saturating_add(wait).min(next.max(now + SECOND)));
    }

    fn send(&mut self, now: Millis, kind: Kind, server: Option<&[u8]>, address: Option<Ipv6Addr>, acts: &mut Vec<Act>) {
        self.sent = self.sent.saturating_add(1);
        acts.push(Act::Send(self.request(now, kind, server, address)));
        let wait = wait(SECOND, LONGEST_WAIT, self.sent);
        self.due = Some(now.saturating_add(self.random.around(wait)));
    }

    fn request(&self, now: Millis, kind: Kind, server: Option<&[u8]>, address: Option<Ipv6Addr>) -> Vec<u8> {
        let elapsed = u16::try_from(now.saturating_sub(self.began) / 10).unwrap_or(u16::MAX);
        Request { kind, transaction: self.transaction, client: &self.identity, server, address, elapsed }.bytes()
    }
}

/// When so many seconds are over; `None` for never.
fn after(since: Millis, seconds: u32) -> Option<Millis> {
    (seconds != u32::MAX).then(|| since.saturating_add(u64::from(seconds) * SECOND))
}

#[cfg(test)]
mod tests {
    use super::super::message::tests::{ADDRESS, MAC, answer};
    use super::*;

    fn client(mode: Mode) -> Client {
        let mut client = Client::new(MAC, Random::new(5));
        client.set_mode(0, mode, &mut vec![]);
        client
    }

    fn turn(client: &mut Client, now: Millis) -> Option<u8> {
        let mut acts = vec![];
        client.turn(now, &mut acts);
        acts.iter().find_map(|act| if let Act::Send(bytes) = act { Some(bytes[0]) } else { None })
    }

    fn hear(client: &mut Client, now: Millis, kind: Kind, valid_s: Option<u32>, rapid: bool) -> Vec<Act> {
        let mut acts = vec![];
        client.receive(now, &answer(kind, client.transaction, valid_s, rapid), &mut acts);
        acts
    }

    #[test]
    fn answers_that_nobody_asked_for_change_nothing() {
        let mut off = client(Mode::Off);
        assert_eq!(turn(&mut off, 0), None);
        assert_eq!(hear(&mut off, 0, Kind::Reply, Some(60), true), []);
        let mut client = client(Mode::Address);
        assert_eq!(turn(&mut client, 0), Some(1));
        assert_eq!(
            hear(&mut client, 0, Kind::Reply, Some(60), false),
            [],
            "a reply to a solicitation without rapid commit"
        );
        assert_eq!(hear(&mut client, 0, Kind::Advertise, None, false), [], "an advertisement of nothing");
    }

    #[test]
    fn any_bytes_at_any_time_neither_stop_nor_flood_the_client() {
        let mut random = Random::new(3);
        let mut client = client(Mode::Address);
        let (mut now, mut count) = (0, 0);
        for _ in 0..50_000 {
            now += 100;
            let kind = [Kind::Advertise, Kind::Reply][random.number() as usize % 2];
            let mut bytes =
                answer(kind, client.transaction, Some(random.number() % 100), random.number().is_multiple_of(2));
            for _ in 0..random.number() % 4 {
                let place = random.number() as usize % bytes.len();
                bytes[place] = random.number().to_be_bytes()[0];
            }
            let mut acts = vec![];
            client.turn(now, &mut acts);
            client.receive(now, &bytes, &mut acts);
            count += acts.len();
        }
        assert!(count < 5000, "{count} acts in {} minutes", now / 60_000);
    }

    #[test]
    fn an_address_is_had_in_four_messages_or_two_renewed_and_over() {
        for rapid in [false, true] {
            let mut client = client(Mode::Address);
            assert_eq!(turn(&mut client, 0), Some(1));
            if !rapid {
                assert!(matches!(hear(&mut client, 0, Kind::Advertise, Some(3600), false)[..], [Act::Send(_)]));
            }
            assert!(matches!(hear(&mut client, 0, Kind::Reply, Some(3600), rapid)[..], [Act::Take(_)]));
            assert_eq!(client.lease().unwrap().address, ADDRESS);
            assert_eq!(client.due(), Some(1_800_000));
            assert_eq!(turn(&mut client, 1_800_000), Some(5));
            assert!(matches!(hear(&mut client, 1_800_100, Kind::Reply, Some(3600), false)[..], [Act::Take(_)]));
            assert_eq!(turn(&mut client, 1_800_100 + 2_880_000), Some(6));
            let mut acts = vec![];
            client.turn(1_800_100 + 3_600_000, &mut acts);
            assert!(matches!(acts[..], [Act::Drop(_), Act::Send(_)]));
        }
    }

    #[test]
    fn without_addresses_only_information_is_asked_for_and_again_later() {
        let mut client = client(Mode::Information);
        assert_eq!(turn(&mut client, 0), Some(11));
        assert!(matches!(hear(&mut client, 0, Kind::Reply, Some(60), false)[..], [Act::Take(_)]));
        assert_eq!((client.lease(), client.due()), (None, Some(86_400_000)));
        assert_eq!(turn(&mut client, 86_400_000), Some(11));
    }

    #[test]
    fn a_lease_is_given_back() {
        let mut client = client(Mode::Address);
        turn(&mut client, 0);
        hear(&mut client, 0, Kind::Reply, Some(3600), true);
        let mut acts = vec![];
        client.release(5, &mut acts);
        assert!(matches!(&acts[..], [Act::Send(bytes), Act::Drop(_)] if bytes[0] == 8));
        assert_eq!((client.lease(), client.due()), (None, None));
    }
}

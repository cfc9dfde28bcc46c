//! The client of DHCPv4, without socket and clock (RFC 2131 section 4.4).

use std::net::Ipv4Addr;

use super::lease::{FOR_EVER, Lease};
use super::message::{Kind, Message, Request, option};
use crate::retry::{Random, wait};
use crate::{Millis, SECOND};

const FIRST_WAIT: Millis = SECOND;
const LONGEST_WAIT: Millis = 64 * SECOND;
/// Then the offer, or what the last lease was, is forgotten.
const REQUESTS: u32 = 4;
const CONFIRMATIONS: u32 = 3;
/// After a conflict (RFC 2131 section 3.1), and at least between two refusals.
const CONFLICT_WAIT: Millis = 10 * SECOND;
/// Between two questions for more time (RFC 2131 section 4.4.5).
const LEAST_RENEWAL_WAIT: Millis = 60 * SECOND;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Send this to every server on the link, from the address.
    Broadcast(Vec<u8>, Ipv4Addr),
    /// Send this to one server, from the address.
    Unicast(Vec<u8>, Ipv4Addr, Ipv4Addr),
    /// This lease is the card's from now on. The bytes are the server's message, to be kept.
    Take(Box<Lease>, Vec<u8>),
    /// The lease is over.
    Drop(&'static str),
    /// Something to tell.
    Note(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Until it is started.
    Idle,
    /// Until it is time to begin anew.
    Paused,
    Discovering,
    /// An offer's address and server.
    Requesting(Ipv4Addr, Ipv4Addr),
    /// Whether an address from before is still good.
    Confirming(Ipv4Addr),
    /// Since when.
    Bound(Box<Lease>, Millis),
}

/// The client of one card.
#[derive(Debug)]
pub struct Client {
    mac: [u8; 6],
    host_name: Option<String>,
    random: Random,
    state: State,
    transaction: u32,
    began: Millis,
    /// Messages of this state.
    sent: u32,
    due: Option<Millis>,
    refusals: u32,
    /// What the last offer or yes that was of no use was told for.
    told: u32,
}

impl Client {
    /// A client for this card. Servers are told the name.
    pub fn new(mac: [u8; 6], host_name: Option<String>, random: Random) -> Self {
        Self {
            mac,
            host_name,
            random,
            state: State::Idle,
            transaction: 0,
            began: 0,
            sent: 0,
            due: None,
            refusals: 0,
            told: 0,
        }
    }

    /// Begins: with the question whether `kept` is still good, if there is such an address.
    pub fn start(&mut self, now: Millis, kept: Option<Ipv4Addr>) {
        self.enter(now, kept.map_or(State::Discovering, State::Confirming));
        self.began = now;
    }

    /// The cable is there again: perhaps it leads elsewhere now.
    pub fn carrier_is_back(&mut self, now: Millis) {
        let kept = self.lease().map(|lease| lease.address);
        if kept.is_some() || matches!(self.state, State::Discovering | State::Paused) {
            self.start(now, kept);
        }
    }

    /// The lease, while there is one.
    pub fn lease(&self) -> Option<&Lease> {
        match &self.state {
            State::Bound(lease, _) => Some(lease),
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
            State::Idle => self.due = None,
            State::Paused => {
                self.start(now, None);
                self.turn(now, acts);
            }
            State::Discovering => self.send(now, Kind::Discover, None, None, acts),
            State::Requesting(..) if self.sent >= REQUESTS => self.again(now, acts),
            State::Requesting(address, server) => self.send(now, Kind::Request, Some(address), Some(server), acts),
            State::Confirming(_) if self.sent >= CONFIRMATIONS => self.again(now, acts),
            State::Confirming(address) => self.send(now, Kind::Request, Some(address), None, acts),
            State::Bound(lease, since) => self.extend(now, &lease, since, acts),
        }
    }

    /// A message arrived.
    pub fn receive(&mut self, now: Millis, bytes: &[u8], acts: &mut Vec<Act>) {
        // Before the first question there is no transaction.
        if self.sent == 0 {
            return;
        }
        let Some(message) = Message::read(bytes, self.mac, self.transaction) else { return };
        let server = message.address(option::SERVER);
        match (&self.state, message.kind) {
            (State::Discovering, Kind::Offer) => {
                let Some(server) = server else { return };
                match Lease::read(&message) {
                    Ok(lease) => {
                        self.enter_same(now, State::Requesting(lease.address, server));
                        self.turn(now, acts);
                    }
                    Err(error) => self.tell(format!("an offer of {server} cannot be used: {error}"), acts),
                }
            }
            (State::Discovering, Kind::Acknowledge) if message.option(option::RAPID_COMMIT).is_none() => {}
            (State::Requesting(_, asked), _) if server != Some(*asked) => {}
            (State::Requesting(address, _) | State::Confirming(address), Kind::Acknowledge)
                if message.address != *address => {}
            (State::Bound(lease, _), Kind::Acknowledge) if message.address != lease.address => {}
            (
                State::Discovering | State::Requesting(..) | State::Confirming(_) | State::Bound(..),
                Kind::Acknowledge,
            ) => match Lease::read(&message) {
                Ok(lease) => self.take(now, lease, bytes, acts),
                Err(error) => self.tell(format!("an answer cannot be used: {error}"), acts),
            },
            (State::Requesting(..) | State::Confirming(_) | State::Bound(..), Kind::Refuse) => self.refused(now, acts),
            _ => {}
        }
    }

    /// Somebody else has the address.
    pub fn conflict(&mut self, now: Millis, acts: &mut Vec<Act>) {
        let State::Bound(lease, _) = self.state.clone() else { return };
        self.transaction = self.random.number();
        let request = self.request(now, Kind::Decline, Ipv4Addr::UNSPECIFIED, Some(lease.address), lease.server);
        acts.push(Act::Broadcast(request, Ipv4Addr::UNSPECIFIED));
        acts.push(Act::Drop("another machine has this address"));
        self.pause(now, CONFLICT_WAIT);
    }

    /// Gives the lease back.
    pub fn release(&mut self, now: Millis, acts: &mut Vec<Act>) {
        if let State::Bound(lease, _) = self.state.clone() {
            self.transaction = self.random.number();
            if let Some(server) = lease.server {
                let request = self.request(now, Kind::Release, lease.address, None, Some(server));
                acts.push(Act::Unicast(request, lease.address, server));
            }
            acts.push(Act::Drop("released"));
        }
        self.state = State::Idle;
        self.due = None;
    }

    fn take(&mut self, now: Millis, lease: Lease, bytes: &[u8], acts: &mut Vec<Act>) {
        acts.push(Act::Take(Box::new(lease.clone()), bytes.to_vec()));
        self.due = after(now, lease.renewal_s);
        self.state = State::Bound(Box::new(lease), now);
        self.sent = 0;
        self.refusals = 0;
    }

    fn refused(&mut self, now: Millis, acts: &mut Vec<Act>) {
        acts.push(Act::Drop("the server takes it back"));
        self.refusals = self.refusals.saturating_add(1);
        // The first time nothing is wrong: the machine is on another network.
        let pause = if self.refusals == 1 { 0 } else { wait(SECOND, LONGEST_WAIT, self.refusals) };
        self.pause(now, pause);
    }

    fn pause(&mut self, now: Millis, pause: Millis) {
        self.enter(now, State::Paused);
        self.due = Some(now.saturating_add(self.random.around(pause)));
    }

    /// No answer: from the beginning.
    fn again(&mut self, now: Millis, acts: &mut Vec<Act>) {
        self.enter(now, State::Discovering);
        self.turn(now, acts);
    }

    /// A lease grows old: its server is asked, then every server, then it is over.
    fn extend(&mut self, now: Millis, lease: &Lease, since: Millis, acts: &mut Vec<Act>) {
        let Some(end) = after(since, lease.valid_s) else {
            self.due = None;
            return;
        };
        if now >= end {
            acts.push(Act::Drop("it is over and no server answers"));
            return self.again(now, acts);
        }
        let rebinding = after(since, lease.rebinding_s).unwrap_or(end);
        let is_rebinding = now >= rebinding || lease.server.is_none();
        if self.sent == 0 {
            self.transaction = self.random.number();
            self.began = now;
        }
        self.sent = self.sent.saturating_add(1);
        let request = self.request(now, Kind::Request, lease.address, None, None);
        acts.push(match lease.server.filter(|_| !is_rebinding) {
            Some(server) => Act::Unicast(request, lease.address, server),
            None => Act::Broadcast(request, lease.address),
        });
        let next = if is_rebinding { end } else { rebinding };
        // Half of what is left, and not all the time.
        let pause = (next.saturating_sub(now) / 2).max(LEAST_RENEWAL_WAIT);
        self.due = Some(now.saturating_add(pause).min(next.max(now + SECOND)));
    }

    fn enter(&mut self, now: Millis, state: State) {
        self.transaction = self.random.number();
        self.enter_same(now, state);
    }

    /// In the same transaction.
    fn enter_same(&mut self, now: Millis, state: State) {
        self.state = state;
        self.sent = 0;
        self.due = Some(now);
    }

    fn send(
        &mut self,
        now: Millis,
        kind: Kind,
        requested: Option<Ipv4Addr>,
        server: Option<Ipv4Addr>,
        acts: &mut Vec<Act>,
    ) {
        self.sent = self.sent.saturating_add(1);
        let request = self.request(now, kind, Ipv4Addr::UNSPECIFIED, requested, server);
        acts.push(Act::Broadcast(request, Ipv4Addr::UNSPECIFIED));
        let wait = wait(FIRST_WAIT, LONGEST_WAIT, self.sent);
        self.due = Some(now.saturating_add(self.random.around(wait)));
    }

    fn request(
        &self,
        now: Millis,
        kind: Kind,
        own: Ipv4Addr,
        requested: Option<Ipv4Addr>,
        server: Option<Ipv4Addr>,
    ) -> Vec<u8> {
        let seconds = u16::try_from(now.saturating_sub(self.began) / SECOND).unwrap_or(u16::MAX);
        let host_name = self.host_name.as_deref();
        let (transaction, mac) = (self.transaction, self.mac);
        Request { kind, transaction, mac, seconds, own, requested, server, host_name }.bytes()
    }

    /// Once for each message of ours: a server that sends nonsense fills no log.
    fn tell(&mut self, note: String, acts: &mut Vec<Act>) {
        if self.told != self.transaction {
            self.told = self.transaction;
            acts.push(Act::Note(note));
        }
    }
}

/// When so many seconds are over; `None` for never.
fn after(since: Millis, seconds: u32) -> Option<Millis> {
    (seconds != FOR_EVER).then(|| since.saturating_add(u64::from(seconds) * SECOND))
}

#[cfg(test)]
mod tests {
    use super::super::message::tests::{MAC, answer};
    use super::*;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
    const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
    const OPTIONS: [u8; 18] =
        [option::SERVER, 4, 10, 0, 2, 2, option::MASK, 4, 255, 255, 255, 0, option::LEASE, 4, 0, 0, 0x0e, 0x10];

    fn client() -> Client {
        Client::new(MAC, Some("guest".into()), Random::new(9))
    }

    fn turn(client: &mut Client, now: Millis) -> Vec<Act> {
        let mut acts = vec![];
        client.turn(now, &mut acts);
        acts
    }

    fn hear(client: &mut Client, now: Millis, kind: Kind, options: &[u8]) -> Vec<Act> {
        let mut acts = vec![];
        client.receive(now, &answer(kind, client.transaction, ADDRESS, options), &mut acts);
        acts
    }

    /// What kind of message it is, and whether everybody gets it.
    fn sent(acts: &[Act]) -> Option<(u8, bool)> {
        acts.iter().find_map(|act| match act {
            Act::Broadcast(bytes, _) => Some((bytes[242], true)),
            Act::Unicast(bytes, ..) => Some((bytes[242], false)),
            _ => None,
        })
    }

    fn bound(now: Millis) -> Client {
        let mut client = client();
        client.start(now, None);
        turn(&mut client, now);
        hear(&mut client, now, Kind::Offer, &OPTIONS);
        assert!(matches!(hear(&mut client, now, Kind::Acknowledge, &OPTIONS)[..], [Act::Take(..)]));
        client
    }

    #[test]
    fn answers_that_nobody_asked_for_change_nothing() {
        let mut client = client();
        client.start(0, None);
        for kind in [Kind::Offer, Kind::Acknowledge, Kind::Refuse] {
            assert_eq!(hear(&mut client, 0, kind, &OPTIONS), [], "before the question");
        }
        turn(&mut client, 0);
        assert_eq!(hear(&mut client, 0, Kind::Acknowledge, &OPTIONS), [], "a yes to no request");
        assert_eq!(hear(&mut client, 0, Kind::Refuse, &OPTIONS), []);
        assert_eq!(hear(&mut client, 0, Kind::Offer, &OPTIONS[6..]), [], "an offer of no server");
        assert_eq!(sent(&hear(&mut client, 0, Kind::Offer, &OPTIONS)), Some((3, true)));
        let other = [&[option::SERVER, 4, 10, 0, 2, 9][..], &OPTIONS[6..]].concat();
        for kind in [Kind::Acknowledge, Kind::Refuse] {
            assert_eq!(hear(&mut client, 0, kind, &other), [], "of another server");
        }
        let mut acts = vec![];
        client.receive(0, &answer(Kind::Acknowledge, client.transaction, SERVER, &OPTIONS), &mut acts);
        assert_eq!(acts, [], "another address");
    }

    #[test]
    fn any_bytes_at_any_time_neither_stop_nor_flood_the_client() {
        let mut random = Random::new(3);
        let mut client = client();
        client.start(0, None);
        let (mut now, mut count) = (0, 0);
        for _ in 0..50_000 {
            now += 100;
            let kind = [Kind::Offer, Kind::Acknowledge, Kind::Refuse][random.number() as usize % 3];
            let mut bytes = answer(kind, client.transaction, ADDRESS, &OPTIONS);
            for _ in 0..random.number() % 4 {
                let place = random.number() as usize % bytes.len();
                bytes[place] = random.number().to_be_bytes()[0];
            }
            let mut acts = vec![];
            client.turn(now, &mut acts);
            client.receive(now, &bytes, &mut acts);
            count += acts.len();
            assert!(client.due().is_none_or(|due| due <= now + 86_400 * 365 * 1000 * 137));
        }
        assert!(count < 5000, "{count} acts in {} minutes", now / 60_000);
    }

    #[test]
    fn without_a_server_it_asks_ever_less_and_never_stops() {
        let mut client = client();
        client.start(0, None);
        let mut waits = vec![];
        let mut now = 0;
        for _ in 0..12 {
            assert_eq!(sent(&turn(&mut client, now)), Some((1, true)));
            let due = client.due().unwrap();
            waits.push((due - now + 500) / 1000);
            now = due;
        }
        assert!(waits[0] == 1 && (2..=3).contains(&waits[1]) && waits[11] >= 57, "{waits:?}");
    }

    #[test]
    fn a_server_that_offers_and_then_says_nothing_is_given_up() {
        let mut client = client();
        client.start(0, None);
        turn(&mut client, 0);
        hear(&mut client, 0, Kind::Offer, &OPTIONS);
        let mut kinds = vec![];
        for _ in 0..REQUESTS {
            let now = client.due().unwrap();
            kinds.extend(sent(&turn(&mut client, now)).map(|(kind, _)| kind));
        }
        assert_eq!(kinds, [3, 3, 3, 1]);
    }

    #[test]
    fn a_lease_is_renewed_then_rebound_then_over() {
        let mut client = bound(5000);
        assert_eq!(client.due(), Some(5000 + 1_800_000));
        assert_eq!(turn(&mut client, 5000 + 1_799_999), []);
        assert_eq!(sent(&turn(&mut client, 5000 + 1_800_000)), Some((3, false)));
        let mut last = vec![];
        let mut steps = 0;
        while client.lease().is_some() {
            let now = client.due().unwrap();
            last = turn(&mut client, now);
            steps += 1;
            assert!(steps < 30 && now <= 5000 + 3_600_000);
            if now == 5000 + 3_150_000 {
                assert_eq!(sent(&last), Some((3, true)));
            }
        }
        assert!(matches!(last[..], [Act::Drop(_), Act::Broadcast(..)]), "{last:?}");
    }

    #[test]
    fn more_time_is_taken_and_a_no_ends_it() {
        let mut client = bound(0);
        turn(&mut client, 1_800_000);
        assert!(matches!(hear(&mut client, 1_800_100, Kind::Acknowledge, &OPTIONS)[..], [Act::Take(..)]));
        assert_eq!(client.due(), Some(1_800_100 + 1_800_000));
        turn(&mut client, 3_600_100);
        assert!(matches!(hear(&mut client, 3_600_200, Kind::Refuse, &OPTIONS)[..], [Act::Drop(_)]));
        assert_eq!(sent(&turn(&mut client, 3_600_200)), Some((1, true)), "at once the first time");
    }

    #[test]
    fn an_address_from_before_is_asked_for_first() {
        let mut client = client();
        client.start(0, Some(ADDRESS));
        assert_eq!(sent(&turn(&mut client, 0)), Some((3, true)));
        assert!(matches!(hear(&mut client, 0, Kind::Acknowledge, &OPTIONS)[..], [Act::Take(..)]));
        client.carrier_is_back(9);
        assert_eq!(sent(&turn(&mut client, 9)), Some((3, true)));
        for _ in 0..CONFIRMATIONS - 1 {
            let now = client.due().unwrap();
            turn(&mut client, now);
        }
        let now = client.due().unwrap();
        assert_eq!(sent(&turn(&mut client, now)), Some((1, true)));
    }

    #[test]
    fn rapid_commit_needs_one_answer() {
        let mut client = client();
        client.start(0, None);
        turn(&mut client, 0);
        let options = [&OPTIONS[..], &[option::RAPID_COMMIT, 0]].concat();
        assert!(matches!(hear(&mut client, 0, Kind::Acknowledge, &options)[..], [Act::Take(..)]));
    }

    #[test]
    fn a_conflict_is_declined_and_waited_out_and_a_release_told() {
        let mut client = bound(0);
        let mut acts = vec![];
        client.conflict(100, &mut acts);
        assert!(sent(&acts) == Some((4, true)) && acts.contains(&Act::Drop("another machine has this address")));
        assert!(client.due().unwrap() >= 9100);
        let mut client = bound(0);
        let mut acts = vec![];
        client.release(100, &mut acts);
        assert_eq!(sent(&acts), Some((7, false)));
        assert_eq!((client.due(), client.lease()), (None, None));
    }
}

//! One network card: the clients of both protocols with their sockets, and what they have made of the card.

mod v4;
mod v6;

use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use kiln_guest::host_name;
use kiln_guest::netlink::{Card, Links, Routes};

use crate::Millis;
use crate::arguments::Arguments;
use crate::resolv::Names;
use crate::retry::Random;

/// Packets of one socket that are looked at before others have their turn.
const PACKET_LIMIT: usize = 64;
/// The longest packet that is read; longer ones are cut.
const PACKET_BYTES: usize = 9216;
/// Default routes of several cards differ by it: the first card wins.
const METRIC: u32 = 100;

/// What cards work with.
pub struct Surroundings<'a> {
    /// What is asked for.
    pub arguments: &'a Arguments,
    /// To change addresses and routes.
    pub routes: Routes,
    /// Where leases are kept.
    pub folder: PathBuf,
    /// For what there is to tell.
    pub say: &'a mut dyn FnMut(&str),
}

impl Surroundings<'_> {
    fn say(&mut self, card: &Card, text: &str) {
        (self.say)(&format!("{}: {text}", card.name));
    }

    /// Tells what did not work.
    fn check(&mut self, card: &Card, what: &str, result: std::io::Result<()>) {
        if let Err(error) = result {
            self.say(card, &format!("cannot {what}: {error}"));
        }
    }
}

/// A card that is looked after.
pub struct Served {
    card: Card,
    v4: Option<v4::Side>,
    v6: Option<v6::Side>,
}

impl Served {
    /// Sets the card up and begins. What cannot be done is told, and the rest goes on.
    pub fn begin(card: Card, now: Millis, random: &mut Random, around: &mut Surroundings<'_>) -> Self {
        if let Err(error) = Links::open().and_then(|links| links.up(&card.name)) {
            let cause = std::error::Error::source(&error).map_or(String::new(), |cause| format!(": {cause}"));
            around.say(&card, &format!("{error}{cause}"));
        }
        let mut seed = || Random::new(u64::from(random.number()) << 32 | u64::from(random.number()));
        let v4 = around.arguments.v4.then(|| v4::Side::open(&card, now, seed(), around));
        let v6 = (around.arguments.v6 && v6::is_there()).then(|| v6::Side::open(&card, now, seed(), around));
        Self { v4: v4.flatten(), v6: v6.flatten(), card }
    }

    /// The card.
    pub fn card(&self) -> &Card {
        &self.card
    }

    /// The card is now so: perhaps its cable was put in again.
    pub fn update(&mut self, card: &Card, now: Millis) {
        if card.has_carrier && !self.card.has_carrier {
            self.v4.iter_mut().for_each(|side| side.carrier_is_back(now));
            self.v6.iter_mut().for_each(|side| side.carrier_is_back(now));
        }
        self.card.clone_from(card);
    }

    /// Hears what arrived and does what is due.
    pub fn turn(&mut self, now: Millis, around: &mut Surroundings<'_>) {
        self.v4.iter_mut().for_each(|side| side.turn(&self.card, now, around));
        self.v6.iter_mut().for_each(|side| side.turn(&self.card, now, around));
    }

    /// When to [`turn`](Self::turn) it, whatever arrives.
    pub fn due(&self) -> Option<Millis> {
        self.v4.iter().filter_map(v4::Side::due).chain(self.v6.iter().filter_map(v6::Side::due)).min()
    }

    /// What to wait for.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.v4.iter().flat_map(v4::Side::descriptors).chain(self.v6.iter().flat_map(v6::Side::descriptors))
    }

    /// Whether the card has an address by one of the protocols.
    pub fn is_ready(&self) -> bool {
        self.v4.as_ref().is_some_and(v4::Side::is_ready)
            || self.v6.as_ref().is_some_and(|side| side.is_ready(self.card.index))
    }

    /// What it knows of names: DHCPv4's first.
    pub fn names(&self, names: &mut Names) {
        if let Some(lease) = self.v4.as_ref().and_then(v4::Side::taken) {
            lease.dns.iter().for_each(|server| names.server((*server).into(), &self.card.name));
            names.domains(&lease.search);
        }
        self.v6.iter().for_each(|side| side.names(&self.card.name, names));
    }

    /// Gives everything back.
    pub fn release(&mut self, now: Millis, around: &mut Surroundings<'_>) {
        self.v4.iter_mut().for_each(|side| side.release(&self.card, now, around));
        self.v6.iter_mut().for_each(|side| side.release(&self.card, now, around));
    }
}

/// The name that servers are told: what was asked for, else the machine's if somebody gave it one.
fn own_name(arguments: &Arguments) -> Option<String> {
    let name = arguments.host_name.clone().unwrap_or_else(host_name::current);
    crate::name::plain(name.as_bytes()).filter(|name| !host_name::is_placeholder(name))
}

//! All cards, for as long as the program runs.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use kiln_guest::netlink::{self, Card, RouteSocket, Routes};
use kiln_guest::signals::{Received, Signals};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::arguments::Arguments;
use crate::card::{Served, Surroundings};
use crate::resolv::Names;
use crate::retry::Random;
use crate::{Millis, SECOND};

/// `RTMGRP_LINK | RTMGRP_IPV6_IFADDR`: cards come, go and get cables; the kernel has made an address of the link.
const NEWS: u32 = 0x1 | 0x100;
/// How long the other cards are waited for once one is ready.
const GRACE: Millis = 2 * SECOND;
/// More cards are left alone.
const CARD_LIMIT: usize = 64;
/// Some time always comes: a signal that is lost to the loop is not lost for ever.
const LONGEST_SLEEP: Millis = 600 * SECOND;

/// Where things are written.
#[derive(Debug, Clone)]
pub struct Places {
    /// The folder of leases, and of the file `ready`, which is there while a card has an address.
    pub folder: PathBuf,
    /// What `/etc/resolv.conf` leads to.
    pub resolv: PathBuf,
}

/// Why it ended before anything was had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing to ask on.
    #[error("there is no network card: start the machine with one, or name an interface")]
    NoCard,
    /// Nobody answered.
    #[error("no address within {} s: is there a DHCP server, and a cable?", .0.as_secs())]
    NoLease(Duration),
    /// Somebody ended it.
    #[error("ended by a signal before there was an address")]
    Ended,
    /// The kernel does not tell of cards.
    #[error("cannot ask the kernel for network cards")]
    Cards(#[source] io::Error),
    /// The kernel gives no descriptor for signals.
    #[error("cannot listen for signals")]
    Signals(#[source] io::Error),
    /// The kernel does not wait.
    #[error("cannot wait for packets")]
    Wait(#[source] io::Error),
}

/// Looks after the cards that are asked for: until a signal comes, or with `once` until there is an address.
///
/// # Errors
/// [`Error`].
pub fn run(arguments: &Arguments, places: &Places, say: &mut dyn FnMut(&str)) -> Result<(), Error> {
    let mut signals = Signals::listen().map_err(Error::Signals)?;
    // Before the cards are counted, so that none is missed.
    let news = RouteSocket::open(NEWS).map_err(Error::Cards)?;
    let routes = Routes::open().map_err(Error::Cards)?;
    if let Err(error) = fs::create_dir_all(&places.folder) {
        say(&format!("cannot make `{}`: {error}", places.folder.display()));
    }
    let around = Surroundings { arguments, routes, folder: places.folder.clone(), say };
    let mut watch =
        Watch { around, places, served: vec![], random: Random::new(seed()), written: None, is_ready: false };
    watch.set_ready(false);
    watch.look()?;
    if arguments.once && arguments.interfaces.is_empty() && watch.served.is_empty() {
        return Err(Error::NoCard);
    }
    let began = now();
    let mut ready_since = None;
    loop {
        watch.turn();
        if arguments.once && watch.is_done(&mut ready_since) {
            return Ok(());
        }
        let due = watch.due().into_iter().chain(ready_since.map(|since: Millis| since.saturating_add(GRACE)));
        let end = arguments.timeout.filter(|_| arguments.once);
        let end = end.map(|limit| began.saturating_add(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)));
        watch.wait(&signals, &news, due.chain(end).min())?;
        if let (Some(end), Some(limit)) = (end, arguments.timeout)
            && now() >= end
            && !watch.is_ready
        {
            return Err(Error::NoLease(limit));
        }
        while let Ok(Some(signal)) = signals.receive() {
            if matches!(signal, Received::Terminate | Received::Interrupt) {
                watch.end();
                return if arguments.once { Err(Error::Ended) } else { Ok(()) };
            }
        }
        if news.news() {
            watch.look()?;
        }
    }
}

struct Watch<'a> {
    around: Surroundings<'a>,
    places: &'a Places,
    served: Vec<Served>,
    random: Random,
    written: Option<Names>,
    is_ready: bool,
}

impl Watch<'_> {
    /// Which cards there are now.
    fn look(&mut self) -> Result<(), Error> {
        let cards = netlink::cards(self.around.routes.socket()).map_err(Error::Cards)?;
        let is_same = |served: &Served, card: &Card| served.card().index == card.index && served.card().mac == card.mac;
        self.served.retain(|served| cards.iter().any(|card| is_same(served, card)));
        let now = now();
        for card in &cards {
            if let Some(served) = self.served.iter_mut().find(|served| is_same(served, card)) {
                served.update(card, now);
            } else if self.around.arguments.means(&card.name, card.is_virtual) && self.served.len() < CARD_LIMIT {
                self.served.push(Served::begin(card.clone(), now, &mut self.random, &mut self.around));
            }
        }
        Ok(())
    }

    fn turn(&mut self) {
        let now = now();
        self.served.iter_mut().for_each(|served| served.turn(now, &mut self.around));
        self.write_names();
        let is_ready = self.served.iter().any(Served::is_ready);
        if is_ready != self.is_ready {
            self.set_ready(is_ready);
        }
    }

    /// Whether every card with a cable has an address, or the others were waited for long enough.
    fn is_done(&self, ready_since: &mut Option<Millis>) -> bool {
        if !self.is_ready {
            return false;
        }
        let since = *ready_since.get_or_insert_with(now);
        let mut cabled = self.served.iter().filter(|served| served.card().has_carrier);
        cabled.all(Served::is_ready) || now() >= since.saturating_add(GRACE)
    }

    fn due(&self) -> Option<Millis> {
        self.served.iter().filter_map(Served::due).min()
    }

    fn wait(&self, signals: &Signals, news: &RouteSocket, due: Option<Millis>) -> Result<(), Error> {
        let left = due.map_or(LONGEST_SLEEP, |due| due.saturating_sub(now()).min(LONGEST_SLEEP));
        let all = [signals.as_fd(), news.as_fd()].into_iter().chain(self.served.iter().flat_map(Served::descriptors));
        let mut waiting: Vec<PollFd<'_>> = all.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        let limit = Timespec::try_from(Duration::from_millis(left))
            .map_err(|_| Error::Wait(io::ErrorKind::InvalidInput.into()))?;
        match rustix::event::poll(&mut waiting, Some(&limit)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(errno) => Err(Error::Wait(errno.into())),
        }
    }

    fn write_names(&mut self) {
        let mut names = Names::default();
        self.served.iter().for_each(|served| served.names(&mut names));
        // What somebody wrote before is left alone until something is known.
        if self.written.as_ref() == Some(&names) || (self.written.is_none() && names == Names::default()) {
            return;
        }
        if let Err(error) = names.write(&self.places.resolv) {
            (self.around.say)(&format!("cannot write `{}`: {error}", self.places.resolv.display()));
        }
        self.written = Some(names);
    }

    fn set_ready(&mut self, is_ready: bool) {
        let path = self.places.folder.join("ready");
        // That the folder is not there was told before.
        let _ = if is_ready { fs::write(path, "") } else { fs::remove_file(path) };
        self.is_ready = is_ready;
    }

    fn end(&mut self) {
        if !self.around.arguments.keep {
            let now = now();
            self.served.iter_mut().for_each(|served| served.release(now, &mut self.around));
            self.set_ready(false);
        }
    }
}

fn now() -> Millis {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let part = |value: i64| u64::try_from(value).unwrap_or(0);
    part(time.tv_sec) * SECOND + part(time.tv_nsec) / 1_000_000
}

/// From the kernel; early in a boot, when it has no random numbers yet, from the clock, as nothing here is secret.
fn seed() -> u64 {
    let mut bytes = [0; 8];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::NONBLOCK) {
        Ok(8) => u64::from_ne_bytes(bytes),
        _ => now().rotate_left(32) ^ u64::from(std::process::id()),
    }
}

//! A network of several machines without a server: each is a process of its own with a [`Stack`] of its own for the way
//! outwards, and with a connection to each of the others, over which frames pass as they are. Who is on the network, and
//! under which address, stands in a folder.

mod filter;
mod folder;
mod peers;

#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fd::AsFd;

pub use folder::JoinError;

use filter::{Link as Subnet, Way};
use folder::Seat;
use peers::Peers;

use super::watch::Watch;
use crate::Millis;
use crate::dhcp::Lease;
use crate::link::Link;
use crate::memory::MemoryPort;
use crate::ndp::{self, Sender};
use crate::packets::ToGuest;
use crate::port::{Abilities, GuestFrame, GuestPort};
use crate::publish::Publications;
use crate::stack::{Network, Stack};
use crate::wire::{Arp, Headers, Ip, Mac, Macs, Protocol};

/// The domain of the machines' names.
const DOMAIN: &str = "kiln.internal";
const STACK: u64 = 0;
const LISTENER: u64 = 1;

/// A machine's place on a network of several.
pub struct Member {
    watch: Watch,
    stack: Stack,
    peers: Peers,
    seat: Seat,
    subnet: Subnet,
    mac: Mac,
    /// IPv6 addresses that the guest has.
    claims: Vec<Ipv6Addr>,
    lost: u64,
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Member").field("address", &self.address()).field("name", &self.name()).finish_non_exhaustive()
    }
}

impl Member {
    /// Joins the network that `folder` stands for, and makes the folder if need be. `network` tells of the subnet and the
    /// way outwards; the address is the lowest free one from .15 on, or the one that `name` had before, or `wanted`.
    ///
    /// # Errors
    /// The folder is somebody else's, all addresses are taken, or `mac` or `wanted` is; or the others have another subnet.
    pub fn join(
        folder: &Path,
        (name, mac): (&str, Mac),
        wanted: Option<Ipv4Addr>,
        mut network: Network,
    ) -> Result<Self, JoinError> {
        let seat = Seat::take(folder, (name, mac), wanted, &network.lease)?;
        let who = seat.who().clone();
        network.guest_mac = Some(mac);
        let Lease { address, host_name, search, .. } = &mut network.lease;
        *address = who.address;
        *host_name = Some(who.name.clone());
        if !search.iter().any(|domain| domain == DOMAIN) {
            search.insert(0, DOMAIN.into());
        }
        if let Some(v6) = &mut network.v6 {
            v6.address = who.v6(v6.prefix);
        }
        let subnet = Subnet::of(&network);
        let host = |source| JoinError::Host { folder: folder.to_owned(), source };
        let watch = Watch::new().map_err(host)?;
        let mut stack = Stack::new(network).map_err(host)?;
        stack.set_name(&full(&who.name), &[who.address.into()]);
        watch.add_level(stack.fd(), STACK).map_err(host)?;
        watch.add_level(seat.listener(), LISTENER).map_err(host)?;
        let mut member = Self { watch, stack, peers: Peers::default(), seat, subnet, mac, claims: Vec::new(), lost: 0 };
        for other in member.seat.take_others() {
            member.peers.call(other, &member.seat, &member.watch).map_err(host)?;
        }
        member.seat.open_to_others();
        member.tell_names();
        Ok(member)
    }

    /// Its address.
    pub fn address(&self) -> Ipv4Addr {
        self.seat.who().address
    }

    /// Its name, under which the others find it: the one asked for, unless somebody had that.
    pub fn name(&self) -> &str {
        &self.seat.who().name
    }

    /// The ports of the host that lead to the guest's.
    pub fn publications(&self) -> Publications {
        self.stack.publications()
    }

    /// How many others are there.
    pub fn others(&self) -> usize {
        self.peers.iter().count()
    }

    fn tell_names(&mut self) {
        for (name, addresses) in self.peers.take_changes() {
            self.stack.set_name(&full(&name), &addresses);
        }
    }

    /// Our guest has an IPv6 address: its name means that too, here and for those who come later.
    fn claim(&mut self, address: Ipv6Addr) {
        if self.claims.contains(&address) {
            return;
        }
        self.claims.push(address);
        self.stack.guest_has(address);
        let who = self.seat.who();
        let addresses = std::iter::once(who.address.into()).chain(self.claims.iter().copied().map(IpAddr::V6));
        self.stack.set_name(&full(&who.name), &addresses.collect::<Vec<_>>());
        let macs = Macs { source: self.mac, destination: Mac::of_group(ndp::ALL_NODES.into()) };
        let mut port = MemoryPort::new(1);
        let ip = Ip::new(address.into(), ndp::ALL_NODES.into(), Protocol::ICMPV6);
        let mut guest = ToGuest { port: &mut port, macs, mtu: u16::MAX, id: 0 };
        let message = ndp::neighbor_advertisement(address, self.mac, Sender::Host);
        guest.message(Ip { hop_limit: ndp::HOP_LIMIT, ..ip }, message);
        port.take_frames().into_iter().for_each(|frame| self.peers.add_own_claim(frame));
    }

    /// A question for an address of the link: those of the others are known here.
    fn arp(&mut self, arp: &Arp, port: &mut dyn GuestPort) {
        let asked = self.peers.iter().find(|who| who.address == arp.target);
        if let Some(who) = asked {
            // Lost, if there is no room: the guest asks again.
            let _ = port.send(Headers::whole(&arp.answer(who.mac)), &[]);
        }
    }
}

fn full(name: &str) -> String {
    format!("{name}.{DOMAIN}")
}

impl Link for Member {
    fn fd(&self) -> BorrowedFd<'_> {
        self.watch.fd()
    }

    fn takes(&self) -> Abilities {
        self.stack.takes()
    }

    fn from_guest(&mut self, frame: &dyn GuestFrame, port: &mut dyn GuestPort, now: Millis) {
        if let Some(address) = self.subnet.claimed(frame.head(), self.seat.who()) {
            self.claim(address);
        }
        match self.subnet.way(self.mac, frame, self.peers.iter()) {
            Way::Stack => self.stack.from_guest(frame, port, now),
            Way::Arp(arp) => self.arp(&arp, port),
            Way::One(mac) => {
                if !self.peers.send(mac, frame, now) {
                    self.lost += 1;
                }
            }
            Way::All => self.peers.send_all(frame, now),
            Way::Nowhere => self.lost += 1,
        }
    }

    fn turn(&mut self, port: &mut dyn GuestPort, now: Millis) -> io::Result<bool> {
        for happened in self.watch.happened()? {
            match happened.token {
                STACK => {}
                LISTENER => self.peers.accept(self.seat.listener(), &self.watch, now),
                token => self.peers.happened(token, happened.is_readable),
            }
        }
        self.peers.greet(&self.seat, now);
        let mut has_more = self.stack.turn(port, now)?;
        has_more |= self.peers.turn(&self.subnet, self.mac, port, now);
        self.peers.call_again(&self.seat, &self.watch, now);
        self.tell_names();
        Ok(has_more)
    }

    fn deadline(&self) -> Option<Millis> {
        [self.stack.deadline(), self.peers.deadline()].into_iter().flatten().min()
    }

    fn change_guest(&mut self) {
        self.stack.change_guest();
    }

    fn lost(&self) -> u64 {
        self.lost + self.peers.lost()
    }
}

/// Whether two descriptors are of the same user: anybody else's has no business here.
fn is_own(socket: impl AsFd) -> bool {
    rustix::net::sockopt::socket_peercred(socket).is_ok_and(|peer| peer.uid == rustix::process::geteuid())
}

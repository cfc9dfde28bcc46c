//! Addresses and routes of a link, and its MTU (`rtnetlink(7)`).

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use super::message::{CREATE, Message, REPLACE};
use super::socket::RouteSocket;

const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const IFLA_MTU: u16 = 4;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_CACHEINFO: u16 = 6;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RT_TABLE_MAIN: u8 = 254;
/// `RTPROT_DHCP`: who made the route.
const PROTOCOL_DHCP: u8 = 16;
const SCOPE_UNIVERSE: u8 = 0;
const SCOPE_LINK: u8 = 253;
const UNICAST: u8 = 1;
/// `RTNH_F_ONLINK`: the gateway is on the link, whatever the prefix says.
const ON_LINK: u32 = 4;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// An address of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub address: IpAddr,
    /// Leading bits of its network.
    pub prefix_bits: u8,
    /// Seconds until the kernel removes it; `u32::MAX` for never.
    pub valid_s: u32,
    /// Seconds until it is not taken for new connections; at most `valid_s`.
    pub preferred_s: u32,
}

/// A route over a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Where it leads.
    pub destination: IpAddr,
    /// Leading bits of that: 0 is the default route.
    pub prefix_bits: u8,
    /// By which neighbour, of the same family; without one all of it is on the link.
    pub gateway: Option<IpAddr>,
    /// Own address of packets that take it. The route goes when that address does.
    pub source: Option<IpAddr>,
    /// The lowest wins.
    pub metric: u32,
}

/// Changes the addresses and routes of links.
#[derive(Debug)]
pub struct Routes {
    socket: RouteSocket,
}

impl Routes {
    /// Opens the socket in the caller's network namespace.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open() -> io::Result<Self> {
        Ok(Self { socket: RouteSocket::open(0)? })
    }

    /// The socket, for lists.
    pub fn socket(&self) -> &RouteSocket {
        &self.socket
    }

    /// Sets a link's MTU, in bytes.
    ///
    /// # Errors
    /// The kernel's: the card cannot do it.
    pub fn set_mtu(&self, index: u32, mtu: u32) -> io::Result<()> {
        let mut message = Message::new(RTM_SETLINK, 0);
        let mut header = [0; 16];
        header[4..8].copy_from_slice(&index.to_ne_bytes());
        message.body(&header);
        message.attribute(IFLA_MTU, &mtu.to_ne_bytes());
        self.socket.ask(message.finish())
    }

    /// Gives a link an address, or new lifetimes to one that it has.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_address(&self, index: u32, address: &Address) -> io::Result<()> {
        let mut message = address_message(RTM_NEWADDR, CREATE | REPLACE, index, address);
        if let (IpAddr::V4(own), 0..31) = (address.address, address.prefix_bits) {
            let host_bits = u32::MAX.checked_shr(address.prefix_bits.into()).unwrap_or(0);
            message.attribute(IFA_BROADCAST, &Ipv4Addr::from(u32::from(own) | host_bits).octets());
        }
        let mut times = [0; 16];
        times[..4].copy_from_slice(&address.preferred_s.to_ne_bytes());
        times[4..8].copy_from_slice(&address.valid_s.to_ne_bytes());
        message.attribute(IFA_CACHEINFO, &times);
        self.socket.ask(message.finish())
    }

    /// Takes an address from a link.
    ///
    /// # Errors
    /// The kernel's: the link has no such address.
    pub fn remove_address(&self, index: u32, address: &Address) -> io::Result<()> {
        self.socket.ask(address_message(RTM_DELADDR, 0, index, address).finish())
    }

    /// Makes a route, or changes the one that leads there with this metric.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_route(&self, index: u32, route: &Route) -> io::Result<()> {
        self.socket.ask(route_message(RTM_NEWROUTE, CREATE | REPLACE, index, route))
    }

    /// Removes a route.
    ///
    /// # Errors
    /// The kernel's: there is no such route.
    pub fn remove_route(&self, index: u32, route: &Route) -> io::Result<()> {
        self.socket.ask(route_message(RTM_DELROUTE, 0, index, route))
    }
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

fn put(message: &mut Message, kind: u16, address: IpAddr) {
    match address {
        IpAddr::V4(address) => message.attribute(kind, &address.octets()),
        IpAddr::V6(address) => message.attribute(kind, &address.octets()),
    }
}

fn address_message(kind: u16, flags: u16, index: u32, address: &Address) -> Message {
    let mut message = Message::new(kind, flags);
    message.body(&[family(address.address), address.prefix_bits, 0, SCOPE_UNIVERSE]);
    message.body(&index.to_ne_bytes());
    put(&mut message, IFA_LOCAL, address.address);
    put(&mut message, IFA_ADDRESS, address.address);
    message
}

fn route_message(kind: u16, flags: u16, index: u32, route: &Route) -> Vec<u8> {
    let mut message = Message::new(kind, flags);
    let scope = if route.gateway.is_some() || route.destination.is_ipv6() { SCOPE_UNIVERSE } else { SCOPE_LINK };
    message.body(&[family(route.destination), route.prefix_bits, 0, 0, RT_TABLE_MAIN, PROTOCOL_DHCP, scope, UNICAST]);
    message.body(&(if route.gateway.is_some() { ON_LINK } else { 0 }).to_ne_bytes());
    if route.prefix_bits > 0 {
        put(&mut message, RTA_DST, route.destination);
    }
    if let Some(gateway) = route.gateway {
        put(&mut message, RTA_GATEWAY, gateway);
    }
    if let Some(source) = route.source {
        put(&mut message, RTA_PREFSRC, source);
    }
    message.attribute(RTA_OIF, &index.to_ne_bytes());
    message.attribute(RTA_PRIORITY, &route.metric.to_ne_bytes());
    message.finish()
}

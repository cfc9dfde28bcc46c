//! What a guest's network is like, told before it begins.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use crate::dhcp::{Extras, Lease};
use crate::dns::Names;
use crate::ndp;
use crate::policy::Policy;
use crate::wire::Mac;

/// What a guest's network is like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// What the guest is told: addresses, MTU, names.
    pub lease: Lease,
    /// The same for IPv6, if there is any. Links that carry less than 1,280 bytes have none (RFC 8200 section 5).
    pub v6: Option<NetworkV6>,
    /// The gateway's hardware address.
    pub gateway_mac: Mac,
    /// The guest's, if it is known; frames from others are dropped.
    pub guest_mac: Option<Mac>,
    /// Whether the gateway's address leads to the host's own loopback.
    pub host_loopback: bool,
    /// Where else the guest may go.
    pub policy: Policy,
    /// The list of name servers, in the form of `resolv.conf`.
    pub resolvers: PathBuf,
    /// Further names, and what they mean. A name may have several addresses.
    pub names: Vec<(String, IpAddr)>,
    /// Where the guest's lease is written down, as dnsmasq writes it.
    pub lease_file: Option<PathBuf>,
}

/// IPv6 of a guest's network. The guest makes addresses itself or asks for one; MTU, domains and hardware addresses are
/// those of [`Network`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetworkV6 {
    /// The first address of the prefix, which is 64 bits long.
    pub prefix: Ipv6Addr,
    /// The gateway, inside of the prefix. It has a link-local address as well.
    pub gateway: Ipv6Addr,
    /// The name server, inside of the prefix.
    pub dns: Ipv6Addr,
    /// The guest's, if it asks for one.
    pub address: Ipv6Addr,
    /// Whether it leads anywhere else.
    pub outwards: Outwards,
}

/// Whether there is a way from a guest's IPv6 to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outwards {
    /// As long as the host has a route. Without one, guests are told that there is no router, so that they do not wait
    /// for what never answers.
    IfHostHas,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl NetworkV6 {
    /// A prefix of 64 bits: gateway ::2, name server ::3, guest ::15, as with IPv4.
    pub fn of_prefix(prefix: Ipv6Addr) -> Self {
        let prefix = Ipv6Addr::from_bits(prefix.to_bits() & !u128::from(u64::MAX));
        let address = |last: u128| Ipv6Addr::from_bits(prefix.to_bits() | last);
        Self { prefix, gateway: address(2), dns: address(3), address: address(0x15), outwards: Outwards::IfHostHas }
    }

    pub(super) fn is_inside(&self, address: Ipv6Addr) -> bool {
        (address.to_bits() ^ self.prefix.to_bits()) >> 64 == 0
    }
}

impl Default for NetworkV6 {
    /// fd6b:696c:6e00::/64, of the block for local use (RFC 4193).
    fn default() -> Self {
        Self::of_prefix(Ipv6Addr::new(0xfd6b, 0x696c, 0x6e00, 0, 0, 0, 0, 0))
    }
}

impl Default for Network {
    /// QEMU's addresses, which people's scripts know: 10.0.2.0/24, gateway .2, name server .3, guest .15.
    fn default() -> Self {
        let address = |last| Ipv4Addr::new(10, 0, 2, last);
        Self {
            lease: Lease {
                address: address(15),
                prefix_bits: 24,
                gateway: address(2),
                dns: address(3),
                mtu: 1500,
                host_name: None,
                search: Vec::new(),
                extras: Extras::default(),
            },
            v6: Some(NetworkV6::default()),
            gateway_mac: Mac([0x52, 0x55, 10, 0, 2, 2]),
            guest_mac: None,
            host_loopback: false,
            policy: Policy::default(),
            resolvers: "/etc/resolv.conf".into(),
            names: Vec::new(),
            lease_file: None,
        }
    }
}

impl Network {
    /// The names that mean something here, the user's first.
    pub(super) fn all_names(&self) -> Names {
        let gateways = [Some(self.lease.gateway.into()), self.v6.map(|v6| v6.gateway.into())];
        let hosts: &[&str] = match self.host_loopback {
            true => &["host.kiln.internal", "host.docker.internal", "host.containers.internal"],
            false => &[],
        };
        let own = std::iter::once("gateway.kiln.internal").chain(hosts.iter().copied());
        let own = own.flat_map(|name| gateways.into_iter().flatten().map(|address: IpAddr| (name.to_owned(), address)));
        Names::new(self.names.iter().cloned().chain(own))
    }

    /// Whether an address is one of the network's.
    pub(super) fn is_inside(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => {
                let lease = &self.lease;
                let mask = u32::MAX.checked_shl(32 - u32::from(lease.prefix_bits)).unwrap_or(0);
                (address.to_bits() ^ lease.gateway.to_bits()) & mask == 0
            }
            IpAddr::V6(address) => self.v6.is_some_and(|v6| v6.is_inside(address)),
        }
    }

    /// Whether an address is the gateway's.
    pub(super) fn is_gateway(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => address == self.lease.gateway,
            IpAddr::V6(address) => {
                self.v6.is_some_and(|v6| address == v6.gateway) || address == ndp::link_local(self.gateway_mac)
            }
        }
    }

    /// Whether an address is the name server's.
    pub(super) fn is_dns(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => address == self.lease.dns,
            IpAddr::V6(address) => self.v6.is_some_and(|v6| address == v6.dns),
        }
    }

    /// How the guest sees an address of the host's side: the host itself is the gateway.
    pub(super) fn seen(&self, from: SocketAddr) -> SocketAddr {
        match (from.ip(), self.v6) {
            (address, _) if !address.is_loopback() && !self.is_inside(address) => from,
            (IpAddr::V6(_), Some(v6)) => SocketAddr::new(v6.gateway.into(), from.port()),
            _ => SocketAddr::new(self.lease.gateway.into(), from.port()),
        }
    }

    /// The same for what comes to a published port, and goes on over IPv4.
    pub(super) fn seen_by_v4(&self, from: SocketAddr) -> SocketAddr {
        match from {
            SocketAddr::V4(_) => self.seen(from),
            SocketAddr::V6(_) => SocketAddr::new(self.lease.gateway.into(), from.port()),
        }
    }

    /// The same over IPv6.
    pub(super) fn seen_by_v6(&self, from: SocketAddr) -> SocketAddr {
        match (from, self.v6) {
            (SocketAddr::V4(_), Some(v6)) => SocketAddr::new(v6.gateway.into(), from.port()),
            _ => self.seen(from),
        }
    }
}

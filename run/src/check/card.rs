//! Checks the network cards of a machine's description. Opens nothing.

use std::net::Ipv4Addr;
use std::path::Path;

use kiln_net::publish::Transport;
use kiln_net::wire::Mac;

use super::{Fault, MAX_CARDS};
use crate::cards::{collide, transport_name};
use crate::config::{CableEnd, Card, HostPort, MAX_MTU, MAX_PUBLISHED, MIN_MTU, Publish, Subnet, UserNetwork};

/// Most leading bits that the addresses of a network have in common: the guest is number 15, and others come behind it.
const MAX_PREFIX_BITS: u8 = 27;
/// Fewest: more addresses than 2^24 no private network has (RFC 1918 section 3).
const MIN_PREFIX_BITS: u8 = 8;
/// Longest name of a machine: one label of a domain name (RFC 1035 section 2.3.4).
const MAX_NAME_BYTES: usize = 63;
/// Longest name of a device of the host's (Linux: `IFNAMSIZ`, less the zero at the end).
const MAX_DEVICE_BYTES: usize = 15;

/// What is wrong with a network card.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CardFault {
    /// More cards than a machine has places for.
    #[error("a machine has at most {MAX_CARDS} network cards, not {cards}")]
    TooMany {
        /// Asked for.
        cards: usize,
    },
    /// An address that no card can have.
    #[error("{mac} is no address of one network card: {}", if *.mac == Mac([0; 6]) { "it is all zeros" } else { "its first byte is odd, which means a group" })]
    Mac {
        /// The address.
        mac: Mac,
    },
    /// Two cards with one address.
    #[error("two network cards have the address {mac}")]
    MacTwice {
        /// The address.
        mac: Mac,
    },
    /// An MTU that no link has.
    #[error("a network card has an MTU of {MIN_MTU} to {MAX_MTU} bytes, not {mtu}")]
    Mtu {
        /// Asked for.
        mtu: u16,
    },
    /// A number that is no descriptor.
    #[error("descriptor {number} is not open: the program that starts this one must leave it open")]
    NotOpen {
        /// The number.
        number: i32,
    },
    /// A network of addresses that cannot be one.
    #[error("{}/{} is no network for machines: give a private one of /{MIN_PREFIX_BITS} to /{MAX_PREFIX_BITS}, such as 10.0.2.0/24", subnet.address, subnet.prefix_bits)]
    Subnet {
        /// Asked for.
        subnet: Subnet,
    },
    /// An address that the guest cannot have.
    #[error(
        "the guest cannot have the address {address}: it must be in {network}, and neither the gateway {gateway} nor the name server {dns}"
    )]
    Address {
        /// Asked for.
        address: Ipv4Addr,
        /// The network, as a user writes it.
        network: String,
        /// The gateway.
        gateway: Ipv4Addr,
        /// The name server.
        dns: Ipv4Addr,
    },
    /// A name that no machine can have.
    #[error("`{name}` is no name of a machine: it has letters, digits and hyphens, at most {MAX_NAME_BYTES}")]
    HostName {
        /// Asked for.
        name: String,
    },
    /// A name that no device of the host's can have.
    #[error("`{name}` is no name of a device: it has 1 to {MAX_DEVICE_BYTES} bytes, without `/`, `%` and blanks")]
    Device {
        /// Asked for.
        name: String,
    },
    /// Standard input, output and error are none.
    #[error("descriptor {number} cannot be a network: give one from 3 on that is open when kiln starts")]
    Descriptor {
        /// Asked for.
        number: i32,
    },
    /// Frames for one would go to either.
    #[error("two network cards share {what}")]
    EndTwice {
        /// The end of both cables.
        what: String,
    },
    /// Guests have no port 0.
    #[error("port 0 of the guest cannot be published: nothing listens there")]
    GuestPort,
    /// Too many ports.
    #[error("at most {MAX_PUBLISHED} ports can be published, not {ports}")]
    TooManyPorts {
        /// Asked for.
        ports: usize,
    },
    /// One port of the host for two of the guest's.
    #[error("{} port {port} of the host is published twice", transport_name(*transport))]
    PublishedTwice {
        /// The host's port, or path.
        port: String,
        /// What it carries.
        transport: Transport,
    },
}

/// Checks all cards.
pub(super) fn check(cards: &[Card], faults: &mut Vec<Fault>) {
    let mut add = |fault| faults.push(Fault::Card(fault));
    if cards.len() > MAX_CARDS {
        add(CardFault::TooMany { cards: cards.len() });
    }
    let mut macs = Vec::new();
    for card in cards {
        if let Some(mac) = card.mac {
            if mac.is_group() || mac == Mac([0; 6]) {
                add(CardFault::Mac { mac });
            } else if macs.contains(&mac) {
                add(CardFault::MacTwice { mac });
            }
            macs.push(mac);
        }
        if !(MIN_MTU..=MAX_MTU).contains(&card.mtu) {
            add(CardFault::Mtu { mtu: card.mtu });
        }
        match &card.end {
            CableEnd::User(user) => check_user(user, &mut add),
            CableEnd::Tap(name) | CableEnd::Bridge(name) => {
                let is_name = (1..=MAX_DEVICE_BYTES).contains(&name.len()) && !name.contains(['/', '%', ' ', '\0']);
                if !is_name {
                    add(CardFault::Device { name: name.clone() });
                }
            }
            CableEnd::Descriptor(number @ ..3) => add(CardFault::Descriptor { number: *number }),
            CableEnd::Descriptor(number) if !Path::new("/proc/self/fd").join(number.to_string()).exists() => {
                add(CardFault::NotOpen { number: *number });
            }
            CableEnd::Descriptor(_) | CableEnd::UnixStream(_) | CableEnd::UnixGram { .. } => {}
        }
    }
    check_ends(cards, &mut add);
    let published = cards.iter().filter_map(|card| match &card.end {
        CableEnd::User(user) => Some(user.publish.iter()),
        _ => None,
    });
    check_published(&published.flatten().collect::<Vec<_>>(), &mut add);
}

/// Ends that only one cable can have.
fn check_ends(cards: &[Card], add: &mut impl FnMut(CardFault)) {
    let mut seen = Vec::new();
    for card in cards {
        let what = match &card.end {
            CableEnd::Tap(name) => format!("the tap `{name}`"),
            CableEnd::Descriptor(number) => format!("descriptor {number}"),
            CableEnd::User(_) | CableEnd::Bridge(_) | CableEnd::UnixStream(_) | CableEnd::UnixGram { .. } => continue,
        };
        if seen.contains(&what) {
            add(CardFault::EndTwice { what });
        } else {
            seen.push(what);
        }
    }
}

fn check_user(user: &UserNetwork, add: &mut impl FnMut(CardFault)) {
    let subnet = user.subnet.unwrap_or(UserNetwork::DEFAULT_SUBNET);
    let is_size = (MIN_PREFIX_BITS..=MAX_PREFIX_BITS).contains(&subnet.prefix_bits);
    let first = subnet.host(0);
    if !is_size || first.is_loopback() || first.is_multicast() || first.is_link_local() || first.octets()[0] == 0 {
        return add(CardFault::Subnet { subnet });
    }
    if let Some(address) = user.address {
        let (gateway, dns) = (subnet.host(2), subnet.host(3));
        if !subnet.has_host(address) || address == gateway || address == dns {
            let network = format!("{first}/{}", subnet.prefix_bits);
            add(CardFault::Address { address, network, gateway, dns });
        }
    }
    if let Some(name) = &user.host_name {
        let is_name = !name.is_empty()
            && name.len() <= MAX_NAME_BYTES
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !name.starts_with('-')
            && !name.ends_with('-');
        if !is_name {
            add(CardFault::HostName { name: name.clone() });
        }
    }
}

fn check_published(ports: &[&Publish], add: &mut impl FnMut(CardFault)) {
    if ports.len() > MAX_PUBLISHED {
        return add(CardFault::TooManyPorts { ports: ports.len() });
    }
    if ports.iter().any(|publish| publish.guest_port == 0) {
        add(CardFault::GuestPort);
    }
    for (at, publish) in ports.iter().enumerate() {
        let is_taken =
            |earlier: &&&Publish| earlier.transport == publish.transport && collide(&earlier.host, &publish.host);
        if ports.iter().take(at).any(|earlier| is_taken(&earlier)) {
            let port = match &publish.host {
                HostPort::Loopback(port) => port.to_string(),
                HostPort::At(host) => host.port().to_string(),
                HostPort::Unix(path) => path.display().to_string(),
            };
            add(CardFault::PublishedTwice { port, transport: publish.transport });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(cards: &[Card]) -> Vec<String> {
        let mut faults = Vec::new();
        check(cards, &mut faults);
        faults.iter().map(ToString::to_string).collect()
    }

    fn card(mac: &str, mtu: u16, user: UserNetwork) -> Card {
        Card { mac: Some(mac.parse().unwrap()), mtu, end: CableEnd::User(Box::new(user)), capture: None }
    }

    fn publish(host: HostPort, guest_port: u16, transport: Transport) -> Publish {
        Publish { host, guest_port, transport, tells_caller: false }
    }

    #[test]
    fn what_no_card_can_have_is_refused() {
        let user = UserNetwork::default;
        let cards = [
            card("52:54:00:00:00:01", 67, user()),
            card("53:54:00:00:00:01", 65_521, user()),
            card("00:00:00:00:00:00", 68, user()),
            card("52:54:00:00:00:01", 65_520, user()),
        ];
        let expected = [
            "MTU of 68 to 65520 bytes, not 67",
            "53:54:00:00:00:01 is no address of one network card: its first byte is odd",
            "not 65521",
            "it is all zeros",
            "two network cards have the address 52:54:00:00:00:01",
        ];
        let found = faults(&cards);
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.contains(expected), "{found} / {expected}");
        }
        let many = vec![Card { mac: None, ..cards[3].clone() }; 9];
        assert_eq!(faults(&many), ["a machine has at most 8 network cards, not 9"]);
    }

    #[test]
    fn networks_and_addresses_that_cannot_be_are_refused() {
        let subnet = |address: &str, prefix_bits| Some(Subnet { address: address.parse().unwrap(), prefix_bits });
        let of = |subnet, address: Option<&str>| UserNetwork {
            subnet,
            address: address.map(|address| address.parse().unwrap()),
            ..UserNetwork::default()
        };
        for (user, is_good) in [
            (of(None, Some("10.0.2.16")), true),
            (of(subnet("10.1.2.99", 16), Some("10.1.255.254")), true),
            (of(subnet("192.168.5.16", 27), None), true),
            (of(subnet("192.168.5.16", 28), None), false),
            (of(subnet("10.0.0.0", 7), None), false),
            (of(subnet("127.0.0.0", 8), None), false),
            (of(subnet("0.0.0.0", 8), None), false),
            (of(subnet("224.0.0.0", 24), None), false),
            (of(None, Some("10.0.2.2")), false),
            (of(None, Some("10.0.2.3")), false),
            (of(None, Some("10.0.2.255")), false),
            (of(None, Some("10.0.3.15")), false),
        ] {
            let found = faults(&[card("52:54:00:00:00:01", 1500, user.clone())]);
            assert_eq!(found.is_empty(), is_good, "{user:?}: {found:?}");
        }
    }

    #[test]
    fn names_that_no_machine_has_are_refused() {
        for (name, is_good) in [("vm-1", true), ("", false), ("-a", false), ("a b", false), (&"x".repeat(64), false)] {
            let user = UserNetwork { host_name: Some(name.into()), ..UserNetwork::default() };
            assert_eq!(faults(&[card("52:54:00:00:00:01", 1500, user)]).is_empty(), is_good, "{name}");
        }
    }

    #[test]
    fn a_port_of_the_host_leads_to_one_place() {
        let user = |publish| card("52:54:00:00:00:01", 1500, UserNetwork { publish, ..UserNetwork::default() });
        let at = |text: &str| HostPort::At(text.parse().unwrap());
        let found = faults(&[user(vec![
            publish(HostPort::Loopback(80), 80, Transport::Tcp),
            publish(HostPort::Loopback(80), 80, Transport::Udp),
            publish(HostPort::Loopback(0), 81, Transport::Tcp),
            publish(HostPort::Loopback(0), 82, Transport::Tcp),
            publish(at("0.0.0.0:80"), 83, Transport::Tcp),
            publish(at("127.0.0.2:90"), 0, Transport::Udp),
        ])]);
        let expected = [
            "port 0 of the guest cannot be published: nothing listens there",
            "TCP port 80 of the host is published twice",
        ];
        assert_eq!(found, expected);
        assert_eq!(
            faults(&[Card { end: CableEnd::Descriptor(1 << 20), ..user(vec![]) }]),
            ["descriptor 1048576 is not open: the program that starts this one must leave it open"]
        );
        let many = (1..1026).map(|port| publish(HostPort::Loopback(port), port, Transport::Tcp)).collect();
        assert_eq!(faults(&[user(many)]), ["at most 1024 ports can be published, not 1025"]);
    }

    #[test]
    fn ends_of_cables_that_cannot_be_are_refused() {
        use std::os::fd::AsRawFd;

        let end = |end| Card { mac: None, mtu: 1500, end, capture: None };
        let found = faults(&[
            end(CableEnd::Tap("a-name-of-16-byt".into())),
            end(CableEnd::Bridge("../x".into())),
            end(CableEnd::Descriptor(2)),
            end(CableEnd::Tap("tap0".into())),
            end(CableEnd::Tap("tap0".into())),
        ]);
        let expected = [
            "`a-name-of-16-byt` is no name of a device: it has 1 to 15 bytes, without `/`, `%` and blanks",
            "`../x` is no name of a device: it has 1 to 15 bytes, without `/`, `%` and blanks",
            "descriptor 2 cannot be a network: give one from 3 on that is open when kiln starts",
            "two network cards share the tap `tap0`",
        ];
        assert_eq!(found, expected);
        let open = std::fs::File::open("/dev/null").unwrap();
        let good =
            [CableEnd::Bridge("br0".into()), CableEnd::Bridge("br0".into()), CableEnd::Descriptor(open.as_raw_fd())]
                .map(end);
        assert_eq!(faults(&good), [""; 0]);
    }
}

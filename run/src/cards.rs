//! Opens the network cards of a machine: their addresses, what their cables end in, and the host's ports that lead to
//! them. All of it before the guest starts, so that what cannot be is told at once.

use std::fs::{self, DirBuilder};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use kiln_net::limits;
use kiln_net::link::{self, JoinError, Link, LinkError, Member, Tap, UnixGram, UnixStream};
use kiln_net::pcap::{Capture, Pcap, WHOLE_BYTES};
use kiln_net::publish::{Host, OpenPort, Publications, Published, Transport};
use kiln_net::stack::{Network, Stack};
use kiln_net::wire::Mac;

use crate::cable::Cable;
use crate::config::{CableEnd, Card, HostPort, Publish, UserNetwork};
use crate::host::holder::{self, Holder};
use crate::macs::{self, MacError};

/// How often another port is tried when the host chose one that is taken under its other address.
const CHOICES: u32 = 16;

/// Stands for an address that is not known.
const NO_MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 0]);

/// A card whose cable is plugged in. It stays so over resets.
#[derive(Debug, Clone)]
pub struct OpenCard {
    /// Its address.
    pub mac: Mac,
    /// Largest packet in bytes.
    pub mtu: u16,
    /// Its cable.
    pub cable: Cable,
    /// The host's ports that lead to it, if its network has such.
    pub ports: Option<Publications>,
}

/// A card that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum CardError {
    /// Its address.
    #[error(transparent)]
    Mac(#[from] MacError),
    /// Its network.
    #[error("cannot make the user-mode network")]
    Stack(#[source] io::Error),
    /// A file of its name servers, or of its frames.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// The folder of its network.
    #[error("cannot make the network's folder `{}`", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// Others on the network are told the address before the first frame comes.
    #[error("a card of another program's on a network of several machines needs its address told: `-mac ADDRESS`")]
    NoMac,
    /// Another program has nothing to offer to others.
    #[error("only the user-mode network can be had by others: `-networking user`")]
    NoNetwork,
    /// The network of several machines.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// Another program's network, or a device of the host's.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A port that leads to it.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// A port of the host that cannot be published.
#[derive(Debug, thiserror::Error)]
#[error("cannot publish {}{}", place(host, *transport), by_whom(holder.as_ref()))]
pub struct PublishError {
    /// Where the host was to listen.
    pub host: Host,
    /// What it carries.
    pub transport: Transport,
    /// Who has it, where that can be known.
    pub holder: Option<Holder>,
    #[source]
    source: io::Error,
}

fn place(host: &Host, transport: Transport) -> String {
    match host {
        Host::Ip(address) => format!("{} port {} of {}", transport_name(transport), address.port(), address.ip()),
        Host::Unix(path) => format!("the socket `{}`", path.display()),
    }
}

/// `TCP` or `UDP`.
pub fn transport_name(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "TCP",
        Transport::Udp => "UDP",
    }
}

fn by_whom(holder: Option<&Holder>) -> String {
    holder.map(|holder| format!(": `{}`, process {}, has it", holder.name, holder.pid)).unwrap_or_default()
}

/// Opens all cards, in order. `state_dir` exists, and keeps the addresses of those that have none given.
///
/// # Errors
/// The first card that cannot be had.
pub fn open_all(cards: &[Card], state_dir: &Path) -> Result<Vec<OpenCard>, CardError> {
    let kept =
        if cards.iter().any(|card| card.mac.is_none()) { macs::kept(state_dir, cards.len())? } else { Vec::new() };
    let open = |(at, card): (usize, &Card)| {
        let mac = card.mac.or_else(|| kept.get(at).copied()).unwrap_or(NO_MAC);
        open(card, mac, &Own { state_dir, number: at })
    };
    cards.iter().enumerate().map(open).collect()
}

/// What a card keeps in the state folder.
struct Own<'a> {
    state_dir: &'a Path,
    number: usize,
}

impl Own<'_> {
    fn file(&self, name: &str, extension: &str) -> PathBuf {
        self.state_dir.join(format!("{name}{}.{extension}", self.number))
    }
}

/// Where answers to a card come, if it is on a socket of datagrams: in the state folder, unless that is too far
/// down for the name of a socket.
fn own_socket(own: &Own<'_>) -> PathBuf {
    /// Longest name of a socket, in bytes (Linux: `sun_path`, less the zero at the end).
    const LIMIT_BYTES: usize = 107;
    let path = own.file("net", "sock");
    let path = std::path::absolute(&path).unwrap_or(path);
    if path.as_os_str().len() <= LIMIT_BYTES {
        return path;
    }
    std::env::temp_dir().join(format!("kiln-{}-net{}.sock", std::process::id(), own.number))
}

fn open(card: &Card, mac: Mac, own: &Own<'_>) -> Result<OpenCard, CardError> {
    let link: Box<dyn Link> = match &card.end {
        CableEnd::User(user) => return open_user(card, user, Some(mac), own),
        CableEnd::Tap(name) => Box::new(Tap::open(name)?),
        CableEnd::Bridge(name) => link::bridge(name)?,
        CableEnd::UnixGram { path, greeting } => Box::new(UnixGram::connect(path, &own_socket(own), *greeting)?),
        CableEnd::UnixStream(path) => Box::new(UnixStream::connect(path)?),
        CableEnd::Descriptor(number) => link::inherited(*number)?,
    };
    Ok(OpenCard { mac, mtu: card.mtu, cable: cable(link, card)?, ports: None })
}

/// The cable with `link` at its end, and what writes its frames down between them.
fn cable(link: Box<dyn Link>, card: &Card) -> Result<Cable, CardError> {
    let Some(path) = &card.capture else { return Ok(Cable::new(link)) };
    let capture = Capture::create(path, WHOLE_BYTES);
    let capture = capture.map_err(|source| CardError::Write { path: path.clone(), source })?;
    Ok(Cable::new(Box::new(Pcap::new(link, capture))))
}

fn open_user(card: &Card, user: &UserNetwork, mac: Option<Mac>, own: &Own<'_>) -> Result<OpenCard, CardError> {
    // Each connection of the guest is a descriptor of this process.
    limits::raise();
    let network = network(user, (mac, card.mtu), own)?;
    let (link, ports): (Box<dyn Link>, _) = match &user.shared {
        None => {
            let stack = Stack::new(network).map_err(CardError::Stack)?;
            let ports = stack.publications();
            (Box::new(stack), ports)
        }
        Some(folder) => {
            let above = folder.parent().unwrap_or(Path::new("/"));
            let made = DirBuilder::new().recursive(true).mode(0o700).create(above);
            made.map_err(|source| CardError::Folder { path: above.into(), source })?;
            let name = user.host_name.as_deref().unwrap_or("vm");
            let mac = mac.ok_or(CardError::NoMac)?;
            let member = Member::join(folder, (name, mac), user.address, network)?;
            let ports = member.publications();
            (Box::new(member), ports)
        }
    };
    for publish in &user.publish {
        open_port(publish, &ports)?;
    }
    let mac = mac.unwrap_or(NO_MAC);
    Ok(OpenCard { mac, mtu: card.mtu, cable: cable(link, card)?, ports: Some(ports) })
}

/// Opens the user-mode network of a card that another program has, whose address is what its first frame says unless it
/// was given. `state_dir` exists.
///
/// # Errors
/// It cannot be had, or the card is not on such a network.
pub fn open_network(card: &Card, state_dir: &Path) -> Result<OpenCard, CardError> {
    match &card.end {
        CableEnd::User(user) => open_user(card, user, card.mac, &Own { state_dir, number: 0 }),
        _ => Err(CardError::NoNetwork),
    }
}

/// The network of a card with this address.
fn network(user: &UserNetwork, (mac, mtu): (Option<Mac>, u16), own: &Own<'_>) -> Result<Network, CardError> {
    let mut network = Network::default();
    if let Some(subnet) = user.subnet {
        network.lease.prefix_bits = subnet.prefix_bits;
        network.lease.gateway = subnet.host(2);
        network.lease.dns = subnet.host(3);
        network.lease.address = subnet.host(15);
    }
    if let Some(address) = user.address {
        network.lease.address = address;
    }
    network.lease.mtu = mtu;
    network.lease.host_name.clone_from(&user.host_name);
    network.guest_mac = mac;
    network.host_loopback = user.host_loopback;
    network.policy = user.policy.clone();
    network.names.clone_from(&user.names);
    network.lease_file = Some(own.file("lease", "txt"));
    if !user.servers.is_empty() {
        let path = own.file("resolv", "conf");
        let lines: String = user.servers.iter().map(|server| format!("nameserver {server}\n")).collect();
        fs::write(&path, lines).map_err(|source| CardError::Write { path: path.clone(), source })?;
        network.resolvers = path;
    }
    Ok(network)
}

/// Opens a port of the host that leads to the guest; gives what was opened, with the numbers that it has among `ports`.
///
/// # Errors
/// It is taken, or not for everybody.
pub fn open_port(publish: &Publish, ports: &Publications) -> Result<Vec<(u32, Published)>, PublishError> {
    let opened = match &publish.host {
        HostPort::At(host) => vec![bind(publish, Host::Ip(*host))?],
        HostPort::Unix(path) => vec![bind(publish, Host::Unix(path.clone()))?],
        HostPort::Loopback(port) => on_loopback(publish, *port)?,
    };
    let add = |port: OpenPort| {
        let published = port.published().clone();
        match ports.add(port) {
            Ok(number) => Ok((number, published)),
            Err(source) => {
                Err(PublishError { host: published.host, transport: publish.transport, holder: None, source })
            }
        }
    };
    opened.into_iter().map(add).collect()
}

/// The same port on both loopbacks; on the one of IPv4 alone where there is no other.
fn on_loopback(publish: &Publish, port: u16) -> Result<Vec<OpenPort>, PublishError> {
    let mut tries = 0;
    loop {
        let v4 = bind(publish, Host::Ip((Ipv4Addr::LOCALHOST, port).into()))?;
        let chosen = v4.published().host.ip().map_or(port, |host| host.port());
        tries += 1;
        return match bind(publish, Host::Ip((Ipv6Addr::LOCALHOST, chosen).into())) {
            Ok(v6) => Ok(vec![v4, v6]),
            Err(error) if error.source.kind() == io::ErrorKind::AddrInUse => {
                if port == 0 && tries < CHOICES {
                    continue;
                }
                Err(error)
            }
            Err(_no_ipv6_here) => Ok(vec![v4]),
        };
    }
}

fn bind(publish: &Publish, host: Host) -> Result<OpenPort, PublishError> {
    let Publish { guest_port, transport, tells_caller, .. } = *publish;
    OpenPort::open(Published { host: host.clone(), guest_port, transport, tells_caller }).map_err(|source| {
        let is_taken = source.kind() == io::ErrorKind::AddrInUse;
        let holder = host.ip().filter(|_| is_taken).and_then(|address| holder::of(address, transport));
        PublishError { host, transport, holder, source }
    })
}

/// Whether two hosts' addresses cannot both have the same port.
pub(crate) fn collide(one: &HostPort, other: &HostPort) -> bool {
    if let (HostPort::Unix(one), HostPort::Unix(other)) = (one, other) {
        return one == other;
    }
    let addresses = |host: &HostPort| match *host {
        HostPort::Loopback(port) => {
            vec![(IpAddr::from(Ipv4Addr::LOCALHOST), port), (IpAddr::from(Ipv6Addr::LOCALHOST), port)]
        }
        HostPort::At(host) => vec![(host.ip(), host.port())],
        HostPort::Unix(_) => vec![],
    };
    let others = addresses(other);
    addresses(one).iter().any(|(ip, port)| {
        *port != 0
            && others.iter().any(|(other_ip, other_port)| {
                let is_any = ip.is_unspecified() || other_ip.is_unspecified();
                port == other_port && ip.is_ipv4() == other_ip.is_ipv4() && (ip == other_ip || is_any)
            })
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::config::DEFAULT_MTU;

    fn card(publish: Vec<Publish>) -> Card {
        let user = UserNetwork { publish, ..UserNetwork::default() };
        Card { mac: None, mtu: DEFAULT_MTU, end: CableEnd::User(Box::new(user)), capture: None }
    }

    fn publish(host: HostPort) -> Publish {
        Publish { host, guest_port: 80, transport: Transport::Tcp, tells_caller: false }
    }

    #[test]
    fn machines_on_one_network_get_an_address_each() {
        let folder = tempfile::tempdir().unwrap();
        let shared = |name: &str| {
            let user = UserNetwork {
                shared: Some(folder.path().join("net")),
                host_name: Some(name.into()),
                ..UserNetwork::default()
            };
            Card { mac: None, mtu: DEFAULT_MTU, end: CableEnd::User(Box::new(user)), capture: None }
        };
        let states = ["a", "b"].map(|name| folder.path().join(name));
        states.iter().for_each(|state| fs::create_dir(state).unwrap());
        let _a = open_all(&[shared("a")], &states[0]).unwrap();
        let mut b = shared("b");
        let CableEnd::User(user) = &mut b.end else { panic!("a network") };
        user.address = Some(Ipv4Addr::new(10, 0, 2, 15));
        let error = open_all(&[b], &states[1]).unwrap_err().to_string();
        assert_eq!(error, "the address 10.0.2.15 is taken by `a`, on the same network");
        open_all(&[shared("b")], &states[1]).unwrap();
    }

    #[test]
    fn an_end_that_is_not_there_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nobody");
        for end in [
            CableEnd::UnixStream(path.clone()),
            CableEnd::UnixGram { path: path.clone(), greeting: link::Greeting::Vfkit },
        ] {
            let error = open_all(&[Card { mac: None, mtu: DEFAULT_MTU, end, capture: None }], folder.path())
                .unwrap_err()
                .to_string();
            assert!(error.starts_with("cannot connect to the network's socket `"), "{error}");
        }
        assert!(!folder.path().join("net0.sock").exists());
    }

    #[test]
    fn a_busy_port_is_named_with_its_address_and_who_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let busy = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = busy.local_addr().unwrap().port();
        for host in [HostPort::Loopback(port), HostPort::At(busy.local_addr().unwrap())] {
            let error = open_all(&[card(vec![publish(host)])], folder.path()).unwrap_err();
            let text = error.to_string();
            assert!(text.starts_with(&format!("cannot publish TCP port {port} of 127.0.0.1: `")), "{text}");
            assert!(text.ends_with(&format!("process {}, has it", std::process::id())), "{text}");
        }
        // Not every host has IPv6.
        let Ok(busy) = TcpListener::bind("[::1]:0") else { return };
        let port = busy.local_addr().unwrap().port();
        let error = open_all(&[card(vec![publish(HostPort::Loopback(port))])], folder.path()).unwrap_err();
        assert!(error.to_string().contains("of ::1: `"), "{error}");
    }

    #[test]
    fn a_port_that_the_host_chooses_is_the_same_on_both_loopbacks() {
        let folder = tempfile::tempdir().unwrap();
        let cards = open_all(&[card(vec![publish(HostPort::Loopback(0))])], folder.path()).unwrap();
        let ports = cards[0].ports.as_ref().unwrap().list();
        let has_v6 = TcpListener::bind("[::1]:0").is_ok();
        assert_eq!(ports.len(), if has_v6 { 2 } else { 1 }, "{ports:?}");
        let numbers: Vec<u16> = ports.iter().map(|(_, published)| published.host.ip().unwrap().port()).collect();
        assert!(numbers.iter().all(|number| *number == numbers[0]), "{ports:?}");
    }

    #[test]
    fn cards_of_one_folder_keep_their_addresses_and_those_of_another_have_others() {
        let [one, two] = [1, 2].map(|_| tempfile::tempdir().unwrap());
        let macs = |folder: &Path| -> Vec<Mac> {
            open_all(&[card(vec![]), card(vec![])], folder).unwrap().iter().map(|card| card.mac).collect()
        };
        let first = macs(one.path());
        assert_ne!(first[0], first[1]);
        assert_eq!(macs(one.path()), first);
        assert_ne!(macs(two.path())[0], first[0]);
    }

    #[test]
    fn addresses_collide_when_one_is_the_other_or_all_of_its_kind() {
        let at = |text: &str| HostPort::At(text.parse().unwrap());
        for (one, other, expected) in [
            (HostPort::Loopback(80), HostPort::Loopback(80), true),
            (HostPort::Loopback(0), HostPort::Loopback(0), false),
            (HostPort::Loopback(80), HostPort::Loopback(81), false),
            (HostPort::Loopback(80), at("127.0.0.1:80"), true),
            (HostPort::Loopback(80), at("[::1]:80"), true),
            (HostPort::Loopback(80), at("127.0.0.2:80"), false),
            (HostPort::Loopback(80), at("0.0.0.0:80"), true),
            (at("0.0.0.0:80"), at("[::1]:80"), false),
        ] {
            assert_eq!(collide(&one, &other), expected, "{one:?} {other:?}");
        }
    }
}

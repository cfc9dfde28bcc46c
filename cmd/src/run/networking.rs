//! From the flags about the network to the cards of a machine, and what its user is told of them.

use std::path::{Path, PathBuf};

use kiln_run::cards::{OpenCard, transport_name};
use kiln_run::config::{CableEnd, Card, DEFAULT_MTU, HostPort, UserNetwork};
use kiln_run::net::policy::Policy;
use kiln_run::net::publish::Published;

use crate::args::{Attachment, DnsSpec, Kind, Networking};
use crate::failure::Failure;
use crate::printer::Printer;

/// The cards that are asked for; one on the user-mode network if nothing was said. `name` is the machine's, `networks` the
/// folder of networks that machines share.
pub fn cards(asked: &Networking, name: &str, networks: Option<&Path>) -> Result<Vec<Card>, Failure> {
    let default = [Attachment::user()];
    let attachments = if asked.networking.is_empty() { &default[..] } else { &asked.networking };
    let mut cards = Vec::new();
    for attachment in attachments {
        if let Some(end) = end(&attachment.kind, name, networks)? {
            let mtu = attachment.mtu.or(asked.mtu).unwrap_or(DEFAULT_MTU);
            let capture = asked.pcap.clone().filter(|_| cards.is_empty());
            cards.push(Card { mac: attachment.mac, mtu, end, capture });
        }
    }
    if let Some(mac) = asked.mac {
        match cards.first_mut() {
            Some(card) => card.mac = Some(card.mac.unwrap_or(mac)),
            None => return Err(Failure::usage("`-mac` needs a network card, and `-networking none` has none")),
        }
    }
    let first = cards.iter_mut().find_map(|card| match &mut card.end {
        CableEnd::User(user) => Some(&mut **user),
        _ => None,
    });
    match (first, flag_of_user(asked)) {
        (Some(user), _) => configure(user, asked),
        (None, Some(flag)) => {
            let text = format!("`{flag}` is about the user-mode network, and no card is on it");
            return Err(Failure::usage(text).hint("`-networking user` gives the machine such a card"));
        }
        (None, None) => {}
    }
    Ok(cards)
}

/// A flag that only the user-mode network knows, if one was given.
fn flag_of_user(asked: &Networking) -> Option<&'static str> {
    let given = [
        ("-publish", !asked.publish.is_empty()),
        ("-ip", asked.ip.is_some()),
        ("-host-loopback", asked.host_loopback),
        ("-allow", !asked.allow.is_empty()),
        ("-deny", !asked.deny.is_empty()),
        ("-dns", !asked.dns.is_empty()),
    ];
    given.into_iter().find_map(|(flag, is_given)| is_given.then_some(flag))
}

fn end(kind: &Kind, name: &str, networks: Option<&Path>) -> Result<Option<CableEnd>, Failure> {
    Ok(Some(match kind {
        Kind::None => return Ok(None),
        Kind::Tap(device) => CableEnd::Tap(device.clone()),
        Kind::Bridge(device) => CableEnd::Bridge(device.clone()),
        Kind::UnixGram(path, greeting) => CableEnd::UnixGram { path: path.clone(), greeting: *greeting },
        Kind::UnixStream(path) => CableEnd::UnixStream(path.clone()),
        Kind::Fd(number) => CableEnd::Descriptor(*number),
        Kind::User { net, subnet, address, host_name, .. } => {
            let shared = net.as_deref().map(|net| folder(net, networks)).transpose()?;
            let host_name = host_name.clone().or_else(|| shared.is_some().then(|| as_host_name(name)));
            let user = UserNetwork { subnet: *subnet, address: *address, host_name, shared, ..UserNetwork::default() };
            CableEnd::User(Box::new(user))
        }
    }))
}

/// The folder of a network, by its name or its path.
fn folder(net: &str, networks: Option<&Path>) -> Result<PathBuf, Failure> {
    if net.contains('/') {
        return Ok(net.into());
    }
    let networks = networks.ok_or_else(|| {
        Failure::new("there is no folder for networks: neither XDG_RUNTIME_DIR nor HOME is set")
            .hint("`-networking user,net=./FOLDER` names one")
    })?;
    Ok(networks.join(net))
}

/// A machine's name as others on its network can say it.
fn as_host_name(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = name.chars().map(plain).take(63).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "vm".into() } else { name.into() }
}

fn configure(user: &mut UserNetwork, asked: &Networking) {
    user.address = user.address.or(asked.ip);
    user.host_loopback = asked.host_loopback;
    user.policy = Policy { allow: asked.allow.clone(), deny: asked.deny.clone() };
    user.publish = asked.publish.iter().flat_map(|spec| spec.0.clone()).collect();
    for dns in &asked.dns {
        match dns {
            DnsSpec::Server(address) => user.servers.push(*address),
            DnsSpec::Name(name, address) => user.names.push((name.clone(), *address)),
        }
    }
}

/// Says what the user should know: what was taken for something else, and which ports were chosen. In detail also the
/// cards' addresses.
pub fn tell(asked: &Networking, cards: &[Card], open: &[OpenCard], printer: &Printer) {
    for attachment in &asked.networking {
        if let Kind::User { instead_of: Some(name), .. } = &attachment.kind {
            printer.note(&format!("`-networking {name}` is of macOS; the machine is on the user-mode network"));
        }
    }
    for (at, (card, opened)) in cards.iter().zip(open).enumerate() {
        printer.detail(&format!("eth{at} has the address {} and an MTU of {}", opened.mac, opened.mtu));
        let (CableEnd::User(user), Some(ports)) = (&card.end, &opened.ports) else { continue };
        let is_chosen = |published: &Published| {
            let port = published.host.ip().map(|address| address.port());
            user.publish.iter().all(|publish| match &publish.host {
                HostPort::Loopback(given) => Some(*given) != port,
                HostPort::At(given) => Some(given.port()) != port,
                HostPort::Unix(_) => port.is_some(),
            })
        };
        for (_, published) in ports.list() {
            let name = transport_name(published.transport);
            let text = format!("{name} {} leads to port {} of the guest", published.host, published.guest_port);
            if is_chosen(&published) { printer.note(&text) } else { printer.detail(&text) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(networking: &[&str], publish: &[&str]) -> Networking {
        Networking {
            networking: networking.iter().map(|text| text.parse().unwrap()).collect(),
            publish: publish.iter().map(|text| text.parse().unwrap()).collect(),
            ..Networking::default()
        }
    }

    #[test]
    fn flags_of_a_card_that_is_not_there_are_wrong_usage() {
        let mac = Networking { mac: Some("52:54:00:00:00:01".parse().unwrap()), ..asked(&["none"], &[]) };
        for asked in [asked(&["none"], &["80:80"]), asked(&["tap,tap0"], &["80:80"]), mac] {
            assert_eq!(cards(&asked, "vm", None).unwrap_err().status, 2, "{asked:?}");
        }
        assert_eq!(cards(&asked(&["user,net=lan"], &[]), "vm", None).unwrap_err().status, 1);
    }

    #[test]
    fn what_was_said_of_the_network_is_the_first_cards_on_it() {
        let asked =
            Networking { mtu: Some(9000), ..asked(&["tap,tap0,mtu=1400", "user", "default"], &["8000-8001:80-81"]) };
        let cards = cards(&asked, "vm", None).unwrap();
        let mtus: Vec<u16> = cards.iter().map(|card| card.mtu).collect();
        assert_eq!(mtus, [1400, 9000, 9000]);
        let published = cards.iter().map(|card| match &card.end {
            CableEnd::User(user) => user.publish.len(),
            _ => 0,
        });
        assert_eq!(published.collect::<Vec<_>>(), [0, 2, 0]);
    }

    #[test]
    fn a_machine_on_a_shared_network_has_its_files_name() {
        let of = |net: &str, name: &str| match &cards(&asked(&[net], &[]), name, Some(Path::new("/run/net"))).unwrap()
            [0]
        .end
        {
            CableEnd::User(user) => (user.shared.clone(), user.host_name.clone()),
            _ => panic!("not user"),
        };
        assert_eq!(of("user", "vm"), (None, None));
        assert_eq!(of("user,net=lan", "My_VM."), (Some("/run/net/lan".into()), Some("my-vm".into())));
        assert_eq!(of("user,net=./lan,name=db", "vm"), (Some("./lan".into()), Some("db".into())));
        assert_eq!(of("user,net=lan", "_").1, Some("vm".into()));
    }
}

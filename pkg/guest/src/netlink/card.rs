//! Which network links there are (`RTM_GETLINK`).

use std::io;

use super::message::{self, DUMP, Message};
use super::socket::RouteSocket;

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFF_UP: u32 = 1;
/// Set when there is a cable at both ends.
const IFF_LOWER_UP: u32 = 0x1_0000;
const ARPHRD_ETHER: u16 = 1;
/// `struct ifinfomsg`.
const LINK_BYTES: usize = 16;
/// More than any machine has.
const CARD_LIMIT: usize = 4096;

/// An Ethernet link of this network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    /// The kernel's number, never 0.
    pub index: u32,
    /// Such as `eth0`.
    pub name: String,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// Largest packet, in bytes.
    pub mtu: u32,
    /// Whether it is set up.
    pub is_up: bool,
    /// Whether it is up and there is a cable.
    pub has_carrier: bool,
    /// Whether software made it: a bridge, a veth, a tap.
    pub is_virtual: bool,
}

/// All Ethernet links, by number.
///
/// # Errors
/// The kernel's.
pub fn cards(socket: &RouteSocket) -> io::Result<Vec<Card>> {
    let mut request = Message::new(RTM_GETLINK, DUMP);
    request.body(&[0; LINK_BYTES]);
    let mut cards = Vec::new();
    socket.exchange(request.finish(), |part| {
        if part.kind == RTM_NEWLINK && cards.len() < CARD_LIMIT {
            cards.extend(Card::read(part.body));
        }
    })?;
    cards.sort_by_key(|card: &Card| card.index);
    Ok(cards)
}

impl Card {
    fn read(body: &[u8]) -> Option<Self> {
        let (kind, index) = (message::u16_at(body, 2)?, message::u32_at(body, 4)?);
        let flags = message::u32_at(body, 8)?;
        let (mut name, mut mac, mut mtu, mut is_virtual) = (None, None, 0, false);
        for (kind, value) in message::attributes(body.get(LINK_BYTES..)?) {
            match kind {
                IFLA_IFNAME => {
                    name = std::str::from_utf8(value).ok().map(|name| name.trim_end_matches('\0').to_owned())
                }
                IFLA_ADDRESS => mac = value.try_into().ok(),
                IFLA_MTU => mtu = message::u32_at(value, 0)?,
                // Drivers of real cards tell no kind.
                IFLA_LINKINFO => is_virtual = true,
                _ => {}
            }
        }
        (kind == ARPHRD_ETHER && index != 0).then_some(())?;
        let is_up = flags & IFF_UP != 0;
        let has_carrier = is_up && flags & IFF_LOWER_UP != 0;
        Some(Self { index, name: name?, mac: mac?, mtu, is_up, has_carrier, is_virtual })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_is_cut_short_or_no_ethernet_is_none() {
        let mut body = vec![0, 0, 1, 0, 2, 0, 0, 0];
        body.extend((IFF_UP | IFF_LOWER_UP).to_ne_bytes());
        body.extend([0; 4]);
        body.extend([9, 0, 3, 0, b'e', b't', b'h', b'0', 0, 0, 0, 0]);
        body.extend([10, 0, 1, 0, 2, 0, 0, 0, 0, 7, 0, 0]);
        for len in 0..body.len() - 2 {
            assert_eq!(Card::read(&body[..len]), None, "{len}");
        }
        let card = Card::read(&body).unwrap();
        assert_eq!((card.index, card.name.as_str(), card.mac), (2, "eth0", [2, 0, 0, 0, 0, 7]));
        assert!(card.has_carrier && !card.is_virtual);
        body[2] = 4;
        assert_eq!(Card::read(&body), None);
    }

    #[test]
    fn loopback_is_no_card() {
        let cards = cards(&RouteSocket::open(0).unwrap()).unwrap();
        assert!(cards.iter().all(|card| card.name != "lo"), "{cards:?}");
    }
}

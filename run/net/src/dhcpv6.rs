//! DHCP for IPv6 (RFC 8415): one guest, one address; name servers and domains also for those that want nothing else.

use std::net::Ipv6Addr;

use crate::wire::Mac;

/// A day, and when the guest asks again: the address never changes, so it matters to nobody.
const VALID_S: u32 = 86_400;
const RENEW_S: u32 = VALID_S / 2;
const REBIND_S: u32 = VALID_S / 5 * 4;
/// Associations that are answered in one message: guests have one for addresses and perhaps one for a prefix.
const ASSOCIATIONS_LIMIT: usize = 8;
/// Longest identifier of a client (RFC 8415 section 11.1).
const ID_LIMIT_BYTES: usize = 130;

mod option {
    pub const CLIENT: u16 = 1;
    pub const SERVER: u16 = 2;
    pub const ADDRESSES: u16 = 3;
    pub const ADDRESS: u16 = 5;
    pub const STATUS: u16 = 13;
    pub const RAPID_COMMIT: u16 = 14;
    pub const DNS: u16 = 23;
    pub const SEARCH: u16 = 24;
    pub const PREFIXES: u16 = 25;
}

/// RFC 8415 section 21.13.
#[derive(Debug, Clone, Copy)]
enum Status {
    Success = 0,
    NoAddresses = 2,
    NotOnLink = 4,
    NoPrefixes = 6,
}

/// What messages are for (RFC 8415 section 7.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Solicit = 1,
    Advertise = 2,
    Request = 3,
    Confirm = 4,
    Renew = 5,
    Rebind = 6,
    Reply = 7,
    Release = 8,
    Decline = 9,
    Information = 11,
}

impl Kind {
    fn of(code: u8) -> Option<Self> {
        let asked = [
            Self::Solicit,
            Self::Request,
            Self::Confirm,
            Self::Renew,
            Self::Rebind,
            Self::Release,
            Self::Decline,
            Self::Information,
        ];
        asked.into_iter().find(|kind| *kind as u8 == code)
    }

    /// Whether it names the server that it is for; the others must not (RFC 8415 section 16).
    fn names_server(self) -> bool {
        matches!(self, Self::Request | Self::Renew | Self::Release | Self::Decline)
    }
}

/// What the guest is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseV6<'a> {
    /// Its address.
    pub address: Ipv6Addr,
    /// The name server.
    pub dns: Ipv6Addr,
    /// The gateway's hardware address, by which the server is known.
    pub server: Mac,
    /// Domains that short names are looked for in.
    pub search: &'a [String],
}

/// A message from the guest, as far as it is used.
#[derive(Debug)]
struct Message<'a> {
    kind: Kind,
    transaction: [u8; 3],
    client: Option<&'a [u8]>,
    server: Option<&'a [u8]>,
    is_rapid: bool,
    /// What kind of association, its number, and the addresses in it.
    associations: Vec<(u16, [u8; 4], Vec<Ipv6Addr>)>,
}

impl<'a> Message<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<4>()?;
        let [kind, transaction @ ..] = *head;
        let mut message = Self {
            kind: Kind::of(kind)?,
            transaction,
            client: None,
            server: None,
            is_rapid: false,
            associations: Vec::new(),
        };
        for option in Options(rest) {
            let (code, content) = option?;
            match code {
                option::CLIENT => message.client = Some(content).filter(|id| id.len() <= ID_LIMIT_BYTES),
                option::SERVER => message.server = Some(content),
                option::RAPID_COMMIT => message.is_rapid = true,
                option::ADDRESSES | option::PREFIXES if message.associations.len() < ASSOCIATIONS_LIMIT => {
                    let (id, rest) = content.split_first_chunk::<4>()?;
                    let addresses = Options(rest.get(8..)?).take(ASSOCIATIONS_LIMIT).filter_map(|option| {
                        let (code, content) = option?;
                        let address = content.first_chunk::<16>().filter(|_| code == option::ADDRESS)?;
                        Some(Ipv6Addr::from(*address))
                    });
                    message.associations.push((code, *id, addresses.collect()));
                }
                _ => {}
            }
        }
        Some(message)
    }
}

/// Code and content of each option; `None` for the last one if it is cut off.
struct Options<'a>(&'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = Option<(u16, &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let option = (|| {
            let ([a, b, c, d], rest) = self.0.split_first_chunk::<4>()?;
            let (content, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([*c, *d])))?;
            self.0 = rest;
            Some((u16::from_be_bytes([*a, *b]), content))
        })();
        if option.is_none() {
            self.0 = &[];
        }
        Some(option)
    }
}

impl LeaseV6<'_> {
    /// What a message from the guest is answered with, if at all.
    pub fn answer(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let message = Message::read(bytes)?;
        let server = self.server_id();
        let is_for_us = match message.server {
            Some(id) => id == server && (message.kind.names_server() || message.kind == Kind::Information),
            None => !message.kind.names_server(),
        };
        // Only who asks for nothing but information need not say who it is.
        if !is_for_us || message.client.is_none() && message.kind != Kind::Information {
            return None;
        }
        let is_commit = message.kind == Kind::Solicit && message.is_rapid;
        let kind = if message.kind == Kind::Solicit && !is_commit { Kind::Advertise } else { Kind::Reply };
        let mut answer = vec![kind as u8];
        answer.extend(message.transaction);
        put(&mut answer, option::SERVER, &server);
        if let Some(client) = message.client {
            put(&mut answer, option::CLIENT, client);
        }
        match message.kind {
            Kind::Release | Kind::Decline => put_status(&mut answer, Status::Success),
            Kind::Confirm => {
                let mut addresses = message.associations.iter().flat_map(|(_, _, addresses)| addresses).peekable();
                // Nothing to confirm is nothing to answer (RFC 8415 section 18.3.3).
                addresses.peek()?;
                let is_on_link = addresses.all(|address| *address == self.address);
                put_status(&mut answer, if is_on_link { Status::Success } else { Status::NotOnLink });
            }
            Kind::Information => {}
            _ => self.put_associations(&message, &mut answer),
        }
        if is_commit {
            put(&mut answer, option::RAPID_COMMIT, &[]);
        }
        put(&mut answer, option::DNS, &self.dns.octets());
        let names: Vec<u8> = self.search.iter().filter_map(|name| crate::dns::name_bytes(name)).flatten().collect();
        if !names.is_empty() {
            put(&mut answer, option::SEARCH, &names);
        }
        Some(answer)
    }

    /// RFC 8415 section 11.4: by its hardware address, Ethernet.
    fn server_id(&self) -> [u8; 10] {
        let [a, b, c, d, e, f] = self.server.0;
        [0, 3, 0, 1, a, b, c, d, e, f]
    }

    fn put_associations(&self, message: &Message<'_>, answer: &mut Vec<u8>) {
        let mut is_given = false;
        for (code, id, known) in &message.associations {
            let mut content = id.to_vec();
            match *code {
                option::ADDRESSES if !is_given => {
                    is_given = true;
                    content.extend(RENEW_S.to_be_bytes());
                    content.extend(REBIND_S.to_be_bytes());
                    put_address(&mut content, self.address, VALID_S);
                    if matches!(message.kind, Kind::Renew | Kind::Rebind) {
                        // What it has of another network is over.
                        let over = known.iter().filter(|address| **address != self.address);
                        over.for_each(|address| put_address(&mut content, *address, 0));
                    }
                }
                _ => {
                    content.extend([0; 8]);
                    let is_prefix = *code == option::PREFIXES;
                    put_status(&mut content, if is_prefix { Status::NoPrefixes } else { Status::NoAddresses });
                }
            }
            put(answer, *code, &content);
        }
    }
}

fn put(to: &mut Vec<u8>, code: u16, content: &[u8]) {
    let Ok(len) = u16::try_from(content.len()) else { return };
    to.extend(code.to_be_bytes());
    to.extend(len.to_be_bytes());
    to.extend_from_slice(content);
}

fn put_status(to: &mut Vec<u8>, status: Status) {
    put(to, option::STATUS, &[0, status as u8]);
}

fn put_address(to: &mut Vec<u8>, address: Ipv6Addr, valid_s: u32) {
    let mut content = address.octets().to_vec();
    // Preferred as long as valid.
    content.extend(valid_s.to_be_bytes());
    content.extend(valid_s.to_be_bytes());
    put(to, option::ADDRESS, &content);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::Chance;

    const CLIENT: [u8; 10] = [0, 3, 0, 1, 2, 0, 0, 0, 0, 9];

    fn address(last: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last)
    }

    fn lease() -> LeaseV6<'static> {
        LeaseV6 { address: address(15), dns: address(3), server: Mac([2; 6]), search: &[] }
    }

    fn message(kind: Kind, options: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![kind as u8, 7, 8, 9];
        options.iter().for_each(|(code, content)| put(&mut bytes, *code, content));
        bytes
    }

    fn association(addresses: &[Ipv6Addr]) -> Vec<u8> {
        let mut content = vec![1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0];
        addresses.iter().for_each(|address| put_address(&mut content, *address, 100));
        content
    }

    fn told(answer: &[u8], code: u16) -> Option<Vec<u8>> {
        Options(&answer[4..]).map(Option::unwrap).find(|(found, _)| *found == code).map(|(_, content)| content.to_vec())
    }

    /// The addresses of the first association, and how long each is valid.
    fn given(answer: &[u8]) -> Vec<(Ipv6Addr, u32)> {
        let content = told(answer, option::ADDRESSES).unwrap();
        assert_eq!(content[..4], [1, 2, 3, 4]);
        let addresses = Options(&content[12..]).map(Option::unwrap).filter(|(code, _)| *code == option::ADDRESS);
        addresses
            .map(|(_, content)| {
                let octets = *content.first_chunk::<16>().unwrap();
                (octets.into(), u32::from_be_bytes(content[20..24].try_into().unwrap()))
            })
            .collect()
    }

    #[test]
    fn what_is_no_message_for_this_server_gets_no_answer() {
        let ours = lease().server_id();
        let whole = message(
            Kind::Request,
            &[(option::CLIENT, &CLIENT), (option::SERVER, &ours), (option::ADDRESSES, &association(&[]))],
        );
        assert!(lease().answer(&whole).is_some());
        // Cut between options it is a message again.
        let whole_ones = [4 + 14 + 14, whole.len()];
        for len in 0..whole.len() {
            assert_eq!(lease().answer(&whole[..len]).is_some(), whole_ones.contains(&len), "{len}");
        }
        for (kind, options) in [
            (Kind::Advertise, &[(option::CLIENT, &CLIENT[..])][..]),
            (Kind::Reply, &[(option::CLIENT, &CLIENT)]),
            (Kind::Solicit, &[]),
            (Kind::Solicit, &[(option::CLIENT, &[0; ID_LIMIT_BYTES + 1])]),
            (Kind::Solicit, &[(option::CLIENT, &CLIENT), (option::SERVER, &ours)]),
            (Kind::Request, &[(option::CLIENT, &CLIENT)]),
            (Kind::Request, &[(option::CLIENT, &CLIENT), (option::SERVER, &[0; 10])]),
            (Kind::Information, &[(option::SERVER, &[0; 10])]),
            (Kind::Confirm, &[(option::CLIENT, &CLIENT)]),
        ] {
            assert_eq!(lease().answer(&message(kind, options)), None, "{kind:?} {options:?}");
        }
        let mut chance = Chance::new(7);
        for _ in 0..100_000 {
            let mut changed = whole.clone();
            chance.change(&mut changed);
            lease().answer(&changed);
        }
    }

    #[test]
    fn a_guest_gets_its_address_in_two_rounds_or_one() {
        let ia = association(&[]);
        let asked = [(option::CLIENT, &CLIENT[..]), (option::ADDRESSES, &ia)];
        let offer = lease().answer(&message(Kind::Solicit, &asked)).unwrap();
        assert_eq!(offer[..4], [Kind::Advertise as u8, 7, 8, 9]);
        let server = told(&offer, option::SERVER).unwrap();
        let request = message(Kind::Request, &[asked[0], asked[1], (option::SERVER, &server)]);
        let rapid = message(Kind::Solicit, &[asked[0], asked[1], (option::RAPID_COMMIT, &[])]);
        for (asked, is_rapid) in [(request, false), (rapid, true)] {
            let answer = lease().answer(&asked).unwrap();
            assert_eq!(answer[0], Kind::Reply as u8);
            assert_eq!(given(&answer), [(address(15), VALID_S)]);
            assert_eq!(told(&answer, option::CLIENT).unwrap(), CLIENT);
            assert_eq!(told(&answer, option::DNS).unwrap(), address(3).octets());
            assert_eq!(told(&answer, option::RAPID_COMMIT).is_some(), is_rapid);
        }
    }

    #[test]
    fn addresses_of_another_network_end() {
        let (mine, other) = (association(&[address(15)]), association(&[address(16)]));
        let server = lease().server_id();
        for (ia, status) in [(&mine, Status::Success), (&other, Status::NotOnLink)] {
            let asked = [(option::CLIENT, &CLIENT[..]), (option::ADDRESSES, ia)];
            let answer = lease().answer(&message(Kind::Confirm, &asked)).unwrap();
            assert_eq!(told(&answer, option::STATUS).unwrap(), [0, status as u8]);
        }
        let renewed =
            message(Kind::Renew, &[(option::CLIENT, &CLIENT), (option::SERVER, &server), (option::ADDRESSES, &other)]);
        assert_eq!(given(&lease().answer(&renewed).unwrap()), [(address(15), VALID_S), (address(16), 0)]);
    }

    #[test]
    fn what_there_is_none_of_is_said_to_be_none() {
        let ia = association(&[]);
        let asked = [(option::CLIENT, &CLIENT[..]), (option::PREFIXES, &ia)];
        let answer = lease().answer(&message(Kind::Solicit, &asked)).unwrap();
        let content = told(&answer, option::PREFIXES).unwrap();
        assert_eq!(content[12..], [0, 13, 0, 2, 0, Status::NoPrefixes as u8]);
        let information = lease().answer(&message(Kind::Information, &[])).unwrap();
        assert_eq!(information[0], Kind::Reply as u8);
        assert!(told(&information, option::ADDRESSES).is_none() && told(&information, option::DNS).is_some());
    }
}

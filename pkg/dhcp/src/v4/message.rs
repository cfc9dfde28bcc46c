//! Messages of DHCPv4 as bytes.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Fixed fields, before the cookie.
const FIXED_BYTES: usize = 236;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Least length of a message (RFC 1542 section 2.1).
const LEAST_BYTES: usize = 300;
/// The longest answer that is asked for, which fits every link.
const LONGEST_BYTES: u16 = 1472;
/// More content than any message has.
const OPTION_LIMIT_BYTES: usize = 4096;

/// Numbers of options.
pub mod option {
    pub const MASK: u8 = 1;
    pub const ROUTER: u8 = 3;
    pub const DNS: u8 = 6;
    pub const HOST_NAME: u8 = 12;
    pub const DOMAIN: u8 = 15;
    pub const MTU: u8 = 26;
    pub const REQUESTED: u8 = 50;
    pub const LEASE: u8 = 51;
    pub const OVERLOAD: u8 = 52;
    pub const TYPE: u8 = 53;
    pub const SERVER: u8 = 54;
    pub const WANTED: u8 = 55;
    pub const LONGEST: u8 = 57;
    pub const RENEWAL: u8 = 58;
    pub const REBINDING: u8 = 59;
    pub const CLIENT: u8 = 61;
    pub const RAPID_COMMIT: u8 = 80;
    pub const SEARCH: u8 = 119;
    pub const CLASSLESS_ROUTES: u8 = 121;
}

/// What servers are asked for.
const WANTED: [u8; 11] = [
    option::MASK,
    option::CLASSLESS_ROUTES,
    option::ROUTER,
    option::DNS,
    option::HOST_NAME,
    option::DOMAIN,
    option::MTU,
    option::SEARCH,
    option::LEASE,
    option::RENEWAL,
    option::REBINDING,
];

/// What a message is for (RFC 2132 section 9.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Who has an address for me?
    Discover = 1,
    /// An address that can be had.
    Offer = 2,
    /// I take it.
    Request = 3,
    /// Somebody else has it.
    Decline = 4,
    /// It is yours.
    Acknowledge = 5,
    /// It is not.
    Refuse = 6,
    /// I need it no longer.
    Release = 7,
}

/// A message from a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What it is for: an offer, a yes or a no.
    pub kind: Kind,
    /// The address that the receiver may have.
    pub address: Ipv4Addr,
    options: BTreeMap<u8, Vec<u8>>,
}

impl Message {
    /// Reads a server's answer to the card `mac` in this transaction; `None` for anything else.
    pub fn read(bytes: &[u8], mac: [u8; 6], transaction: u32) -> Option<Self> {
        let is_answer = bytes.get(..3)? == [2, 1, 6] && bytes.get(4..8)? == transaction.to_be_bytes();
        (is_answer && bytes.get(28..34)? == mac).then_some(())?;
        Self::read_any(bytes)
    }

    /// Reads a server's answer to whomever.
    pub fn read_any(bytes: &[u8]) -> Option<Self> {
        if bytes.get(FIXED_BYTES..FIXED_BYTES + 4)? != COOKIE {
            return None;
        }
        let mut options = BTreeMap::new();
        read_options(bytes.get(FIXED_BYTES + 4..)?, &mut options);
        // Two fixed fields can hold more of them (RFC 2132 section 9.3).
        let overload =
            options.get(&option::OVERLOAD).and_then(|content: &Vec<u8>| content.first().copied()).unwrap_or(0);
        for (bit, range) in [(1, 108..FIXED_BYTES), (2, 44..108)] {
            if overload & bit != 0 {
                read_options(bytes.get(range)?, &mut options);
            }
        }
        let kind = match options.get(&option::TYPE)?.first()? {
            2 => Kind::Offer,
            5 => Kind::Acknowledge,
            6 => Kind::Refuse,
            _ => return None,
        };
        let address = Ipv4Addr::from(*bytes.get(16..)?.first_chunk::<4>()?);
        Some(Self { kind, address, options })
    }

    /// An option's content; of one that is there several times, all of it (RFC 3396).
    pub fn option(&self, code: u8) -> Option<&[u8]> {
        self.options.get(&code).map(Vec::as_slice)
    }

    /// An option that is a number of seconds.
    pub fn seconds(&self, code: u8) -> Option<u32> {
        self.option(code)?.try_into().ok().map(u32::from_be_bytes)
    }

    /// An option that is an address, or begins with one.
    pub fn address(&self, code: u8) -> Option<Ipv4Addr> {
        self.addresses(code).next()
    }

    /// An option that is a list of addresses.
    pub fn addresses(&self, code: u8) -> impl Iterator<Item = Ipv4Addr> {
        let content = self.option(code).unwrap_or_default();
        content.chunks_exact(4).filter_map(|bytes| bytes.first_chunk::<4>()).map(|octets| Ipv4Addr::from(*octets))
    }
}

fn read_options(bytes: &[u8], options: &mut BTreeMap<u8, Vec<u8>>) {
    let mut rest = bytes;
    while let [code, after @ ..] = rest {
        if *code == 255 {
            break;
        }
        if *code == 0 {
            rest = after;
            continue;
        }
        let Some((len, after)) = after.split_first() else { break };
        let Some(content) = after.get(..usize::from(*len)) else { break };
        let whole = options.entry(*code).or_default();
        if whole.len() + content.len() <= OPTION_LIMIT_BYTES {
            whole.extend_from_slice(content);
        }
        rest = &after[content.len()..];
    }
}

/// A message to servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request<'a> {
    /// What it is for.
    pub kind: Kind,
    /// Its transaction.
    pub transaction: u32,
    /// The card that asks.
    pub mac: [u8; 6],
    /// Seconds since it began to ask.
    pub seconds: u16,
    /// The address that it has and uses, else 0.0.0.0.
    pub own: Ipv4Addr,
    /// The address that it would like.
    pub requested: Option<Ipv4Addr>,
    /// The one server that is meant.
    pub server: Option<Ipv4Addr>,
    /// What the machine calls itself.
    pub host_name: Option<&'a str>,
}

impl Request<'_> {
    /// As it goes on the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![1, 1, 6, 0];
        bytes.extend(self.transaction.to_be_bytes());
        bytes.extend(self.seconds.to_be_bytes());
        // No flags: a packet socket hears what is sent to an address that the machine has not got yet.
        bytes.extend([0, 0]);
        bytes.extend(self.own.octets());
        bytes.extend([0; 12]);
        bytes.extend(self.mac);
        bytes.resize(FIXED_BYTES, 0);
        bytes.extend(COOKIE);
        let mut put = |code: u8, content: &[u8]| {
            let content = content.get(..255).unwrap_or(content);
            bytes.extend([code, u8::try_from(content.len()).unwrap_or(u8::MAX)]);
            bytes.extend_from_slice(content);
        };
        put(option::TYPE, &[self.kind as u8]);
        let [a, b, c, d, e, f] = self.mac;
        put(option::CLIENT, &[1, a, b, c, d, e, f]);
        if let Some(address) = self.requested {
            put(option::REQUESTED, &address.octets());
        }
        if let Some(server) = self.server {
            put(option::SERVER, &server.octets());
        }
        if matches!(self.kind, Kind::Discover | Kind::Request) {
            put(option::LONGEST, &LONGEST_BYTES.to_be_bytes());
            put(option::WANTED, &WANTED);
            if let Some(name) = self.host_name {
                put(option::HOST_NAME, name.as_bytes());
            }
        }
        if self.kind == Kind::Discover {
            put(option::RAPID_COMMIT, &[]);
        }
        bytes.push(255);
        bytes.resize(bytes.len().max(LEAST_BYTES), 0);
        bytes
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub const MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];

    /// A server's message with these options.
    pub fn answer(kind: Kind, transaction: u32, address: Ipv4Addr, options: &[u8]) -> Vec<u8> {
        let mut bytes = vec![2, 1, 6, 0];
        bytes.extend(transaction.to_be_bytes());
        bytes.resize(FIXED_BYTES, 0);
        bytes[16..20].copy_from_slice(&address.octets());
        bytes[28..34].copy_from_slice(&MAC);
        bytes.extend(COOKIE);
        bytes.extend([option::TYPE, 1, kind as u8]);
        bytes.extend_from_slice(options);
        bytes.push(255);
        bytes
    }

    #[test]
    fn what_is_no_answer_to_this_card_is_none() {
        let whole = answer(Kind::Offer, 7, Ipv4Addr::new(10, 0, 2, 15), &[]);
        for len in 0..whole.len() - 1 {
            assert_eq!(Message::read(&whole[..len], MAC, 7), None, "{len}");
        }
        assert_eq!(Message::read(&whole, MAC, 8), None);
        assert_eq!(Message::read(&whole, [0; 6], 7), None);
        for kind in [Kind::Discover, Kind::Request, Kind::Decline, Kind::Release] {
            assert_eq!(Message::read(&answer(kind, 7, Ipv4Addr::LOCALHOST, &[]), MAC, 7), None);
        }
        let own = Request {
            kind: Kind::Discover,
            transaction: 7,
            mac: MAC,
            seconds: 0,
            own: Ipv4Addr::UNSPECIFIED,
            requested: None,
            server: None,
            host_name: Some("guest"),
        };
        assert_eq!(Message::read(&own.bytes(), MAC, 7), None, "what a client says");
    }

    #[test]
    fn options_that_are_cut_short_leave_the_ones_before() {
        let bytes = answer(Kind::Offer, 7, Ipv4Addr::LOCALHOST, &[option::DNS, 4, 1, 2, 3, 4, option::ROUTER, 200, 1]);
        let message = Message::read(&bytes, MAC, 7).unwrap();
        assert_eq!(message.addresses(option::DNS).collect::<Vec<_>>(), [Ipv4Addr::new(1, 2, 3, 4)]);
        assert_eq!(message.option(option::ROUTER), None);
    }

    #[test]
    fn an_option_in_pieces_is_whole_again_wherever_they_are() {
        let mut bytes = answer(Kind::Offer, 7, Ipv4Addr::LOCALHOST, &[option::OVERLOAD, 1, 3, option::DNS, 2, 1, 2]);
        bytes[108..113].copy_from_slice(&[option::DNS, 1, 3, 255, 9]);
        bytes[44..48].copy_from_slice(&[0, option::DNS, 1, 4]);
        bytes[48] = 255;
        let message = Message::read(&bytes, MAC, 7).unwrap();
        assert_eq!(message.option(option::DNS), Some(&[1, 2, 3, 4][..]));
    }
}

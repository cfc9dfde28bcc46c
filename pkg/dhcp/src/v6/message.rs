//! Messages of DHCPv6 as bytes (RFC 8415 sections 8 and 21).

use std::net::Ipv6Addr;

use crate::advertisement::is_server;
use crate::name;

mod option {
    pub const CLIENT: u16 = 1;
    pub const SERVER: u16 = 2;
    pub const IA_NA: u16 = 3;
    pub const ADDRESS: u16 = 5;
    pub const WANTED: u16 = 6;
    pub const ELAPSED: u16 = 8;
    pub const STATUS: u16 = 13;
    pub const RAPID_COMMIT: u16 = 14;
    pub const DNS: u16 = 23;
    pub const SEARCH: u16 = 24;
    pub const REFRESH: u16 = 32;
}

/// A server's identity is at most so long (RFC 8415 section 11.1).
const IDENTITY_LIMIT_BYTES: usize = 130;
const DNS_LIMIT: usize = 3;
/// Shorter ones would only make work.
const LEAST_S: u32 = 60;

/// What a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Who has an address?
    Solicit = 1,
    /// I have.
    Advertise = 2,
    /// I take it.
    Request = 3,
    /// More time, from the same server.
    Renew = 5,
    /// More time, from any.
    Rebind = 6,
    /// So be it.
    Reply = 7,
    /// I need it no longer.
    Release = 8,
    /// Everything but an address.
    Information = 11,
}

/// An address for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub address: Ipv6Addr,
    /// Seconds until new connections do not take it.
    pub preferred_s: u32,
    /// Seconds until it is over.
    pub valid_s: u32,
    /// When to ask its server for more time.
    pub renewal_s: u32,
    /// When to ask any server.
    pub rebinding_s: u32,
}

/// A message from a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// An advertisement or a reply.
    pub kind: Kind,
    /// Who sent it.
    pub server: Vec<u8>,
    /// The server did it at once.
    pub is_rapid: bool,
    /// The first address that can be had.
    pub lease: Option<Lease>,
    /// Name servers.
    pub dns: Vec<Ipv6Addr>,
    /// Domains that short names are looked for in.
    pub search: Vec<String>,
    /// When to ask for information again, in seconds.
    pub refresh_s: Option<u32>,
}

impl Reply {
    /// Reads a server's answer to `client` in this transaction (24 bits); `None` for anything else, and for one whose status
    /// is no success.
    pub fn read(bytes: &[u8], transaction: u32, client: &[u8]) -> Option<Self> {
        let [_, high @ ..] = transaction.to_be_bytes();
        let kind = match bytes.first()? {
            2 => Kind::Advertise,
            7 => Kind::Reply,
            _ => return None,
        };
        (bytes.get(1..4)? == high).then_some(())?;
        let mut is_ours = false;
        let mut reply =
            Self { kind, server: vec![], is_rapid: false, lease: None, dns: vec![], search: vec![], refresh_s: None };
        for (code, content) in options(bytes.get(4..)?) {
            match code {
                option::CLIENT => is_ours = content == client,
                option::SERVER if content.len() <= IDENTITY_LIMIT_BYTES => reply.server = content.to_vec(),
                option::STATUS if !is_success(content) => return None,
                option::RAPID_COMMIT => reply.is_rapid = true,
                option::IA_NA => reply.lease = reply.lease.or_else(|| lease(content, client)),
                option::DNS => {
                    let servers = content.chunks_exact(16).filter_map(|bytes| bytes.first_chunk::<16>());
                    let servers = servers.map(|bytes| Ipv6Addr::from(*bytes)).filter(|server| is_server(*server));
                    reply.dns = servers.take(DNS_LIMIT).collect();
                }
                option::SEARCH => reply.search = name::list(content),
                option::REFRESH => reply.refresh_s = content.try_into().ok().map(u32::from_be_bytes),
                _ => {}
            }
        }
        (is_ours && !reply.server.is_empty()).then_some(reply)
    }
}

fn lease(bytes: &[u8], client: &[u8]) -> Option<Lease> {
    let number = |bytes: &[u8], at: usize| Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
    (bytes.get(..4)? == association(client)).then_some(())?;
    let (renewal, rebinding) = (number(bytes, 4)?, number(bytes, 8)?);
    let mut found = None;
    for (code, content) in options(bytes.get(12..)?) {
        match code {
            option::STATUS if !is_success(content) => return None,
            option::ADDRESS if found.is_none() => {
                let address = Ipv6Addr::from(*content.first_chunk::<16>()?);
                let (preferred, valid) = (number(content, 16)?, number(content, 20)?);
                let is_good =
                    options(content.get(24..)?).all(|(code, content)| code != option::STATUS || is_success(content));
                // What is over at once is taken back.
                if is_good && is_server(address) && !is_of_link(address) && valid > 0 && preferred <= valid {
                    found = Some((address, preferred.max(LEAST_S), valid.max(LEAST_S)));
                }
            }
            _ => {}
        }
    }
    let (address, preferred_s, valid_s) = found?;
    let or = |seconds: u32, least: u32, otherwise: u32| {
        if seconds > least && seconds < valid_s { seconds } else { otherwise }
    };
    let renewal_s = or(renewal, LEAST_S / 2, (preferred_s / 2).max(LEAST_S / 2));
    let rebinding_s = or(rebinding, renewal_s, (preferred_s - preferred_s / 5).max(renewal_s));
    Some(Lease { address, preferred_s, valid_s, renewal_s, rebinding_s })
}

fn is_of_link(address: Ipv6Addr) -> bool {
    address.segments()[0] & 0xffc0 == 0xfe80
}

fn is_success(status: &[u8]) -> bool {
    status.get(..2).is_none_or(|code| code == [0, 0])
}

/// Options, up to the first that is cut short.
fn options(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let code = u16::from_be_bytes(*bytes.first_chunk()?);
        let len = u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
        let content = bytes.get(4..4 + usize::from(len))?;
        bytes = &bytes[4 + content.len()..];
        Some((code, content))
    })
}

/// What the card's one set of addresses is called: the end of its hardware address.
fn association(client: &[u8]) -> [u8; 4] {
    client.last_chunk().copied().unwrap_or_default()
}

/// A machine's identity that follows from its card, so that it is the same after every boot (DUID-LL, RFC 8415 section 11.4).
pub fn identity(mac: [u8; 6]) -> Vec<u8> {
    [&[0, 3, 0, 1][..], &mac].concat()
}

/// A message to servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request<'a> {
    /// What it is for.
    pub kind: Kind,
    /// Its transaction: 24 bits.
    pub transaction: u32,
    /// Who asks.
    pub client: &'a [u8],
    /// The one server that is meant.
    pub server: Option<&'a [u8]>,
    /// The address that is meant.
    pub address: Option<Ipv6Addr>,
    /// Hundredths of a second since the first message of this kind.
    pub elapsed: u16,
}

impl Request<'_> {
    /// As it goes on the wire, in UDP.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.transaction.to_be_bytes().to_vec();
        bytes[0] = self.kind as u8;
        put(&mut bytes, option::CLIENT, self.client);
        if let Some(server) = self.server {
            put(&mut bytes, option::SERVER, server);
        }
        put(&mut bytes, option::ELAPSED, &self.elapsed.to_be_bytes());
        if self.kind != Kind::Information {
            let mut content = association(self.client).to_vec();
            content.extend([0; 8]);
            if let Some(address) = self.address {
                put(&mut content, option::ADDRESS, &[&address.octets()[..], &[0; 8]].concat());
            }
            put(&mut bytes, option::IA_NA, &content);
        }
        if self.kind == Kind::Solicit {
            put(&mut bytes, option::RAPID_COMMIT, &[]);
        }
        if self.kind != Kind::Release {
            let wanted = [option::DNS, option::SEARCH, option::REFRESH].map(u16::to_be_bytes);
            let wanted = if self.kind == Kind::Information { &wanted[..] } else { &wanted[..2] };
            put(&mut bytes, option::WANTED, wanted.as_flattened());
        }
        bytes
    }
}

fn put(bytes: &mut Vec<u8>, code: u16, content: &[u8]) {
    bytes.extend(code.to_be_bytes());
    bytes.extend(u16::try_from(content.len()).unwrap_or(u16::MAX).to_be_bytes());
    bytes.extend_from_slice(content);
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub const MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];
    pub const ADDRESS: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x15);

    /// A server's answer; a `valid_s` gives an address.
    pub fn answer(kind: Kind, transaction: u32, valid_s: Option<u32>, rapid: bool) -> Vec<u8> {
        let mut bytes = transaction.to_be_bytes().to_vec();
        bytes[0] = kind as u8;
        put(&mut bytes, option::CLIENT, &identity(MAC));
        put(&mut bytes, option::SERVER, b"server");
        if let Some(valid_s) = valid_s {
            let mut content = MAC[2..].to_vec();
            content.extend([0; 8]);
            let times = [valid_s.to_be_bytes(); 2];
            put(&mut content, option::ADDRESS, &[&ADDRESS.octets()[..], times.as_flattened()].concat());
            put(&mut bytes, option::IA_NA, &content);
        }
        if rapid {
            put(&mut bytes, option::RAPID_COMMIT, &[]);
        }
        put(&mut bytes, option::DNS, &Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 3).octets());
        put(&mut bytes, option::SEARCH, b"\x07example\x04test\0");
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Reply> {
        Reply::read(bytes, 7, &identity(MAC))
    }

    #[test]
    fn what_is_no_answer_to_this_machine_is_none() {
        let whole = answer(Kind::Reply, 7, Some(3600), false);
        for len in 0..whole.len() {
            if let Some(reply) = read(&whole[..len]) {
                assert!(len >= 28 && reply.search.is_empty(), "{len}");
            }
        }
        assert_eq!(Reply::read(&whole, 8, &identity(MAC)), None);
        assert_eq!(Reply::read(&whole, 7, &identity([0; 6])), None);
        let own = Request {
            kind: Kind::Solicit,
            transaction: 7,
            client: &identity(MAC),
            server: None,
            address: None,
            elapsed: 0,
        };
        assert_eq!(read(&own.bytes()), None);
        let mut refused = whole.clone();
        put(&mut refused, option::STATUS, &[0, 2]);
        assert_eq!(read(&refused), None);
    }

    #[test]
    fn an_address_comes_with_times_that_make_sense() {
        let lease = read(&answer(Kind::Reply, 7, Some(3600), false)).unwrap().lease.unwrap();
        assert_eq!((lease.address, lease.renewal_s, lease.rebinding_s, lease.valid_s), (ADDRESS, 1800, 2880, 3600));
        assert_eq!(read(&answer(Kind::Reply, 7, Some(0), false)).unwrap().lease, None);
        let lease = read(&answer(Kind::Reply, 7, Some(1), false)).unwrap().lease.unwrap();
        assert_eq!((lease.renewal_s, lease.valid_s), (30, 60));
    }

    #[test]
    fn name_servers_and_domains_come_with_and_without_an_address() {
        let reply = read(&answer(Kind::Reply, 7, None, false)).unwrap();
        assert_eq!((reply.lease, reply.dns.len(), reply.search), (None, 1, vec!["example.test".to_owned()]));
    }

    #[test]
    fn addresses_of_the_link_and_of_another_set_are_left_out() {
        let whole = answer(Kind::Reply, 7, Some(60), false);
        let place = whole.windows(2).position(|window| window == [0xfd, 0]).unwrap();
        let mut changed = whole.clone();
        changed[place..place + 2].copy_from_slice(&[0xfe, 0x80]);
        assert_eq!(read(&changed).unwrap().lease, None);
        let mut changed = whole;
        changed[place - 13] ^= 1;
        assert_eq!(read(&changed).unwrap().lease, None);
    }
}

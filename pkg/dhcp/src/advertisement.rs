//! What a router's advertisement says to this program (RFC 4861 section 4.2): whether to ask a server of DHCPv6, and which
//! name servers there are (RFC 8106). Addresses and routes from it are the kernel's affair.

use std::net::Ipv6Addr;

use crate::name;

const FIXED_BYTES: usize = 16;
const MANAGED: u8 = 0x80;
const OTHER: u8 = 0x40;
const RDNSS: u8 = 25;
const DNSSL: u8 = 31;
/// Name servers of one advertisement.
const SERVER_LIMIT: usize = 8;

/// An advertisement.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Advertisement {
    /// Addresses come from a server of DHCPv6.
    pub is_managed: bool,
    /// Other things, such as name servers, come from there.
    pub has_other: bool,
    /// Whether the sender is a way out.
    pub is_router: bool,
    /// Name servers, each with the seconds that it is good for; 0 takes it back.
    pub dns: Vec<(Ipv6Addr, u32)>,
    /// Domains to look in, likewise.
    pub search: Vec<(String, u32)>,
}

impl Advertisement {
    /// Reads one from its type on; `None` if it is cut short. Options that are wrong are left out.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let flags = *bytes.get(5)?;
        let lifetime = u16::from_be_bytes(*bytes.get(6..)?.first_chunk()?);
        let mut rest = bytes.get(FIXED_BYTES..)?;
        let mut read = Self {
            is_managed: flags & MANAGED != 0,
            has_other: flags & OTHER != 0,
            is_router: lifetime != 0,
            ..Self::default()
        };
        while let [kind, units, ..] = *rest {
            // Eight bytes are the unit; none at all would go on for ever.
            let len = usize::from(units) * 8;
            let option = rest.get(..len).filter(|option| !option.is_empty())?;
            rest = &rest[len..];
            let lifetime =
                option.get(4..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u32::from_be_bytes(*bytes));
            let content = option.get(8..).unwrap_or_default();
            match kind {
                RDNSS => {
                    let servers = content.chunks_exact(16).filter_map(|bytes| bytes.first_chunk::<16>());
                    let servers = servers.map(|bytes| Ipv6Addr::from(*bytes)).filter(|server| is_server(*server));
                    let room = SERVER_LIMIT.saturating_sub(read.dns.len());
                    read.dns.extend(servers.take(room).map(|server| (server, lifetime)));
                }
                DNSSL if read.search.is_empty() => {
                    read.search = name::list(trimmed(content)).into_iter().map(|name| (name, lifetime)).collect();
                }
                _ => {}
            }
        }
        Some(read)
    }
}

/// Whether somebody can answer there.
pub fn is_server(address: Ipv6Addr) -> bool {
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast())
}

/// Without the zeros behind the last name, which would read as names without labels.
fn trimmed(names: &[u8]) -> &[u8] {
    let end = names.iter().rposition(|byte| *byte != 0).map_or(0, |last| (last + 2).min(names.len()));
    &names[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> Vec<u8> {
        let mut bytes = vec![134, 0, 0, 0, 64, MANAGED | OTHER, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        bytes.extend([RDNSS, 5, 0, 0, 0, 0, 1, 0]);
        bytes.extend("fe80::3".parse::<Ipv6Addr>().unwrap().octets());
        bytes.extend(Ipv6Addr::LOCALHOST.octets());
        bytes.extend([1, 1, 2, 0, 0, 0, 0, 1]);
        bytes.extend([DNSSL, 3, 0, 0, 0, 0, 0, 9]);
        bytes.extend(b"\x07example\x04test\0\0\0");
        bytes
    }

    #[test]
    fn an_advertisement_that_is_cut_short_is_none_or_shorter() {
        let whole = whole();
        for len in 0..whole.len() {
            let read = Advertisement::read(&whole[..len]);
            assert_eq!(read.is_some(), [16, 17, 56, 57, 64, 65].contains(&len), "{len}");
        }
        let mut endless = whole.clone();
        endless[17] = 0;
        assert_eq!(Advertisement::read(&endless), None);
    }

    #[test]
    fn name_servers_and_domains_are_read_with_their_times() {
        let read = Advertisement::read(&whole()).unwrap();
        assert!(read.is_managed && read.has_other && read.is_router);
        assert_eq!(read.dns, [("fe80::3".parse().unwrap(), 256)]);
        assert_eq!(read.search, [("example.test".to_owned(), 9)]);
    }

    #[test]
    fn more_servers_than_anybody_needs_are_left_out() {
        let mut bytes = whole()[..16].to_vec();
        for _ in 0..20 {
            bytes.extend([RDNSS, 3, 0, 0, 0, 0, 1, 0]);
            bytes.extend([0x20; 16]);
        }
        assert_eq!(Advertisement::read(&bytes).unwrap().dns.len(), SERVER_LIMIT);
    }
}

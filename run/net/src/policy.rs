//! Where a guest may go. Every connection and every datagram outwards passes here, after the address was brought to the
//! form that it really has.

use std::collections::HashMap;
use std::net::{AddrParseError, IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::num::ParseIntError;
use std::str::FromStr;

use crate::Millis;

/// A block of addresses, and perhaps one port of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Its first address.
    pub address: IpAddr,
    /// How many leading bits count.
    pub prefix_bits: u8,
    /// Only this port, if there is one.
    pub port: Option<u16>,
}

/// Why a word is no [`Block`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoBlock {
    /// What stands in front is no address.
    #[error("`{0}` is no address: write one as `10.0.0.0/8`, `10.0.0.1:443`, `2001:db8::/32` or `[2001:db8::1]:443`")]
    Address(String, #[source] AddrParseError),
    /// What stands behind the slash is no number of bits.
    #[error("`/{0}` is no length of a prefix: at most /{1} fits this address")]
    Prefix(String, u8, #[source] Option<ParseIntError>),
    /// Bits are set that do not count.
    #[error("`{0}` has bits behind its prefix: write `{1}`")]
    HostBits(String, String),
    /// What stands behind the colon is no port.
    #[error("`{0}` is no port: write a number from 1 to 65535")]
    Port(String, #[source] Option<ParseIntError>),
}

impl FromStr for Block {
    type Err = NoBlock;

    /// `ADDRESS[/BITS][:PORT]`; an IPv6 address before a port stands in brackets, with its bits inside or behind them.
    fn from_str(word: &str) -> Result<Self, NoBlock> {
        let (block, port) = match word.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((inside, behind)) => {
                let (bits, port) = behind.split_once(':').map_or((behind, None), |(bits, port)| (bits, Some(port)));
                (format!("{inside}{bits}"), port)
            }
            None if word.matches(':').count() == 1 => {
                let (block, port) = word.split_once(':').unwrap_or((word, ""));
                (block.to_owned(), Some(port))
            }
            None => (word.to_owned(), None),
        };
        let (address, bits) = block.split_once('/').map_or((&block[..], None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|error| NoBlock::Address(address.to_owned(), error))?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match bits.map(|bits| (bits, bits.parse::<u8>())) {
            None => most,
            Some((_, Ok(bits))) if bits <= most => bits,
            Some((text, result)) => return Err(NoBlock::Prefix(text.to_owned(), most, result.err())),
        };
        let port = match port.map(|port| (port, port.parse::<u16>())) {
            None => None,
            Some((_, Ok(port))) if port > 0 => Some(port),
            Some((text, result)) => return Err(NoBlock::Port(text.to_owned(), result.err())),
        };
        let first = masked(address, prefix_bits);
        if first != address {
            return Err(NoBlock::HostBits(word.to_owned(), format!("{first}/{prefix_bits}")));
        }
        Ok(Self { address, prefix_bits, port })
    }
}

/// The first address of the block.
fn masked(address: IpAddr, prefix_bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let rest = u32::MAX.checked_shr(prefix_bits.into()).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & !rest).into()
        }
        IpAddr::V6(address) => {
            let rest = u128::MAX.checked_shr(prefix_bits.into()).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & !rest).into()
        }
    }
}

/// Why a guest may not go there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is an address of the host itself, which is reached through the gateway's name when that is allowed.
    #[error("it is the host's loopback")]
    Loopback,
    /// The host has that address on one of its networks, and its programs listen there too.
    #[error("it is an address of the host itself: allow it by a rule of its own, or open the host's loopback")]
    Own,
    /// Clouds tell secrets there.
    #[error("it is link-local, where clouds keep their metadata service")]
    LinkLocal,
    /// No connection can go there.
    #[error("it is no address of one machine")]
    NotUnicast,
    /// A rule of the user says so.
    #[error("a rule denies it")]
    Denied,
    /// There are rules that allow, and none of them is for it.
    #[error("no rule allows it")]
    NotAllowed,
}

/// The rules of one guest. Their order does not matter: what is denied is denied, whatever is allowed. Once something is
/// allowed, everything else is not. What only means this machine is never allowed; its own addresses and link-local ones
/// are by rules that are about them, not by those that are about everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// If there are any, only these.
    pub allow: Vec<Block>,
    /// Never these, whatever is allowed.
    pub deny: Vec<Block>,
}

impl Policy {
    /// Whether the guest may talk to `destination`. `is_own` tells whether the host itself has an address.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, destination: SocketAddr, is_own: impl FnOnce(IpAddr) -> bool) -> Result<(), Refusal> {
        let address = real(destination.ip());
        let destination = SocketAddr::new(address, destination.port());
        if self.deny.iter().any(|block| block.has(destination)) {
            return Err(Refusal::Denied);
        }
        let allowing = || self.allow.iter().filter(|block| block.has(destination));
        let class = class(address).or_else(|| is_own(address).then_some(Refusal::Own));
        let is_meant = match class {
            // Nothing opens these: they would mean this machine.
            Some(Refusal::Loopback | Refusal::NotUnicast) => false,
            Some(Refusal::LinkLocal) => allowing().any(|block| self::class(block.address) == Some(Refusal::LinkLocal)),
            Some(_) => allowing().any(|block| block.address == address),
            None => true,
        };
        match class {
            Some(refusal) if !is_meant => Err(refusal),
            _ if !self.allow.is_empty() && allowing().next().is_none() => Err(Refusal::NotAllowed),
            _ => Ok(()),
        }
    }
}

/// Which addresses the host itself has. The answer counts for a while: addresses come and go.
#[derive(Debug, Default)]
pub struct OwnAddresses {
    known: HashMap<IpAddr, (bool, Millis)>,
}

impl OwnAddresses {
    /// Addresses that are remembered.
    const LIMIT: usize = 1_024;
    /// For so long.
    const GOOD_MS: Millis = 5_000;

    /// Whether `address` is the host's. Nothing is sent for it: its routes are asked.
    pub fn has(&mut self, address: IpAddr, now: Millis) -> bool {
        if let Some((is_own, looked)) = self.known.get(&address)
            && now.saturating_sub(*looked) < Self::GOOD_MS
        {
            return *is_own;
        }
        if self.known.len() >= Self::LIMIT {
            self.known.clear();
        }
        let is_own = is_own(address);
        self.known.insert(address, (is_own, now));
        is_own
    }
}

/// The way to an own address begins at that address.
fn is_own(address: IpAddr) -> bool {
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let from = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((address, 9))?;
        socket.local_addr()
    });
    // Without a way there, it is nobody's.
    from.is_ok_and(|from| from.ip() == address)
}

impl Block {
    /// Whether `destination` is in it.
    pub fn has(&self, destination: SocketAddr) -> bool {
        let common = match (self.address, destination.ip()) {
            (IpAddr::V4(block), IpAddr::V4(address)) => (block.to_bits() ^ address.to_bits()).leading_zeros(),
            (IpAddr::V6(block), IpAddr::V6(address)) => (block.to_bits() ^ address.to_bits()).leading_zeros(),
            _ => return false,
        };
        common >= self.prefix_bits.into() && self.port.is_none_or(|port| port == destination.port())
    }
}

/// The IPv4 address inside of an IPv6 one that leads to it: mapped (RFC 4291), NAT64 (RFC 6052), 6to4 (RFC 3056).
fn real(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    if let Some(v4) = v6.to_ipv4_mapped() {
        return v4.into();
    }
    let [a, b, c, d, e, f, g, h] = v6.segments();
    let of = |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match [a, b, c, d, e, f] {
        [0x64, 0xff9b, 0, 0, 0, 0] => of(g, h),
        [0x2002, ..] => of(b, c),
        [0, 0, 0, 0, 0, 0] if v6 != Ipv6Addr::LOCALHOST && !v6.is_unspecified() => of(g, h),
        _ => address,
    }
}

fn class(address: IpAddr) -> Option<Refusal> {
    let is_link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let is_broadcast = match address {
        // "This network" and the reserved block lead nowhere, or to this machine.
        IpAddr::V4(v4) => v4.is_broadcast() || v4.octets()[0] == 0 || v4.octets()[0] >= 240,
        IpAddr::V6(_) => false,
    };
    match () {
        () if address.is_loopback() => Some(Refusal::Loopback),
        () if address.is_unspecified() || address.is_multicast() || is_broadcast => Some(Refusal::NotUnicast),
        () if is_link_local => Some(Refusal::LinkLocal),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(text: &str, prefix_bits: u8, port: Option<u16>) -> Block {
        Block { address: text.parse().unwrap(), prefix_bits, port }
    }

    fn check(policy: &Policy, destination: &str) -> Result<(), Refusal> {
        policy.check(destination.parse().unwrap(), |_| false)
    }

    #[test]
    fn a_word_that_is_no_block_is_refused_and_how_to_mend_it_said() {
        for (word, text) in [
            ("", "`` is no address"),
            ("example.test", "`example.test` is no address"),
            ("10.0.0/8", "`10.0.0` is no address"),
            ("10.0.0.0/33", "`/33` is no length of a prefix: at most /32"),
            ("10.0.0.0/", "`/` is no length"),
            ("::/129", "at most /128"),
            ("10.0.0.1/8", "write `10.0.0.0/8`"),
            ("10.0.0.0/8:0", "`0` is no port"),
            ("10.0.0.0/8:http", "`http` is no port"),
            ("10.0.0.0/8:65536", "`65536` is no port"),
            ("[::1]:", "`` is no port"),
            ("[2001:db8::1]/32", "write `2001:db8::/32`"),
        ] {
            let error = word.parse::<Block>().unwrap_err();
            assert!(error.to_string().contains(text), "{word}: {error}");
        }
    }

    #[test]
    fn blocks_are_written_as_people_write_them() {
        for (word, address, prefix_bits, port) in [
            ("10.0.0.0/8", "10.0.0.0", 8, None),
            ("10.0.0.1", "10.0.0.1", 32, None),
            ("10.0.0.1:443", "10.0.0.1", 32, Some(443)),
            ("0.0.0.0/0:25", "0.0.0.0", 0, Some(25)),
            ("::/0", "::", 0, None),
            ("2001:db8::/32", "2001:db8::", 32, None),
            ("[2001:db8::1]:443", "2001:db8::1", 128, Some(443)),
            ("[2001:db8::]/32:443", "2001:db8::", 32, Some(443)),
            ("[2001:db8::/32]:443", "2001:db8::", 32, Some(443)),
        ] {
            assert_eq!(word.parse(), Ok(block(address, prefix_bits, port)), "{word}");
        }
    }

    #[test]
    fn the_hosts_own_addresses_are_reached_only_by_their_own_rule() {
        let own = "192.0.2.9:22".parse().unwrap();
        let everything = Policy { allow: vec![block("0.0.0.0", 0, None)], deny: vec![] };
        let meant = Policy { allow: vec![block("192.0.2.9", 32, Some(22))], deny: vec![] };
        for (policy, result) in
            [(Policy::default(), Err(Refusal::Own)), (everything, Err(Refusal::Own)), (meant, Ok(()))]
        {
            assert_eq!(policy.check(own, |_| true), result);
        }
        let mut addresses = OwnAddresses::default();
        for (address, is_own) in [("127.0.0.1", true), ("::1", true), ("192.0.2.1", false), ("2001:db8::1", false)] {
            assert_eq!(addresses.has(address.parse().unwrap(), 0), is_own, "{address}");
        }
        for number in 0..5_000 {
            addresses.has(Ipv4Addr::from_bits(0xc000_0200 + number % 7).into(), u64::from(number) * 10_000);
        }
        assert!(addresses.known.len() <= OwnAddresses::LIMIT);
    }

    #[test]
    fn this_machine_is_not_reached_under_any_of_its_names() {
        let open = Policy { allow: vec![block("0.0.0.0", 0, None), block("::", 0, None)], deny: vec![] };
        for (destination, refusal) in [
            ("127.0.0.1:22", Refusal::Loopback),
            ("127.255.0.9:22", Refusal::Loopback),
            ("[::1]:22", Refusal::Loopback),
            ("[::ffff:127.0.0.1]:22", Refusal::Loopback),
            ("[::127.0.0.1]:22", Refusal::Loopback),
            ("[64:ff9b::7f00:1]:22", Refusal::Loopback),
            ("[2002:7f00:1::]:22", Refusal::Loopback),
            ("0.0.0.0:22", Refusal::NotUnicast),
            ("0.1.2.3:22", Refusal::NotUnicast),
            ("[::]:22", Refusal::NotUnicast),
            ("[::ffff:0.0.0.0]:22", Refusal::NotUnicast),
            ("255.255.255.255:22", Refusal::NotUnicast),
            ("240.0.0.1:22", Refusal::NotUnicast),
            ("224.0.0.251:5353", Refusal::NotUnicast),
            ("[ff02::fb]:5353", Refusal::NotUnicast),
        ] {
            for policy in [&Policy::default(), &open] {
                assert_eq!(check(policy, destination), Err(refusal), "{destination}");
            }
        }
    }

    #[test]
    fn the_metadata_service_is_reached_only_when_allowed() {
        let destinations = ["169.254.169.254:80", "[::ffff:169.254.169.254]:80", "[fe80::a9fe:a9fe]:80"];
        for destination in destinations {
            assert_eq!(check(&Policy::default(), destination), Err(Refusal::LinkLocal), "{destination}");
        }
        let allowed = Policy { allow: vec![block("169.254.169.254", 32, Some(80))], deny: vec![] };
        assert_eq!(check(&allowed, destinations[0]), Ok(()));
        assert_eq!(check(&allowed, destinations[1]), Ok(()));
        assert_eq!(check(&allowed, "169.254.169.254:81"), Err(Refusal::LinkLocal));
        assert_eq!(check(&allowed, "192.0.2.1:80"), Err(Refusal::NotAllowed));
        let everything = Policy { allow: vec![block("0.0.0.0", 0, None), block("::", 0, None)], deny: vec![] };
        for destination in destinations {
            assert_eq!(check(&everything, destination), Err(Refusal::LinkLocal), "{destination}");
        }
    }

    #[test]
    fn what_is_denied_is_denied_whatever_is_allowed() {
        let policy = Policy {
            allow: vec![block("10.0.0.0", 8, None), block("2001:db8::", 32, None)],
            deny: vec![block("10.1.0.0", 16, Some(25)), block("2001:db8:1::", 48, None)],
        };
        for (destination, result) in [
            ("10.0.0.1:25", Ok(())),
            ("10.1.0.1:26", Ok(())),
            ("10.1.0.1:25", Err(Refusal::Denied)),
            ("[::ffff:10.1.0.1]:25", Err(Refusal::Denied)),
            ("[2001:db8::1]:1", Ok(())),
            ("[2001:db8:1::1]:1", Err(Refusal::Denied)),
            ("192.0.2.1:80", Err(Refusal::NotAllowed)),
        ] {
            assert_eq!(check(&policy, destination), result, "{destination}");
        }
    }
}

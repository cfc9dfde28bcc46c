//! Where a guest may go. Every connection and every datagram outwards passes here, after the address was brought to the
//! form that it really has.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

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

/// Why a guest may not go there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is an address of the host itself, which is reached through the gateway's name when that is allowed.
    #[error("it is the host's loopback")]
    Loopback,
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

/// The rules of one guest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// If there are any, only these.
    pub allow: Vec<Block>,
    /// Never these, whatever is allowed.
    pub deny: Vec<Block>,
}

impl Policy {
    /// Whether the guest may talk to `destination`.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, destination: SocketAddr) -> Result<(), Refusal> {
        let address = real(destination.ip());
        let destination = SocketAddr::new(address, destination.port());
        if self.deny.iter().any(|block| block.has(destination)) {
            return Err(Refusal::Denied);
        }
        let is_allowed = self.allow.iter().any(|block| block.has(destination));
        match class(address) {
            // Nothing opens these: they would mean this machine.
            Some(refusal @ (Refusal::Loopback | Refusal::NotUnicast)) => Err(refusal),
            Some(refusal) if !is_allowed => Err(refusal),
            _ if !is_allowed && !self.allow.is_empty() => Err(Refusal::NotAllowed),
            _ => Ok(()),
        }
    }
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
        policy.check(destination.parse().unwrap())
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

//! What a server gives, and whether it can be used.

use std::net::{IpAddr, Ipv4Addr};

use kiln_guest::netlink::Route;

use super::message::{Message, option};
use crate::name;

/// Nobody needs more in `/etc/resolv.conf`.
const DNS_LIMIT: usize = 3;
const ROUTE_LIMIT: usize = 64;
/// A shorter lease than this would only make work.
const LEAST_S: u32 = 60;
/// What IPv4 needs (RFC 791).
const LEAST_MTU: u16 = 576;
/// Without a word from the server (RFC 2132 has no default): an hour.
const DEFAULT_S: u32 = 3600;
/// The lease never ends.
pub const FOR_EVER: u32 = u32::MAX;

/// Why an answer is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Nobody can have this address.
    #[error("{0} is no address for a machine")]
    Address(Ipv4Addr),
    /// A mask that is none.
    #[error("{0} is no mask")]
    Mask(Ipv4Addr),
}

/// An address and what goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    /// Leading bits of its network.
    pub prefix_bits: u8,
    /// Who gave it.
    pub server: Option<Ipv4Addr>,
    /// Where packets go, the network of the address apart: destination, leading bits, gateway. Without a gateway it is on the link.
    pub routes: Vec<(Ipv4Addr, u8, Option<Ipv4Addr>)>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
    /// Domains that short names are looked for in.
    pub search: Vec<String>,
    /// The machine's name.
    pub host_name: Option<String>,
    /// Largest packet, in bytes.
    pub mtu: Option<u16>,
    /// How long it is good for, in seconds.
    pub valid_s: u32,
    /// When to ask its server for more time.
    pub renewal_s: u32,
    /// When to ask any server.
    pub rebinding_s: u32,
}

impl Lease {
    /// What an offer or a yes comes down to. Parts that make no sense are left out.
    ///
    /// # Errors
    /// [`Unusable`], when there is no address that can be had.
    pub fn read(message: &Message) -> Result<Self, Unusable> {
        let address = message.address;
        let prefix_bits = match message.address(option::MASK) {
            Some(mask) => prefix_bits(mask).ok_or(Unusable::Mask(mask))?,
            None => class_bits(address),
        };
        let host_bits = u32::MAX.checked_shr(prefix_bits.into()).unwrap_or(0);
        let is_edge = prefix_bits < 31 && [0, host_bits].contains(&(u32::from(address) & host_bits));
        if !is_host(address) || is_edge {
            return Err(Unusable::Address(address));
        }
        let (valid_s, renewal_s, rebinding_s) = times(message);
        let text = |code| message.option(code).and_then(name::plain);
        let mut search = message.option(option::SEARCH).map(name::list).unwrap_or_default();
        if search.is_empty() {
            search.extend(text(option::DOMAIN));
        }
        let mtu = message.option(option::MTU).and_then(|bytes| bytes.try_into().ok()).map(u16::from_be_bytes);
        Ok(Self {
            address,
            prefix_bits,
            server: message.address(option::SERVER).filter(|server| is_host(*server)),
            routes: routes(message),
            dns: message.addresses(option::DNS).filter(|server| is_host(*server)).take(DNS_LIMIT).collect(),
            search,
            host_name: text(option::HOST_NAME),
            mtu: mtu.filter(|mtu| *mtu >= LEAST_MTU),
            valid_s,
            renewal_s,
            rebinding_s,
        })
    }

    /// Its routes with this metric, as the kernel takes them.
    pub fn kernel_routes(&self, metric: u32) -> Vec<Route> {
        let routes = self.routes.iter().map(|(destination, prefix_bits, gateway)| Route {
            destination: IpAddr::V4(*destination),
            prefix_bits: *prefix_bits,
            gateway: gateway.map(IpAddr::V4),
            source: Some(IpAddr::V4(self.address)),
            metric,
        });
        routes.collect()
    }
}

fn is_host(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    // 240.0.0.0/4 is taken by some clouds; the address of everybody is not.
    first != 0 && !address.is_loopback() && !address.is_multicast() && !address.is_broadcast()
}

fn prefix_bits(mask: Ipv4Addr) -> Option<u8> {
    let mask = u32::from(mask);
    let bits = mask.leading_ones();
    (bits == mask.count_ones() && bits > 0).then(|| u8::try_from(bits).ok()).flatten()
}

/// Of a server that tells no mask.
fn class_bits(address: Ipv4Addr) -> u8 {
    match address.octets()[0] {
        0..128 => 8,
        128..192 => 16,
        _ => 24,
    }
}

fn times(message: &Message) -> (u32, u32, u32) {
    let valid = message.seconds(option::LEASE).unwrap_or(DEFAULT_S).max(LEAST_S);
    if valid == FOR_EVER {
        return (FOR_EVER, FOR_EVER, FOR_EVER);
    }
    let renewal = message.seconds(option::RENEWAL).filter(|renewal| (LEAST_S / 2..valid).contains(renewal));
    let renewal = renewal.unwrap_or(valid / 2);
    let rebinding = message.seconds(option::REBINDING).filter(|rebinding| (renewal..valid).contains(rebinding));
    (valid, renewal, rebinding.unwrap_or(valid - valid / 8).max(renewal))
}

/// Classless routes, and where there are none the router (RFC 3442: never both).
fn routes(message: &Message) -> Vec<(Ipv4Addr, u8, Option<Ipv4Addr>)> {
    if let Some(routes) = message.option(option::CLASSLESS_ROUTES).and_then(classless) {
        return routes;
    }
    let router = message.addresses(option::ROUTER).find(|router| is_host(*router));
    router.map(|router| (Ipv4Addr::UNSPECIFIED, 0, Some(router))).into_iter().collect()
}

fn classless(mut bytes: &[u8]) -> Option<Vec<(Ipv4Addr, u8, Option<Ipv4Addr>)>> {
    let mut routes = Vec::new();
    while let [prefix_bits, after @ ..] = bytes {
        let significant = usize::from(*prefix_bits).div_ceil(8);
        let mut octets = [0; 4];
        octets.get_mut(..significant)?.copy_from_slice(after.get(..significant)?);
        let gateway = Ipv4Addr::from(*after.get(significant..)?.first_chunk::<4>()?);
        bytes = after.get(significant + 4..)?;
        let mask = u32::MAX.checked_shl(32 - u32::from(*prefix_bits)).unwrap_or(0);
        let destination = Ipv4Addr::from(u32::from_be_bytes(octets) & mask);
        let gateway = (!gateway.is_unspecified()).then_some(gateway);
        let leads_somewhere = gateway.is_none_or(is_host) && !destination.is_loopback() && !destination.is_multicast();
        if leads_somewhere && routes.len() < ROUTE_LIMIT {
            routes.push((destination, *prefix_bits, gateway));
        }
    }
    Some(routes)
}

#[cfg(test)]
mod tests {
    use super::super::message::Kind;
    use super::super::message::tests::{MAC, answer};
    use super::*;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);

    fn lease(address: Ipv4Addr, options: &[u8]) -> Result<Lease, Unusable> {
        Lease::read(&Message::read(&answer(Kind::Offer, 7, address, options), MAC, 7).unwrap())
    }

    #[test]
    fn addresses_that_nobody_can_have_are_refused() {
        for address in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "0.1.2.3", "10.0.2.0", "10.0.2.255"] {
            let address = address.parse().unwrap();
            assert_eq!(lease(address, &[option::MASK, 4, 255, 255, 255, 0]), Err(Unusable::Address(address)));
        }
        for mask in [[255, 0, 255, 0], [0, 0, 0, 0], [0, 255, 255, 255]] {
            let options = [&[option::MASK, 4][..], &mask].concat();
            assert_eq!(lease(ADDRESS, &options), Err(Unusable::Mask(mask.into())));
        }
        assert_eq!(lease(ADDRESS, &[option::MASK, 4, 255, 255, 255, 255]).unwrap().prefix_bits, 32);
    }

    #[test]
    fn times_that_would_keep_everybody_busy_are_made_longer() {
        let seconds = |code: u8, seconds: u32| [&[code, 4][..], &seconds.to_be_bytes()].concat();
        for (valid, renewal, rebinding, wanted) in [
            (0, 0, 0, (60, 30, 53)),
            (1, 1, 1, (60, 30, 53)),
            (3600, 3600, 1, (3600, 1800, 3150)),
            (3600, 3599, 100, (3600, 3599, 3599)),
            (3600, 100, 200, (3600, 100, 200)),
            (FOR_EVER, 1, 2, (FOR_EVER, FOR_EVER, FOR_EVER)),
        ] {
            let options = [
                seconds(option::LEASE, valid),
                seconds(option::RENEWAL, renewal),
                seconds(option::REBINDING, rebinding),
            ];
            let lease = lease(ADDRESS, &options.concat()).unwrap();
            assert_eq!((lease.valid_s, lease.renewal_s, lease.rebinding_s), wanted);
        }
    }

    #[test]
    fn what_makes_no_sense_is_left_out() {
        let mut options =
            vec![option::MTU, 2, 0, 68, option::HOST_NAME, 3, b'a', b' ', b'b', option::DNS, 8, 127, 0, 0, 1];
        options.extend([1, 1, 1, 1, option::ROUTER, 4, 0, 0, 0, 0, option::SEARCH, 2, 9, 9]);
        options.extend([option::DOMAIN, 3, b'x', b'\n', b'y', option::CLASSLESS_ROUTES, 2, 33, 1]);
        let lease = lease(ADDRESS, &options).unwrap();
        assert_eq!((lease.mtu, lease.host_name, lease.routes, lease.search), (None, None, vec![], vec![]));
        assert_eq!(lease.dns, [Ipv4Addr::new(1, 1, 1, 1)]);
        assert_eq!(lease.prefix_bits, 8);
    }

    #[test]
    fn classless_routes_take_the_routers_place() {
        let mut options = vec![option::ROUTER, 4, 10, 0, 2, 9, option::CLASSLESS_ROUTES, 19];
        options.extend([0, 10, 0, 2, 2, 12, 172, 31, 10, 0, 2, 3, 16, 169, 254, 0, 0, 0, 0]);
        let routes = lease(ADDRESS, &options).unwrap().routes;
        let wanted = [
            (Ipv4Addr::UNSPECIFIED, 0, Some(Ipv4Addr::new(10, 0, 2, 2))),
            (Ipv4Addr::new(172, 16, 0, 0), 12, Some(Ipv4Addr::new(10, 0, 2, 3))),
            (Ipv4Addr::new(169, 254, 0, 0), 16, None),
        ];
        assert_eq!(routes, wanted);
        assert_eq!(lease(ADDRESS, &options[..6]).unwrap().routes[0].2, Some(Ipv4Addr::new(10, 0, 2, 9)));
    }
}

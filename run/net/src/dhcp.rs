//! DHCP for IPv4 (RFC 2131, options RFC 2132): one guest, one lease.

use std::fmt::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::wire::Mac;

/// Fixed fields, then the cookie.
const FIXED_BYTES: usize = 236;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// A day: the address never changes, so it matters to nobody.
const LEASE_S: u32 = 86_400;
/// Least length of a message (RFC 1542 section 2.1).
const LEAST_BYTES: usize = 300;

mod option {
    pub const MASK: u8 = 1;
    pub const ROUTER: u8 = 3;
    pub const DNS: u8 = 6;
    pub const HOST_NAME: u8 = 12;
    pub const DOMAIN: u8 = 15;
    pub const MTU: u8 = 26;
    pub const TIME_SERVERS: u8 = 42;
    pub const REQUESTED: u8 = 50;
    pub const LEASE: u8 = 51;
    pub const TYPE: u8 = 53;
    pub const SERVER: u8 = 54;
    pub const RENEWAL: u8 = 58;
    pub const REBINDING: u8 = 59;
    pub const CLIENT: u8 = 61;
    pub const BOOT_SERVER: u8 = 66;
    pub const BOOT_FILE: u8 = 67;
    pub const RAPID_COMMIT: u8 = 80;
    pub const SEARCH: u8 = 119;
    pub const ROUTES: u8 = 121;
    pub const END: u8 = 255;
}

/// What messages are for (RFC 2132 section 9.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Discover = 1,
    Offer = 2,
    Request = 3,
    Acknowledge = 5,
    Refuse = 6,
    Inform = 8,
}

impl Kind {
    fn of(code: u8) -> Option<Self> {
        [Self::Discover, Self::Request, Self::Inform].into_iter().find(|kind| *kind as u8 == code)
    }
}

/// What the guest is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Its address.
    pub address: Ipv4Addr,
    /// Leading bits of the network.
    pub prefix_bits: u8,
    /// The gateway, which is also the server.
    pub gateway: Ipv4Addr,
    /// The name server.
    pub dns: Ipv4Addr,
    /// Largest packet, in bytes.
    pub mtu: u16,
    /// Its name, if it has one.
    pub host_name: Option<String>,
    /// Domains that short names are looked for in; the first is the guest's own.
    pub search: Vec<String>,
    /// What few guests want.
    pub extras: Extras,
}

/// What a guest is told only when somebody said so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extras {
    /// Time servers (NTP).
    pub time_servers: Vec<Ipv4Addr>,
    /// Networks that are reached by others than the gateway.
    pub routes: Vec<Route>,
    /// The server to boot from (TFTP).
    pub boot_server: Option<String>,
    /// What to boot from there.
    pub boot_file: Option<String>,
}

/// A network that somebody leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Its first address.
    pub network: Ipv4Addr,
    /// Its leading bits, at most 32.
    pub prefix_bits: u8,
    /// Who leads there; unspecified: it is on the link.
    pub by: Ipv4Addr,
}

/// A message from the guest, as far as it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Message<'a> {
    bytes: &'a [u8],
    kind: u8,
    mac: Mac,
    own_address: Ipv4Addr,
    requested: Option<Ipv4Addr>,
    server: Option<Ipv4Addr>,
    client: Option<&'a [u8]>,
    name: Option<&'a [u8]>,
    is_rapid: bool,
    is_broadcast: bool,
}

impl<'a> Message<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        // A request over Ethernet.
        if bytes.get(..3)? != [1, 1, 6] || bytes.get(FIXED_BYTES..FIXED_BYTES + 4)? != COOKIE {
            return None;
        }
        let address = |at: usize| bytes.get(at..)?.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets));
        let mut message = Self {
            bytes,
            kind: 0,
            mac: Mac(*bytes.get(28..)?.first_chunk()?),
            own_address: address(12)?,
            requested: None,
            server: None,
            client: None,
            name: None,
            is_rapid: false,
            is_broadcast: *bytes.get(10)? & 0x80 != 0,
        };
        let mut rest = bytes.get(FIXED_BYTES + 4..)?;
        while let [kind, after @ ..] = rest {
            if *kind == option::END {
                break;
            }
            if *kind == 0 {
                rest = after;
                continue;
            }
            let (len, content) = after.split_first()?;
            let content = content.get(..usize::from(*len))?;
            let address = content.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets));
            match *kind {
                option::TYPE => message.kind = *content.first()?,
                option::REQUESTED => message.requested = address,
                option::SERVER => message.server = address,
                option::RAPID_COMMIT => message.is_rapid = true,
                option::CLIENT => message.client = Some(content),
                option::HOST_NAME => message.name = Some(content),
                _ => {}
            }
            rest = after.get(1 + usize::from(*len)..)?;
        }
        (message.kind != 0).then_some(message)
    }
}

/// An answer, and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The datagram's payload.
    pub bytes: Vec<u8>,
    /// The guest's address, or everybody's while it has none.
    pub destination: Ipv4Addr,
    /// Who has the address from now on, if somebody does.
    pub holder: Option<Holder>,
}

/// Who has a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its hardware address.
    pub mac: Mac,
    /// What it calls itself, if that is a name.
    pub name: Option<String>,
    /// What it wants to be known by, if it said.
    pub id: Option<Vec<u8>>,
}

impl Holder {
    fn of(message: &Message<'_>) -> Self {
        let is_name = |name: &&str| {
            (1..64).contains(&name.len())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
        };
        let name = message.name.and_then(|name| std::str::from_utf8(name).ok()).filter(is_name);
        Self { mac: message.mac, name: name.map(str::to_owned), id: message.client.map(<[u8]>::to_vec) }
    }
}

/// Where the lease is written down, for people and programs that know dnsmasq's file: end (0: none), hardware address,
/// address, name, identifier.
#[derive(Debug)]
pub struct LeaseFile {
    path: PathBuf,
    written: Option<Holder>,
}

impl LeaseFile {
    /// Nothing is written yet.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), written: None }
    }

    /// Writes it down, if it is not what was written last.
    ///
    /// # Errors
    /// The host's. The lease counts without it.
    pub fn record(&mut self, holder: &Holder, address: Ipv4Addr) -> io::Result<()> {
        if self.written.as_ref() == Some(holder) {
            return Ok(());
        }
        let Holder { mac, name, id } = holder;
        let mut line = format!("0 {mac} {address} {} ", name.as_deref().unwrap_or("*"));
        for (number, byte) in id.iter().flatten().enumerate() {
            // To a string nothing can fail.
            let _ = write!(line, "{}{byte:02x}", if number > 0 { ":" } else { "" });
        }
        if id.as_ref().is_none_or(Vec::is_empty) {
            line.push('*');
        }
        line.push('\n');
        let mut new = self.path.clone().into_os_string();
        new.push(".new");
        fs::write(&new, line)?;
        fs::rename(&new, &self.path)?;
        self.written = Some(holder.clone());
        Ok(())
    }
}

impl Lease {
    /// What a message from the guest is answered with, if at all.
    pub fn answer(&self, bytes: &[u8]) -> Option<Answer> {
        let message = Message::read(bytes)?;
        let is_for_another = message.server.is_some_and(|server| server != self.gateway);
        let kind = match Kind::of(message.kind)? {
            Kind::Discover if message.is_rapid => Kind::Acknowledge,
            Kind::Discover => Kind::Offer,
            Kind::Request if is_for_another => return None,
            Kind::Request => {
                let wanted = message.requested.unwrap_or(message.own_address);
                if wanted == self.address { Kind::Acknowledge } else { Kind::Refuse }
            }
            Kind::Inform => Kind::Inform,
            // Declined, released: the address stays the guest's.
            _ => return None,
        };
        let is_known = !message.own_address.is_unspecified() && kind != Kind::Refuse;
        let destination = match is_known {
            true => message.own_address,
            false if message.is_broadcast || kind == Kind::Refuse => Ipv4Addr::BROADCAST,
            false => self.address,
        };
        let holder = (kind == Kind::Acknowledge).then(|| Holder::of(&message));
        Some(Answer { bytes: self.bytes(&message, kind), destination, holder })
    }

    fn bytes(&self, message: &Message<'_>, kind: Kind) -> Vec<u8> {
        let mut bytes = vec![0; FIXED_BYTES];
        bytes[..4].copy_from_slice(&[2, 1, 6, 0]);
        // Transaction, then flags, and the way back.
        for range in [4..8, 10..12, 24..28, 28..44] {
            if let Some(from) = message.bytes.get(range.clone()) {
                bytes[range].copy_from_slice(from);
            }
        }
        if matches!(kind, Kind::Offer | Kind::Acknowledge) {
            bytes[16..20].copy_from_slice(&self.address.octets());
        }
        if kind != Kind::Refuse {
            bytes[12..16].copy_from_slice(&message.own_address.octets());
        }
        bytes[20..24].copy_from_slice(&self.gateway.octets());
        bytes.extend(COOKIE);
        let told = if kind == Kind::Inform { Kind::Acknowledge } else { kind };
        let mut put = |code: u8, content: &[u8]| {
            // Longer ones are continued under the same code (RFC 3396).
            for piece in content.chunks(255) {
                bytes.extend([code, u8::try_from(piece.len()).unwrap_or(u8::MAX)]);
                bytes.extend_from_slice(piece);
            }
        };
        put(option::TYPE, &[told as u8]);
        put(option::SERVER, &self.gateway.octets());
        if let Some(id) = message.client {
            // As it came (RFC 6842).
            put(option::CLIENT, id);
        }
        if kind != Kind::Refuse {
            self.put_network(&mut put);
        }
        if matches!(kind, Kind::Offer | Kind::Acknowledge) {
            put(option::LEASE, &LEASE_S.to_be_bytes());
            put(option::RENEWAL, &(LEASE_S / 2).to_be_bytes());
            put(option::REBINDING, &(LEASE_S / 8 * 7).to_be_bytes());
        }
        if message.kind == Kind::Discover as u8 && kind == Kind::Acknowledge {
            bytes.extend([option::RAPID_COMMIT, 0]);
        }
        bytes.push(option::END);
        bytes.resize(bytes.len().max(LEAST_BYTES), 0);
        bytes
    }

    fn put_network(&self, put: &mut dyn FnMut(u8, &[u8])) {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix_bits)).unwrap_or(0);
        put(option::MASK, &mask.to_be_bytes());
        put(option::ROUTER, &self.gateway.octets());
        put(option::DNS, &self.dns.octets());
        put(option::MTU, &self.mtu.to_be_bytes());
        if let Some(name) = &self.host_name {
            put(option::HOST_NAME, name.as_bytes());
        }
        if let Some(domain) = self.search.first() {
            put(option::DOMAIN, domain.as_bytes());
            let names: Vec<u8> = self.search.iter().filter_map(|name| crate::dns::name_bytes(name)).flatten().collect();
            put(option::SEARCH, &names);
        }
        let Extras { time_servers, routes, boot_server, boot_file } = &self.extras;
        if !time_servers.is_empty() {
            put(option::TIME_SERVERS, &time_servers.iter().flat_map(Ipv4Addr::octets).collect::<Vec<_>>());
        }
        if !routes.is_empty() {
            // Whoever reads this option forgets the gateway's own (RFC 3442).
            let default = Route { network: Ipv4Addr::UNSPECIFIED, prefix_bits: 0, by: self.gateway };
            put(option::ROUTES, &routes.iter().chain([&default]).flat_map(Route::bytes).collect::<Vec<_>>());
        }
        for (code, word) in [(option::BOOT_SERVER, boot_server), (option::BOOT_FILE, boot_file)] {
            if let Some(word) = word {
                put(code, word.as_bytes());
            }
        }
    }
}

impl Route {
    /// RFC 3442: bits, then as many bytes of the network as they touch, then who leads there.
    fn bytes(&self) -> Vec<u8> {
        let touched = usize::from(self.prefix_bits.min(32)).div_ceil(8);
        let network = self.network.octets();
        [&[self.prefix_bits.min(32)], network.get(..touched).unwrap_or_default(), &self.by.octets()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::Chance;

    fn lease() -> Lease {
        Lease {
            address: Ipv4Addr::new(10, 0, 2, 15),
            prefix_bits: 24,
            gateway: Ipv4Addr::new(10, 0, 2, 2),
            dns: Ipv4Addr::new(10, 0, 2, 3),
            mtu: 1500,
            host_name: Some("guest".into()),
            search: vec!["example.test".into()],
            extras: Extras::default(),
        }
    }

    fn message(kind: Kind, options: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; FIXED_BYTES];
        bytes[..8].copy_from_slice(&[1, 1, 6, 0, 9, 8, 7, 6]);
        bytes[28..34].copy_from_slice(&[2, 0, 0, 0, 0, 2]);
        bytes.extend(COOKIE);
        bytes.extend([option::TYPE, 1, kind as u8]);
        bytes.extend_from_slice(options);
        bytes.push(option::END);
        bytes
    }

    fn told(answer: &Answer, code: u8) -> Option<&[u8]> {
        let mut rest = &answer.bytes[FIXED_BYTES + 4..];
        while let [found, len, after @ ..] = rest {
            if *found == option::END {
                break;
            }
            if *found == code {
                return Some(&after[..usize::from(*len)]);
            }
            rest = &after[usize::from(*len)..];
        }
        None
    }

    #[test]
    fn what_is_no_message_gets_no_answer() {
        let whole = message(Kind::Discover, &[option::REQUESTED, 4, 10, 0, 2, 15]);
        for len in 0..whole.len() - 7 {
            assert_eq!(lease().answer(&whole[..len]), None, "{len}");
        }
        for kind in [Kind::Offer, Kind::Acknowledge, Kind::Refuse] {
            assert_eq!(lease().answer(&message(kind, &[])), None);
        }
        let other = message(Kind::Request, &[option::SERVER, 4, 10, 0, 2, 9]);
        assert_eq!(lease().answer(&other), None, "it asks another server");
        let mut chance = Chance::new(7);
        for _ in 0..100_000 {
            let mut changed = whole.clone();
            chance.change(&mut changed);
            lease().answer(&changed);
        }
    }

    #[test]
    fn a_guest_gets_its_address_and_all_that_goes_with_it() {
        let offer = lease().answer(&message(Kind::Discover, &[])).unwrap();
        assert_eq!(told(&offer, option::TYPE), Some(&[2][..]));
        assert_eq!((offer.destination, &offer.holder), (lease().address, &None));
        let request = message(Kind::Request, &[option::REQUESTED, 4, 10, 0, 2, 15, option::SERVER, 4, 10, 0, 2, 2]);
        let answer = lease().answer(&request).unwrap();
        assert!(answer.holder.is_some() && answer.bytes.len() >= LEAST_BYTES);
        assert_eq!(answer.bytes[4..8], [9, 8, 7, 6]);
        assert_eq!(answer.bytes[16..20], [10, 0, 2, 15]);
        for (code, content) in [
            (option::TYPE, &[5][..]),
            (option::MASK, &[255, 255, 255, 0]),
            (option::ROUTER, &[10, 0, 2, 2]),
            (option::DNS, &[10, 0, 2, 3]),
            (option::MTU, &[5, 220]),
            (option::HOST_NAME, b"guest"),
            (option::DOMAIN, b"example.test"),
            (option::SEARCH, b"\x07example\x04test\0"),
            (option::LEASE, &[0, 1, 0x51, 0x80]),
        ] {
            assert_eq!(told(&answer, code), Some(content), "{code}");
        }
    }

    #[test]
    fn an_address_that_is_another_ones_is_refused() {
        let answer = lease().answer(&message(Kind::Request, &[option::REQUESTED, 4, 10, 0, 2, 16])).unwrap();
        assert_eq!(told(&answer, option::TYPE), Some(&[6][..]));
        assert_eq!((answer.destination, &answer.holder), (Ipv4Addr::BROADCAST, &None));
        assert_eq!(told(&answer, option::LEASE), None);
    }

    #[test]
    fn a_guest_in_a_hurry_has_it_in_one_round() {
        let answer = lease().answer(&message(Kind::Discover, &[option::RAPID_COMMIT, 0])).unwrap();
        assert_eq!(told(&answer, option::TYPE), Some(&[5][..]));
        assert_eq!(told(&answer, option::RAPID_COMMIT), Some(&[][..]));
        assert!(answer.holder.is_some());
    }

    #[test]
    fn what_somebody_said_is_told_and_who_asks_is_called_as_it_wants() {
        let mut lease = lease();
        lease.extras = Extras {
            time_servers: vec![Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)],
            routes: vec![Route {
                network: Ipv4Addr::new(10, 9, 0, 0),
                prefix_bits: 12,
                by: Ipv4Addr::new(10, 0, 2, 9),
            }],
            boot_server: Some("boot".into()),
            boot_file: Some("a.efi".into()),
        };
        let answer = lease.answer(&message(Kind::Inform, &[option::CLIENT, 2, 7, 7])).unwrap();
        for (code, content) in [
            (option::TYPE, &[5][..]),
            (option::CLIENT, &[7, 7]),
            (option::TIME_SERVERS, &[192, 0, 2, 1, 192, 0, 2, 2]),
            (option::ROUTES, &[12, 10, 9, 10, 0, 2, 9, 0, 10, 0, 2, 2]),
            (option::BOOT_SERVER, b"boot"),
            (option::BOOT_FILE, b"a.efi"),
        ] {
            assert_eq!(told(&answer, code), Some(content), "{code}");
        }
        assert_eq!((told(&answer, option::LEASE), &answer.holder), (None, &None), "who has an address keeps it");
    }

    #[test]
    fn a_lease_is_written_down_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lease");
        let mut file = LeaseFile::new(&path);
        for (options, line) in [
            (&[][..], "0 02:00:00:00:00:02 10.0.2.15 * *\n"),
            (
                &[option::HOST_NAME, 2, b'd', b'b', option::CLIENT, 2, 1, 0xab],
                "0 02:00:00:00:00:02 10.0.2.15 db 01:ab\n",
            ),
            (&[option::HOST_NAME, 3, b'a', b'\n', b'b'], "0 02:00:00:00:00:02 10.0.2.15 * *\n"),
        ] {
            let options = [&[option::REQUESTED, 4, 10, 0, 2, 15][..], options].concat();
            let holder = lease().answer(&message(Kind::Request, &options)).unwrap().holder.unwrap();
            file.record(&holder, lease().address).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), line);
            fs::remove_file(&path).unwrap();
            file.record(&holder, lease().address).unwrap();
            assert!(!path.exists(), "the same is not written again");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left");
    }
}

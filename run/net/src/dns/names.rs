//! Names of our own: what the machine's user said, the gateway's, and those of other machines on the network. They are
//! answered here, forwards and backwards (RFC 1035), and never asked of anybody else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::message::{Question, name_bytes};

/// Where our own names are.
pub const DOMAIN: &str = "kiln.internal";

/// Seconds that an answer of ours counts: names follow the machines.
const TTL_S: u32 = 5;

const TYPE_A: u16 = 1;
const TYPE_PTR: u16 = 12;
const TYPE_AAAA: u16 = 28;
const TYPE_ANY: u16 = 255;
const CLASS_INTERNET: u16 = 1;
const NO_ERROR: u8 = 0;
const NO_SUCH_NAME: u8 = 3;

/// The names that are known here, in lower case and without a dot at the end.
#[derive(Debug, Default)]
pub struct Names {
    known: Vec<(String, IpAddr)>,
}

impl Names {
    /// Names and their addresses; a name may have several.
    pub fn new(known: impl IntoIterator<Item = (String, IpAddr)>) -> Self {
        let known = known.into_iter().map(|(name, address)| (lower(&name), address));
        Self { known: known.collect() }
    }

    /// From now on `name` means `addresses` and nothing else; with none of them, nothing of our own.
    pub fn set(&mut self, name: &str, addresses: &[IpAddr]) {
        let name = lower(name);
        self.known.retain(|(known, _)| *known != name);
        self.known.extend(addresses.iter().map(|address| (name.clone(), *address)));
    }

    /// The answer to a question about a name of our own; `None` if others are to be asked.
    pub(super) fn answer(&self, question: &Question<'_>) -> Option<Vec<u8>> {
        if let Some(address) = reverse(question.name()) {
            let name = self.name_of(address)?;
            let data = name_bytes(name)?;
            let is_asked = matches!(question.kind, TYPE_PTR | TYPE_ANY);
            return Some(answer(question, NO_ERROR, is_asked.then_some((TYPE_PTR, data)).into_iter()));
        }
        let addresses = self.addresses(question.name())?;
        let code = if addresses.is_empty() { NO_SUCH_NAME } else { NO_ERROR };
        let records = addresses.into_iter().map(|address| match address {
            IpAddr::V4(address) => (TYPE_A, address.octets().to_vec()),
            IpAddr::V6(address) => (TYPE_AAAA, address.octets().to_vec()),
        });
        let kind = question.kind;
        Some(answer(question, code, records.filter(|(of, _)| kind == *of || kind == TYPE_ANY)))
    }

    /// The addresses of a name: none if there is no such name, `None` if it is not ours to say.
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        let of = |name: &str| -> Vec<_> {
            self.known.iter().filter(|(known, _)| known == name).map(|(_, address)| *address).collect()
        };
        let mut known = of(name);
        if known.is_empty() && !name.contains('.') {
            // A machine of the network, called by those that do not look in its domain.
            known = of(&format!("{name}.{DOMAIN}"));
        }
        // Nobody else knows what is in our domain.
        let is_ours = name == DOMAIN || name.strip_suffix(DOMAIN).is_some_and(|rest| rest.ends_with('.'));
        (is_ours || !known.is_empty()).then_some(known)
    }

    fn name_of(&self, address: IpAddr) -> Option<&str> {
        self.known.iter().find(|(_, known)| *known == address).map(|(name, _)| &name[..])
    }
}

fn lower(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// The address whose name is asked for (RFC 1035 section 3.5, RFC 3596 section 2.5).
fn reverse(name: &str) -> Option<IpAddr> {
    if let Some(octets) = name.strip_suffix(".in-addr.arpa") {
        let octets: Vec<u8> = octets.split('.').map(|octet| octet.parse().ok()).collect::<Option<_>>()?;
        let [d, c, b, a] = *octets.as_slice() else { return None };
        return Some(Ipv4Addr::new(a, b, c, d).into());
    }
    let digits = name.strip_suffix(".ip6.arpa")?;
    let mut bits = 0_u128;
    let mut count = 0;
    for digit in digits.split('.').rev() {
        let mut chars = digit.chars();
        let (Some(digit), None) = (chars.next().and_then(|digit| digit.to_digit(16)), chars.next()) else {
            return None;
        };
        bits = bits << 4 | u128::from(digit);
        count += 1;
    }
    (count == 32).then(|| Ipv6Addr::from_bits(bits).into())
}

/// The message: the question as it was, and what is known for sure.
fn answer(question: &Question<'_>, code: u8, records: impl Iterator<Item = (u16, Vec<u8>)>) -> Vec<u8> {
    let mut bytes = question.bytes.to_vec();
    let mut count: u16 = 0;
    // Other classes than the Internet have no records here.
    for (kind, data) in records.filter(|_| question.class == CLASS_INTERNET) {
        let Ok(len) = u16::try_from(data.len()) else { continue };
        count = count.saturating_add(1);
        // The name stands at the start of the question.
        bytes.extend([0xc0, 12]);
        bytes.extend(kind.to_be_bytes());
        bytes.extend(question.class.to_be_bytes());
        bytes.extend(TTL_S.to_be_bytes());
        bytes.extend(len.to_be_bytes());
        bytes.extend(data);
    }
    if let Some(flags) = bytes.get_mut(2..12) {
        // An answer that we know for sure, recursion as it was asked for, and to be had.
        flags[0] = 0x84 | flags[0] & 0x01;
        flags[1] = 0x80 | code;
        flags[2..].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
        flags[4..6].copy_from_slice(&count.to_be_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::super::message::tests::question;
    use super::*;

    fn names() -> Names {
        let known =
            [("Gateway.Kiln.Internal.", "10.0.2.2"), ("gateway.kiln.internal", "fd00::2"), ("mine.test", "192.0.2.7")];
        let mut names = Names::new(known.map(|(name, address)| (name.to_owned(), address.parse().unwrap())));
        names.set("db.kiln.internal", &[[10, 0, 2, 99].into()]);
        names.set("DB.kiln.internal", &[[10, 0, 2, 16].into()]);
        names
    }

    /// Code, number of answers, and the last bytes.
    fn asked(name: &str, kind: u16) -> Option<(u8, u16, Vec<u8>)> {
        let bytes = question(name, kind);
        let answer = names().answer(&Question::read(&bytes).unwrap())?;
        assert_eq!((answer[..2] == bytes[..2], answer[2]), (true, 0x85));
        let end = answer.len().saturating_sub(16);
        Some((answer[3] & 0xf, u16::from_be_bytes([answer[6], answer[7]]), answer[end..].to_vec()))
    }

    #[test]
    fn what_is_not_ours_is_asked_of_others() {
        for name in [
            "example.test",
            "kiln.internal.test",
            "notkiln.internal",
            "other",
            "db.example.test",
            "1.2.0.192.in-addr.arpa",
            "2.0.10.in-addr.arpa",
            "2.2.0.10.x.in-addr.arpa",
        ] {
            assert_eq!(asked(name, TYPE_A), None, "{name}");
        }
    }

    #[test]
    fn names_have_all_their_addresses() {
        let (code, count, end) = asked("gateway.kiln.internal", TYPE_A).unwrap();
        assert_eq!((code, count, &end[10..]), (0, 1, &[0, 4, 10, 0, 2, 2][..]));
        let (code, count, end) = asked("GATEWAY.kiln.internal", TYPE_AAAA).unwrap();
        assert_eq!((code, count, end), (0, 1, "fd00::2".parse::<Ipv6Addr>().unwrap().octets().to_vec()));
        assert_eq!(asked("gateway.kiln.internal", TYPE_ANY).unwrap().1, 2);
        assert_eq!(asked("mine.test", TYPE_AAAA).unwrap().1, 0, "the name is there, such an address is not");
        assert_eq!(asked("mine.test", TYPE_AAAA).unwrap().0, 0);
        assert_eq!(asked("nobody.kiln.internal", TYPE_A).unwrap().0, NO_SUCH_NAME);
        assert_eq!(asked("kiln.internal", TYPE_A).unwrap().0, NO_SUCH_NAME);
    }

    #[test]
    fn other_machines_are_found_with_and_without_our_domain() {
        for name in ["db", "db.kiln.internal"] {
            assert_eq!(asked(name, TYPE_A).unwrap().2[12..], [10, 0, 2, 16], "{name}");
        }
        assert_eq!(asked("x.db.kiln.internal", TYPE_A).unwrap().0, NO_SUCH_NAME);
        let mut names = names();
        names.set("db.kiln.internal", &[]);
        assert_eq!(names.addresses("db"), None);
        assert_eq!(names.addresses("db.kiln.internal"), Some(vec![]));
    }

    #[test]
    fn addresses_have_names() {
        for (name, end) in [
            ("2.2.0.10.in-addr.arpa", &b"\x04kiln\x08internal\0"[..]),
            ("16.2.0.10.in-addr.arpa", b"\x02db\x04kiln\x08internal\0"),
            ("2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa", b"\x04kiln\x08internal\0"),
        ] {
            let (code, count, bytes) = asked(name, TYPE_PTR).unwrap();
            let len = end.len().min(16);
            assert_eq!((code, count, &bytes[16 - len..]), (0, 1, &end[end.len() - len..]), "{name}");
        }
    }
}

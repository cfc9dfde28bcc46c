//! Names from the network: only those that are safe in a file, on a console and as a machine's name.

use kiln_guest::host_name::NAME_LIMIT_BYTES;
pub use kiln_guest::host_name::plain;

const LABEL_LIMIT_BYTES: usize = 63;
/// Names of a search list. glibc reads any number, musl 256 bytes.
const SEARCH_LIMIT: usize = 16;
/// Jumps within one name: each leads backwards, and nobody needs many.
const JUMP_LIMIT: usize = 8;

/// A list of domains in the form of DNS (RFC 1035 section 3.1), with jumps backwards (section 4.1.4) as DHCPv4's search list
/// may have them (RFC 3397). Names that are not [`plain`] are left out; the list ends at what is no name.
pub fn list(bytes: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    let mut at = 0;
    while names.len() < SEARCH_LIMIT && at < bytes.len() {
        let Some((name, next)) = one(bytes, at) else { break };
        names.extend(plain(name.as_bytes()).filter(|name| !names.contains(name)));
        at = next;
    }
    names
}

/// The name at `start`, and where the next one is.
fn one(bytes: &[u8], start: usize) -> Option<(String, usize)> {
    let mut name = String::new();
    let (mut at, mut next, mut jumps) = (start, None, 0);
    loop {
        let len = usize::from(*bytes.get(at)?);
        match len {
            0 => return Some((name, next.unwrap_or(at + 1))),
            1..=LABEL_LIMIT_BYTES => {
                let label = std::str::from_utf8(bytes.get(at + 1..at + 1 + len)?).ok()?;
                if !name.is_empty() {
                    name.push('.');
                }
                name.push_str(label);
                if name.len() > NAME_LIMIT_BYTES {
                    return None;
                }
                at += 1 + len;
            }
            0xc0.. => {
                let target = (len & 0x3f) << 8 | usize::from(*bytes.get(at + 1)?);
                next.get_or_insert(at + 2);
                jumps += 1;
                if target >= at || jumps > JUMP_LIMIT {
                    return None;
                }
                at = target;
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_break_a_file_or_a_console_is_no_name() {
        let long = "a.".repeat(130);
        for bad in
            ["", ".", "a b", "a\nnameserver 6.6.6.6", "\x1b[2J", "-rf", "a..b", "a;b", "a/b", "\u{fc}", &long[..255]]
        {
            assert_eq!(plain(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(plain(&[b'a'; 64]), None);
        assert_eq!(plain(b"\xff"), None);
        assert_eq!(plain(b"web-1.example.test.\0").as_deref(), Some("web-1.example.test"));
    }

    #[test]
    fn lists_that_are_cut_short_or_lead_round_end() {
        assert_eq!(list(b"\x07example\x04te"), Vec::<String>::new());
        assert_eq!(list(b"\x01a\0\xc0\x03"), ["a"]);
        assert_eq!(list(b"\x01a\xc0\x00"), Vec::<String>::new());
        assert_eq!(list(b"\xc0"), Vec::<String>::new());
        assert_eq!(list(b"\x40a\0"), Vec::<String>::new());
        let many: Vec<u8> =
            (0..100_u8).flat_map(|number| [2, b'a', b'0' + number % 10, 1, b'a' + number % 26, 0]).collect();
        assert!(list(&many).len() <= SEARCH_LIMIT);
    }

    #[test]
    fn a_list_is_read_with_its_jumps() {
        assert_eq!(list(b"\x03eng\x07example\x04test\0\x05sales\xc0\x04"), ["eng.example.test", "sales.example.test"]);
        assert_eq!(list(b"\x03a b\0\x01c\0"), ["c"], "one that is not plain");
    }
}

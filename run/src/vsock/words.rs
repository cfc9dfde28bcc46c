//! What is said first on the socket that leads to any port.
//!
//! hyperkit's `00000003.00000946\n`: the guest's number and the port, eight hexadecimal digits each; no answer. Or
//! Firecracker's `CONNECT 2374\n`: the port in decimal; when the guest has taken the connection the answer is `OK PORT\n`
//! with the host's port.

/// Longest line, with its end.
pub(super) const LINE_BYTES: usize = 32;

/// A port that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) port: u32,
    /// Whether an answer is expected.
    pub(super) wants_word: bool,
}

/// Reads a line without its end. `cid` is the guest's number.
pub(super) fn parse(line: &[u8], cid: u32) -> Option<Named> {
    let line = std::str::from_utf8(line).ok()?;
    let line = line.strip_suffix('\r').unwrap_or(line);
    if let Some((word, port)) = line.split_once(' ')
        && word.eq_ignore_ascii_case("CONNECT")
    {
        let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        return Some(Named { port: port.parse().ok().filter(|_| is_number)?, wants_word: true });
    }
    let (guest, port) = line.split_once('.')?;
    let hex = |text: &str| {
        let is_hex = text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        u32::from_str_radix(text, 16).ok().filter(|_| is_hex)
    };
    (hex(guest)? == cid).then_some(Named { port: hex(port)?, wants_word: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_no_port_of_this_guest_is_refused() {
        for line in [
            "",
            "CONNECT",
            "CONNECT ",
            "CONNECT -1",
            "CONNECT +1",
            "CONNECT 4294967296",
            "CONNECT 1 ",
            "00000003.946",
            "00000004.00000946",
            "+0000003.00000946",
            "00000003.0000094g",
            "GET / HTTP/1.0",
            "\u{fc}",
        ] {
            assert_eq!(parse(line.as_bytes(), 3), None, "{line}");
        }
        assert_eq!(parse(b"\xff", 3), None);
    }

    #[test]
    fn both_ways_to_name_a_port_are_understood() {
        for (line, port, wants_word) in [
            ("CONNECT 2374", 2374, true),
            ("connect 4294967295", u32::MAX, true),
            ("00000003.00000946", 2374, false),
            ("00000003.0000ABCD\r", 0xabcd, false),
        ] {
            assert_eq!(parse(line.as_bytes(), 3), Some(Named { port, wants_word }), "{line}");
        }
    }
}

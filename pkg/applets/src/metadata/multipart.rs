//! User data of several parts (RFC 2046, 5.1), as cloud-init's `make-mime` writes them and some clouds wrap them.

use super::encoding::{self, Room};

/// Most parts, and most lines of headers in front of one.
const PART_LIMIT: usize = 64;
const HEADER_LIMIT: usize = 64;
/// Longest boundary (RFC 2046, 5.1.1).
const BOUNDARY_LIMIT_BYTES: usize = 70;

/// One part.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Such as `text/cloud-config`, in small letters; `text/plain` if it does not say.
    pub kind: String,
    /// What it is called; a name that can be one of a file.
    pub name: String,
    pub body: Vec<u8>,
}

/// What there is in front of a message or a part.
#[derive(Debug, Default)]
struct Headers(Vec<(String, String)>);

impl Headers {
    /// Reads them; gives what is behind the empty line that ends them. `None` if this is something else.
    fn read(data: &[u8]) -> Option<(Self, &[u8])> {
        let mut headers = Self::default();
        let mut rest = data;
        for _ in 0..=HEADER_LIMIT {
            let (line, behind) = line(rest)?;
            rest = behind;
            let text = String::from_utf8_lossy(line);
            if text.trim().is_empty() {
                return Some((headers, rest));
            }
            match (text.starts_with([' ', '\t']), headers.0.last_mut()) {
                (true, Some((_, value))) => value.push_str(&text),
                (true, None) => return None,
                (false, _) => {
                    let (name, value) = text.split_once(':')?;
                    let plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
                    plain.then(|| headers.0.push((name.to_ascii_lowercase(), value.trim().to_owned())))?;
                }
            }
        }
        None
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// What stands in front of the first `;`, in small letters.
    fn word(&self, name: &str) -> Option<String> {
        Some(self.get(name)?.split(';').next()?.trim().to_ascii_lowercase())
    }

    /// `NAME=VALUE` behind it, with or without quotes.
    fn parameter(&self, name: &str, parameter: &str) -> Option<&str> {
        self.get(name)?.split(';').skip(1).find_map(|pair| {
            let (key, value) = pair.split_once('=')?;
            key.trim().eq_ignore_ascii_case(parameter).then(|| value.trim().trim_matches('"'))
        })
    }
}

/// Whether the data is a message of several parts.
pub(super) fn is_one(data: &[u8]) -> bool {
    let headers = Headers::read(data);
    headers.and_then(|(headers, _)| headers.word("content-type")).is_some_and(|kind| kind.starts_with("multipart/"))
}

/// The parts, and what is wrong with others.
pub(super) fn read(data: &[u8], room: &mut Room) -> (Vec<Part>, Vec<String>) {
    let (mut parts, mut faults) = (vec![], vec![]);
    let Some((headers, body)) = Headers::read(data) else { return (parts, vec!["this is no message".into()]) };
    let boundary = headers.parameter("content-type", "boundary");
    let Some(boundary) = boundary.filter(|text| !text.is_empty() && text.len() <= BOUNDARY_LIMIT_BYTES) else {
        return (parts, vec!["it has no boundary between its parts".into()]);
    };
    let (texts, ended) = split(body, boundary);
    if !ended {
        faults.push("its last part has no end: it is cut off, or longer than it may be".into());
    }
    for (number, text) in texts.into_iter().enumerate() {
        match part(number, text, room) {
            Ok(part) => parts.push(part),
            Err(why) => faults.push(format!("part {}: {why}", number + 1)),
        }
    }
    (parts, faults)
}

fn part(number: usize, text: &[u8], room: &mut Room) -> Result<Part, String> {
    let (headers, body) = Headers::read(text).ok_or("it has no headers")?;
    let kind = headers.word("content-type").unwrap_or_else(|| "text/plain".into());
    if kind.starts_with("multipart/") {
        return Err("it has parts itself".into());
    }
    let body = match headers.word("content-transfer-encoding").as_deref() {
        None | Some("7bit" | "8bit" | "binary" | "") => body.to_vec(),
        Some("base64") => encoding::base64(body).map_err(|error| format!("it is no base64: {error}"))?,
        Some("quoted-printable") => encoding::quoted_printable(body),
        Some(other) => return Err(format!("its encoding `{other}` is not known")),
    };
    let body = room.unpacked(&body).map_err(|error| format!("it cannot be unpacked: {error}"))?.into_owned();
    let name = headers
        .parameter("content-disposition", "filename")
        .or_else(|| headers.parameter("content-type", "name"))
        .filter(|name| is_plain(name));
    Ok(Part { kind, name: name.map_or_else(|| format!("part-{:03}", number + 1), str::to_owned), body })
}

fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !name.is_empty() && name.len() <= 64 && !name.starts_with('.') && name.bytes().all(plain)
}

/// What is between the lines of the boundary, and whether the last of them says that it is the last.
fn split<'d>(body: &'d [u8], boundary: &str) -> (Vec<&'d [u8]>, bool) {
    let (mut parts, mut begun, mut at) = (vec![], None, 0);
    while let Some((text, _)) = body.get(at..).and_then(line) {
        let next = at + text.len();
        let delimiter = text.strip_prefix(b"--").and_then(|text| text.strip_prefix(boundary.as_bytes()));
        let last = delimiter.map(|rest| rest.trim_ascii_end() == b"--");
        if last.is_some_and(|last| last || delimiter.is_some_and(|rest| rest.trim_ascii_end().is_empty())) {
            if let Some(from) = begun {
                parts.push(without_line_end(body.get(from..at).unwrap_or_default()));
            }
            if last == Some(true) {
                return (parts, true);
            }
            if parts.len() >= PART_LIMIT {
                return (parts, false);
            }
            begun = Some(next);
        }
        at = next;
    }
    (parts, false)
}

/// The line end in front of a boundary belongs to the boundary.
fn without_line_end(part: &[u8]) -> &[u8] {
    part.strip_suffix(b"\r\n").or_else(|| part.strip_suffix(b"\n")).unwrap_or(part)
}

/// The first line with its end, and what is behind it.
fn line(data: &[u8]) -> Option<(&[u8], &[u8])> {
    if data.is_empty() {
        return None;
    }
    let end = data.iter().position(|byte| *byte == b'\n').map_or(data.len(), |at| at + 1);
    data.split_at_checked(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "Content-Type: multipart/mixed;\n boundary=\"==B==\"\nMIME-Version: 1.0\n\n";

    fn of(text: &str) -> (Vec<Part>, Vec<String>) {
        read(format!("{HEAD}{text}").as_bytes(), &mut Room::new())
    }

    #[test]
    fn what_is_no_message_of_parts_is_left_alone() {
        for text in ["", "#cloud-config\na: b\n", "{}", "a: b\n\nc", "Content-Type: text/plain\n\nx", " x: y\n\n"] {
            assert!(!is_one(text.as_bytes()), "{text}");
        }
        assert!(is_one(HEAD.as_bytes()));
        assert!(!is_one(&[&b"a: b\n".repeat(HEADER_LIMIT + 1)[..], HEAD.as_bytes()].concat()));
    }

    #[test]
    fn parts_that_are_damaged_are_told_and_the_others_count() {
        let (parts, faults) = of(
            "--==B==\nno headers\n--==B==\nContent-Transfer-Encoding: base64\n\n%%\n--==B==\nContent-Type: multipart/x\n\n\n\
             --==B==\nContent-Transfer-Encoding: rot13\n\nx\n--==B==\n\n\x1f\u{8b}\n--==B==\n\ngood\n--==B==--\n",
        );
        let texts: Vec<&str> = parts.iter().map(|part| std::str::from_utf8(&part.body).unwrap()).collect();
        assert_eq!(texts.last(), Some(&"good"));
        assert_eq!(faults.len(), 4, "{faults:?}");
        assert_eq!(of("--==B==\n\nnever ends").1.len(), 1);
        let many = "--==B==\n\nx\n".repeat(PART_LIMIT * 2);
        assert_eq!(of(&many).0.len(), PART_LIMIT);
        for head in ["Content-Type: multipart/mixed\n\n", "Content-Type: multipart/mixed; boundary=\n\n"] {
            assert_eq!(read(head.as_bytes(), &mut Room::new()).1.len(), 1, "{head}");
        }
    }

    #[test]
    fn parts_have_kinds_names_and_encodings() {
        let (parts, faults) = of("a preamble\r\n--==B==\r\nContent-Type: text/x-shellscript; charset=\"us-ascii\"\r\n\
             Content-Disposition: attachment; filename=\"one.sh\"\r\n\r\n#!/bin/sh\r\n--==B== \n\
             content-type: Text/Cloud-Config\nContent-Transfer-Encoding: base64\nContent-Disposition: x; filename=\"../up\"\n\n\
             I2Ns\nb3Vk\n\n--==B==\n\nplain\n\n--==B==--\nan epilogue\n--==B==\n");
        assert_eq!(faults, Vec::<String>::new());
        let part =
            |kind: &str, name: &str, body: &str| Part { kind: kind.into(), name: name.into(), body: body.into() };
        let wanted = [
            part("text/x-shellscript", "one.sh", "#!/bin/sh"),
            part("text/cloud-config", "part-002", "#cloud"),
            part("text/plain", "part-003", "plain\n"),
        ];
        assert_eq!(parts, wanted);
    }
}

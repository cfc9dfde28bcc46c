//! What is mounted, as the kernel tells a process (proc(5), `/proc/PID/mountinfo`).

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// Where the kernel tells it.
pub const PATH: &str = "/proc/self/mountinfo";

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// Of its device, such as `254:1`.
    pub number: String,
    /// Which folder of the file system is seen.
    pub root: PathBuf,
    /// Where.
    pub target: PathBuf,
    /// Kind of the file system.
    pub kind: String,
    /// What it is of; a disk's begins with `/dev/`. May be empty.
    pub source: OsString,
    /// The whole file system, not only what is seen here.
    pub read_only: bool,
}

impl Mounted {
    /// Whether it is of a disk, and not of memory or of another machine.
    #[must_use]
    pub fn is_of_a_disk(&self) -> bool {
        self.source.as_encoded_bytes().starts_with(b"/dev/")
    }
}

/// All mounts that this process sees, in the order in which they were made.
///
/// # Errors
/// There is no `/proc`.
pub fn read() -> io::Result<Vec<Mounted>> {
    fs::read(PATH).map(|table| parse(&table))
}

/// The mounts in a table. A line that is none is passed over.
#[must_use]
pub fn parse(table: &[u8]) -> Vec<Mounted> {
    table.split(|byte| *byte == b'\n').filter_map(mounted).collect()
}

/// A word of a table of the kernel's, in which blanks and the like are three octal digits behind a backslash.
#[must_use]
pub fn unescape(word: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(word.len());
    let mut left = word;
    while let [first, rest @ ..] = left {
        left = match left {
            [b'\\', high @ b'0'..=b'3', middle @ b'0'..=b'7', low @ b'0'..=b'7', rest @ ..] => {
                bytes.push((high - b'0') << 6 | (middle - b'0') << 3 | (low - b'0'));
                rest
            }
            _ => {
                bytes.push(*first);
                rest
            }
        };
    }
    OsString::from_vec(bytes)
}

fn mounted(line: &[u8]) -> Option<Mounted> {
    let mut words = line.split(|byte| *byte == b' ');
    let (number, root, target) = (words.nth(2)?, words.next()?, words.next()?);
    // Options of the mount, and any number of fields that may be there.
    words.find(|word| *word == b"-")?;
    let (kind, source, options) = (words.next()?, words.next()?, words.next()?);
    let text = |word| String::from_utf8_lossy(word).into_owned();
    Some(Mounted {
        number: text(number),
        root: unescape(root).into(),
        target: unescape(target).into(),
        kind: text(kind),
        source: unescape(source),
        read_only: options.split(|byte| *byte == b',').any(|option| option == b"ro"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_no_mount_is_passed_over() {
        for line in [
            "",
            "\n\n",
            "broken",
            "22 1 254:1 / /",
            "22 1 254:1 / / rw ext4 /dev/vda rw",
            "22 1 254:1 / / rw - ext4 /dev/vda",
            "24 1 - a b",
            "- - - - - -",
        ] {
            assert!(parse(line.as_bytes()).is_empty(), "{line}");
        }
        assert!(parse(&[0xff; 4096]).is_empty() && parse(&[b' '; 4096]).is_empty());
    }

    #[test]
    fn all_bytes_of_a_name_come_back() {
        for (word, name) in [
            (&b""[..], &b""[..]),
            (b"a\\040b\\011\\012\\134\\043", b"a b\t\n\\#"),
            // One pass: what comes out is no escape.
            (b"\\134040", b"\\040"),
            (b"\\377\xfe", b"\xff\xfe"),
            (b"\\400 \\+12 \\08x \\04", b"\\400 \\+12 \\08x \\04"),
            (b"\\", b"\\"),
            (b"\\\\040", b"\\ "),
        ] {
            assert_eq!(unescape(word).as_encoded_bytes(), name);
        }
    }

    #[test]
    fn a_mount_is_read_whatever_fields_are_between() {
        let table = b"22 1 254:1 / / ro,noatime shared:1 master:2 - ext4 /dev/root rw,discard\n\
            23 1 0:5 /x /x\\040y\\134z rw - tmpfs  rw,ro\n24 1 0:32 / /\xff rw unbindable - virtiofs a\\040tag rw\n";
        let mounted = |number: &str, root: &str, target: &[u8], kind: &str, source: &str, read_only| Mounted {
            number: number.into(),
            root: root.into(),
            target: OsString::from_vec(target.to_vec()).into(),
            kind: kind.into(),
            source: source.into(),
            read_only,
        };
        let expected = [
            mounted("254:1", "/", b"/", "ext4", "/dev/root", false),
            mounted("0:5", "/x", b"/x y\\z", "tmpfs", "", true),
            mounted("0:32", "/", b"/\xff", "virtiofs", "a tag", false),
        ];
        assert_eq!(parse(table), expected);
        assert_eq!(expected.map(|mounted| mounted.is_of_a_disk()), [true, false, false]);
    }

    #[test]
    fn the_kernels_own_table_is_read() {
        assert!(read().unwrap().iter().any(|mounted| mounted.kind == "proc"));
    }
}

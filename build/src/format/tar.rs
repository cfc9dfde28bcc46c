//! The tree as a tar: ustar headers, and pax records (POSIX.1-2017) for what they cannot hold and for origins.

use std::collections::HashMap;

use tar::{EntryType, Header};

use super::{FormatError, Sink, Watch, copy};
use crate::tree::{Attributes, Kind, Node, Tree, TreePath};

/// Largest value of a 12-byte field: eleven octal digits.
const OCTAL_11: u64 = 0o777_7777_7777;

/// Largest value of an 8-byte field: seven octal digits.
const OCTAL_7: u64 = 0o777_7777;

/// Longest name in a header without a prefix.
const NAME_BYTES: usize = 100;

const BLOCK: usize = 512;

/// Writes all but the root itself. Hard links follow the first name of their file.
/// Writes `tree` as a tar, with LinuxKit's records of where each member comes from.
pub fn write(tree: &Tree, sink: &mut dyn Sink, watch: Watch<'_>) -> Result<(), FormatError> {
    let counts = tree.link_counts();
    let mut first_names = HashMap::new();
    for (path, id) in tree.walk().skip(1) {
        watch.cancel.check()?;
        let node = tree.node(id);
        if counts.of(id) > 1
            && let Some(first) = first_names.get(&id)
        {
            Entry::link(&path, first, node).write(sink)?;
            continue;
        }
        let entry = Entry::new(&path, node);
        entry.write(sink)?;
        if let Kind::File(body) = &node.kind {
            copy(body, sink, watch)?;
            sink.write_all(padding(body.len()))?;
        }
        if counts.of(id) > 1 {
            first_names.insert(id, path);
        }
    }
    sink.write_all(&[0; 2 * BLOCK])?;
    sink.flush()?;
    Ok(())
}

/// One header to be.
struct Entry<'a> {
    name: Vec<u8>,
    link: &'a [u8],
    kind: EntryType,
    size: u64,
    device: (u32, u32),
    node: &'a Node,
}

impl<'a> Entry<'a> {
    fn new(path: &TreePath, node: &'a Node) -> Self {
        let mut name = path.as_bytes().to_vec();
        let none = (0, 0);
        let (kind, size, device, link) = match &node.kind {
            Kind::Directory(_) => {
                name.push(b'/');
                (EntryType::Directory, 0, none, &b""[..])
            }
            Kind::File(body) => (EntryType::Regular, body.len(), none, &b""[..]),
            Kind::Symlink(target) => (EntryType::Symlink, 0, none, &target[..]),
            &Kind::CharDevice { major, minor } => (EntryType::Char, 0, (major, minor), &b""[..]),
            &Kind::BlockDevice { major, minor } => (EntryType::Block, 0, (major, minor), &b""[..]),
            Kind::Fifo => (EntryType::Fifo, 0, none, &b""[..]),
        };
        Self { name, link, kind, size, device, node }
    }

    fn link(path: &TreePath, first: &'a TreePath, node: &'a Node) -> Self {
        let name = path.as_bytes().to_vec();
        Self { name, link: first.as_bytes(), kind: EntryType::Link, size: 0, device: (0, 0), node }
    }

    fn write(&self, sink: &mut dyn Sink) -> Result<(), FormatError> {
        let prefix = prefix_len(&self.name);
        let records = self.records(prefix.is_none());
        if !records.is_empty() {
            let mut header = new_header(EntryType::XHeader, records.len() as u64, &Attributes::of_root(0, 0));
            set_field(&mut header.as_old_mut().name, &pax_name(&self.name));
            finish(header, sink)?;
            sink.write_all(&records)?;
            sink.write_all(padding(records.len() as u64))?;
        }
        let mut header = new_header(self.kind, self.size, &self.node.attributes);
        let (in_prefix, in_name) = self.name.split_at(prefix.unwrap_or(0));
        if let Some(ustar) = header.as_ustar_mut() {
            set_field(&mut ustar.prefix, in_prefix);
            set_field(&mut ustar.name, in_name.strip_prefix(b"/").filter(|_| !in_prefix.is_empty()).unwrap_or(in_name));
            set_field(&mut ustar.linkname, self.link);
            ustar.set_device_major(self.device.0);
            ustar.set_device_minor(self.device.1);
        }
        finish(header, sink)
    }

    /// Pax records, sorted by key.
    fn records(&self, name_is_too_long: bool) -> Vec<u8> {
        let attributes = &self.node.attributes;
        let mut records: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let mut add = |key: &[u8], value: &[u8]| records.push((key.into(), value.into()));
        let origin = &self.node.origin;
        if !origin.source.is_empty() {
            add(b"LINUXKIT.location", origin.location.as_bytes());
            add(b"LINUXKIT.source", origin.source.as_bytes());
        }
        for (name, value) in &attributes.xattrs {
            add(&[b"SCHILY.xattr.", &name[..]].concat(), value);
        }
        if name_is_too_long {
            add(b"path", &self.name);
        }
        if self.link.len() > NAME_BYTES {
            add(b"linkpath", self.link);
        }
        let too_large = [
            ("gid", u64::from(attributes.gid), OCTAL_7),
            ("size", self.size, OCTAL_11),
            ("uid", u64::from(attributes.uid), OCTAL_7),
        ];
        for (key, value, _) in too_large.into_iter().filter(|(_, value, limit)| value > limit) {
            add(key.as_bytes(), value.to_string().as_bytes());
        }
        if u64::try_from(attributes.mtime_s).map_or(true, |time| time > OCTAL_11) {
            add(b"mtime", attributes.mtime_s.to_string().as_bytes());
        }
        records.sort();
        records.iter().flat_map(|(key, value)| record(key, value)).collect()
    }
}

/// `LENGTH KEY=VALUE\n`, of which LENGTH counts itself.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let digits = |len: usize| len.to_string().len();
    let mut len = rest + digits(rest);
    if rest + digits(len) != len {
        len = rest + digits(len);
    }
    [len.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

fn new_header(kind: EntryType, size: u64, attributes: &Attributes) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(attributes.mode);
    header.set_uid(u64::from(attributes.uid).min(OCTAL_7));
    header.set_gid(u64::from(attributes.gid).min(OCTAL_7));
    header.set_size(size.min(OCTAL_11));
    header.set_mtime(u64::try_from(attributes.mtime_s).unwrap_or(0).min(OCTAL_11));
    header
}

fn finish(mut header: Header, sink: &mut dyn Sink) -> Result<(), FormatError> {
    header.set_cksum();
    sink.write_all(header.as_bytes())?;
    Ok(())
}

/// Copies as much of `text` as fits.
pub(super) fn set_field(field: &mut [u8], text: &[u8]) {
    let len = field.len().min(text.len());
    field[..len].copy_from_slice(&text[..len]);
}

/// Where to cut a name so that it fits into a header: 0 for one that fits as it is, `None` for one that does not.
fn prefix_len(name: &[u8]) -> Option<usize> {
    const PREFIX_BYTES: usize = 155;
    if name.len() <= NAME_BYTES {
        return Some(0);
    }
    let last_byte = name.len() - 1;
    let slash = name[..last_byte.min(PREFIX_BYTES + 1)].iter().rposition(|&byte| byte == b'/')?;
    (name.len() - slash - 1 <= NAME_BYTES && slash > 0).then_some(slash)
}

/// What the extended header in front of a member is called; readers drop it.
fn pax_name(name: &[u8]) -> Vec<u8> {
    let name = name.strip_suffix(b"/").unwrap_or(name);
    let last = name.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    let ascii: Vec<u8> = last.iter().map(|&byte| if byte.is_ascii() { byte } else { b'_' }).collect();
    [b"PaxHeaders.0/", &ascii[..]].concat()
}

fn padding(len: u64) -> &'static [u8] {
    static ZEROS: [u8; BLOCK] = [0; BLOCK];
    let pad = len.wrapping_neg() % BLOCK as u64;
    &ZEROS[..usize::try_from(pad).unwrap_or(0)]
}

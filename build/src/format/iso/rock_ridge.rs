//! What Unix knows of a file, behind its directory record: SUSP 1.12 and Rock Ridge (RRIP 1.12).

use crate::tree::{Kind, Node};

use super::SECTOR;
use super::date::Date;
use super::number::both32;

/// Longest entry: its length is one byte.
const ENTRY_LIMIT: usize = 255;

/// Signature, length and version.
const HEADER_BYTES: usize = 4;

/// Header and flags of `NM` and `SL`.
const FLAGGED_BYTES: usize = HEADER_BYTES + 1;

/// An entry that says where the rest is.
const CE_BYTES: usize = 28;

/// `NM`, `SL` and components of `SL`: the rest is in the next one.
const CONTINUED: u8 = 1;

/// `TF`: the time of the last change of the content alone. Readers take it for the others too.
const TF_MODIFY: u8 = 2;

/// Which of a folder's two records that have no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dot {
    /// That of the volume's root itself, which says that there is Rock Ridge.
    Root,
    /// Of the folder itself, or of its parent.
    Other,
}

/// Which inode a node is, and how many names it has.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Inode {
    pub(super) serial: u32,
    pub(super) names: u32,
}

/// Entries one behind another, each with its length in its third byte.
pub(super) struct SystemUse(Vec<u8>);

impl SystemUse {
    /// Of the records `.` and `..`.
    pub(super) fn of_dot(dot: Dot, node: &Node, inode: Inode) -> Self {
        let mut entries = Self(Vec::new());
        if dot == Dot::Root {
            entries.add(b"SP", &[&[0xbe, 0xef, 0]]);
        }
        entries.attributes(node, inode);
        if dot == Dot::Root {
            const NAME: &[u8] = b"IEEE_P1282";
            const TEXT: &[u8] = b"THE IEEE P1282 PROTOCOL PROVIDES SUPPORT FOR POSIX FILE SYSTEM SEMANTICS";
            const SOURCE: &[u8] =
                b"PLEASE CONTACT THE IEEE STANDARDS DEPARTMENT, PISCATAWAY, NJ, USA FOR THE P1282 SPECIFICATION.";
            let [name, text, source] = [NAME, TEXT, SOURCE].map(length);
            entries.add(b"ER", &[&[name, text, source, 1], NAME, TEXT, SOURCE]);
        }
        entries
    }

    /// Of `node`, called `name`.
    pub(super) fn of(name: &[u8], node: &Node, inode: Inode) -> Self {
        let mut entries = Self(Vec::new());
        entries.attributes(node, inode);
        if let Some((major, minor)) = node.kind.device() {
            let (high, low) = device(major, minor);
            entries.add(b"PN", &[&both32(high), &both32(low)]);
        }
        let mut pieces = name.chunks(ENTRY_LIMIT - FLAGGED_BYTES).peekable();
        while let Some(piece) = pieces.next() {
            let flags = if pieces.peek().is_some() { CONTINUED } else { 0 };
            entries.add(b"NM", &[&[flags], piece]);
        }
        if let Kind::Symlink(target) = &node.kind {
            entries.link(target);
        }
        entries
    }

    fn attributes(&mut self, node: &Node, inode: Inode) {
        let attributes = &node.attributes;
        let fields =
            [node.kind.type_bits() | attributes.mode, inode.names, attributes.uid, attributes.gid, inode.serial];
        self.add(b"PX", &[&fields.map(both32).concat()]);
        self.add(b"TF", &[&[TF_MODIFY], &Date::of(attributes.mtime_s).short()]);
    }

    fn link(&mut self, target: &[u8]) {
        const CURRENT: u8 = 2;
        const PARENT: u8 = 4;
        const ROOT: u8 = 8;
        let mut text = LinkText { entries: self, components: Vec::new() };
        let relative = target.strip_prefix(b"/");
        if relative.is_some() {
            text.component(ROOT, b"");
        }
        // An empty component is a doubled `/`, or one at the end.
        let components = relative.unwrap_or(target).split(|&byte| byte == b'/');
        let only_root = relative.is_some_and(<[u8]>::is_empty);
        for component in components.take_while(|_| !only_root) {
            match component {
                b"." => text.component(CURRENT, b""),
                b".." => text.component(PARENT, b""),
                name => text.component(0, name),
            }
        }
        text.end(0);
    }

    fn add(&mut self, signature: &[u8; 2], parts: &[&[u8]]) {
        let len = HEADER_BYTES + parts.iter().map(|part| part.len()).sum::<usize>();
        debug_assert!(len <= ENTRY_LIMIT);
        self.0.extend_from_slice(signature);
        self.0.extend([u8::try_from(len).unwrap_or(u8::MAX), 1]);
        parts.iter().for_each(|part| self.0.extend_from_slice(part));
    }

    /// What goes into a record with room for `room` bytes. The rest, if there is one, goes to `continuation`.
    pub(super) fn fit(mut self, room: usize, continuation: &mut Continuation) -> Vec<u8> {
        if self.0.len() > room {
            let head = whole_entries(&self.0, room - CE_BYTES);
            let area = continuation.put(&self.0[head..]);
            self.0.truncate(head);
            self.add(b"CE", &[&area]);
        }
        self.0
    }
}

/// The components of one link on their way into `SL` entries.
struct LinkText<'a> {
    entries: &'a mut SystemUse,
    components: Vec<u8>,
}

impl LinkText<'_> {
    const LIMIT: usize = ENTRY_LIMIT - FLAGGED_BYTES;
    const COMPONENT_HEADER: usize = 2;

    fn component(&mut self, flags: u8, name: &[u8]) {
        let mut pieces = name.chunks(Self::LIMIT - Self::COMPONENT_HEADER).peekable();
        loop {
            let piece = pieces.next().unwrap_or_default();
            let continued = if pieces.peek().is_some() { CONTINUED } else { 0 };
            if self.components.len() + Self::COMPONENT_HEADER + piece.len() > Self::LIMIT {
                self.end(CONTINUED);
            }
            self.components.extend([flags | continued, length(piece)]);
            self.components.extend_from_slice(piece);
            if continued == 0 {
                return;
            }
        }
    }

    fn end(&mut self, flags: u8) {
        let components = std::mem::take(&mut self.components);
        self.entries.add(b"SL", &[&[flags], &components]);
    }
}

/// What did not fit into the records of all folders. No area crosses the end of a sector, which Linux would refuse.
pub(super) struct Continuation {
    sector: u32,
    bytes: Vec<u8>,
}

impl Continuation {
    /// An empty one, to stand at `sector`.
    pub(super) fn at(sector: u32) -> Self {
        Self { sector, bytes: Vec::new() }
    }

    /// All of it.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Puts entries, and says in the words of `CE` where: sector, offset in it, length.
    fn put(&mut self, entries: &[u8]) -> [u8; CE_BYTES - HEADER_BYTES] {
        let room = SECTOR - self.bytes.len() % SECTOR;
        if entries.len() > room {
            self.bytes.resize(self.bytes.len() + room, 0);
        }
        let start = self.bytes.len();
        if entries.len() <= SECTOR {
            self.bytes.extend_from_slice(entries);
        } else {
            let head = whole_entries(entries, SECTOR - CE_BYTES);
            self.bytes.extend_from_slice(&entries[..head]);
            let link = self.bytes.len();
            self.bytes.resize(start + SECTOR, 0);
            let rest = self.put(&entries[head..]);
            let mut link_entry = SystemUse(Vec::new());
            link_entry.add(b"CE", &[&rest]);
            self.bytes[link..link + CE_BYTES].copy_from_slice(&link_entry.0);
            return self.area(start, head + CE_BYTES);
        }
        self.area(start, entries.len())
    }

    fn area(&self, start: usize, len: usize) -> [u8; CE_BYTES - HEADER_BYTES] {
        let [sector, offset, len] = [start / SECTOR, start % SECTOR, len].map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        let mut area = [0; CE_BYTES - HEADER_BYTES];
        area.copy_from_slice(&[self.sector.saturating_add(sector), offset, len].map(both32).concat());
        area
    }
}

/// Length of the entries that are whole within the first `limit` bytes.
fn whole_entries(entries: &[u8], limit: usize) -> usize {
    let mut end = 0;
    while let Some(&len) = entries.get(end + 2) {
        if end + usize::from(len) > limit {
            break;
        }
        end += usize::from(len);
    }
    end
}

fn length(bytes: &[u8]) -> u8 {
    u8::try_from(bytes.len()).unwrap_or(u8::MAX)
}

/// The halves of a device number. Small ones stand in the lower half as Unix had them first, which every reader
/// understands; others as Linux reads them, with the major number in the upper half.
fn device(major: u32, minor: u32) -> (u32, u32) {
    match (major, minor) {
        (0..=0xfff, 0..=0xff) => (0, major << 8 | minor),
        _ => (major, minor),
    }
}

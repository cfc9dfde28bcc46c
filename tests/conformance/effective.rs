//! Archives and manifests to the tree that is left when all of their members were unpacked one after another.

use std::collections::BTreeMap;
use std::io::Read;

use sha2::{Digest, Sha256};

/// One name of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// As in a manifest: `f`, `d`, `l`, `h`, `c`, `b`, `p`.
    pub kind: char,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    /// `sha256:HEX` of a file, `->TARGET` of a link, `MAJOR,MINOR` of a device, else `-`.
    pub what: String,
    /// Extended attributes and origin, as far as the archive has them.
    pub records: BTreeMap<String, String>,
    /// A file's bytes, where they are known.
    pub content: Option<Vec<u8>>,
}

impl Member {
    /// For messages and assertions: `f 0644 0 0 sha256:…`.
    pub fn shown(&self) -> String {
        format!("{} {:04o} {} {} {}", self.kind, self.mode, self.uid, self.gid, self.what)
    }
}

/// Members by path, without `./` in front and `/` behind.
pub type Tree = BTreeMap<String, Member>;

pub fn sha256(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Members in the order of the archive to a tree: the last of a name counts, and a hard link is what it names.
pub fn effective(members: Vec<(String, Member)>) -> Tree {
    let mut tree = Tree::new();
    for (path, member) in members {
        tree.insert(clean(&path), member);
    }
    let links: Vec<_> = tree.iter().filter(|(_, member)| member.kind == 'h').map(|(path, _)| path.clone()).collect();
    for path in links {
        let mut target = tree[&path].what.trim_start_matches("->").to_owned();
        // A hard link to a hard link, a few times over.
        for _ in 0..8 {
            match tree.get(&clean(&target)) {
                Some(member) if member.kind == 'h' => target = member.what.trim_start_matches("->").to_owned(),
                _ => break,
            }
        }
        if let Some(named) = tree.get(&clean(&target)).cloned() {
            let records = tree[&path].records.clone();
            tree.insert(path, Member { records, ..named });
        }
    }
    tree
}

fn clean(path: &str) -> String {
    path.trim_start_matches("./").trim_end_matches('/').to_owned()
}

/// A manifest of the corpus, with the matching lines of its pax file where there is one.
pub fn from_manifest(text: &str, pax: Option<&str>) -> Vec<(String, Member)> {
    let mut records = pax.map(|text| text.lines().map(pax_records));
    let member = |line: &str| {
        let fields: Vec<&str> = line.split('\t').collect();
        let [kind, mode, uid, gid, size, what, path] = fields[..] else { panic!("no manifest line: {line}") };
        let kind = kind.chars().next().expect("a type");
        let what = if matches!(kind, 'c' | 'b') { size.to_owned() } else { unescape(what) };
        let member = Member {
            kind,
            mode: u32::from_str_radix(mode, 8).expect("octal"),
            uid: uid.parse().expect("a number"),
            gid: gid.parse().expect("a number"),
            what,
            records: records.as_mut().and_then(Iterator::next).unwrap_or_default(),
            content: None,
        };
        (unescape(path), member)
    };
    text.lines().map(member).collect()
}

fn pax_records(line: &str) -> BTreeMap<String, String> {
    let value: serde_json::Value = serde_json::from_str(line).expect("a JSON list");
    let records = value[4].as_object().expect("records");
    records.iter().map(|(key, value)| (key.clone(), value.as_str().expect("text").to_owned())).collect()
}

fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n").replace("\\\\", "\\")
}

/// The members of a tar.
pub fn from_tar(bytes: &[u8]) -> Vec<(String, Member)> {
    let mut members = vec![];
    let mut archive = tar::Archive::new(bytes);
    for entry in archive.entries().expect("a tar") {
        let mut entry = entry.expect("a whole tar");
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let mut records = BTreeMap::new();
        if let Some(extensions) = entry.pax_extensions().expect("records that add up") {
            for extension in extensions.flatten() {
                let key = extension.key().expect("keys are text").to_owned();
                if key.starts_with("LINUXKIT.") || key.starts_with("SCHILY.xattr.") {
                    records.insert(key, String::from_utf8_lossy(extension.value_bytes()).into_owned());
                }
            }
        }
        let link = entry.link_name_bytes().map(|name| format!("->{}", String::from_utf8_lossy(&name)));
        let header = entry.header().clone();
        let (kind, what) = match header.entry_type() {
            tar::EntryType::Directory => ('d', "-".into()),
            tar::EntryType::Symlink => ('l', link.expect("a target")),
            tar::EntryType::Link => ('h', link.expect("a target")),
            tar::EntryType::Char => ('c', device(&header)),
            tar::EntryType::Block => ('b', device(&header)),
            tar::EntryType::Fifo => ('p', "-".into()),
            _ => ('f', String::new()),
        };
        let mut content = None;
        let mut sum = what;
        if kind == 'f' {
            let mut body = vec![];
            entry.read_to_end(&mut body).expect("a whole tar");
            sum = sha256(&body);
            content = Some(body);
        }
        let (mode, uid, gid) =
            (header.mode().expect("a mode") & 0o7777, owner(&mut entry, "uid"), owner(&mut entry, "gid"));
        members.push((path, Member { kind, mode, uid, gid, what: sum, records, content }));
    }
    members
}

/// Owners above two million are in a record.
fn owner(entry: &mut tar::Entry<'_, &[u8]>, field: &str) -> u64 {
    let header = entry.header().clone();
    let recorded = entry.pax_extensions().ok().flatten().and_then(|mut extensions| {
        extensions.find_map(|extension| extension.ok().filter(|e| e.key() == Ok(field))?.value().ok()?.parse().ok())
    });
    recorded.unwrap_or_else(|| if field == "uid" { header.uid() } else { header.gid() }.expect("a number"))
}

fn device(header: &tar::Header) -> String {
    let part = |number: std::io::Result<Option<u32>>| number.expect("a number").expect("a device");
    format!("{},{}", part(header.device_major()), part(header.device_minor()))
}

/// The members of newc archives, one behind another.
pub fn from_cpio(bytes: &[u8]) -> Vec<(String, Member)> {
    const HEADER: usize = 110;
    let mut members: Vec<(String, Member)> = vec![];
    // Names of one inode share the content, which comes with the last of them.
    let mut inodes: Vec<(u32, usize)> = vec![];
    let mut at = 0;
    while bytes.get(at..at + 6) == Some(b"070701") {
        let field = |n: usize| {
            let text = std::str::from_utf8(&bytes[at + 6 + 8 * n..at + 14 + 8 * n]).expect("hexadecimal");
            u32::from_str_radix(text, 16).expect("hexadecimal")
        };
        let [inode, mode, uid, gid, links, size] = [0, 1, 2, 3, 4, 6].map(field);
        let (major, minor, name_bytes) = (field(9), field(10), field(11) as usize);
        let name = String::from_utf8_lossy(&bytes[at + HEADER..at + HEADER + name_bytes - 1]).into_owned();
        at = (at + HEADER + name_bytes).next_multiple_of(4);
        let body = &bytes[at..at + size as usize];
        at = (at + size as usize).next_multiple_of(4);
        if name == "TRAILER!!!" {
            break;
        }
        let (kind, what, content) = match mode >> 12 {
            0o4 => ('d', "-".into(), None),
            0o12 => ('l', format!("->{}", String::from_utf8_lossy(body)), None),
            0o2 => ('c', format!("{major},{minor}"), None),
            0o6 => ('b', format!("{major},{minor}"), None),
            0o1 => ('p', "-".into(), None),
            _ => ('f', sha256(body), Some(body.to_vec())),
        };
        let records = BTreeMap::new();
        let member = Member { kind, mode: mode & 0o7777, uid: uid.into(), gid: gid.into(), what, records, content };
        if kind == 'f' && links > 1 {
            for (_, index) in inodes.iter().filter(|(other, _)| *other == inode && size > 0) {
                members[*index].1 = member.clone();
            }
            inodes.push((inode, members.len()));
        }
        members.push((name, member));
    }
    members
}

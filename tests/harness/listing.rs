//! A root as one line for each name, read by programs that no format's author wrote: what two formats hold can be compared.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::fs;
use std::io::{BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};

/// What is compared. Some formats cannot tell all of it.
#[derive(Debug, Clone, Copy)]
pub struct Compared {
    /// Extended attributes.
    pub xattrs: bool,
    /// Which names are one file.
    pub links: bool,
    /// Modification times of folders, which some programs change while they fill them.
    pub folder_times: bool,
}

/// All of it.
pub const ALL: Compared = Compared { xattrs: true, links: true, folder_times: true };

/// Lines by name. Bytes that are no text are written `\xNN`.
pub type Listing = BTreeMap<String, String>;

/// Lists the tar that `read` gives. What is below `boot/` is left out: most formats have it elsewhere or not at all.
pub fn of_tar(read: impl Read, compared: Compared) -> Listing {
    let mut listing = Listing::new();
    let mut first_names: HashMap<Vec<u8>, (String, String)> = HashMap::new();
    let mut links: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut archive = tar::Archive::new(BufReader::with_capacity(1 << 20, read));
    let mut told = Told::default();
    // Raw: the crate's own reader of these records stumbles over values with line breaks.
    for entry in archive.entries().expect("a tar").raw(true) {
        let mut entry = entry.expect("a whole tar");
        let kind = entry.header().entry_type();
        if told.take(kind, &mut entry) {
            continue;
        }
        let told = std::mem::take(&mut told);
        let path = clean(&told.path.clone().unwrap_or_else(|| entry.path_bytes().into_owned()));
        let target = told
            .target
            .clone()
            .or_else(|| entry.link_name_bytes().map(std::borrow::Cow::into_owned))
            .unwrap_or_default();
        let name = text(&path);
        if name.is_empty() || name.starts_with("boot/") {
            continue;
        }
        if kind == tar::EntryType::Link {
            let (first, line) = first_names.get(&clean(&target)).cloned().expect("a link names what came before");
            links.entry(first.clone()).or_default().push(name.clone());
            listing.insert(name, line.clone());
            first_names.insert(path, (first, line));
            continue;
        }
        let line = line(&mut entry, &told, &target, compared) + if compared.xattrs { &told.xattrs } else { "" };
        first_names.insert(path, (name.clone(), line.clone()));
        listing.insert(name, line);
    }
    if compared.links {
        for (first, mut others) in links {
            others.push(first);
            others.sort();
            let group = format!(" one of {others:?}");
            others.iter().for_each(|name| listing.get_mut(name).expect("listed above").push_str(&group));
        }
    }
    assert!(!listing.is_empty(), "an empty root");
    listing
}

/// What stands in front of a member for its sake.
#[derive(Default)]
struct Told {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<u64>,
    xattrs: String,
}

impl Told {
    /// Whether this was such a thing.
    fn take(&mut self, kind: tar::EntryType, entry: &mut impl Read) -> bool {
        let mut content = Vec::new();
        let place = match kind {
            tar::EntryType::XHeader | tar::EntryType::XGlobalHeader => None,
            tar::EntryType::GNULongName => Some(&mut self.path),
            tar::EntryType::GNULongLink => Some(&mut self.target),
            _ => return false,
        };
        entry.read_to_end(&mut content).expect("a whole tar");
        match place {
            Some(place) => *place = Some(content.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()),
            None => self.records(&content),
        }
        true
    }

    /// `LENGTH NAME=VALUE`, one behind another.
    fn records(&mut self, mut rest: &[u8]) {
        let mut xattrs = BTreeMap::new();
        while !rest.is_empty() {
            let space = rest.iter().position(|byte| *byte == b' ').expect("a length");
            let len: usize = String::from_utf8_lossy(&rest[..space]).parse().expect("a length");
            let record = &rest[space + 1..len - 1];
            rest = &rest[len..];
            let equals = record.iter().position(|byte| *byte == b'=').expect("a name");
            let (name, value) = (&record[..equals], &record[equals + 1..]);
            match name {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.target = Some(value.to_vec()),
                b"uid" => self.uid = number(value),
                b"gid" => self.gid = number(value),
                b"mtime" => self.mtime = number(value),
                _ => drop(name.strip_prefix(b"SCHILY.xattr.").map(|name| xattrs.insert(text(name), text(value)))),
            }
        }
        self.xattrs = xattrs.into_iter().map(|(name, value)| format!(" {name}={value}")).collect();
    }
}

/// What stands before a fraction.
fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.split('.').next()?.parse().ok()
}

fn line(entry: &mut tar::Entry<'_, impl Read>, told: &Told, target: &[u8], compared: Compared) -> String {
    let header = entry.header().clone();
    let kind = header.entry_type();
    let mut line = match kind {
        tar::EntryType::Directory => "folder".to_owned(),
        tar::EntryType::Symlink => format!("link to {}", text(target)),
        tar::EntryType::Char | tar::EntryType::Block => {
            let number = |number: std::io::Result<Option<u32>>| number.ok().flatten().unwrap_or(u32::MAX);
            format!("{kind:?} {},{}", number(header.device_major()), number(header.device_minor()))
        }
        tar::EntryType::Fifo => "fifo".to_owned(),
        _ => content(entry),
    };
    if kind != tar::EntryType::Symlink {
        let mode = header.mode().expect("a mode") & 0o7777;
        let number =
            |told: Option<u64>, header: std::io::Result<u64>| told.unwrap_or_else(|| header.expect("a number"));
        let (uid, gid) = (number(told.uid, header.uid()), number(told.gid, header.gid()));
        let _ = write!(line, " {mode:04o} {uid}:{gid}");
        if compared.folder_times || kind != tar::EntryType::Directory {
            let _ = write!(line, " @{}", number(told.mtime, header.mtime()));
        }
    }
    line
}

/// Length and the first bytes of the digest.
fn content(read: &mut impl Read) -> String {
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    let mut len = 0_u64;
    loop {
        match read.read(&mut buffer).expect("a whole tar") {
            0 => break,
            n => {
                len += n as u64;
                digest.update(&buffer[..n]);
            }
        }
    }
    let hex: String = digest.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{len} bytes {hex}")
}

/// Lists what `script` writes to its standard output as a tar. It runs under `fakeroot` in an empty folder; `$1` is
/// `file`. So owners and devices come through without rights.
#[track_caller]
pub fn of_script(script: &str, file: &Path, compared: Compared) -> Listing {
    let folder = tempfile::Builder::new().prefix("kiln-listing-").tempdir().expect("a temp folder can be made");
    let said = fs::File::create(folder.path().join("said")).expect("the temp folder is writable");
    let work = folder.path().join("work");
    fs::create_dir(&work).expect("the temp folder is writable");
    let mut child = Command::new("fakeroot")
        .args(["sh", "-euc", script, "sh"])
        .arg(fs::canonicalize(file).unwrap_or_else(|error| panic!("{}: {error}", file.display())))
        .current_dir(&work)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(said)
        .spawn()
        .expect("fakeroot is installed");
    let mut tar = Vec::new();
    child.stdout.take().expect("piped above").read_to_end(&mut tar).expect("a pipe");
    let status = child.wait().expect("it was started here");
    let said = fs::read(folder.path().join("said")).unwrap_or_default();
    assert!(status.success(), "{script}: {status:?}\n{}", String::from_utf8_lossy(&said));
    // Folders without rights hinder nobody but the one who removes them.
    let _ = Command::new("chmod").args(["-R", "u+rwX"]).arg(&work).stderr(Stdio::null()).status();
    of_tar(&tar[..], compared)
}

/// Panics with the lines that differ.
#[track_caller]
pub fn check_equal(what: &str, found: &Listing, wanted: &Listing) {
    let mut faults = vec![];
    for (name, line) in wanted {
        match found.get(name) {
            Some(other) if other == line => {}
            other => faults.push(format!("{name}:\n  wanted {line}\n  found  {}", other.map_or("nothing", |l| l))),
        }
    }
    for (name, line) in found.iter().filter(|(name, _)| !wanted.contains_key(*name)) {
        faults.push(format!("{name}:\n  wanted nothing\n  found  {line}"));
    }
    let count = faults.len();
    faults.truncate(20);
    assert!(count == 0, "{what}: {count} of {} names differ\n{}", wanted.len(), faults.join("\n"));
}

/// Without `./` in front and `/` behind.
fn clean(path: &[u8]) -> Vec<u8> {
    let mut path = path;
    loop {
        path = match path {
            [b'.', b'/', rest @ ..] | [b'/', rest @ ..] | [rest @ .., b'/'] => rest,
            [b'.'] => b"",
            _ => return path.to_vec(),
        };
    }
}

fn text(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
    }
    text
}

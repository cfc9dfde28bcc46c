//! Where package databases are in a tree, and what an entry of one becomes in the document. A database is what an image
//! says: everything that it can drive has a limit, and what is broken is left out and told.

use std::fmt;
use std::io;

use super::document::{ExternalRef, Package};
use super::licence::{Licences, NO_ASSERTION};
use super::{alpine, debian, follow, purl};
use crate::tree::{Body, Kind, Tree, TreePath, printable};

/// Longest database: the whole of Debian described would be of this size.
const DATABASE_BYTES_MAX: u64 = 64 << 20;
/// Files in a folder that is a database: an image has some hundred packages.
const PARTS_MAX: usize = 10_000;
/// Packages of one image.
const PACKAGES_MAX: usize = 100_000;
/// Longest name, version or architecture.
const WORD_BYTES_MAX: usize = 256;
/// Longest other field; longer ones are left out.
const TEXT_BYTES_MAX: usize = 2048;
/// Longest `os-release`: real ones have half a kilobyte.
const RELEASE_BYTES_MAX: u64 = 64 << 10;

/// Which database lists a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum System {
    /// Alpine's `apk`.
    Alpine,
    /// Debian's `dpkg`.
    Debian,
}

/// One installed package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Installed {
    /// Which database lists it.
    pub system: System,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it runs on, by the distribution's name; empty if that is not told.
    pub architecture: String,
    /// The database, a path in the tree.
    pub database: String,
    /// What it is built from, if that has another name.
    pub source: Option<String>,
    /// Its licence as it is written.
    pub licence: Option<String>,
    /// `Name <address>`.
    pub maintainer: Option<String>,
    /// Its page.
    pub homepage: Option<String>,
    /// One line.
    pub summary: Option<String>,
}

/// What a tree's databases say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Sorted; none twice.
    pub packages: Vec<Installed>,
    /// Of which release.
    pub(super) release: Release,
    /// What could not be read.
    pub faults: Vec<DatabaseFault>,
}

/// A distribution's release.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Release {
    id: String,
    version: String,
}

/// Why a database, or a part of it, is left out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseFault {
    /// It is too long to be one.
    #[error("`{path}` has {len_bytes} bytes, more than the {DATABASE_BYTES_MAX} that are read")]
    TooLong {
        /// The file, as a message can show it.
        path: String,
        /// Its length.
        len_bytes: u64,
    },
    /// Some entries are none.
    #[error("{count} entries of `{path}` are no packages and are left out")]
    Entries {
        /// The file, as a message can show it.
        path: String,
        /// How many.
        count: usize,
    },
    /// More packages than any system has.
    #[error("`{path}` and what comes after it list more than {PACKAGES_MAX} packages; the rest is left out")]
    TooMany {
        /// The file, as a message can show it.
        path: String,
    },
    /// It cannot be read from the disk.
    #[error("`{path}` cannot be read: {fault}")]
    Io {
        /// The file, as a message can show it.
        path: String,
        /// What the system said.
        fault: String,
    },
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Alpine => "apk",
            Self::Debian => "deb",
        })
    }
}

/// Reads the package databases of `tree`. Never fails: what is wrong is among the faults.
pub fn look(tree: &Tree) -> Found {
    let mut found = Found::default();
    for (system, path, body) in databases(tree) {
        let shown = printable(&path).into_owned();
        let text = match read(&body, &shown) {
            Ok(text) => text,
            Err(fault) => {
                found.faults.push(fault);
                continue;
            }
        };
        let entries: Vec<Option<Installed>> = match system {
            System::Alpine => alpine::entries(&text, &shown).collect(),
            System::Debian => debian::entries(&text, &shown).collect(),
        };
        let count = entries.iter().filter(|entry| entry.is_none()).count();
        if count > 0 {
            found.faults.push(DatabaseFault::Entries { path: shown.clone(), count });
        }
        found.packages.extend(entries.into_iter().flatten());
        if found.packages.len() > PACKAGES_MAX {
            found.packages.truncate(PACKAGES_MAX);
            found.faults.push(DatabaseFault::TooMany { path: shown });
            break;
        }
    }
    found.packages.sort();
    found.packages.dedup_by(|a, b| {
        (a.system, &a.name, &a.version, &a.architecture) == (b.system, &b.name, &b.version, &b.architecture)
    });
    found.release = if found.packages.is_empty() { Release::default() } else { release(tree) };
    found
}

fn databases(tree: &Tree) -> Vec<(System, Vec<u8>, Body)> {
    let file = |path: &TreePath| match &tree.get(path)?.kind {
        Kind::File(body) => Some(body.clone()),
        _ => None,
    };
    let mut found = Vec::new();
    let mut add = |system, path: TreePath| {
        if let Some(body) = file(&path) {
            found.push((system, path.as_bytes().to_vec(), body));
        }
    };
    // Alpine moved its database below `usr`; a link may lead from one place to the other.
    let places = ["lib/apk/db/installed", "usr/lib/apk/db/installed"].map(|path| TreePath::from_user(path).ok());
    let mut places: Vec<TreePath> = places.into_iter().flatten().collect();
    places.dedup_by_key(|path| tree.find(path));
    places.into_iter().for_each(|path| add(System::Alpine, path));
    if let Ok(path) = TreePath::from_user("var/lib/dpkg/status") {
        add(System::Debian, path);
    }
    let Ok(folder) = TreePath::from_user("var/lib/dpkg/status.d") else { return found };
    if let Some(Kind::Directory(children)) = tree.get(&folder).map(|node| &node.kind) {
        let names = children.keys().filter(|name| !name.ends_with(b".md5sums")).take(PARTS_MAX);
        names.for_each(|name| add(System::Debian, folder.join(name)));
    }
    found
}

fn read(body: &Body, path: &str) -> Result<Vec<u8>, DatabaseFault> {
    let io = |error: io::Error| DatabaseFault::Io { path: path.into(), fault: error.to_string() };
    let too_long = || DatabaseFault::TooLong { path: path.into(), len_bytes: body.len() };
    body.read_up_to(DATABASE_BYTES_MAX).map_err(io)?.ok_or_else(too_long)
}

/// `os-release(5)`: ID and VERSION_ID.
fn release(tree: &Tree) -> Release {
    let text = ["etc/os-release", "usr/lib/os-release"].iter().find_map(|path| {
        let Kind::File(body) = &tree.get(&follow(tree, path)?)?.kind else { return None };
        body.read_up_to(RELEASE_BYTES_MAX).ok()?
    });
    let text = text.map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default();
    let value = |key: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
        word(value.trim().trim_matches(['"', '\'']).as_bytes())
    };
    Release { id: value("ID").unwrap_or_default(), version: value("VERSION_ID").unwrap_or_default() }
}

/// What stands between blank lines; none is empty. Both databases are lists of such blocks.
pub(super) fn blocks(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let next_line = |text: &[u8]| text.iter().position(|&byte| byte == b'\n').map_or(text.len(), |end| end + 1);
    let mut rest = text;
    std::iter::from_fn(move || {
        let mut len = 0;
        while len < rest.len() {
            let line = next_line(&rest[len..]);
            let is_blank = rest[len..len + line].trim_ascii().is_empty();
            match (is_blank, len) {
                (true, 0) => rest = &rest[line..],
                (true, _) => break,
                (false, _) => len += line,
            }
        }
        let block;
        (block, rest) = rest.split_at(len);
        (!block.is_empty()).then_some(block)
    })
}

/// A name, version or the like: printable ASCII without spaces.
pub(super) fn word(value: &[u8]) -> Option<String> {
    let fits = (1..=WORD_BYTES_MAX).contains(&value.len()) && value.iter().all(u8::is_ascii_graphic);
    fits.then(|| String::from_utf8_lossy(value).into_owned())
}

/// A line of text, if it is one.
pub(super) fn text(value: &[u8]) -> Option<String> {
    let value = value.trim_ascii();
    let text = std::str::from_utf8(value).ok().filter(|text| !text.contains(char::is_control))?;
    (1..=TEXT_BYTES_MAX).contains(&text.len()).then(|| text.to_owned())
}

impl Installed {
    /// As an element of a document, in an image that lies in `folder`.
    pub(super) fn package(&self, id: String, folder: &str, release: &Release, licences: &mut Licences) -> Package {
        let (kind, distribution) = match self.system {
            System::Alpine => ("apk", "alpine"),
            System::Debian => ("deb", "debian"),
        };
        let namespace = if release.id.is_empty() { distribution } else { &release.id };
        let distro = match (release.id.is_empty(), release.version.is_empty()) {
            (true, _) | (_, true) => String::new(),
            _ => format!("{}-{}", release.id, release.version),
        };
        let purl = purl::distribution(kind, namespace, &self.name, &self.version, &self.architecture, &distro);
        let slash = if folder.is_empty() { "" } else { "/" };
        let from = self.source.as_ref().map(|source| format!("; built from {source}")).unwrap_or_default();
        Package {
            name: self.name.clone(),
            id,
            version_info: Some(self.version.clone()),
            supplier: Some(self.maintainer.as_deref().map_or_else(|| NO_ASSERTION.into(), person)),
            download_location: NO_ASSERTION.into(),
            files_analyzed: Some(false),
            homepage: self.homepage.clone().filter(|page| is_url(page)),
            source_info: Some(format!("listed in {folder}{slash}{}{from}", self.database)),
            license_concluded: Some(NO_ASSERTION.into()),
            license_declared: Some(
                self.licence.as_deref().map_or_else(|| NO_ASSERTION.into(), |l| licences.declared(l)),
            ),
            copyright_text: Some(NO_ASSERTION.into()),
            summary: self.summary.clone(),
            external_refs: vec![ExternalRef::purl(purl)],
            ..Package::default()
        }
    }
}

fn is_url(page: &str) -> bool {
    let rest = page.strip_prefix("https://").or_else(|| page.strip_prefix("http://"));
    rest.is_some_and(|rest| {
        !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte))
    })
}

/// `Name <address>` as SPDX has it (clause 7.5): `Person: Name (address)`.
fn person(maintainer: &str) -> String {
    let plain = |text: &str| text.replace(['(', ')'], "").trim().to_owned();
    let (name, address) = maintainer.split_once('<').unwrap_or((maintainer, ""));
    let (name, address) = (plain(name), plain(address.trim_end().trim_end_matches('>')));
    match (name.is_empty(), address.is_empty()) {
        (true, true) => NO_ASSERTION.into(),
        (true, false) => format!("Person: {address}"),
        (false, true) => format!("Person: {name}"),
        (false, false) => format!("Person: {name} ({address})"),
    }
}

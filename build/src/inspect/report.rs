//! What a listing comes to.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use super::folders::{Folder, folders};
use super::listing::{BILL, Entry, Kind, Listing};
use super::packages::owners;
use crate::tree::printable;

/// How many of the largest files are told.
const LARGEST: usize = 50;

/// What fills something that was built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Bytes of all files, unpacked.
    pub bytes: u64,
    /// How many files, links and devices.
    pub files: u64,
    /// By what the YAML has them for, the largest first.
    pub sections: Vec<Section>,
    /// By package, the largest first; what belongs to none is not among them.
    pub packages: Vec<Package>,
    /// Bytes of files that belong to no package.
    pub bytes_without_package: u64,
    /// By folder.
    pub root: Folder,
    /// The largest first.
    pub largest: Vec<File>,
    /// What could not be told.
    pub notes: Vec<String>,
}

/// A part of the YAML.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Section {
    /// `kernel`, `init`, `services/NAME`, `files`, `sbom`.
    pub name: String,
    /// The images that are known to be in it.
    pub images: Vec<String>,
    /// Of all its files.
    pub bytes: u64,
    /// How many.
    pub files: u64,
}

/// An installed package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Package {
    /// `deb` or `apk`.
    pub system: &'static str,
    /// Its name.
    pub name: String,
    /// The folder that it is installed in; empty for the root.
    pub root: String,
    /// Of its files that are there.
    pub bytes: u64,
    /// How many.
    pub files: u64,
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct File {
    /// Its name.
    pub path: String,
    /// Its length.
    pub bytes: u64,
}

impl Report {
    /// Adds it all up.
    pub fn new(listing: &Listing) -> Self {
        let (sections, numbers) = sections(listing);
        let owners = owners(listing);
        let mut packages: Vec<Package> = owners
            .packages
            .into_iter()
            .map(|owner| Package {
                system: owner.system,
                name: owner.name,
                root: owner.root.trim_end_matches('/').into(),
                bytes: 0,
                files: 0,
            })
            .collect();
        let (mut bytes, mut files, mut bytes_without_package) = (0_u64, 0, 0_u64);
        let mut largest: Vec<(&[u8], u64)> = Vec::new();
        for (path, entry) in listing.entries.iter().filter(|(_, entry)| entry.kind != Kind::Folder) {
            bytes = bytes.saturating_add(entry.bytes);
            files += 1;
            match owners.files.get(&**path).and_then(|&number| packages.get_mut(number)) {
                Some(package) => {
                    package.bytes = package.bytes.saturating_add(entry.bytes);
                    package.files += 1;
                }
                None => bytes_without_package = bytes_without_package.saturating_add(entry.bytes),
            }
            largest.push((path, entry.bytes));
        }
        largest.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
        largest.truncate(LARGEST);
        packages.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| (&a.name, &a.root).cmp(&(&b.name, &b.root))));
        let root = folders(listing, &|path| numbers.get(path).copied().unwrap_or(0));
        let file = |(path, bytes): (&[u8], u64)| File { path: printable(path).into_owned(), bytes };
        let largest = largest.into_iter().map(file).collect();
        Self { bytes, files, sections, packages, bytes_without_package, root, largest, notes: notes(listing) }
    }
}

fn notes(listing: &Listing) -> Vec<String> {
    let mut notes = Vec::new();
    if listing.bad_names > 0 {
        notes.push(format!("{} members have names that lead outside and are not counted", listing.bad_names));
    }
    let shown = |path: &[u8]| format!("`{}` is too long to be read, so its packages are not told", printable(path));
    notes.extend(listing.too_long.iter().take(LARGEST).map(|path| shown(path)));
    notes
}

/// Sections, the largest first, and the number of each file's.
fn sections(listing: &Listing) -> (Vec<Section>, BTreeMap<&[u8], usize>) {
    let images = Images::read(listing);
    let mut sums: BTreeMap<String, (Section, BTreeSet<String>)> = BTreeMap::new();
    let mut names = Vec::new();
    for (path, entry) in listing.entries.iter().filter(|(_, entry)| entry.kind != Kind::Folder) {
        let (name, image) = images.section(path, entry, listing);
        let (sum, of_section) = sums.entry(name.clone()).or_default();
        sum.bytes = sum.bytes.saturating_add(entry.bytes);
        sum.files += 1;
        of_section.extend(image.map(ToOwned::to_owned));
        names.push((&**path, name));
    }
    let named = |(name, (section, of_section)): (String, (Section, BTreeSet<String>))| {
        let images = if of_section.is_empty() { images.of_root(&name) } else { of_section.into_iter().collect() };
        Section { name, images, ..section }
    };
    let mut sections: Vec<Section> = sums.into_iter().map(named).collect();
    sections.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.name.cmp(&b.name)));
    let numbers: BTreeMap<&str, usize> =
        sections.iter().enumerate().map(|(number, section)| (section.name.as_str(), number)).collect();
    let numbered = names.iter().map(|(path, name)| (*path, numbers.get(name.as_str()).copied().unwrap_or(0)));
    let numbers = numbered.collect();
    (sections, numbers)
}

/// Images by the folder that they are in, as the bill of materials tells.
#[derive(Default)]
struct Images {
    by_folder: BTreeMap<Vec<u8>, String>,
    /// Those in the root, with their role.
    root: Vec<(String, String)>,
}

impl Images {
    /// None where there is no bill, or another program's.
    fn read(listing: &Listing) -> Self {
        let mut images = Self::default();
        let bill = listing.kept.get(BILL).and_then(|bill| serde_json::from_slice::<Value>(bill).ok());
        let packages = bill.as_ref().and_then(|bill| bill.get("packages")?.as_array());
        for package in packages.into_iter().flatten() {
            let text = |key: &str| package.get(key).and_then(Value::as_str);
            let (Some(name), Some(comment)) = (text("name"), text("comment")) else { continue };
            let Some((role, folder)) = comment.strip_prefix("image of ").and_then(|rest| rest.split_once(", in "))
            else {
                continue;
            };
            match folder.rsplit_once('/') {
                Some((bundle, _)) => drop(images.by_folder.insert(bundle.into(), name.into())),
                None => images.root.push((role.into(), name.into())),
            }
        }
        images
    }

    /// The section of a file, and the image if that is known.
    fn section<'a>(&'a self, path: &[u8], entry: &Entry, listing: &'a Listing) -> (String, Option<&'a str>) {
        let records = entry.records.and_then(|number| listing.records.get(usize::try_from(number).ok()?));
        let source = records.map(|records| records.source.as_str()).filter(|source| !source.starts_with("linuxkit."));
        if path == BILL {
            return ("sbom".into(), None);
        }
        let mut parts = path.split(|&byte| byte == b'/');
        if let (Some(b"containers"), Some(kind), Some(name), Some(_)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        {
            let bundle = [b"containers/", kind, b"/", name].concat();
            let known = self.by_folder.get(&bundle).map(String::as_str);
            return (format!("{}/{}", printable(kind), printable(name)), source.or(known));
        }
        let below = |folder: &[u8]| path.starts_with(folder);
        let name = match records.map(|records| records.location.as_str()) {
            Some(location) if location.starts_with("files[") => "files".into(),
            Some(location) => printable(location.as_bytes()).into_owned(),
            None if below(b"boot/") || below(b"lib/modules/") || below(b"usr/lib/modules/") => "kernel".into(),
            None => "init".into(),
        };
        (name, source)
    }

    /// Those that fill a section of the root.
    fn of_root(&self, section: &str) -> Vec<String> {
        let fits = |(role, _): &&(String, String)| role.split('[').next() == Some(section);
        self.root.iter().filter(fits).map(|(_, name)| name.clone()).collect()
    }
}

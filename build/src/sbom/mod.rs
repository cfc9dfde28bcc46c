//! The software bill of materials: which packages are in what is built, as an SPDX 2.3 document in JSON.
//!
//! An image's packages are told by what its builder stated about it; where nobody did, by the package databases in its
//! layers (Debian's and Alpine's). Nothing else of the layers is read. The same input gives the same bytes: no clock, no
//! random numbers, and the document's name is made of its content.

mod alpine;
mod attested;
mod database;
mod debian;
mod document;
mod ids;
mod licence;
mod purl;

use kiln_abi::date_and_time;

use crate::oci::Digest;
use crate::progress::Progress;
use crate::tree::{Tree, TreePath};

pub use attested::{Attested, StatementError};
pub use database::{Found, Installed, System, look};

use document::{Document, Package, Relationship};
use ids::Ids;
use licence::Licences;

/// Most packages and files that one document lists; with more it is no list for anybody.
pub const ELEMENTS_MAX: usize = 200_000;

/// An image where it lies in what is built.
#[derive(Debug, Clone, Copy)]
pub struct Placed<'a> {
    /// Full reference.
    pub reference: &'a str,
    /// Digest of its manifest.
    pub manifest: Digest,
    /// What it is for: `kernel`, `init[0]`, `services[2]`.
    pub role: &'a str,
    /// The folder that it is unpacked into, without a slash in front; empty for the root.
    pub folder: &'a str,
}

/// A bill that is being written.
#[derive(Debug)]
pub struct Bill {
    document: Document,
    ids: Ids,
    licences: Licences,
    architecture: String,
    full: bool,
}

impl Bill {
    /// An empty bill of something for `architecture` (Go's name), made at `created_s` seconds since 1970.
    pub fn new(created_s: i64, architecture: &str) -> Self {
        Self {
            // Before 1970 nobody made anything.
            document: Document::new(&format!("{}Z", date_and_time(created_s.try_into().unwrap_or(0)))),
            ids: Ids::default(),
            licences: Licences::default(),
            architecture: architecture.into(),
            full: false,
        }
    }

    /// Adds an image and what was stated about it.
    pub fn add_attested(&mut self, placed: &Placed<'_>, lists: &[Attested], progress: &dyn Progress) {
        let image = self.add_image(placed);
        for list in lists {
            if !self.has_room(list.len(), placed, progress) {
                continue;
            }
            let merged = list.placed(placed.folder, &mut self.ids, &mut self.licences);
            let contains = merged.top.iter().map(|id| Relationship::contains(&image, id));
            self.document.relationships.extend(contains);
            self.document.packages.extend(merged.packages);
            self.document.files.extend(merged.files);
            self.document.relationships.extend(merged.relationships);
        }
    }

    /// Adds an image and the packages that its databases list.
    pub fn add_found(&mut self, placed: &Placed<'_>, found: &Found, progress: &dyn Progress) {
        let image = self.add_image(placed);
        for fault in &found.faults {
            progress.note(&format!("software list: image `{}`: {fault}", placed.reference));
        }
        if !self.has_room(found.packages.len(), placed, progress) {
            return;
        }
        for installed in &found.packages {
            let id = self.ids.unique(&format!("SPDXRef-{}-{}", installed.system, installed.name));
            self.document.relationships.push(Relationship::contains(&image, &id));
            self.document.packages.push(installed.package(id, placed.folder, &found.release, &mut self.licences));
        }
    }

    /// The document's bytes.
    pub fn finish(mut self) -> Vec<u8> {
        self.document.has_extracted_licensing_infos = self.licences.into_infos();
        self.document.into_bytes()
    }

    /// The image itself, as a package. Returns its id.
    fn add_image(&mut self, placed: &Placed<'_>) -> String {
        let id = self.ids.unique(&format!("SPDXRef-Image-{}", placed.role));
        self.document.relationships.push(Relationship::describes(&id));
        let purl = purl::oci(placed.reference, &placed.manifest, &self.architecture);
        self.document.packages.push(Package::of_image(id.clone(), placed, purl));
        id
    }

    fn has_room(&mut self, more: usize, placed: &Placed<'_>, progress: &dyn Progress) -> bool {
        let has = self.document.packages.len() + self.document.files.len();
        let fits = has.saturating_add(more) <= ELEMENTS_MAX;
        if !fits && !self.full {
            self.full = true;
            let image = placed.reference;
            progress.note(&format!(
                "software list: image `{image}` and those after it are not listed in whole: more than {ELEMENTS_MAX} entries"
            ));
        }
        fits
    }
}

/// What is at `path`, if its last component is a symbolic link where that leads to: Linux' way, a few links far.
fn follow(tree: &Tree, path: &str) -> Option<TreePath> {
    const LINKS: usize = 8;
    let mut path = TreePath::from_user(path).ok()?;
    for _ in 0..LINKS {
        let crate::tree::Kind::Symlink(target) = &tree.get(&path)?.kind else { return Some(path) };
        let folder = path.split().map(|(folder, _)| folder).unwrap_or_default();
        path = joined(folder, target)?;
    }
    None
}

/// `target` as seen from `folder`; `..` is resolved by name and does not lead above the root.
fn joined(folder: TreePath, target: &[u8]) -> Option<TreePath> {
    let mut names: Vec<&[u8]> = if target.starts_with(b"/") { Vec::new() } else { folder.components().collect() };
    for name in target.split(|&byte| byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    TreePath::from_member(&names.join(&b'/')).ok()
}

#[cfg(test)]
mod tests;

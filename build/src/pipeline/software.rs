//! The software bill of materials: gathered while the tree is put together, and put into it at last.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};

use super::{BuildError, BuildRequest, SbomRequest};
use crate::assemble::Unpacked;
use crate::oci::{Digest, Store};
use crate::output::Stamp;
use crate::plan::Plan;
use crate::progress::Progress;
use crate::sbom::{self, Attested, Bill, Placed};
use crate::tree::{Attributes, Kind, Origin, PathFault, Tree, TreeError, TreePath};

/// Why the bill has no place.
#[derive(Debug, thiserror::Error)]
pub enum SbomError {
    /// Its path is none.
    #[error("the software bill of materials cannot be at `{path}`")]
    Path {
        /// As it was given.
        path: String,
        /// Why.
        #[source]
        source: PathFault,
    },
    /// A folder is there, or the root itself is meant.
    #[error("the software bill of materials cannot replace the folder `{path}`; choose another `--sbom-output`")]
    Folder {
        /// Which.
        path: TreePath,
    },
    /// The tree refuses it.
    #[error("the software bill of materials cannot be put into the root")]
    Tree(#[source] TreeError),
}

/// What the images' builders stated, by the image's reference.
#[derive(Default)]
pub(super) struct Stated {
    lists: BTreeMap<String, Vec<Attested>>,
    digests: Vec<Digest>,
}

/// Reads what was stated about the images of `plan`. What cannot be read is told, and counts as not stated.
pub(super) fn stated(
    request: &BuildRequest<'_>,
    plan: &Plan,
    store: &Store,
    progress: &dyn Progress,
) -> Result<Stated, BuildError> {
    let mut stated = Stated::default();
    if request.sbom.is_none() {
        return Ok(stated);
    }
    for (_, image) in plan.images() {
        request.cancel.check()?;
        if stated.lists.contains_key(&image.reference) {
            continue;
        }
        let told = |what: &dyn std::error::Error| {
            let cause = what.source().map(|cause| format!(": {cause}")).unwrap_or_default();
            let image = &image.reference;
            progress.note(&format!("what is stated about the packages of `{image}` is not used: {what}{cause}"));
        };
        let statements = store.package_lists(image).inspect_err(|error| told(error)).unwrap_or_default();
        let parsed = statements.iter().map(|bytes| Attested::parse(bytes));
        let lists = parsed.filter_map(|list| list.inspect_err(|error| told(error)).ok()).collect();
        stated.lists.insert(image.reference.clone(), lists);
        stated.digests.extend(statements.iter().map(|bytes| Digest::from_bytes(Sha256::digest(bytes).into())));
    }
    Ok(stated)
}

impl Stated {
    /// What the outputs depend on.
    pub fn add_to(&self, stamp: &mut Stamp) {
        for digest in &self.digests {
            stamp.add("statement", digest.to_string().as_bytes());
        }
    }

    /// Begins the bill.
    pub fn listing<'a>(&'a self, request: &'a BuildRequest<'_>, progress: &'a dyn Progress) -> Listing<'a> {
        let begun = request.sbom.as_ref().map(|sbom| Begun {
            sbom,
            bill: RefCell::new(Bill::new(sbom.created_s, &request.architecture)),
            seen: RefCell::default(),
        });
        Listing { begun, lists: &self.lists, source_date_s: request.source_date_s, progress }
    }
}

/// The bill while the tree is put together; nothing if none is wanted.
pub(super) struct Listing<'a> {
    begun: Option<Begun<'a>>,
    lists: &'a BTreeMap<String, Vec<Attested>>,
    source_date_s: i64,
    progress: &'a dyn Progress,
}

struct Begun<'a> {
    sbom: &'a SbomRequest,
    bill: RefCell<Bill>,
    /// References of images that are in it.
    seen: RefCell<BTreeSet<String>>,
}

impl Listing<'_> {
    /// Adds an image that was unpacked.
    pub fn add(&self, unpacked: &Unpacked<'_>) {
        let Some(Begun { bill, seen, .. }) = &self.begun else { return };
        let Unpacked { role, image, folder, files } = unpacked;
        let role = role.to_string();
        let placed = Placed { reference: &image.reference, manifest: image.manifest, role: &role, folder };
        seen.borrow_mut().insert(image.reference.clone());
        let mut bill = bill.borrow_mut();
        match self.lists.get(&image.reference).filter(|lists| !lists.is_empty()) {
            Some(lists) => bill.add_attested(&placed, lists, self.progress),
            None => bill.add_found(&placed, &sbom::look(files), self.progress),
        }
    }

    /// Puts the bill into `tree`, with those images of `plan` too that were not unpacked.
    pub fn put(self, tree: &mut Tree, plan: &Plan) -> Result<(), SbomError> {
        let Some(Begun { sbom, bill, seen }) = self.begun else { return Ok(()) };
        let (mut bill, mut seen) = (bill.into_inner(), seen.into_inner());
        for (_, image) in plan.images() {
            if seen.insert(image.reference.clone()) {
                let placed =
                    Placed { reference: &image.reference, manifest: image.manifest, role: "a volume", folder: "" };
                let lists = self.lists.get(&image.reference).map(Vec::as_slice).unwrap_or_default();
                bill.add_attested(&placed, lists, self.progress);
            }
        }
        let path =
            TreePath::from_user(&sbom.path).map_err(|source| SbomError::Path { path: sbom.path.clone(), source })?;
        if tree.get(&path).is_some_and(|node| matches!(node.kind, Kind::Directory(_))) {
            return Err(SbomError::Folder { path });
        }
        tree.set_origin(Origin::default());
        let attributes = Attributes::of_root(0o644, self.source_date_s);
        tree.put(&path, attributes, Kind::file(bill.finish())).map(drop).map_err(SbomError::Tree)
    }
}

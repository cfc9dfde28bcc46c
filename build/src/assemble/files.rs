//! The `files:` section: what is written in the YAML, and what is taken from the host.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::{AssembleError, Ingredients};
use crate::cancel::Cancel;
use crate::config::{Config, FileContent, FileEntry, Id};
use crate::oci::Digest;
use crate::tree::{Attributes, Body, Kind, Origin, Spool, Tree, TreeError};

/// What paths of the host are relative to.
#[derive(Debug, Clone, Copy)]
pub struct Roots<'a> {
    /// For relative paths.
    pub working_folder: &'a Path,
    /// For `~/`.
    pub home_folder: Option<&'a Path>,
}

/// The contents of the host's files that `files:` names: read once, so that what is hashed is what is built.
#[derive(Debug, Default)]
pub struct SourceFiles {
    bodies: BTreeMap<usize, (Digest, Body)>,
}

impl SourceFiles {
    /// Reads them. Their contents go to an unlinked file in `folder`.
    pub fn read(config: &Config, roots: Roots<'_>, folder: &Path, cancel: &Cancel) -> Result<Self, AssembleError> {
        let mut bodies = BTreeMap::new();
        for (index, entry) in config.files.iter().enumerate() {
            if let FileContent::Source(written) = &entry.content
                && let Some((path, file)) = open(entry, written, roots)?
            {
                let keep = |source| AssembleError::Spool { path: path.clone(), folder: folder.into(), source };
                let unreadable =
                    |source| AssembleError::Source { path: path.clone(), place: entry.place.clone(), source };
                let spool = Spool::create(folder).map_err(keep)?;
                let (digest, len) = copy((file, &unreadable), (spool.file(), &keep), cancel)?;
                bodies.insert(index, (digest, Body::Spooled { spool: Arc::new(spool), start: 0, len }));
            }
        }
        Ok(Self { bodies })
    }

    /// The digest of each, with the number of its entry.
    pub fn digests(&self) -> impl Iterator<Item = (usize, Digest)> {
        self.bodies.iter().map(|(index, (digest, _))| (*index, *digest))
    }
}

/// The file, or `None` if it is missing and may be.
fn open(entry: &FileEntry, written: &str, roots: Roots<'_>) -> Result<Option<(PathBuf, File)>, AssembleError> {
    let path = match (written.strip_prefix("~/"), roots.home_folder) {
        (Some(below), Some(home)) => home.join(below),
        _ => roots.working_folder.join(written),
    };
    match File::open(&path) {
        Ok(file) => Ok(Some((path, file))),
        Err(error) if error.kind() == io::ErrorKind::NotFound && entry.optional => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(AssembleError::SourceMissing {
            written: written.into(),
            working_folder: roots.working_folder.into(),
            place: entry.place.clone(),
        }),
        Err(source) => Err(AssembleError::Source { path, place: entry.place.clone(), source }),
    }
}

/// What an error of one side means.
type Blame<'a> = &'a dyn Fn(io::Error) -> AssembleError;

fn copy(
    (mut from, unreadable): (File, Blame<'_>),
    (mut to, unkept): (&File, Blame<'_>),
    cancel: &Cancel,
) -> Result<(Digest, u64), AssembleError> {
    let mut hash = Sha256::new();
    let mut len = 0;
    let mut buffer = vec![0; 128 * 1024];
    loop {
        cancel.check()?;
        let count = from.read(&mut buffer).map_err(unreadable)?;
        if count == 0 {
            return Ok((Digest::from_bytes(hash.finalize().into()), len));
        }
        hash.update(&buffer[..count]);
        to.write_all(&buffer[..count]).map_err(unkept)?;
        len += count as u64;
    }
}

pub(super) fn add(ingredients: &Ingredients<'_>, tree: &mut Tree) -> Result<(), AssembleError> {
    let mut folders = BTreeSet::new();
    for (index, entry) in ingredients.config.files.iter().enumerate() {
        let what = format!("files[{index}]");
        tree.set_origin(Origin { source: "linuxkit.files".into(), location: what.clone() });
        let kind = match &entry.content {
            FileContent::Directory => Kind::directory(),
            FileContent::Symlink(target) => Kind::Symlink(target.as_bytes().into()),
            FileContent::Contents(text) => Kind::file(text),
            FileContent::Source(_) => match ingredients.sources.bodies.get(&index) {
                Some((_, body)) => Kind::File(body.clone()),
                None => continue,
            },
            &FileContent::Metadata(format) => {
                let full = |written: &str| {
                    ingredients.plan.image(written).map_or_else(|| written.into(), |image| image.reference.clone())
                };
                let text = ingredients.config.metadata(format, full);
                Kind::file(text.map_err(|source| AssembleError::Metadata { place: entry.place.clone(), source })?)
            }
        };
        let attributes = Attributes {
            uid: number(ingredients.config, entry, "uid", entry.uid.as_ref())?,
            gid: number(ingredients.config, entry, "gid", entry.gid.as_ref())?,
            ..ingredients.generated(entry.mode().bits())
        };
        let path = super::own_path(&entry.path);
        if ingredients.compat.is_linuxkit() {
            let fault = |source| AssembleError::Tree { what: what.clone(), source };
            put_folders_above(&entry.path, &attributes, &mut folders, tree).map_err(fault)?;
        }
        tree.put(&path, attributes, kind).map_err(|source| AssembleError::Tree { what, source })?;
    }
    Ok(())
}

/// LinuxKit's folders above a file: each is written when it is first met, with the file's owner and its mode, where who may
/// read or write may search too.
fn put_folders_above(
    path: &str,
    of_file: &Attributes,
    folders: &mut BTreeSet<String>,
    tree: &mut Tree,
) -> Result<(), TreeError> {
    let search = [0o700, 0o070, 0o007].map(|who| if of_file.mode & who == 0 { 0 } else { who & 0o111 });
    let attributes =
        Attributes { mode: search.into_iter().fold(of_file.mode, |mode, bit| mode | bit), ..of_file.clone() };
    for (end, _) in path.match_indices('/') {
        let folder = &path[..end];
        if folders.insert(folder.into()) {
            tree.put(&super::own_path(folder), attributes.clone(), Kind::directory())?;
        }
    }
    folders.insert(path.into());
    Ok(())
}

fn number(config: &Config, entry: &FileEntry, field: &'static str, id: Option<&Id>) -> Result<u32, AssembleError> {
    let Some(id) = id else { return Ok(0) };
    let name = || match id {
        Id::Name(name) => name.clone(),
        Id::Number(number) => number.to_string(),
    };
    config.id_number(id).ok_or_else(|| AssembleError::UnknownId { field, name: name(), place: entry.place.clone() })
}

//! Images out of files and other programs, verified blob by blob into the store.

mod containerd;
mod daemon;
mod docker;
mod error;
mod files;
mod layout;
mod tar_index;

use std::io::Read;
use std::path::{Path, PathBuf};

pub use daemon::DockerHost;
pub use error::ImportError;

use self::docker::Saved;
use self::files::{Files, OpenFault};
use self::layout::Listed;
use super::{Digest, FileKind, Platform, Reference, Source, Store, TagEntry};
use crate::cancel::Cancel;
use crate::progress::{Meter, Progress};

/// What is shown of an archive's names.
const NAMES_SHOWN: usize = 12;

/// What other programs' images are found by.
#[derive(Debug, Clone, Default)]
pub struct SourceOptions {
    /// Where Docker is asked.
    pub docker: DockerHost,
    /// What relative paths are relative to; empty: the current folder.
    pub folder: PathBuf,
}

/// An image that was taken over and named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// Its names in the store now.
    pub names: Vec<Reference>,
    /// What they mean.
    pub digest: Digest,
}

/// Takes over the image of a source that is no registry, for one platform, without a name.
///
/// Returns the digest of its index or manifest. Errors: see [`ImportError`]; an image that is not for this platform is found
/// out by whoever resolves it.
pub fn import_source(
    source: &Source,
    platform: &Platform,
    store: &Store,
    options: &SourceOptions,
    cancel: &Cancel,
    progress: &dyn Progress,
) -> Result<Digest, ImportError> {
    let what = source.to_string();
    let meter = progress.begin(&format!("import {what}"), None);
    let to = Importing { what, store, platform: Some(platform), cancel, meter: meter.as_ref() };
    match source {
        Source::Registry(_) => Err(ImportError::NoImages { what: to.what }),
        Source::Files(from) => {
            let files = to.open(from.kind, &options.folder.join(&from.path))?;
            to.importer(files).one(from.name.as_deref())
        }
        Source::Docker(reference) => {
            let files = daemon::saved(reference, &options.docker, &to)?;
            to.importer(files).one(None)
        }
        Source::Containerd(reference) => {
            let files = containerd::exported(reference, &to)?;
            to.importer(files).one(None)
        }
    }
}

/// Whether Docker has this image; if so, it is taken over. A Docker that is not running has none, and `progress` is told so.
pub(crate) fn import_if_docker_has_it(
    reference: &Reference,
    platform: &Platform,
    store: &Store,
    options: &SourceOptions,
    cancel: &Cancel,
    progress: &dyn Progress,
) -> Result<Option<Digest>, ImportError> {
    match import_source(&Source::Docker(reference.clone()), platform, store, options, cancel, progress) {
        Err(ImportError::NotThere { .. }) => Ok(None),
        Err(error @ ImportError::Program { .. }) => {
            progress.note(&format!("{error}; going on without it"));
            Ok(None)
        }
        other => other.map(Some),
    }
}

/// What to import, for [`import`].
pub enum ImportFrom<'a> {
    /// A folder with a layout, or an archive in a file.
    Path(&'a Path),
    /// An archive that is read to its end.
    Stream(&'a mut dyn Read),
}

/// Takes over all images of an archive or a layout, for all platforms, and names them: by `name`, which is for one image, or
/// by their annotations.
///
/// Errors: see [`ImportError`]. Images before the one that failed stay.
pub fn import(
    from: ImportFrom<'_>,
    name: Option<&Reference>,
    store: &Store,
    cancel: &Cancel,
    progress: &dyn Progress,
) -> Result<Vec<Imported>, ImportError> {
    let what = match &from {
        ImportFrom::Path(path) => path.display().to_string(),
        ImportFrom::Stream(_) => "standard input".to_owned(),
    };
    let meter = progress.begin(&format!("import {what}"), None);
    let to = Importing { what, store, platform: None, cancel, meter: meter.as_ref() };
    let files = match from {
        ImportFrom::Path(path) if path.is_dir() => Ok(Files::Folder(path.to_owned())),
        ImportFrom::Path(path) => Files::archive(path, store, cancel, meter.as_ref()),
        ImportFrom::Stream(stream) => Files::stream(stream, store, cancel, meter.as_ref()),
    };
    let files = files.map_err(|fault| to.fault(fault))?;
    to.importer(files).all(name)
}

/// Where to and how far.
struct Importing<'a> {
    what: String,
    store: &'a Store,
    platform: Option<&'a Platform>,
    cancel: &'a Cancel,
    meter: &'a dyn Meter,
}

impl<'a> Importing<'a> {
    fn open(&self, kind: FileKind, path: &Path) -> Result<Files, ImportError> {
        match kind {
            FileKind::Layout if !path.is_dir() => {
                let source = path.metadata().err().unwrap_or_else(|| std::io::ErrorKind::NotADirectory.into());
                Err(ImportError::Read { what: self.what.clone(), source })
            }
            FileKind::Layout => Ok(Files::Folder(path.to_owned())),
            FileKind::OciArchive | FileKind::DockerArchive => {
                let files = Files::archive(path, self.store, self.cancel, self.meter);
                files.map_err(|fault| self.fault(fault))
            }
        }
    }

    fn fault(&self, fault: OpenFault) -> ImportError {
        match fault {
            OpenFault::Io(_) if self.cancel.check().is_err() => ImportError::Cancelled,
            OpenFault::Io(source) => ImportError::Read { what: self.what.clone(), source },
            OpenFault::Store(error) => error.into(),
        }
    }

    fn importer(&self, files: Files) -> Importer<'a> {
        let (store, platform, cancel, meter) = (self.store, self.platform, self.cancel, self.meter);
        Importer { what: self.what.clone(), files, store, platform, cancel, meter }
    }
}

/// Files on their way into the store.
struct Importer<'a> {
    what: String,
    files: Files,
    store: &'a Store,
    /// `None`: all that are there.
    platform: Option<&'a Platform>,
    cancel: &'a Cancel,
    meter: &'a dyn Meter,
}

enum Candidate {
    Oci(Listed),
    Docker(Saved),
}

impl Candidate {
    fn names(&self) -> Vec<String> {
        match self {
            Self::Oci(listed) => listed.names.clone(),
            Self::Docker(saved) => saved.names(),
        }
    }
}

impl Importer<'_> {
    /// All images. Since version 25 Docker writes both kinds of lists; the OCI one is complete only if it has names.
    fn candidates(&self) -> Result<Vec<Candidate>, ImportError> {
        let listed = layout::listed(self)?;
        let saved = || {
            let saved = docker::listed(self)?;
            Ok::<_, ImportError>(saved.map(|saved| saved.into_iter().map(Candidate::Docker).collect()))
        };
        let is_named = listed.iter().flatten().any(|image| image.names.iter().any(|name| is_name(name)));
        let listed: Option<Vec<Candidate>> =
            listed.filter(|listed| !listed.is_empty()).map(|listed| listed.into_iter().map(Candidate::Oci).collect());
        let found = match listed {
            Some(listed) if is_named => Some(listed),
            Some(listed) => saved()?.filter(|saved: &Vec<_>| !saved.is_empty()).or(Some(listed)),
            None => saved()?,
        };
        let found = found.filter(|found| !found.is_empty());
        found.ok_or_else(|| ImportError::NoImages { what: self.what.clone() })
    }

    fn take(&self, candidate: &Candidate) -> Result<TagEntry, ImportError> {
        match candidate {
            Candidate::Oci(listed) => layout::take(self, listed),
            Candidate::Docker(saved) => docker::take(self, saved),
        }
    }

    /// The one image that there is, or the one of this name.
    fn one(&self, wanted: Option<&str>) -> Result<Digest, ImportError> {
        let candidates = self.candidates()?;
        let what = || self.what.clone();
        let chosen = match (wanted, candidates.as_slice()) {
            (None, [only]) => only,
            (None, _) => return Err(ImportError::Several { what: what(), found: shown(&candidates) }),
            (Some(wanted), _) => {
                let called = |candidate: &&Candidate| candidate.names().iter().any(|name| is_called(name, wanted));
                candidates.iter().find(called).ok_or_else(|| ImportError::NoSuchImage {
                    what: what(),
                    wanted: wanted.to_owned(),
                    found: shown(&candidates),
                })?
            }
        };
        Ok(self.take(chosen)?.digest)
    }

    fn all(&self, name: Option<&Reference>) -> Result<Vec<Imported>, ImportError> {
        let candidates = self.candidates()?;
        let what = || self.what.clone();
        let mut imported = Vec::new();
        for candidate in &candidates {
            let names = match name {
                Some(_) if candidates.len() > 1 => {
                    return Err(ImportError::OneName { what: what(), found: shown(&candidates) });
                }
                Some(name) => vec![name.clone()],
                None => references(candidate),
            };
            if names.is_empty() {
                let tag = candidate.names().first().map(|tag| format!(", only the tag `{tag}`")).unwrap_or_default();
                return Err(ImportError::NoName { what: what(), hint: tag });
            }
            let entry = self.take(candidate)?;
            for name in &names {
                self.store.tag(name, &entry)?;
            }
            imported.push(Imported { names, digest: entry.digest });
        }
        Ok(imported)
    }
}

/// The names to keep an image by. An OCI image's annotations are two spellings of one name, Docker's tags are several names.
fn references(candidate: &Candidate) -> Vec<Reference> {
    let parse = |name: &String| name.parse::<Reference>().ok().filter(|_| is_name(name));
    let names = candidate.names();
    let names = names.iter().filter_map(parse);
    match candidate {
        Candidate::Oci(_) => names.take(1).collect(),
        Candidate::Docker(_) => names.collect(),
    }
}

/// Whether an annotation names an image and not only a tag of an image that the archive does not name.
fn is_name(text: &str) -> bool {
    let is_tag = |text: &str| {
        let number = text.strip_prefix('v').unwrap_or(text);
        text == "latest" || number.starts_with(|c: char| c.is_ascii_digit())
    };
    !text.is_empty() && (text.contains(['/', ':']) || !is_tag(text)) && text.parse::<Reference>().is_ok()
}

/// Whether `name`, as an archive has it, is what `wanted` means: the same words, the same reference, or the same tag.
fn is_called(name: &str, wanted: &str) -> bool {
    let (full, wanted_full) = (name.parse::<Reference>(), wanted.parse::<Reference>());
    let same = matches!((&full, &wanted_full), (Ok(name), Ok(wanted)) if name.names().contains(&wanted.to_string()));
    name == wanted || same || full.is_ok_and(|name| name.tag() == Some(wanted))
}

fn shown(candidates: &[Candidate]) -> String {
    let name = |candidate: &Candidate| candidate.names().first().map(|name| format!("`{name}`"));
    let names: Vec<_> = candidates
        .iter()
        .take(NAMES_SHOWN)
        .map(|candidate| name(candidate).unwrap_or("one without a name".into()))
        .collect();
    names.join(", ")
}

#[cfg(test)]
mod tests;

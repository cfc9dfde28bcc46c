//! Pins every image of a build to a digest: the last room that asks what a tag means.
//!
//! What is in the store intact is never asked for on the network; what is missing or damaged there is fetched again.

mod layout;

use std::collections::{BTreeMap, BTreeSet};

use crate::cancel::{Cancel, Cancelled};
use crate::oci::{
    Digest, Fault, FetchError, Image, ImportError, Platform, Reference, RegistryOptions, Source, SourceError,
    SourceOptions, Store, StoreError, Wanted, fetch, import_if_docker_has_it, import_source,
};
use crate::progress::Progress;

pub use layout::{Layout, LayoutUse, pin_layouts};

/// One place of a YAML that uses an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageUse {
    /// The reference as it is written there.
    pub reference: String,
    /// The place, for messages: `minimal.yml:7:10: services[0]` or the like.
    pub place: String,
}

/// When registries are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pull {
    /// For what the store does not have.
    #[default]
    Missing,
    /// For every tag; blobs that the store has are not fetched again.
    Always,
    /// Never.
    Never,
}

/// How images are found.
#[derive(Debug, Clone, Default)]
pub struct PullOptions {
    /// When registries are asked.
    pub pull: Pull,
    /// Whether a running Docker is asked before anything else.
    pub docker_first: bool,
    /// How they are asked.
    pub registry: RegistryOptions,
    /// How images in files and other programs are found.
    pub sources: SourceOptions,
    /// Stops a pull.
    pub cancel: Cancel,
}

/// Every image of a build, pinned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    images: BTreeMap<String, Image>,
}

impl Plan {
    /// The image behind a reference as it was written.
    pub fn image(&self, written: &str) -> Option<&Image> {
        self.images.get(written)
    }

    /// Every reference as it was written, in order, with its image.
    pub fn images(&self) -> impl Iterator<Item = (&str, &Image)> {
        self.images.iter().map(|(written, image)| (written.as_str(), image))
    }
}

/// Why an image cannot be pinned.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The reference is none.
    #[error("{place}: the image cannot be used")]
    Reference {
        /// Where it is used.
        place: String,
        /// Why.
        #[source]
        source: SourceError,
    },
    /// The store fails, or holds something that no registry can mend.
    #[error("{place}: image `{reference}` cannot be used")]
    Store {
        /// Where it is used.
        place: String,
        /// The image.
        reference: String,
        /// Why.
        #[source]
        source: Box<StoreError>,
    },
    /// It is in files or another program, and cannot be had from there.
    #[error("{place}: image `{reference}` cannot be used")]
    Import {
        /// Where it is used.
        place: String,
        /// The source as it is written.
        reference: String,
        /// Why.
        #[source]
        source: Box<ImportError>,
    },
    /// The store does not have it, and no registry may be asked.
    #[error(
        "{place}: image `{reference}` is not in the store, and no registry may be asked for it; \
         `kiln cache pull {reference}` gets it"
    )]
    Offline {
        /// Where it is used.
        place: String,
        /// The image.
        reference: String,
    },
    /// The store has a part of it, and no registry may be asked.
    #[error(
        "{place}: image `{reference}` is not whole in the store, and no registry may be asked for the rest; \
         `kiln cache pull {reference}` gets it"
    )]
    OfflineIncomplete {
        /// Where it is used.
        place: String,
        /// The image.
        reference: String,
        /// What it lacks.
        #[source]
        source: Box<StoreError>,
    },
    /// The registry does not give it.
    #[error("{place}: image `{reference}` cannot be pulled{in_store}")]
    Pull {
        /// Where it is used.
        place: String,
        /// The image.
        reference: String,
        /// What is wrong with it in the store, if it is there at all.
        in_store: String,
        /// Why.
        #[source]
        source: Box<FetchError>,
    },
    /// A platform that is none.
    #[error(
        "{place}: `{written}` is no platform; write OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT, such as `linux/arm64`"
    )]
    Platform {
        /// Where it is used.
        place: String,
        /// As it is written.
        written: String,
    },
    /// The user stopped the build.
    #[error(transparent)]
    Cancelled(Cancelled),
}

/// Pins every image for `platform`. Images that are fetched are fetched at the same time, each only once.
///
/// Errors: the first image that cannot be had, with the place that asks for it. What was fetched until then stays in
/// the store.
pub fn pin(
    uses: &[ImageUse],
    platform: &Platform,
    store: &Store,
    options: &PullOptions,
    progress: &dyn Progress,
) -> Result<Plan, PlanError> {
    let planner = Planner { platform, store, options, progress };
    let mut images = BTreeMap::new();
    let mut missing: Vec<Missing<'_>> = Vec::new();
    let parsed = parse(uses)?;
    for (source, place) in unique(&parsed) {
        match planner.look(source, place)? {
            Found::Here(image) => {
                images.insert(source.clone(), *image);
            }
            Found::Wanted(wanted, in_store) => missing.push(Missing { source, place, wanted, in_store }),
        }
    }
    let wanted: Vec<Wanted> = missing.iter().map(|missing| missing.wanted.clone()).collect();
    let fetched = fetch(&wanted, platform, store, &options.registry, &options.cancel, progress);
    let fetched = fetched.map_err(|(number, error)| match error.fault {
        Fault::Cancelled => PlanError::Cancelled(Cancelled),
        _ => PlanError::Pull {
            place: missing.get(number).map(|missing| missing.place).unwrap_or_default().to_owned(),
            reference: error.what.clone(),
            in_store: missing.get(number).map(|missing| missing.in_store.clone()).unwrap_or_default(),
            source: error,
        },
    })?;
    images.extend(missing.iter().map(|missing| missing.source.clone()).zip(fetched));
    let pinned = |(written, source, _): &(&str, Source, &str)| {
        images.get(source).map(|image| ((*written).to_owned(), image.clone()))
    };
    Ok(Plan { images: parsed.iter().filter_map(pinned).collect() })
}

struct Missing<'a> {
    source: &'a Source,
    place: &'a str,
    wanted: Wanted,
    in_store: String,
}

/// Each source as written, in full, and the place of its use.
fn parse(uses: &[ImageUse]) -> Result<Vec<(&str, Source, &str)>, PlanError> {
    let parse = |ImageUse { reference, place }: &'_ ImageUse| {
        reference.parse().map_err(|source| PlanError::Reference { place: place.clone(), source })
    };
    uses.iter().map(|used| Ok((used.reference.as_str(), parse(used)?, used.place.as_str()))).collect()
}

/// Each source once, with the first place that uses it.
fn unique<'a>(parsed: &'a [(&str, Source, &'a str)]) -> Vec<(&'a Source, &'a str)> {
    let mut seen = BTreeSet::new();
    let pairs = parsed.iter().map(|(_, source, place)| (source, *place));
    pairs.filter(|(source, _)| seen.insert(*source)).collect()
}

enum Found {
    Here(Box<Image>),
    /// To be fetched, and what is wrong with what the store has under that name.
    Wanted(Wanted, String),
}

struct Planner<'a> {
    platform: &'a Platform,
    store: &'a Store,
    options: &'a PullOptions,
    progress: &'a dyn Progress,
}

impl Planner<'_> {
    fn look(&self, source: &Source, place: &str) -> Result<Found, PlanError> {
        let imported = match source {
            Source::Registry(reference) if self.options.docker_first => self.docker(reference),
            Source::Registry(_) => Ok(None),
            source => self.import(source).map(Some),
        };
        let imported = imported.map_err(|error| match error {
            ImportError::Cancelled => PlanError::Cancelled(Cancelled),
            error => PlanError::Import { place: place.into(), reference: source.to_string(), source: Box::new(error) },
        })?;
        let image = imported.map(|root| self.store.resolve_root(&source.to_string(), root, self.platform));
        match (image, source) {
            (Some(Ok(image)), _) => Ok(Found::Here(Box::new(image))),
            // Docker may keep another machine's.
            (None | Some(Err(StoreError::Platform { .. })), Source::Registry(reference)) => {
                self.look_in_store(reference, source, place)
            }
            (Some(Err(error)), _) => Err(fault(source, place, error)),
            (None, _) => Err(PlanError::Import {
                place: place.into(),
                reference: source.to_string(),
                source: Box::new(ImportError::NoImages { what: source.to_string() }),
            }),
        }
    }

    fn docker(&self, reference: &Reference) -> Result<Option<Digest>, ImportError> {
        let Self { platform, store, options, progress } = *self;
        import_if_docker_has_it(reference, platform, store, &options.sources, &options.cancel, progress)
    }

    fn import(&self, source: &Source) -> Result<Digest, ImportError> {
        let Self { platform, store, options, progress } = *self;
        import_source(source, platform, store, &options.sources, &options.cancel, progress)
    }

    fn look_in_store(&self, reference: &Reference, source: &Source, place: &str) -> Result<Found, PlanError> {
        let pull = self.options.pull;
        let wanted = |root, in_store| Ok(Found::Wanted(Wanted { reference: reference.clone(), root }, in_store));
        if pull == Pull::Always && reference.digest().is_none() {
            return wanted(None, String::new());
        }
        let (place_text, name) = (place.to_owned(), reference.to_string());
        match self.store.find(reference, self.platform) {
            Ok(Some(image)) => Ok(Found::Here(Box::new(image))),
            Ok(None) if pull == Pull::Never => Err(PlanError::Offline { place: place_text, reference: name }),
            Ok(None) => wanted(None, String::new()),
            Err(error @ (StoreError::Missing { .. } | StoreError::Damaged { .. })) if pull == Pull::Never => {
                Err(PlanError::OfflineIncomplete { place: place_text, reference: name, source: Box::new(error) })
            }
            Err(error) if pull == Pull::Never => Err(fault(source, place, error)),
            Err(error @ (StoreError::Missing { .. } | StoreError::Damaged { .. })) => {
                let root = self.store.root_digest(reference).map_err(|error| fault(source, place, error))?;
                wanted(root, in_store(&error))
            }
            // What the name means now may be for this platform.
            Err(error @ StoreError::Platform { .. }) if reference.digest().is_none() => {
                self.progress.note(&format!("in the store, {error}; asking the registry"));
                wanted(None, in_store(&error))
            }
            Err(error) => Err(fault(source, place, error)),
        }
    }
}

fn fault(source: &Source, place: &str, error: StoreError) -> PlanError {
    PlanError::Store { place: place.to_owned(), reference: source.to_string(), source: Box::new(error) }
}

/// What is wrong in the store: a user who only saw that the network failed would not know why it was asked.
fn in_store(error: &StoreError) -> String {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("; it had to be, because in the store {error}{cause}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;

    fn pin_in(store: &Store, written: &str, pull: Pull) -> Result<Plan, PlanError> {
        let uses = [ImageUse { reference: written.into(), place: "x.yml:3:10: services[0]".into() }];
        pin(&uses, &Platform::linux("amd64"), store, &PullOptions { pull, ..PullOptions::default() }, &Silent)
    }

    #[test]
    fn errors_name_the_place() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        for written in ["", "a/../b", "missing:1", "127.0.0.1:1/no/image:1"] {
            let pull = if written.starts_with("127") { Pull::Missing } else { Pull::Never };
            let error = pin_in(&store, written, pull).unwrap_err().to_string();
            assert!(error.starts_with("x.yml:3:10: services[0]: "), "{written}: {error}");
        }
    }

    #[test]
    fn what_is_in_the_store_is_not_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        // Nobody listens on port 1, so whoever asks fails.
        let reference: Reference = "127.0.0.1:1/a:1".parse().unwrap();
        let config = br#"{"os":"linux","architecture":"amd64","config":{"Cmd":["/a"]}}"#;
        let image = store.put_image(&reference, &Platform::linux("amd64"), config, Vec::new()).unwrap();
        let plan = pin_in(&store, "127.0.0.1:1/a:1", Pull::Missing).unwrap();
        assert_eq!(plan.image("127.0.0.1:1/a:1"), Some(&image));
        let refused = pin_in(&store, "127.0.0.1:1/a:1", Pull::Always).unwrap_err();
        assert!(matches!(refused, PlanError::Pull { .. }), "{refused}");
    }
}

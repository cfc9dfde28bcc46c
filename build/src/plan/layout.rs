//! Pins the images of OCI volumes: not one platform's image but the index, with all platforms that are wanted.

use super::{ImageUse, PlanError, PullOptions, pin};
use crate::oci::{Digest, Layer, NoPlatform, Platform, Reference, ReferenceError, Store, StoreError};
use crate::progress::Progress;

/// One OCI volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayoutUse {
    /// Its image.
    pub image: ImageUse,
    /// As they are written, such as `linux/arm64`; all of the index if there is none.
    pub platforms: Vec<String>,
}

/// What the layout of one OCI volume holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The image's full reference.
    pub reference: String,
    /// Digest of the index.
    pub index: Digest,
    /// Its media type.
    pub media_type: String,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// Every blob, the index among them, by digest.
    pub blobs: Vec<Layer>,
}

/// Pins every layout, fetching what the store lacks. `platform` is the build's own: it is asked for when it is not known
/// yet what an index has.
///
/// Errors: the first image that cannot be had, has no index, or lacks a platform.
pub fn pin_layouts(
    uses: &[LayoutUse],
    platform: &Platform,
    store: &Store,
    options: &PullOptions,
    progress: &dyn Progress,
) -> Result<Vec<Layout>, PlanError> {
    uses.iter().map(|used| pin_layout(used, platform, store, options, progress)).collect()
}

fn pin_layout(
    used: &LayoutUse,
    platform: &Platform,
    store: &Store,
    options: &PullOptions,
    progress: &dyn Progress,
) -> Result<Layout, PlanError> {
    let ImageUse { reference: written, place } = &used.image;
    let pin_one = |platform: &Platform| -> Result<Reference, PlanError> {
        let plan = pin(std::slice::from_ref(&used.image), platform, store, options, progress)?;
        let full = plan.image(written).map_or(written.as_str(), |image| &image.reference);
        full.parse()
            .map_err(|source: ReferenceError| PlanError::Reference { place: place.clone(), source: source.into() })
    };
    let fail = |reference: &Reference, source| PlanError::Store {
        place: place.clone(),
        reference: reference.to_string(),
        source: Box::new(source),
    };
    let parse = |written: &String| {
        let parsed = written.parse();
        parsed.map_err(|NoPlatform { written }| PlanError::Platform { place: place.clone(), written })
    };
    let wanted: Vec<Platform> = used.platforms.iter().map(parse).collect::<Result<_, _>>()?;
    let known = |reference: &Reference| store.platforms(reference).map_err(|source| fail(reference, source));
    // What the store knows is asked first: then nobody is asked for a platform that there is not.
    let stored = match written.parse::<Reference>() {
        Ok(reference) => known(&reference)?.map(|platforms| (reference, platforms)),
        Err(_) => None,
    };
    let (reference, available) = match stored {
        Some(stored) if options.pull != super::Pull::Always => stored,
        _ => {
            let reference = pin_one(wanted.first().unwrap_or(platform))?;
            let available = known(&reference)?.unwrap_or_default();
            (reference, available)
        }
    };
    for platform in if wanted.is_empty() { &available } else { &wanted } {
        let lacks = |error: &StoreError| matches!(error, StoreError::Missing { .. } | StoreError::Damaged { .. });
        match store.layout(&reference, std::slice::from_ref(platform)) {
            Ok(_) => {}
            Err(error) if lacks(&error) => drop(pin_one(platform)?),
            Err(error) => return Err(fail(&reference, error)),
        }
    }
    let (index, blobs) = store.layout(&reference, &wanted).map_err(|source| fail(&reference, source))?;
    let (digest, media_type, size_bytes) = (index.digest, index.media_type, index.size_bytes);
    Ok(Layout { reference: reference.to_string(), index: digest, media_type, size_bytes, blobs })
}

//! The images of OCI volumes.

use std::collections::BTreeMap;

use super::{BuildError, BuildRequest};
use crate::config::{Config, Role, VolumeFormat};
use crate::oci::{Platform, Store};
use crate::plan::{self, ImageUse, Layout, LayoutUse, PullOptions};
use crate::progress::Progress;

/// Whether the image of a place is one that is not unpacked.
pub(super) fn is_layout(config: &Config, role: Role) -> bool {
    matches!(role, Role::Volume(index) if config.volumes.get(index).is_some_and(|v| v.format == VolumeFormat::Oci))
}

/// Pins them all, by the number of their volume.
pub(super) fn pin(
    request: &BuildRequest<'_>,
    config: &Config,
    store: &Store,
    progress: &dyn Progress,
) -> Result<BTreeMap<usize, Layout>, BuildError> {
    let (mut numbers, mut uses) = (Vec::new(), Vec::new());
    for (index, volume) in config.volumes.iter().enumerate() {
        if let Some(reference) = volume.image.clone().filter(|_| volume.format == VolumeFormat::Oci) {
            let place = format!("{}: {}", volume.place, Role::Volume(index));
            numbers.push(index);
            uses.push(LayoutUse { image: ImageUse { reference, place }, platforms: volume.platforms.clone() });
        }
    }
    let options = PullOptions { cancel: request.cancel.clone(), ..request.pull.clone() };
    let layouts = plan::pin_layouts(&uses, &Platform::linux(&request.architecture), store, &options, progress)?;
    Ok(numbers.into_iter().zip(layouts).collect())
}

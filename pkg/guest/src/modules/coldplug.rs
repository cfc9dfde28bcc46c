//! Drivers for the devices that were there before PID 1 was.

use std::collections::BTreeSet;
use std::fs;

use crate::netlink::Uevents;

use super::load::{LoadError, Loader};

/// Rounds in which the modules of one round make devices appear for the next: bus, controller, disk and so on.
const ROUND_LIMIT: usize = 8;

/// Loads drivers for all devices on all buses, and for those that appear by that. `names` are loaded as well.
/// `uevents` must have been opened before, so that no device is missed. Returns how many modules were added and
/// what failed.
///
/// # Errors
/// [`LoadError::Index`].
pub fn coldplug(
    loader: &mut Loader,
    uevents: Option<&mut Uevents>,
    names: &[&str],
) -> Result<(usize, Vec<LoadError>), LoadError> {
    let present = present();
    let first: Vec<&str> = names.iter().copied().chain(present.iter().map(String::as_str)).collect();
    let (mut added, mut failures) = loader.load(&first)?;
    let Some(uevents) = uevents else { return Ok((added, failures)) };
    for _ in 0..ROUND_LIMIT {
        let mut fresh = BTreeSet::new();
        while let Ok(Some(event)) = uevents.receive() {
            fresh.extend(event.modalias.filter(|_| event.action == "add"));
        }
        fresh.retain(|modalias| !present.contains(modalias));
        if fresh.is_empty() {
            break;
        }
        let fresh: Vec<&str> = fresh.iter().map(String::as_str).collect();
        let (more, failed) = loader.load(&fresh)?;
        added += more;
        failures.extend(failed);
        if more == 0 {
            break;
        }
    }
    Ok((added, failures))
}

fn present() -> BTreeSet<String> {
    let entries = |folder: &str| fs::read_dir(folder).into_iter().flatten().flatten();
    entries("/sys/bus")
        .flat_map(|bus| fs::read_dir(bus.path().join("devices")).into_iter().flatten().flatten())
        .filter_map(|device| fs::read_to_string(device.path().join("modalias")).ok())
        .map(|text| text.trim_end().to_owned())
        .filter(|text| !text.is_empty())
        .collect()
}

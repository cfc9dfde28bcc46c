//! Volumes: trees that several containers share.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use kiln_guest::mount::{Options, mount};

use super::prepare::PrepareError;

/// As the build makes the folder of a volume.
const BLANK_MODE: u32 = 0o755;

/// Mounts all volumes below `folder` (`NAME/{lower,tmp,merged}`): writable where the build left a `tmp`, else read-only.
/// A volume that fails does not keep the others away; returns what failed.
pub fn mount_volumes(folder: &Path) -> Vec<(String, PrepareError)> {
    let mut names: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    names.sort();
    let mut failures = Vec::new();
    for volume in names.iter().filter(|path| path.join("lower").is_dir() && path.join("merged").is_dir()) {
        if let Err(error) = mount_volume(volume) {
            failures.push((volume.display().to_string(), error));
        }
    }
    failures
}

fn is_blank(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}

fn mount_volume(volume: &Path) -> Result<(), PrepareError> {
    let (lower, merged, temporary) = (volume.join("lower"), volume.join("merged"), volume.join("tmp"));
    if !temporary.is_dir() {
        let options = Options::parse(["bind", "ro"]);
        return Ok(mount("", &lower.to_string_lossy(), &merged, &options)?);
    }
    mount("tmpfs", "tmpfs", &temporary, &Options::parse(["nodev"]))?;
    let (upper, work) = (temporary.join("upper"), temporary.join("work"));
    for path in [&upper, &work] {
        fs::create_dir_all(path).map_err(|source| PrepareError::Make { path: path.clone(), source })?;
    }
    if is_blank(&lower) {
        // Nothing to lay over: then it is no overlay, so that container engines can have theirs on it.
        let mode = fs::metadata(&lower).map_or(BLANK_MODE, |meta| meta.permissions().mode());
        fs::set_permissions(&upper, Permissions::from_mode(mode))
            .map_err(|source| PrepareError::Make { path: upper.clone(), source })?;
        return Ok(mount("", &upper.to_string_lossy(), &merged, &Options::parse(["bind"]))?);
    }
    let data = format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
    Ok(mount("overlay", "overlay", &merged, &Options::parse([data]))?)
}

//! Volumes: trees that several containers share.

use std::fs;
use std::path::Path;

use kiln_guest::mount::{Options, mount};

use super::prepare::PrepareError;

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
    let data = format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
    Ok(mount("overlay", "overlay", &merged, &Options::parse([data]))?)
}

//! Binds: where they come from and go to is looked at before the runtime does, which says only that it failed.

use std::path::{Path, PathBuf};

use kiln_abi::Mount;
use pathrs::Root;
use rustix::fs::StatVfsMountFlags;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::BundleError;

/// Programs whose place this init takes. LinuxKit's images with a shell bind them for their users; no machine has them.
const REPLACED: [&str; 3] = ["/usr/bin/containerd", "/usr/bin/ctr", "/usr/bin/runc"];

/// Leaves out binds of [`REPLACED`] programs that are not there; any other source must be.
pub fn check(config: &mut Map<String, Value>) -> Result<(), BundleError> {
    check_but(&REPLACED, config)
}

fn check_but(replaced: &[&str], config: &mut Map<String, Value>) -> Result<(), BundleError> {
    let Some(mounts) = config.get_mut("mounts").and_then(Value::as_array_mut) else { return Ok(()) };
    let mut missing = None;
    mounts.retain(|value| {
        // What is no mount is the runtime's to refuse.
        let Ok(entry) = Mount::deserialize(value) else { return true };
        if !is_bind(&entry) || Path::new(&entry.source).exists() {
            return true;
        }
        let replaced = replaced.contains(&entry.source.as_str());
        if !replaced && missing.is_none() {
            missing = Some(entry);
        }
        !replaced
    });
    missing.map_or(Ok(()), |entry| {
        Err(BundleError::NoSource { path: PathBuf::from(entry.source), destination: PathBuf::from(entry.destination) })
    })
}

/// In a root that nobody can write to, what something is mounted on must be there; below an earlier mount it may be made.
/// `root.path` is absolute by now.
pub fn check_targets(config: &Map<String, Value>) -> Result<(), BundleError> {
    let root = config.get("root").and_then(|root| root.get("path")).and_then(Value::as_str).unwrap_or_default();
    let is_read_only = rustix::fs::statvfs(root).is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY));
    // What cannot be looked at is the runtime's to refuse.
    match Root::open(root) {
        Ok(root) if is_read_only => check_targets_in(&root, config),
        _ => Ok(()),
    }
}

fn check_targets_in(root: &Root, config: &Map<String, Value>) -> Result<(), BundleError> {
    let mounts = config.get("mounts").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut covered: Vec<PathBuf> = Vec::new();
    for entry in mounts.iter().filter_map(|value| Mount::deserialize(value).ok()) {
        let destination = PathBuf::from(&entry.destination);
        if !covered.iter().any(|above| destination.starts_with(above)) && root.resolve(&destination).is_err() {
            return Err(BundleError::NoTarget { destination });
        }
        covered.push(destination);
    }
    Ok(())
}

/// Whether it shows a tree that is there already.
pub fn is_bind(entry: &Mount) -> bool {
    entry.kind == "bind" || entry.options.iter().any(|option| option == "bind" || option == "rbind")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn checked(mounts: Value) -> Result<Value, BundleError> {
        let mut config = json!({"mounts": mounts});
        check_but(&["/nowhere/ctr"], config.as_object_mut().unwrap())?;
        Ok(config["mounts"].take())
    }

    #[test]
    fn a_missing_source_is_named_and_one_that_this_init_replaces_is_left_out() {
        let missing = json!({"destination": "/data", "type": "bind", "source": "/nowhere/data"});
        let error = checked(json!([missing])).unwrap_err().to_string();
        assert!(error.contains("`/nowhere/data`") && error.contains("`/data`"), "{error}");
        let program = json!({"destination": "/usr/bin/ctr", "type": "bind", "source": "/nowhere/ctr"});
        let there = json!({"destination": "/x", "source": "/", "options": ["rbind"]});
        assert_eq!(checked(json!([program, there])).unwrap(), json!([there]));
    }

    #[test]
    fn what_is_mounted_on_must_be_in_a_read_only_root_or_below_a_mount() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("run")).unwrap();
        let checked = |destinations: &[&str]| {
            let mounts: Vec<Value> = destinations.iter().map(|path| json!({"destination": path})).collect();
            let config = json!({"mounts": mounts});
            check_targets_in(&Root::open(folder.path()).unwrap(), config.as_object().unwrap())
        };
        checked(&["/run", "/run/not/there"]).unwrap();
        let error = checked(&["/run", "/etc/app.conf"]).unwrap_err().to_string();
        assert!(error.contains("`/etc/app.conf`"), "{error}");
        assert!(checked(&["/run/not/there", "/run"]).is_err());
    }

    #[test]
    fn the_source_of_a_file_system_is_no_path() {
        let mounts = json!([{"destination": "/scratch", "type": "tmpfs", "source": "anything"}, 7]);
        assert_eq!(checked(mounts.clone()).unwrap(), mounts);
    }
}

//! Sources of binds: looked at before the runtime does, which says only that it failed.

use std::path::{Path, PathBuf};

use kiln_abi::Mount;
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
    fn the_source_of_a_file_system_is_no_path() {
        let mounts = json!([{"destination": "/scratch", "type": "tmpfs", "source": "anything"}, 7]);
        assert_eq!(checked(mounts.clone()).unwrap(), mounts);
    }
}

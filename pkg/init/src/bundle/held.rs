//! Mounts that are held back from the runtime, and made by a hook just before the container's root becomes `/`.
//!
//! The runtime fills `/dev` with nodes and links after its mounts, whatever is mounted there: with the machine's own
//! `/dev` bound it fails at the first one, or replaces the machine's. So it gets an empty file system to fill, and the
//! bind comes over it. What belongs below a bind of `/dev` or `/sys` is mounted there by the same hook, where it cannot
//! come back to the machine: not even with a shared `rootfsPropagation`.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use kiln_abi::Mount;
use kiln_guest::mount::{Options, mount, propagate, unmount};
use pathrs::Root;
use pathrs::flags::OpenFlags;
use rustix::mount::{MountFlags, MountPropagationFlags};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::binds::is_bind;
use super::prepare::PrepareError;
use super::{BundleError, read_json};

const FILE: &str = "held-mounts.json";
/// Kernel trees of which only one exists: what a container mounts in them must stay in the container.
const TREES: [&str; 2] = ["/dev", "/sys"];

/// What the hook has to do.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The container's root, seen from the machine.
    rootfs: PathBuf,
    /// In order.
    mounts: Vec<Mount>,
}

impl Held {
    /// Takes the mounts out of the runtime's `config` and puts the hook in; `rootfs` in it is absolute by now.
    pub fn take(config: &mut Map<String, Value>, state: &Path) -> Self {
        let rootfs = config.get("root").and_then(|root| root.get("path")).and_then(Value::as_str).unwrap_or_default();
        let mut held = Self { rootfs: PathBuf::from(rootfs), mounts: Vec::new() };
        if let Some(mounts) = config.get_mut("mounts").and_then(Value::as_array_mut) {
            mounts.retain_mut(|value| held.leaves(value));
        }
        if !held.mounts.is_empty() {
            let hook = json!({"path": "/proc/self/exe", "args": [crate::BUNDLE_PROGRAM, "mount", state]});
            let hooks = config.entry("hooks").or_insert(Value::Null);
            if !hooks.is_object() {
                *hooks = json!({});
            }
            match hooks.get_mut("createContainer").and_then(Value::as_array_mut) {
                Some(others) => others.insert(0, hook),
                None => hooks["createContainer"] = json!([hook]),
            }
        }
        held
    }

    /// Whether the runtime keeps this mount, perhaps changed.
    fn leaves(&mut self, value: &mut Value) -> bool {
        // What is no mount is the runtime's to refuse.
        let Ok(mut entry) = Mount::deserialize(&*value) else { return true };
        let destination = clean(Path::new(&entry.destination));
        let below_held = self.mounts.iter().any(|held| destination.starts_with(&held.destination));
        let is_tree = TREES.iter().any(|tree| destination == Path::new(tree));
        if !below_held && !(is_bind(&entry) && (is_tree || destination.starts_with("/dev"))) {
            return true;
        }
        entry.destination = destination.to_string_lossy().into_owned();
        if entry.kind == "cgroup" {
            // What the runtime makes of it is the machine's tree, too.
            entry.kind = "bind".to_owned();
            entry.source = "/sys/fs/cgroup".to_owned();
            entry.options.insert(0, "rbind".to_owned());
        }
        let replaced = destination == Path::new("/dev");
        if replaced {
            *value = json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]});
        }
        self.mounts.push(entry);
        replaced
    }

    /// Leaves it for the hook.
    pub fn write(&self, state: &Path) -> Result<(), BundleError> {
        let path = state.join(FILE);
        let bytes = serde_json::to_vec(self).map_err(|source| BundleError::Json { path: path.clone(), source })?;
        fs::write(&path, bytes).map_err(|source| BundleError::Write { path, source })
    }
}

/// The hook: runs in the container's mount namespace while `/` is still the machine's.
pub fn mount_held(state: &Path) -> Result<(), BundleError> {
    let held: Held = read_json(&state.join(FILE))?;
    for entry in &held.mounts {
        apply(entry, &held.rootfs)?;
    }
    Ok(())
}

fn apply(entry: &Mount, rootfs: &Path) -> Result<(), PrepareError> {
    let destination = Path::new(&entry.destination);
    let is_tree = TREES.iter().any(|tree| destination == Path::new(tree));
    let target = make_target(entry, rootfs)?;
    if destination == Path::new("/dev") {
        // What the runtime filled.
        unmount(&target).map_err(|source| PrepareError::Make { path: target.clone(), source })?;
    }
    let mut options = Options::parse(&entry.options);
    if is_bind(entry) {
        options.flags |= MountFlags::BIND;
    }
    let asked = options.propagation.take();
    mount(&entry.kind, &entry.source, &target, &options)?;
    if is_tree {
        // No peer of the machine's any more: what is mounted below stays here, what the machine mounts still comes.
        propagate(&target, MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    }
    if let Some(asked) = asked {
        propagate(&target, asked)?;
    }
    Ok(())
}

/// Makes what is to be mounted on unless it is there, and follows links without leaving the container's root.
fn make_target(entry: &Mount, rootfs: &Path) -> Result<PathBuf, PrepareError> {
    let path = rootfs.join(entry.destination.trim_start_matches('/'));
    let fail = |source: io::Error| PrepareError::Make { path: path.clone(), source };
    let inside = |error: pathrs::error::Error| fail(io::Error::other(error));
    let root = Root::open(rootfs).map_err(inside)?;
    let is_file = is_bind(entry) && !fs::metadata(&entry.source).map_err(fail)?.is_dir();
    if root.resolve(&entry.destination).is_err() {
        let folder_mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        let file_mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        if is_file {
            let parent = Path::new(&entry.destination).parent().unwrap_or(Path::new("/"));
            root.mkdir_all(parent, &folder_mode).map_err(inside)?;
            let flags = OpenFlags::O_CREAT | OpenFlags::O_EXCL | OpenFlags::O_CLOEXEC;
            root.create_file(&entry.destination, flags, &file_mode).map_err(inside)?;
        } else {
            root.mkdir_all(&entry.destination, &folder_mode).map_err(inside)?;
        }
    }
    let resolved = root.resolve(&entry.destination).map_err(inside)?;
    fs::read_link(crate::descriptor_path(&resolved)).map_err(fail)
}

/// The path without `.`, `..`, and slashes too many.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(mounts: Value) -> (Value, Vec<String>) {
        let mut config = json!({"root": {"path": "/c/rootfs"}, "mounts": mounts});
        let held = Held::take(config.as_object_mut().unwrap(), Path::new("/state"));
        assert_eq!(held.rootfs, Path::new("/c/rootfs"));
        (config, held.mounts.into_iter().map(|entry| entry.destination).collect())
    }

    fn bind(path: &str) -> Value {
        json!({"destination": path, "type": "bind", "source": path, "options": ["rw", "rbind", "rshared"]})
    }

    fn file_system(path: &str, kind: &str) -> Value {
        json!({"destination": path, "type": kind, "source": kind, "options": ["nosuid"]})
    }

    fn destinations(config: &Value) -> Vec<&str> {
        config["mounts"].as_array().unwrap().iter().map(|entry| entry["destination"].as_str().unwrap()).collect()
    }

    #[test]
    fn the_machines_dev_is_never_given_to_the_runtime_however_it_is_spelled() {
        for path in ["/dev", "/dev/", "//dev", "/./dev", "/run/../dev"] {
            let (config, held) = taken(json!([bind(path), file_system("/dev/pts", "devpts"), bind("/run")]));
            assert_eq!(held, ["/dev", "/dev/pts"], "{path}");
            assert_eq!(destinations(&config), ["/dev", "/run"], "{path}");
            assert_eq!(config["mounts"][0]["type"], "tmpfs", "{path}");
        }
    }

    #[test]
    fn the_hook_comes_before_those_of_the_bundle_and_only_when_something_is_held() {
        let mut config = json!({"mounts": [bind("/dev")], "hooks": {"createContainer": [{"path": "/own"}]}});
        Held::take(config.as_object_mut().unwrap(), Path::new("/state"));
        let hooks = config["hooks"]["createContainer"].as_array().unwrap();
        assert_eq!(hooks[0], json!({"path": "/proc/self/exe", "args": ["kiln-bundle", "mount", "/state"]}));
        assert_eq!(hooks[1]["path"], "/own");
        let mut config = json!({"mounts": [bind("/run")]});
        assert_eq!(Held::take(config.as_object_mut().unwrap(), Path::new("/state")), Held::default());
        assert_eq!(config, json!({"mounts": [bind("/run")]}));
    }

    #[test]
    fn a_container_with_a_dev_of_its_own_keeps_it_and_gets_single_nodes_over_it() {
        let own = [file_system("/dev", "tmpfs"), bind("/dev/null"), file_system("/dev/pts", "devpts")];
        let (config, held) = taken(json!(own));
        assert_eq!(held, ["/dev/null"]);
        assert_eq!(destinations(&config), ["/dev", "/dev/pts"]);
    }

    #[test]
    fn folders_with_similar_names_and_file_systems_of_its_own_are_the_runtimes() {
        let mounts = json!([bind("/device"), bind("/hostroot/dev"), bind("/rootfs"), file_system("/sys", "sysfs")]);
        let (config, held) = taken(mounts.clone());
        assert_eq!((&config["mounts"], held.len()), (&mounts, 0));
    }

    #[test]
    fn groups_below_the_machines_sys_are_bound_there() {
        let mut config =
            json!({"root": {"path": "/c"}, "mounts": [bind("/sys"), file_system("/sys/fs/cgroup", "cgroup")]});
        let held = Held::take(config.as_object_mut().unwrap(), Path::new("/state"));
        assert_eq!(config["mounts"], json!([]));
        assert_eq!(held.mounts[1].source, "/sys/fs/cgroup");
        assert!(is_bind(&held.mounts[1]));
    }

    #[test]
    fn a_link_in_the_image_cannot_lead_a_mount_out_of_the_container() {
        let folder = tempfile::tempdir().unwrap();
        let rootfs = folder.path().join("rootfs");
        fs::create_dir(&rootfs).unwrap();
        std::os::unix::fs::symlink("/../../outside", rootfs.join("dev")).unwrap();
        fs::create_dir(rootfs.join("outside")).unwrap();
        let entry = Mount { destination: "/dev".into(), kind: "bind".into(), source: "/".into(), ..Mount::default() };
        assert_eq!(make_target(&entry, &rootfs).unwrap(), rootfs.canonicalize().unwrap().join("outside"));
        let entry = Mount { destination: "/dev/node".into(), source: "/dev/null".into(), ..entry };
        assert_eq!(make_target(&entry, &rootfs).unwrap(), rootfs.canonicalize().unwrap().join("outside/node"));
        assert!(rootfs.join("outside/node").is_file());
    }
}

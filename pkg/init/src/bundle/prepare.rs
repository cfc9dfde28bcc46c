//! `runtime.json`: what is done before the container is created and before it starts.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use kiln_abi::{BUNDLE_PREPARE, BindNamespaces, Mount, Prepare};
use kiln_guest::mount::{MountError, Options, mount, unmount};

use super::interfaces::{self, InterfaceError};
use super::{BundleError, read_json};

/// Something around the runtime that did not work.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// A folder or file that a mount or bind needs.
    #[error("cannot make `{}`", path.display())]
    Make {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A mount.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// A network interface.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
}

/// Reads a bundle's `runtime.json`; without one there is nothing to do.
pub fn read(bundle: &Path) -> Result<Prepare, BundleError> {
    match read_json(&bundle.join(BUNDLE_PREPARE)) {
        Err(BundleError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(Prepare::default()),
        result => result,
    }
}

/// Mounts, folders and groups, in this order.
pub fn before_create(prepare: &Prepare, rootfs: &Path) -> Result<(), PrepareError> {
    for entry in &prepare.mounts {
        apply(entry, rootfs)?;
    }
    for folder in &prepare.mkdir {
        make(&below(rootfs, folder))?;
    }
    for group in &prepare.cgroups {
        for hierarchy in hierarchies() {
            make(&below(&hierarchy, group.trim_start_matches('/')))?;
        }
    }
    Ok(())
}

fn apply(entry: &Mount, rootfs: &Path) -> Result<(), PrepareError> {
    let options = Options::parse(&entry.options);
    let target = below(rootfs, &entry.destination);
    make(&target)?;
    for key in ["upperdir", "workdir"] {
        for folder in options.data_values(key) {
            make(Path::new(folder))?;
        }
    }
    Ok(mount(&entry.kind, &entry.source, &target, &options)?)
}

/// Network interfaces, and places for namespaces.
pub fn after_create(prepare: &Prepare, pid: u32) -> Result<(), PrepareError> {
    for interface in &prepare.interfaces {
        interfaces::give(interface, pid)?;
    }
    for (namespace, path) in namespaces(&prepare.bind_ns) {
        let path = Path::new(path);
        if let Some(folder) = path.parent() {
            make(folder)?;
        }
        // The one of the process before a restart. There it is not even possible to make the file anew.
        let _ = unmount(path);
        File::create(path).map_err(|source| PrepareError::Make { path: path.to_owned(), source })?;
        mount("", &format!("/proc/{pid}/ns/{namespace}"), path, &Options::parse(["bind"]))?;
    }
    Ok(())
}

/// Unmounts what [`before_create`] mounted in the bundle's folder, last first. What is not mounted any more is passed over.
pub fn undo(prepare: &Prepare, bundle: &Path) {
    for target in own_mounts(prepare, bundle) {
        let _ = unmount(&target);
    }
}

/// Mounts elsewhere stay: an onboot container may have been there only to make them.
fn own_mounts(prepare: &Prepare, bundle: &Path) -> Vec<PathBuf> {
    let rootfs = bundle.join("rootfs");
    let mounted = prepare.mounts.iter().rev().filter(|entry| {
        let options = Options::parse(&entry.options);
        !options.remount && (options.propagation.is_none() || !entry.kind.is_empty())
    });
    mounted.map(|entry| below(&rootfs, &entry.destination)).filter(|target| target.starts_with(bundle)).collect()
}

fn namespaces(paths: &BindNamespaces) -> impl Iterator<Item = (&'static str, &str)> {
    [
        ("cgroup", &paths.cgroup),
        ("ipc", &paths.ipc),
        ("mnt", &paths.mnt),
        ("net", &paths.net),
        ("pid", &paths.pid),
        ("user", &paths.user),
        ("uts", &paths.uts),
    ]
    .into_iter()
    .filter(|(_, path)| !path.is_empty())
    .map(|(namespace, path)| (namespace, path.as_str()))
}

/// Version 2 has one hierarchy, version 1 a folder for each.
fn hierarchies() -> Vec<PathBuf> {
    let top = PathBuf::from("/sys/fs/cgroup");
    if top.join("cgroup.controllers").exists() {
        return vec![top];
    }
    fs::read_dir(&top).into_iter().flatten().flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

fn below(top: &Path, path: &str) -> PathBuf {
    // `join` takes an absolute path as it is.
    top.join(path)
}

fn make(path: &Path) -> Result<(), PrepareError> {
    fs::create_dir_all(path).map_err(|source| PrepareError::Make { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_without_runtime_json_needs_nothing_and_a_broken_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path()).unwrap(), Prepare::default());
        fs::write(folder.path().join("runtime.json"), "{").unwrap();
        let error = read(folder.path()).unwrap_err();
        assert!(error.to_string().contains("runtime.json"), "{error}");
    }

    #[test]
    fn what_is_mounted_outside_of_the_bundle_stays() {
        let bundle = "/containers/onboot/000-a";
        let mounts = serde_json::json!({"mounts": [
            {"destination": format!("{bundle}/tmp"), "type": "tmpfs"},
            {"destination": format!("{bundle}/tmp"), "options": ["remount", "private"]},
            {"destination": format!("{bundle}/rootfs"), "type": "overlay"},
            {"destination": "run/inside", "type": "tmpfs"},
            {"destination": "/var/scratch", "type": "tmpfs"},
            {"destination": format!("{bundle}0/rootfs"), "type": "tmpfs"},
        ]});
        let prepare: Prepare = serde_json::from_value(mounts).unwrap();
        let own = own_mounts(&prepare, Path::new(bundle));
        let expected = ["rootfs/run/inside", "rootfs", "tmp"].map(|path| Path::new(bundle).join(path));
        assert_eq!(own, expected);
    }

    #[test]
    fn folders_are_made_below_the_root_unless_they_are_absolute() {
        let folder = tempfile::tempdir().unwrap();
        let (rootfs, other) = (folder.path().join("rootfs"), folder.path().join("other/deep"));
        let mkdir = vec!["inside/deep".to_owned(), other.to_string_lossy().into_owned()];
        before_create(&Prepare { mkdir, ..Prepare::default() }, &rootfs).unwrap();
        assert!(rootfs.join("inside/deep").is_dir() && other.is_dir());
    }
}

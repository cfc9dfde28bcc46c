//! Containers to OCI runtime bundles: a container of the configuration, its image's configuration and label become
//! `config.json` (OCI runtime specification 1.2.1) and `runtime.json` (what the guest's init does around it).
//! Pure: nothing is read or written here.
//!
//! What a root needs for each [`Bundle`], all directories with mode 0755 and owner 0:0:
//!
//! | [`Root`] | members of `dir` |
//! | --- | --- |
//! | `Own`, writable | `lower/` with the image's tree, `tmp/` (empty), `rootfs/` (empty), `config.json`, `runtime.json` |
//! | `Own`, read-only | `rootfs/` with the image's tree, `config.json`, `runtime.json` |
//! | `Shared`, writable | `tmp/` (empty), `rootfs/` (empty), `config.json`, `runtime.json` |
//! | `Shared`, read-only | `rootfs/` (empty), `config.json`, `runtime.json` |
//!
//! Both JSON files have mode 0644. The parents `containers` and `containers/onboot` (…) are directories of mode 0755 as
//! well. `lower/tmp/upper` and `tmp/work` are made by the guest's init. A volume `NAME` of the configuration has
//! `containers/volumes/NAME/{lower,tmp,merged}`, of which `lower` holds the image; containers see `merged`.

mod document;
mod linuxkit;
mod service;
mod settle;
mod spec;
#[cfg(test)]
mod tests;
mod user;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;

use serde::Serialize;

use crate::compat::Compat;
use crate::config::{Config, ConfigError, ContainerOptions, LABEL, Place, Role, parse_label};
use crate::oci::Image;

pub use user::ImageFiles;

/// One container, ready to be laid out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// What the container is.
    pub role: Role,
    /// The image's reference as it is written: what [`bundles`] asked for it by.
    pub image: String,
    /// Directory in the root, without a slash in front: `containers/onboot/000-name`, `containers/services/name`.
    pub dir: String,
    /// Content of `config.json`.
    pub config_json: Vec<u8>,
    /// Content of `runtime.json`.
    pub runtime_json: Vec<u8>,
    /// Where the container's files are.
    pub root: Root,
    /// Whether the container may write to its root.
    pub access: Access,
    /// Whether the user of its process is still to be looked up in the image: see [`bundles_with_users`].
    pub needs_user: bool,
}

/// Where a container's files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// The image is unpacked into this directory, the bundle's `lower` or `rootfs`.
    Own {
        /// Path in the root, without a slash in front.
        tree: String,
    },
    /// An earlier container has unpacked the same image.
    Shared {
        /// That one's tree: path in the root, without a slash in front.
        tree: String,
    },
}

/// Whether a container may write to its root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It writes to a memory file system that lies over the image's files.
    Writable,
    /// It does not.
    ReadOnly,
}

/// Why a container cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The image's label is wrong.
    #[error("cannot use the defaults of image `{image}`")]
    Label {
        /// Reference as it is written.
        image: String,
        /// What is wrong with the label, and where.
        #[source]
        source: Box<ConfigError>,
    },
    /// An image of the configuration was not read.
    #[error("image `{image}` was not resolved\n{}", place.excerpt())]
    NoImage {
        /// Reference as it is written.
        image: String,
        /// Where.
        place: Place,
    },
    /// An id that is no number and no container's name.
    #[error("{field} `{name}` of {role} is no container's name; for a number write it without quotes\n{}", place.excerpt())]
    UnknownId {
        /// `uid`, `gid` or `additionalGids`.
        field: &'static str,
        /// The name.
        name: String,
        /// The container.
        role: Role,
        /// Where the container is written.
        place: Place,
    },
    /// A bind or mount of a volume that does not exist.
    #[error("{role} uses volume `{volume}`, which `volumes` does not have; a host path begins with `/`\n{}", place.excerpt())]
    UnknownVolume {
        /// The name.
        volume: String,
        /// The container.
        role: Role,
        /// Where the container is written.
        place: Place,
    },
    /// A read-only volume that is bound writable.
    #[error("{role} would write to volume `{volume}`, which is read-only; make `ro` the first option\n{}", place.excerpt())]
    ReadOnlyVolume {
        /// The name.
        volume: String,
        /// The container.
        role: Role,
        /// Where the container is written.
        place: Place,
    },
    /// A user or group that the image does not have.
    #[error("cannot run image `{image}`: {missing}\n{}", place.excerpt())]
    UnknownUser {
        /// What is not where.
        missing: String,
        /// Reference as it is written.
        image: String,
        /// Where the container is written.
        place: Place,
    },
    /// The image's list of users cannot be read.
    #[error("cannot read `{path}` of image `{image}`")]
    UserFile {
        /// Path in the image.
        path: &'static str,
        /// Reference as it is written.
        image: String,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// `stopSignal: image`, and the image names something else.
    #[error("image `{image}` names the stop signal `{signal}`, which is none; write it with `stopSignal`\n{}", place.excerpt())]
    StopSignal {
        /// Reference as it is written.
        image: String,
        /// What it names.
        signal: String,
        /// Where the container is written.
        place: Place,
    },
    /// A document could not be written as JSON.
    #[error("cannot write the bundle of {role} as JSON")]
    Json {
        /// The container.
        role: Role,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// The bundles of all containers, in the order onboot, onshutdown, services. `image` finds an image by its reference as
/// it is written. A user that only the image's files tell is root for the time being, and its bundle says so.
///
/// # Errors
/// See [`BundleError`].
pub fn bundles<'i>(
    config: &Config,
    manner: &Manner,
    image: impl Fn(&str) -> Option<&'i Image>,
) -> Result<Vec<Bundle>, BundleError> {
    make(config, manner, image, None)
}

/// As [`bundles`], with every user: `files` reads `etc/passwd` and `etc/group` of an image.
///
/// # Errors
/// See [`BundleError`].
pub fn bundles_with_users<'i>(
    config: &Config,
    manner: &Manner,
    image: impl Fn(&str) -> Option<&'i Image>,
    files: &ImageFiles<'_>,
) -> Result<Vec<Bundle>, BundleError> {
    make(config, manner, image, Some(files))
}

/// Whose ways are followed.
#[derive(Debug, Clone, Default)]
pub struct Manner {
    /// Whose result is wanted.
    pub compat: Compat,
    /// Containers whose root is not shared with later ones.
    pub alone: BTreeSet<Role>,
    /// Number of the first volume that containers may use.
    pub first_volume: usize,
}

fn make<'i>(
    config: &Config,
    manner: &Manner,
    image: impl Fn(&str) -> Option<&'i Image>,
    files: Option<&ImageFiles<'_>>,
) -> Result<Vec<Bundle>, BundleError> {
    // By full reference, so that two spellings of one image share as well.
    let mut trees: BTreeMap<&str, String> = BTreeMap::new();
    let mut all = Vec::new();
    for (role, container) in config.containers() {
        let (written, place) = (&container.image, || container.place.clone());
        let found = image(written).ok_or_else(|| BundleError::NoImage { image: written.clone(), place: place() })?;
        let mut options = settle::settled(&container.options, label(written, found)?, &found.config);
        if manner.compat.is_linuxkit() {
            linuxkit::drop_what_is_lost(&mut options);
        }
        let access = if options.readonly.unwrap_or_default() { Access::ReadOnly } else { Access::Writable };
        let dir = dir(role, &container.name);
        let root = match trees.get(found.reference.as_str()) {
            Some(tree) => Root::Shared { tree: tree.clone() },
            None => {
                let tree = format!("{dir}/{}", if access == Access::ReadOnly { "rootfs" } else { "lower" });
                if !manner.alone.contains(&role) {
                    trees.insert(&found.reference, tree.clone());
                }
                Root::Own { tree }
            }
        };
        let runtime = document::runtime(&dir, &root, access, options.runtime.take().unwrap_or_default());
        let needs_user = files.is_none() && user::needs_files(&options, found);
        let spec = document::Subject { config, container, role, manner }.spec(options, access, found, files)?;
        let json = |source| BundleError::Json { role, source };
        all.push(Bundle {
            role,
            image: written.clone(),
            config_json: go_json(&spec).map_err(json)?,
            runtime_json: go_json(&runtime).map_err(json)?,
            dir,
            root,
            access,
            needs_user,
        });
    }
    Ok(all)
}

/// JSON as Go's library writes it with an indentation of four, so that files can be compared byte by byte with LinuxKit's.
fn go_json(document: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut text = Vec::new();
    let format = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    document.serialize(&mut serde_json::Serializer::with_formatter(&mut text, format))?;
    // These three stand in strings only.
    let mut bytes = Vec::with_capacity(text.len());
    for byte in text {
        match byte {
            b'<' => bytes.extend_from_slice(b"\\u003c"),
            b'>' => bytes.extend_from_slice(b"\\u003e"),
            b'&' => bytes.extend_from_slice(b"\\u0026"),
            byte => bytes.push(byte),
        }
    }
    Ok(bytes)
}

fn label(written: &str, image: &Image) -> Result<ContainerOptions, BundleError> {
    let Some(text) = image.config.labels.get(LABEL) else { return Ok(ContainerOptions::default()) };
    parse_label(text, written).map_err(|source| BundleError::Label { image: written.into(), source: Box::new(source) })
}

/// `containers/onboot/000-name`: the number keeps the order. Services have unique names and no order.
fn dir(role: Role, name: &str) -> String {
    match role {
        Role::Onboot(index) => format!("containers/onboot/{index:03}-{name}"),
        Role::Onshutdown(index) => format!("containers/onshutdown/{index:03}-{name}"),
        Role::Service(_) | Role::Kernel | Role::Init(_) | Role::Volume(_) => format!("containers/services/{name}"),
    }
}

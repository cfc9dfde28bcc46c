//! LinuxKit's YAML, read into [`Config`].
//!
//! Every fault is shown with file, line, column, the line itself and carets ([`ConfigError`]). What came in is checked
//! here, once: later rooms get values that cannot be wrong in themselves, and a [`Place`] for what only they can find out
//! (an image that does not exist). This room reads no file and asks no network: `@pkg:` references, included files and
//! values of variables come from callbacks.

mod capability;
mod check;
mod container;
mod decode;
mod error;
mod file;
mod kernel;
mod metadata;
mod mount;
mod nearest;
mod node;
mod order;
mod parse;
mod place;
mod read;
mod resources;
mod runtime;
mod schema;
mod service;
mod value;
mod variables;

pub use capability::Capability;
pub use container::{Container, ContainerOptions};
pub(crate) use decode::shown;
pub use error::{ConfigError, Fault};
pub use file::{FileContent, FileEntry, MetadataFormat, Volume, VolumeFormat};
pub use kernel::Kernel;
pub use mount::{Bind, Mount, TmpfsMount};
pub use parse::{MAX_TEXT_BYTES, PackageError, decode, merge, parse, parse_label};
pub use place::{Place, Source};
pub use read::{Environment, IncludeReader, PackageReader, ReadConfig, ReadOptions, UnknownVariable, YamlSource, read};
pub use resources::{
    BlockIo, Cpu, DeviceRule, HugepageLimit, Memory, Network, NetworkPriority, Pids, RdmaLimit, Resources,
    ThrottleDevice, WeightDevice,
};
pub use runtime::{Interface, MountFields, NamespacePaths, Runtime};
pub use schema::schema;
pub use service::{
    After, ReadyInterval, ReadyOptions, ReadyTimeout, Restart, RestartDelay, StopSignal, StopTimeout, User,
};
pub use value::{Device, DeviceKind, FileMode, Id, IdMapping, Namespace, Rlimit, ValueError};

#[cfg(test)]
mod tests;

use std::fmt;

/// The label of an image that holds defaults for its containers.
pub const LABEL: &str = "org.mobyproject.config";

/// One system to build.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Config {
    /// Kernel, its modules and command line.
    pub kernel: Kernel,
    /// Images that are unpacked into `/`, in this order.
    pub init: Vec<InitImage>,
    /// Containers that run one after another at boot.
    pub onboot: Vec<Container>,
    /// Containers that run one after another at shutdown.
    pub onshutdown: Vec<Container>,
    /// Containers that run side by side until shutdown. Their names are unique.
    pub services: Vec<Container>,
    /// Files that are written into the root.
    pub files: Vec<FileEntry>,
    /// Directories that containers share. Their names are unique.
    pub volumes: Vec<Volume>,
}

/// One image of `init`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitImage {
    /// The reference as it is written, or as `@pkg:` was resolved.
    pub image: String,
    /// Where it is written.
    pub place: Place,
}

/// Which part of a configuration an image is for. Shows as LinuxKit names it: `kernel`, `init[0]`, `services[2]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// The kernel's image.
    Kernel,
    /// The n-th image of `init`.
    Init(usize),
    /// The n-th volume.
    Volume(usize),
    /// The n-th container of `onboot`.
    Onboot(usize),
    /// The n-th container of `onshutdown`.
    Onshutdown(usize),
    /// The n-th service.
    Service(usize),
}

impl fmt::Display for Role {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel => out.write_str("kernel"),
            Self::Init(index) => write!(out, "init[{index}]"),
            Self::Volume(index) => write!(out, "volume[{index}]"),
            Self::Onboot(index) => write!(out, "onboot[{index}]"),
            Self::Onshutdown(index) => write!(out, "onshutdown[{index}]"),
            Self::Service(index) => write!(out, "services[{index}]"),
        }
    }
}

/// One mention of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageReference<'a> {
    /// The reference as it is written, or as `@pkg:` was resolved.
    pub reference: &'a str,
    /// What the image is for.
    pub role: Role,
    /// Where it is written.
    pub place: &'a Place,
}

impl Config {
    /// Every mention of an image, in the order of the root archive; the same reference as often as it is written.
    pub fn image_references(&self) -> Vec<ImageReference<'_>> {
        let mut all = Vec::new();
        if let (Some(reference), Some(place)) = (&self.kernel.image, &self.kernel.place) {
            all.push(ImageReference { reference, role: Role::Kernel, place });
        }
        for (index, entry) in self.init.iter().enumerate() {
            all.push(ImageReference { reference: &entry.image, role: Role::Init(index), place: &entry.place });
        }
        for (index, volume) in self.volumes.iter().enumerate() {
            if let Some(reference) = &volume.image {
                all.push(ImageReference { reference, role: Role::Volume(index), place: &volume.place });
            }
        }
        for (role, container) in self.containers() {
            all.push(ImageReference { reference: &container.image, role, place: &container.place });
        }
        all
    }

    /// Every container with its role, in the order that numbers them: onboot, onshutdown, services.
    pub fn containers(&self) -> impl Iterator<Item = (Role, &Container)> {
        let onboot = self.onboot.iter().enumerate().map(|(index, container)| (Role::Onboot(index), container));
        let down = self.onshutdown.iter().enumerate().map(|(index, container)| (Role::Onshutdown(index), container));
        let services = self.services.iter().enumerate().map(|(index, container)| (Role::Service(index), container));
        onboot.chain(down).chain(services)
    }

    /// The number behind `uid: NAME`: 100 for the first container, counted on over onboot, onshutdown and services.
    /// `root` and the empty name are 0. [`None`] if no container has this name; of several the last one counts.
    pub fn id_number(&self, id: &Id) -> Option<u32> {
        const FIRST: u32 = 100;
        let name = match id {
            Id::Number(number) => return Some(*number),
            Id::Name(name) if name.is_empty() || name == "root" => return Some(0),
            Id::Name(name) => name,
        };
        let (_, number) =
            self.containers().zip(FIRST..).filter(|((_, container), _)| container.name == *name).last()?;
        Some(number)
    }
}

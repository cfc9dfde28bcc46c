//! Settled options to the two documents of a bundle.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::spec::{
    Capabilities, Linux, OCI_VERSION, Process, RootFilesystem, Spec, SpecDevice, SpecMount, SpecNamespace, SpecRlimit,
};
use super::{Access, BundleError, ImageFiles, Manner, Root};
use crate::compat::Compat;
use crate::config::{
    Capability, Config, Container, ContainerOptions, Device, DeviceKind, DeviceRule, Id, Interface, MountFields,
    Namespace, NamespacePaths, Resources, Role, Runtime, shown,
};
use crate::oci::Image;

/// What is known about a container while its documents are made.
pub(super) struct Subject<'a> {
    pub config: &'a Config,
    pub container: &'a Container,
    pub role: Role,
    pub manner: &'a Manner,
}

impl Subject<'_> {
    pub fn is_service(&self) -> bool {
        matches!(self.role, Role::Service(_))
    }

    /// `config.json` of settled `options`.
    pub fn spec(
        &self,
        options: ContainerOptions,
        access: Access,
        image: &Image,
        files: Option<&ImageFiles<'_>>,
    ) -> Result<Spec, BundleError> {
        let mounts = self.mounts(&options, access)?;
        let annotations = self.annotations(&options, &image.config)?;
        let user = self.user(&options, image, files)?;
        let devices = options.devices.unwrap_or_default();
        let mut resources: Resources = options.resources.unwrap_or_default();
        resources.devices.extend(devices.iter().filter_map(device_rule));
        let limits = options.rlimits.unwrap_or_default().into_iter();
        Ok(Spec {
            oci_version: OCI_VERSION,
            process: Process {
                user,
                args: options.command.unwrap_or_default(),
                env: options.env.unwrap_or_default(),
                cwd: options.cwd.unwrap_or_else(|| "/".into()),
                capabilities: capabilities(
                    &options.capabilities.unwrap_or_default(),
                    &options.ambient.unwrap_or_default(),
                    self.manner.compat,
                ),
                rlimits: limits.map(|l| SpecRlimit { kind: l.name, hard: l.hard, soft: l.soft }).collect(),
                no_new_privileges: options.no_new_privileges.unwrap_or_default(),
                oom_score_adj: options.oom_score_adj,
            },
            root: RootFilesystem { path: "rootfs", readonly: access == Access::ReadOnly },
            hostname: options.hostname.unwrap_or_default(),
            mounts,
            annotations,
            linux: Linux {
                uid_mappings: options.uid_mappings.unwrap_or_default(),
                gid_mappings: options.gid_mappings.unwrap_or_default(),
                sysctl: options.sysctl.unwrap_or_default(),
                resources,
                cgroups_path: options.cgroups_path.unwrap_or_default(),
                namespaces: namespaces([
                    ("network", options.net.unwrap_or(Namespace::Host)),
                    ("ipc", options.ipc.unwrap_or(Namespace::Host)),
                    ("uts", options.uts.unwrap_or(Namespace::Host)),
                    ("pid", options.pid.unwrap_or(Namespace::New)),
                    ("user", options.userns.unwrap_or(Namespace::Host)),
                    ("mount", Namespace::New),
                ]),
                devices: devices.iter().filter_map(device_node).collect(),
                rootfs_propagation: options.rootfs_propagation.unwrap_or_default(),
                masked_paths: options.masked_paths.unwrap_or_default(),
                readonly_paths: options.readonly_paths.unwrap_or_default(),
            },
        })
    }

    pub fn id(&self, field: &'static str, id: &Id) -> Result<u32, BundleError> {
        self.config.id_number(id).ok_or_else(|| BundleError::UnknownId {
            field,
            name: match id {
                Id::Name(name) => shown(name),
                Id::Number(number) => number.to_string(),
            },
            role: self.role,
            place: self.container.place.clone(),
        })
    }

    /// Sorted by destination; the last one for a destination counts, in the order defaults, tmpfs, binds, mounts.
    fn mounts(&self, options: &ContainerOptions, access: Access) -> Result<Vec<SpecMount>, BundleError> {
        let mut mounts: BTreeMap<String, SpecMount> = BTreeMap::new();
        let mut add = |mount: SpecMount| mounts.insert(mount.destination.clone(), mount);
        for mount in default_mounts(access) {
            add(mount);
        }
        for tmpfs in options.tmpfs.iter().flatten() {
            let (kind, source) = ("tmpfs".to_owned(), "tmpfs".to_owned());
            let (destination, options) = (tmpfs.destination.clone(), tmpfs.options.clone());
            add(SpecMount { destination, kind, source, options, ..SpecMount::default() });
        }
        for bind in options.binds.iter().flatten() {
            let is_readonly = bind.options.first().is_some_and(|option| option == "ro");
            let source = self.bind_source(&bind.source, is_readonly)?;
            let mut options = bind.options.clone();
            if options.is_empty() {
                options.extend(["rw".into(), "rbind".into(), "rshared".into()]);
            } else {
                options.push("rbind".into());
            }
            let (destination, kind) = (bind.destination.clone(), "bind".into());
            add(SpecMount { destination, kind, source, options, ..SpecMount::default() });
        }
        for mount in options.mounts.iter().flatten() {
            let mount = mount.clone();
            let is_readonly = mount.options.iter().any(|option| option == "ro");
            let source = match mount.kind.as_str() {
                // LinuxKit looks, and leaves the name where a path should be.
                "bind" if self.manner.compat.is_linuxkit() => {
                    self.bind_source(&mount.source, is_readonly).map(|_| mount.source)?
                }
                "bind" => self.bind_source(&mount.source, is_readonly)?,
                _ => mount.source,
            };
            add(SpecMount {
                destination: mount.destination,
                kind: mount.kind,
                source,
                options: mount.options,
                uid_mappings: mount.uid_mappings,
                gid_mappings: mount.gid_mappings,
            });
        }
        Ok(mounts.into_values().collect())
    }

    /// A path stays as it is; a volume's name becomes the path of its tree.
    fn bind_source(&self, source: &str, is_readonly: bool) -> Result<String, BundleError> {
        if source.starts_with('/') {
            return Ok(source.into());
        }
        let (role, place) = (self.role, || self.container.place.clone());
        let Some(volume) =
            self.config.volumes.iter().skip(self.manner.first_volume).find(|volume| volume.name == source)
        else {
            return Err(BundleError::UnknownVolume { volume: shown(source), role, place: place() });
        };
        if volume.readonly && !is_readonly {
            return Err(BundleError::ReadOnlyVolume { volume: shown(source), role, place: place() });
        }
        Ok(format!("/{}/merged", volume.dir()))
    }
}

/// What every container sees. No `/dev/shm` and no message queues: who wants them mounts them.
fn default_mounts(access: Access) -> [SpecMount; 5] {
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| SpecMount {
        destination: destination.into(),
        kind: kind.into(),
        source: source.into(),
        options: options.iter().map(|&option| option.to_owned()).collect(),
        ..SpecMount::default()
    };
    let mut dev = mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]);
    let mut sys = mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev"]);
    if access == Access::ReadOnly {
        dev.options.push("ro".into());
        sys.options.push("ro".into());
    }
    [
        dev,
        mount("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
        mount("/proc", "proc", "proc", &["nosuid", "nodev", "noexec", "relatime"]),
        sys,
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
    ]
}

fn capabilities(wanted: &[Capability], ambient: &[Capability], compat: Compat) -> Capabilities {
    let names = |list: &[Capability]| list.iter().flat_map(Capability::names).copied().collect::<Vec<_>>();
    let (wanted, ambient) = (names(wanted), names(ambient));
    let every: BTreeSet<&'static str> = wanted.iter().chain(&ambient).copied().collect();
    let every: Vec<&'static str> = every.into_iter().collect();
    let mut effective = wanted;
    if !compat.is_linuxkit() {
        // A set, with what the kernel adds to it when the program starts.
        effective.extend(&ambient);
        let mut seen = BTreeSet::new();
        effective.retain(|name| seen.insert(*name));
    }
    Capabilities { bounding: every.clone(), effective, inheritable: every.clone(), permitted: every, ambient }
}

fn namespaces(wanted: [(&'static str, Namespace); 6]) -> Vec<SpecNamespace> {
    let spec = |(kind, namespace)| match namespace {
        Namespace::Unset | Namespace::Host => None,
        Namespace::New => Some(SpecNamespace { kind, path: String::new() }),
        Namespace::Path(path) => Some(SpecNamespace { kind, path }),
    };
    wanted.into_iter().filter_map(spec).collect()
}

/// The path that stands for every device of a type.
const ALL_DEVICES: &str = "all";

fn device_node(device: &Device) -> Option<SpecDevice> {
    let kind = match device.kind {
        DeviceKind::Any => return None,
        DeviceKind::Block => "b",
        DeviceKind::Character => "c",
        DeviceKind::Fifo => "p",
        DeviceKind::Unbuffered => "u",
    };
    let (path, major, minor) = (device.path.clone(), device.major, device.minor);
    let file_mode = device.mode.map(|mode| mode.bits());
    (device.path != ALL_DEVICES).then_some(SpecDevice { path, kind, major, minor, file_mode })
}

fn device_rule(device: &Device) -> Option<DeviceRule> {
    let kind = match device.kind {
        DeviceKind::Any => "a",
        DeviceKind::Block => "b",
        DeviceKind::Character | DeviceKind::Unbuffered => "c",
        // Control groups do not guard FIFOs.
        DeviceKind::Fifo => return None,
    };
    let number = |number| (device.path != ALL_DEVICES).then_some(number);
    let (major, minor) = (number(device.major), number(device.minor));
    Some(DeviceRule { allow: true, kind: kind.into(), major, minor, access: "rwm".into() })
}

/// `runtime.json`: what the guest's init does around the container. Every member is always there.
#[derive(Serialize)]
pub(super) struct RuntimeDocument {
    cgroups: Vec<String>,
    mounts: Vec<MountFields>,
    mkdir: Vec<String>,
    interfaces: Vec<Interface>,
    #[serde(rename = "bindNS")]
    bind_ns: NamespacePaths,
    namespace: String,
}

/// `runtime.json` of a container in `dir`: its root is put together before all other mounts.
pub(super) fn runtime(dir: &str, root: &Root, access: Access, settled: Runtime) -> RuntimeDocument {
    let mut mounts = root_mounts(dir, root, access);
    mounts.extend(settled.mounts.unwrap_or_default());
    let paths = settled.bind_ns.unwrap_or_default();
    let every = |path: Option<String>| Some(path.unwrap_or_default());
    RuntimeDocument {
        cgroups: settled.cgroups.unwrap_or_default(),
        mounts,
        mkdir: settled.mkdir.unwrap_or_default(),
        interfaces: settled.interfaces.unwrap_or_default(),
        bind_ns: NamespacePaths {
            cgroup: every(paths.cgroup),
            ipc: every(paths.ipc),
            mnt: every(paths.mnt),
            net: every(paths.net),
            pid: every(paths.pid),
            user: every(paths.user),
            uts: every(paths.uts),
        },
        namespace: settled.namespace.unwrap_or_default(),
    }
}

fn root_mounts(dir: &str, root: &Root, access: Access) -> Vec<MountFields> {
    let (Root::Own { tree } | Root::Shared { tree }) = root;
    let options = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    let rootfs = format!("/{dir}/rootfs");
    if access == Access::ReadOnly {
        let (source, options) = (format!("/{tree}"), options(&["bind"]));
        return vec![MountFields { destination: rootfs, source, options, ..MountFields::default() }];
    }
    let tmp = format!("/{dir}/tmp");
    let kind = |name: &str| (name.to_owned(), name.to_owned());
    let ((tmpfs, tmpfs_source), (overlay, overlay_source)) = (kind("tmpfs"), kind("overlay"));
    let layers = [format!("lowerdir=/{tree}"), format!("upperdir={tmp}/upper"), format!("workdir={tmp}/work")];
    vec![
        MountFields { destination: tmp.clone(), kind: tmpfs, source: tmpfs_source, ..MountFields::default() },
        MountFields { destination: tmp, options: options(&["remount", "private"]), ..MountFields::default() },
        MountFields {
            destination: rootfs,
            kind: overlay,
            source: overlay_source,
            options: layers.into(),
            ..MountFields::default()
        },
    ]
}

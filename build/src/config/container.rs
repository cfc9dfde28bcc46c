//! Entries of `onboot`, `onshutdown` and `services`, and the label with their defaults.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema::spellings;

use super::{
    After, Bind, Capability, Device, Id, IdMapping, Mount, Namespace, Place, ReadyOptions, Resources, Restart, Rlimit,
    Runtime, StopSignal, StopTimeout, TmpfsMount, User,
};

/// One container of the system.
#[derive(Debug, Clone, PartialEq)]
pub struct Container {
    /// Letters, digits, `_`, `.`, `-` and `+`; starts with a letter, digit or `_`; at most 200 bytes.
    pub name: String,
    /// The reference as it is written, or as `@pkg:` was resolved.
    pub image: String,
    /// Services that are ready before this one starts, each once. Only services have any.
    pub after: Vec<After>,
    /// Everything else.
    pub options: ContainerOptions,
    /// Where the image is written.
    pub place: Place,
    /// Where the name is written.
    pub name_place: Place,
}

/// How a container runs. [`None`]: not given, so the image's label decides, then its configuration, then a default.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
#[schemars(rename = "Container", transform = spellings::<Self>, extend("required" = ["name", "image"]))]
pub struct ContainerOptions {
    /// Name: letters, digits, `_`, `.`, `-` and `+`. Never in a label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    /// Image: `[HOST/]NAME[:TAG][@sha256:DIGEST]` or `@pkg:DIR`. Never in a label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) image: Option<String>,
    /// Capabilities; `all` and `none` may stand for a list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Vec<Capability>>,
    /// More capabilities than the label has.
    #[serde(rename = "capabilities.add", skip_serializing_if = "Option::is_none")]
    pub capabilities_add: Option<Vec<Capability>>,
    /// Ambient capabilities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ambient: Option<Vec<Capability>>,
    /// Mounts of any type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mounts: Option<Vec<Mount>>,
    /// Bind mounts, `SOURCE:DESTINATION[:OPTIONS]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub binds: Option<Vec<Bind>>,
    /// More bind mounts than the label has.
    #[serde(rename = "binds.add", skip_serializing_if = "Option::is_none")]
    pub binds_add: Option<Vec<Bind>>,
    /// Device nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub devices: Option<Vec<Device>>,
    /// Memory file systems, `DESTINATION[:OPTIONS]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tmpfs: Option<Vec<TmpfsMount>>,
    /// Program and arguments, in place of the image's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Environment, `NAME=VALUE`, in place of the image's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<String>>,
    /// Working directory. Absolute; empty: not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Network namespace: `host`, `new`, `none` or a path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub net: Option<Namespace>,
    /// Process namespace: `host`, `new` or a path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<Namespace>,
    /// IPC namespace: `host`, `new` or a path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipc: Option<Namespace>,
    /// Host name namespace: `host`, `new` or a path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uts: Option<Namespace>,
    /// User namespace: `host`, `new` or a path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub userns: Option<Namespace>,
    /// Host name. Empty: not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Whether the root, `/dev` and `/sys` are read-only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readonly: Option<bool>,
    /// Paths that are hidden from the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub masked_paths: Option<Vec<String>>,
    /// Paths that are read-only in the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readonly_paths: Option<Vec<String>>,
    /// User.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<Id>,
    /// Group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<Id>,
    /// Further groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub additional_gids: Option<Vec<Id>>,
    /// Whether programs may not gain privileges by set-user-id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_new_privileges: Option<bool>,
    /// Weight for the kernel's out-of-memory killer, -1000 to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// Mount propagation of the root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rootfs_propagation: Option<String>,
    /// Path of the control group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroups_path: Option<String>,
    /// Limits for the control group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Kernel parameters of the container's namespaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sysctl: Option<BTreeMap<String, String>>,
    /// Process limits, `NAME,SOFT,HARD`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rlimits: Option<Vec<Rlimit>>,
    /// User ids of a user namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid_mappings: Option<Vec<IdMapping>>,
    /// Group ids of a user namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid_mappings: Option<Vec<IdMapping>>,
    /// Notes for other programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
    /// What the guest's init does around the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Runtime>,
    /// User by the image's own names, in place of `uid`, `gid` and `additionalGids`: `image`, USER or USER:GROUP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<User>,
    /// Services that are ready before this one starts. Never in a label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) after: Option<Vec<String>>,
    /// How to find out that this service is ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<ReadyOptions>,
    /// When this service is started again after it ended: `no`, `on-failure` or `always`, or a mapping with limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart: Option<Restart>,
    /// Signal that asks this service to stop, or `image` for the image's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<StopSignal>,
    /// Time between that signal and SIGKILL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<StopTimeout>,
}

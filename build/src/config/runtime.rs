//! The `runtime` section of a container: what the guest's init does before and after it starts.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::IdMapping;
use super::schema::spellings;

/// What the guest's init does around a container. [`None`]: not given, so the label decides.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(transform = spellings::<Self>)]
pub struct Runtime {
    /// Control groups to make.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroups: Option<Vec<String>>,
    /// Mounts outside of the container, made before it starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mounts: Option<Vec<MountFields>>,
    /// Directories to make.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mkdir: Option<Vec<String>>,
    /// Network interfaces to make or to move into the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interfaces: Option<Vec<Interface>>,
    /// Paths on which the container's namespaces are kept.
    #[serde(rename = "bindNS", skip_serializing_if = "Option::is_none")]
    pub bind_ns: Option<NamespacePaths>,
    /// Name space of the container in containerd.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// A mount as it is written, every field optional.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(transform = spellings::<Self>)]
pub struct MountFields {
    /// Where, in the container or (of `runtime`) in the guest.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub destination: String,
    /// Kind of file system, or `bind`.
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Device, directory, or the file system's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Mount options.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// User ids of an id-mapped mount.
    #[serde(rename(serialize = "uidMappings", deserialize = "uidmappings"), alias = "uidMappings")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub uid_mappings: Vec<IdMapping>,
    /// Group ids of an id-mapped mount.
    #[serde(rename(serialize = "gidMappings", deserialize = "gidmappings"), alias = "gidMappings")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gid_mappings: Vec<IdMapping>,
}

/// A network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
#[schemars(transform = spellings::<Self>)]
pub struct Interface {
    /// Its name in the container.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Kind of interface to make, such as `veth` or `dummy`; none: an existing one is moved.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub add: String,
    /// Name of the other end of a `veth`, which stays outside.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub peer: String,
    /// Whether it is made outside and then moved.
    pub create_in_root: bool,
}

/// Paths on which namespaces are kept. [`None`]: not given; empty: not kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(transform = spellings::<Self>)]
#[expect(missing_docs, reason = "each field is the namespace of its name")]
pub struct NamespacePaths {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipc: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mnt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub net: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uts: Option<String>,
}

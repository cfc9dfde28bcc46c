//! `runtime.json` of a bundle: what is done around the OCI runtime.
//!
//! The field names are those of LinuxKit, so that bundles laid out by either tool run under either init.
//! A `null` list is an empty one.

use serde::{Deserialize, Deserializer, Serialize};

/// All of `runtime.json`. First `mounts`, `mkdir` and `cgroups` are done in that order, then the container is created,
/// then `interfaces` and `bindNS`, and then its process starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Prepare {
    /// Groups to make in every hierarchy.
    #[serde(deserialize_with = "null_is_default")]
    pub cgroups: Vec<String>,
    /// Mounts in the machine's own namespace, in order.
    #[serde(deserialize_with = "null_is_default")]
    pub mounts: Vec<Mount>,
    /// Folders to make, mode 0755; a relative one is below the container's root.
    #[serde(deserialize_with = "null_is_default")]
    pub mkdir: Vec<String>,
    /// Network interfaces to make or to move into the container.
    #[serde(deserialize_with = "null_is_default")]
    pub interfaces: Vec<Interface>,
    /// Where the container's namespaces stay reachable.
    #[serde(rename = "bindNS", deserialize_with = "null_is_default")]
    pub bind_ns: BindNamespaces,
    /// containerd's namespace; nothing here looks at it.
    #[serde(deserialize_with = "null_is_default")]
    pub namespace: String,
}

/// One mount. Options are those of fstab; a word that is none of the kernel's flags is passed to the file system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Mount {
    /// Where; a relative path is below the container's root.
    pub destination: String,
    /// File system; empty for binds, remounts and changes of propagation.
    #[serde(rename = "type", skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub kind: String,
    /// Device, folder or name.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub source: String,
    /// `ro`, `bind`, `lowerdir=…` and so on.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub options: Vec<String>,
}

/// One network interface of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Interface {
    /// Its name.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub name: String,
    /// Kind of link to make, such as `veth`; empty moves the existing link of that name.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub add: String,
    /// Name of the other end of a `veth`; it stays outside.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub peer: String,
    /// Made outside first, then moved in.
    #[serde(skip_serializing_if = "std::ops::Not::not", deserialize_with = "null_is_default")]
    pub create_in_root: bool,
}

/// Paths on which the namespaces of a container's process are bound; an empty one is not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "each field is the kernel's name of a namespace")]
pub struct BindNamespaces {
    #[serde(deserialize_with = "null_is_default")]
    pub cgroup: String,
    #[serde(deserialize_with = "null_is_default")]
    pub ipc: String,
    #[serde(deserialize_with = "null_is_default")]
    pub mnt: String,
    #[serde(deserialize_with = "null_is_default")]
    pub net: String,
    #[serde(deserialize_with = "null_is_default")]
    pub pid: String,
    #[serde(deserialize_with = "null_is_default")]
    pub user: String,
    #[serde(deserialize_with = "null_is_default")]
    pub uts: String,
}

fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OVERLAY: &str = r#"{"cgroups":[],"mounts":[
        {"destination":"/containers/services/a/tmp","type":"tmpfs","source":"tmpfs"},
        {"destination":"/containers/services/a/tmp","options":["remount","private"]}],
        "mkdir":[],"interfaces":[],"bindNS":{"cgroup":"","ipc":"","mnt":"","net":"","pid":"","user":"","uts":""},
        "namespace":""}"#;

    #[test]
    fn what_is_read_is_written_again_with_the_same_fields() {
        let prepare: Prepare = serde_json::from_str(OVERLAY).unwrap();
        let original: serde_json::Value = serde_json::from_str(OVERLAY).unwrap();
        assert_eq!(serde_json::to_value(&prepare).unwrap(), original);
    }

    #[test]
    fn null_and_missing_fields_are_empty() {
        let prepare: Prepare = serde_json::from_str(r#"{"mounts":null,"bindNS":null}"#).unwrap();
        assert_eq!(prepare, Prepare::default());
    }

    #[test]
    fn an_interface_keeps_where_it_is_made() {
        let text = r#"{"interfaces":[{"name":"vethin","add":"veth","peer":"vethout","createInRoot":true}]}"#;
        let prepare: Prepare = serde_json::from_str(text).unwrap();
        let interface = prepare.interfaces.first().unwrap();
        assert!(interface.create_in_root);
        assert_eq!((interface.add.as_str(), interface.peer.as_str()), ("veth", "vethout"));
    }
}

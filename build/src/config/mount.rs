//! What a container sees of the file systems outside: binds, memory file systems, mounts of any kind.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{IdMapping, MountFields, ValueError};

/// A bind mount, `SOURCE:DESTINATION[:OPTIONS]`. A source that is no absolute path is the name of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(extend("pattern" = "^[^:]+:[^:]+(:[^:]*)?$"))]
pub struct Bind {
    /// A path of the guest, or the name of a volume.
    pub source: String,
    /// A path of the container.
    pub destination: String,
    /// Options, comma-separated in the text.
    pub options: Vec<String>,
}

impl TryFrom<String> for Bind {
    type Error = ValueError;

    fn try_from(text: String) -> Result<Self, ValueError> {
        let parts: Vec<&str> = text.split(':').collect();
        let (source, destination, options) = match *parts.as_slice() {
            [source, destination] => (source, destination, ""),
            [source, destination, options] => (source, destination, options),
            [] | [_] => {
                return Err(ValueError(format!("bind `{text}` has no `:`; write SOURCE:DESTINATION[:OPTIONS]")));
            }
            _ => return Err(ValueError(format!("bind `{text}` has too many `:`; write SOURCE:DESTINATION[:OPTIONS]"))),
        };
        if source.is_empty() || destination.is_empty() {
            return Err(ValueError(format!("bind `{text}` has an empty part; write SOURCE:DESTINATION[:OPTIONS]")));
        }
        Ok(Self { source: source.into(), destination: destination.into(), options: words(options) })
    }
}

impl From<Bind> for String {
    fn from(value: Bind) -> Self {
        let Bind { source, destination, options } = value;
        if options.is_empty() {
            format!("{source}:{destination}")
        } else {
            format!("{source}:{destination}:{}", options.join(","))
        }
    }
}

/// A memory file system, `DESTINATION[:OPTIONS]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(extend("pattern" = "^[^:]+(:[^:]*)?$"))]
pub struct TmpfsMount {
    /// A path of the container.
    pub destination: String,
    /// Options, comma-separated in the text.
    pub options: Vec<String>,
}

impl TryFrom<String> for TmpfsMount {
    type Error = ValueError;

    fn try_from(text: String) -> Result<Self, ValueError> {
        let (destination, options) = text.split_once(':').unwrap_or((&text, ""));
        if destination.is_empty() || options.contains(':') {
            return Err(ValueError(format!("cannot read tmpfs `{text}`; write DESTINATION[:OPTIONS]")));
        }
        Ok(Self { destination: destination.into(), options: words(options) })
    }
}

impl From<TmpfsMount> for String {
    fn from(value: TmpfsMount) -> Self {
        let TmpfsMount { destination, options } = value;
        if options.is_empty() { destination } else { format!("{destination}:{}", options.join(",")) }
    }
}

fn words(text: &str) -> Vec<String> {
    text.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// A mount in the container; what was left out is filled in.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "MountFields", into = "MountFields")]
pub struct Mount {
    /// Path in the container.
    pub destination: String,
    /// Kind of file system, or `bind`; never empty.
    pub kind: String,
    /// Device, directory, volume, or the kind again.
    pub source: String,
    /// Whether the source was written, and not only implied.
    pub has_source: bool,
    /// Options.
    pub options: Vec<String>,
    /// User ids of an id-mapped mount.
    pub uid_mappings: Vec<IdMapping>,
    /// Group ids of an id-mapped mount.
    pub gid_mappings: Vec<IdMapping>,
}

/// Kinds that need no destination, with the one they have then; each is also told from its source or destination.
const KNOWN_MOUNTS: [(&str, &str); 5] = [
    ("cgroup", "/sys/fs/cgroup"),
    ("devpts", "/dev/pts"),
    ("mqueue", "/dev/mqueue"),
    ("proc", "/proc"),
    ("sysfs", "/sys"),
];

/// The kind of a mount that does not say it.
fn implied_kind(source: &str, destination: &str) -> Option<&'static str> {
    if source.is_empty() && destination == "/dev" {
        return Some("tmpfs");
    }
    let told = |(kind, usual): &&(&str, &str)| *kind == source || (source.is_empty() && *usual == destination);
    KNOWN_MOUNTS.iter().find(told).map(|(kind, _)| *kind)
}

impl TryFrom<MountFields> for Mount {
    type Error = ValueError;

    fn try_from(fields: MountFields) -> Result<Self, ValueError> {
        let MountFields { mut destination, mut kind, mut source, options, uid_mappings, gid_mappings } = fields;
        if kind.is_empty() {
            let shown = if destination.is_empty() { &source } else { &destination };
            let implied = implied_kind(&source, &destination);
            kind = implied.ok_or_else(|| ValueError(format!("mount `{shown}` has no `type`")))?.into();
        }
        if destination.is_empty() {
            let known = KNOWN_MOUNTS.iter().find(|(known, _)| *known == kind);
            let (_, usual) = known.ok_or_else(|| ValueError(format!("mount of type `{kind}` has no `destination`")))?;
            destination = (*usual).into();
        }
        let has_source = !source.is_empty();
        if !has_source {
            source.clone_from(&kind);
        }
        Ok(Self { destination, kind, source, has_source, options, uid_mappings, gid_mappings })
    }
}

impl From<Mount> for MountFields {
    fn from(mount: Mount) -> Self {
        let Mount { destination, kind, source, has_source, options, uid_mappings, gid_mappings } = mount;
        let source = if has_source { source } else { String::new() };
        Self { destination, kind, source, options, uid_mappings, gid_mappings }
    }
}

//! Values that are more than words: each is checked when it is read, so that a fault is shown where it is written.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema::spellings;

/// Why a text is not such a value.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ValueError(pub(super) String);

/// Process limits (`getrlimit(2)`), without `RLIMIT_`.
const RLIMITS: [&str; 16] = [
    "AS",
    "CORE",
    "CPU",
    "DATA",
    "FSIZE",
    "LOCKS",
    "MEMLOCK",
    "MSGQUEUE",
    "NICE",
    "NOFILE",
    "NPROC",
    "RSS",
    "RTPRIO",
    "RTTIME",
    "SIGPENDING",
    "STACK",
];

/// A process limit, `NAME,SOFT,HARD`; `unlimited` is the greatest number.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(extend("pattern" = "^[^,]+,[^,]+,[^,]+$"))]
pub struct Rlimit {
    /// Such as `RLIMIT_NOFILE`.
    pub name: String,
    /// Limit that holds until a process changes it.
    pub soft: u64,
    /// Limit of the limit.
    pub hard: u64,
}

impl TryFrom<String> for Rlimit {
    type Error = ValueError;

    fn try_from(text: String) -> Result<Self, ValueError> {
        let parts: Vec<&str> = text.split(',').map(str::trim).collect();
        let [name, soft, hard] = *parts.as_slice() else {
            return Err(ValueError(format!(
                "cannot read limit `{text}`; write NAME,SOFT,HARD such as nofile,1024,4096"
            )));
        };
        let upper = name.to_ascii_uppercase();
        let short = upper.strip_prefix("RLIMIT_").unwrap_or(&upper);
        if !RLIMITS.contains(&short) {
            let hint = super::nearest::nearest(short, &RLIMITS);
            let hint = hint.map(|near| format!(", did you mean `{}`?", near.to_ascii_lowercase())).unwrap_or_default();
            return Err(ValueError(format!("unknown limit `{name}`{hint}")));
        }
        let number = |word: &str| match word.to_ascii_lowercase().as_str() {
            "unlimited" => Ok(u64::MAX),
            digits => digits
                .parse()
                .map_err(|_| ValueError(format!("limit `{text}`: `{word}` is neither a number nor `unlimited`"))),
        };
        let (soft, hard) = (number(soft)?, number(hard)?);
        if soft > hard {
            return Err(ValueError(format!("limit `{text}`: the soft limit is above the hard limit")));
        }
        Ok(Self { name: format!("RLIMIT_{short}"), soft, hard })
    }
}

impl From<Rlimit> for String {
    fn from(value: Rlimit) -> Self {
        let number = |n: u64| if n == u64::MAX { "unlimited".into() } else { n.to_string() };
        let name = value.name.trim_start_matches("RLIMIT_").to_ascii_lowercase();
        format!("{name},{},{}", number(value.soft), number(value.hard))
    }
}

/// Permission bits, written as octal digits in quotes: `"0644"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(extend("pattern" = "^[0-7]+$"))]
pub struct FileMode(u32);

impl FileMode {
    /// The mode with these bits, of which there are twelve.
    pub(super) const fn new(bits: u16) -> Self {
        Self((bits & 0o7777) as u32)
    }

    /// The bits, at most 0o7777.
    pub fn bits(self) -> u32 {
        self.0
    }
}

impl TryFrom<String> for FileMode {
    type Error = ValueError;

    fn try_from(text: String) -> Result<Self, ValueError> {
        let digits = !text.is_empty() && text.bytes().all(|digit| matches!(digit, b'0'..=b'7'));
        match u32::from_str_radix(&text, 8) {
            Ok(bits) if digits && bits <= 0o7777 => Ok(Self(bits)),
            _ => Err(ValueError(format!("`{text}` is no file mode; write octal digits up to \"7777\""))),
        }
    }
}

impl From<FileMode> for String {
    fn from(value: FileMode) -> Self {
        format!("{:04o}", value.0)
    }
}

/// A device node; with path `all`, every device of the type may be used and no node is made.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(transform = spellings::<Self>)]
pub struct Device {
    /// Path in the container, or `all`.
    pub path: String,
    /// `b` block, `c` or `u` character, `p` FIFO; for a rule also `a`.
    #[serde(rename = "type")]
    pub kind: DeviceKind,
    /// Major number.
    #[serde(default)]
    pub major: i64,
    /// Minor number.
    #[serde(default)]
    pub minor: i64,
    /// Permission bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<FileMode>,
}

/// Type of a device node, by its letter in `mknod(1)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum DeviceKind {
    /// Any type; only in a rule.
    #[serde(rename = "a")]
    Any,
    /// Block device.
    #[serde(rename = "b")]
    Block,
    /// Character device.
    #[serde(rename = "c")]
    Character,
    /// FIFO.
    #[serde(rename = "p")]
    Fifo,
    /// Character device without a buffer.
    #[serde(rename = "u")]
    Unbuffered,
}

/// A range of ids in a user namespace.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(transform = spellings::<Self>)]
pub struct IdMapping {
    /// First id inside.
    #[serde(rename = "containerID", alias = "containerid")]
    pub container_id: u32,
    /// First id outside.
    #[serde(rename = "hostID", alias = "hostid")]
    pub host_id: u32,
    /// How many.
    pub size: u32,
}

/// One namespace of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(extend("pattern" = "^(host|root|new|none|/.*|)$"))]
pub enum Namespace {
    /// The empty text: as if nothing was written.
    #[default]
    Unset,
    /// The guest's own: `host` or `root`.
    Host,
    /// One of its own: `new` or `none`.
    New,
    /// The one that is kept on this absolute path.
    Path(String),
}

impl TryFrom<String> for Namespace {
    type Error = ValueError;

    fn try_from(text: String) -> Result<Self, ValueError> {
        match text.as_str() {
            "" => Ok(Self::Unset),
            "host" | "root" => Ok(Self::Host),
            "new" | "none" => Ok(Self::New),
            path if path.starts_with('/') => Ok(Self::Path(text)),
            other => Err(ValueError(format!("`{other}` is no namespace; use host, new or an absolute path"))),
        }
    }
}

impl From<Namespace> for String {
    fn from(value: Namespace) -> Self {
        match value {
            Namespace::Unset => Self::new(),
            Namespace::Host => "host".into(),
            Namespace::New => "new".into(),
            Namespace::Path(path) => path,
        }
    }
}

/// A user or group: a number, or the name of a container whose number it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Id {
    /// The number itself.
    Number(u32),
    /// Name of a container; `root` and the empty name are 0.
    Name(String),
}

impl Default for Id {
    fn default() -> Self {
        Self::Number(0)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(IdVisitor)
    }
}

struct IdVisitor;

impl serde::de::Visitor<'_> for IdVisitor {
    type Value = Id;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a number from 0 to 4294967295 or the name of a container")
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Id, E> {
        let wrong = |_| E::invalid_value(serde::de::Unexpected::Unsigned(number), &self);
        u32::try_from(number).map(Id::Number).map_err(wrong)
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Id, E> {
        let wrong = |_| E::invalid_value(serde::de::Unexpected::Signed(number), &self);
        u32::try_from(number).map(Id::Number).map_err(wrong)
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Id, E> {
        Ok(Id::Name(name.into()))
    }
}

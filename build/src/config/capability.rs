//! Capabilities, by the names of `linux/capability.h`.

use serde::{Deserialize, Serialize};

use super::ValueError;
use super::nearest::nearest;

/// Every capability of Linux 6.x, in the order of their numbers (`linux/capability.h`).
pub(super) const CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// A capability's name as `linux/capability.h` has it, or one of the words `all` and `none`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Capability(String);

impl Capability {
    /// The capabilities behind it: all 41 of them for `all`, in the order of their numbers; none for `none`.
    pub fn names(&self) -> &[&'static str] {
        if self.0.eq_ignore_ascii_case("all") {
            return &CAPABILITIES;
        }
        let position = CAPABILITIES.iter().position(|name| *name == self.0);
        position.and_then(|n| CAPABILITIES.get(n..=n)).unwrap_or(&[])
    }
}

impl TryFrom<String> for Capability {
    type Error = ValueError;

    fn try_from(text: String) -> Result<Self, ValueError> {
        let word = text.eq_ignore_ascii_case("all") || text.eq_ignore_ascii_case("none");
        if word || CAPABILITIES.contains(&text.as_str()) {
            return Ok(Self(text));
        }
        let upper = text.to_ascii_uppercase();
        let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
        let hint = nearest(&full, &CAPABILITIES);
        let hint = hint.map(|name| format!(", did you mean `{name}`?")).unwrap_or_default();
        Err(ValueError(format!("unknown capability `{text}`{hint}")))
    }
}

impl From<Capability> for String {
    fn from(value: Capability) -> Self {
        value.0
    }
}

//! What one image of one platform is made of, after its index, manifest and configuration were read and checked.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::Digest;

/// One image, pinned: what a plan holds and what layers are read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The full reference it was asked for by, such as `docker.io/library/busybox:1.36`.
    pub reference: String,
    /// Digest of the platform's manifest: it pins everything below.
    pub manifest: Digest,
    /// The configuration's process defaults and labels.
    pub config: ImageConfig,
    /// Lowest layer first, as the manifest lists them.
    pub layers: Vec<Layer>,
}

/// One layer's blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Digest of the blob as it is stored, so compressed if it is compressed.
    pub digest: Digest,
    /// Length of the blob in bytes, as the manifest says it.
    pub size_bytes: u64,
    /// Media type, OCI's or Docker's. The compression is told from the blob's first bytes, not from here.
    pub media_type: String,
}

/// The part of an image configuration that a build uses (OCI image specification, `config.md`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// First words of the command.
    pub entrypoint: Vec<String>,
    /// Last words of the command.
    pub cmd: Vec<String>,
    /// `NAME=value` each.
    pub env: Vec<String>,
    /// Working directory; empty means `/`.
    pub working_dir: String,
    /// User, as the image names it.
    pub user: String,
    /// Signal that asks its program to stop, as the image names it; empty when it names none.
    pub stop_signal: String,
    /// Labels, among them `org.mobyproject.config`.
    pub labels: BTreeMap<String, String>,
}

/// What an image must run on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Platform {
    /// Always `linux` here.
    pub os: String,
    /// Go's name: `amd64`, `arm64`, `riscv64`.
    pub architecture: String,
    /// `v8` and the like; empty when there is none.
    pub variant: String,
}

impl Platform {
    /// Linux on `architecture`, any variant.
    pub fn linux(architecture: &str) -> Self {
        Self { os: "linux".into(), architecture: architecture.into(), variant: String::new() }
    }
}

/// No platform is written so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{written}` is no platform; write it like linux/arm64")]
pub struct NoPlatform {
    /// As the user wrote it.
    pub written: String,
}

impl FromStr for Platform {
    type Err = NoPlatform;

    /// `OS/ARCHITECTURE[/VARIANT]`, letters and digits each.
    fn from_str(written: &str) -> Result<Self, NoPlatform> {
        let parts: Vec<&str> = written.split('/').collect();
        let is_word = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let (os, architecture, variant) = match parts[..] {
            _ if !parts.iter().all(is_word) => None,
            [os, architecture] => Some((os, architecture, "")),
            [os, architecture, variant] => Some((os, architecture, variant)),
            _ => None,
        }
        .ok_or_else(|| NoPlatform { written: written.into() })?;
        Ok(Self { os: os.into(), architecture: architecture.into(), variant: variant.into() })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_platform_is_refused() {
        for text in ["", "/", "arm64", "linux/", "/amd64", "linux/arm/", "a/b/c/d", " linux/arm64", "linux/arm_64"] {
            let written = text.to_owned();
            assert_eq!(text.parse::<Platform>(), Err(NoPlatform { written }));
        }
        for text in ["linux/arm64", "linux/arm/v7"] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), text);
        }
    }
}

//! Who builds a Dockerfile: whatever program is there.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use crate::package::PackageError;
use crate::package::program::{self, Program};

/// A program that builds Dockerfiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Builder {
    /// buildah: no daemon, no root.
    Buildah,
    /// Docker's buildx, with a running Docker.
    Docker,
    /// podman: no daemon, no root.
    Podman,
}

/// A name of no builder.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no builder; use `buildah`, `docker` or `podman`")]
pub struct BuilderError(String);

impl Builder {
    /// In the order that they are looked for.
    pub const ALL: [Self; 3] = [Self::Buildah, Self::Docker, Self::Podman];

    /// The program's name, which is the builder's too.
    pub fn name(self) -> &'static str {
        match self {
            Self::Buildah => "buildah",
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }

    /// Debian's package that has it.
    pub(super) fn debian_package(self) -> &'static str {
        match self {
            Self::Buildah => "buildah",
            Self::Docker => "docker.io docker-buildx",
            Self::Podman => "podman",
        }
    }

    /// Why it cannot be used here, if it cannot.
    fn fault(self) -> Option<String> {
        if !program::is_installed(self.name()) {
            return Some("not installed".into());
        }
        let asks: &[&[&str]] = match self {
            Self::Buildah | Self::Podman => &[],
            Self::Docker => &[&["buildx", "version"], &["version", "--format", "{{.Server.Version}}"]],
        };
        let failed =
            asks.iter().find(|words| Program::new(self.name(), self.debian_package()).args(**words).run().is_err());
        failed.map(|words| format!("`{} {}` fails", self.name(), words.join(" ")))
    }

    /// Whether it can run programs of `architecture`, by Go's name.
    pub(super) fn runs(self, architecture: &str) -> bool {
        let emulator = match architecture {
            "amd64" => "qemu-x86_64",
            "arm64" => "qemu-aarch64",
            other => &format!("qemu-{other}"),
        };
        // Docker may be on another machine, which knows better.
        architecture == own_architecture()
            || self == Self::Docker
            || Path::new("/proc/sys/fs/binfmt_misc").join(emulator).exists()
    }
}

/// The builder that is asked for, or the first that works.
///
/// Errors: [`PackageError::NoBuilder`] with what is wrong with each.
pub(super) fn choose(asked: Option<Builder>) -> Result<Builder, PackageError> {
    let candidates = asked.as_ref().map_or(&Builder::ALL[..], std::slice::from_ref);
    let mut faults = Vec::new();
    for builder in candidates {
        match builder.fault() {
            None => return Ok(*builder),
            Some(fault) => faults.push(format!("{builder}: {fault}")),
        }
    }
    let package = candidates.first().map_or("buildah", |builder| builder.debian_package());
    Err(PackageError::NoBuilder { faults: faults.join("; "), package })
}

/// This machine's architecture by Go's name.
pub(super) fn own_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

impl FromStr for Builder {
    type Err = BuilderError;

    fn from_str(name: &str) -> Result<Self, BuilderError> {
        Self::ALL.into_iter().find(|builder| builder.name() == name).ok_or_else(|| BuilderError(name.to_owned()))
    }
}

impl fmt::Display for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

//! Where an image comes from, as a YAML or a command writes it: a registry, or one of the places that other tools keep
//! images in.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::reference::{Reference, ReferenceError};

/// Where an image comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// `NAME`: the store, and the registry that the name tells for what the store lacks.
    Registry(Reference),
    /// `oci:DIR[:NAME]`, `oci-archive:FILE[:NAME]`, `docker-archive:FILE[:NAME]`: files that hold images.
    Files(FileSource),
    /// `docker-daemon:NAME`, or `docker:NAME` where what follows cannot be a tag: a running Docker's images.
    Docker(Reference),
    /// `containerd:NAME`: a running containerd's images, by way of its `ctr`.
    Containerd(Reference),
}

/// A folder or an archive with images.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileSource {
    /// What it should be; all archives are told by what they hold.
    pub kind: FileKind,
    /// The folder or file; relative to the current folder.
    pub path: PathBuf,
    /// Which of its images; needed where there are several.
    pub name: Option<String>,
}

/// How images are kept in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileKind {
    /// A folder that is an OCI image layout.
    Layout,
    /// An OCI image layout in a tar archive.
    OciArchive,
    /// What `docker save` writes.
    DockerArchive,
}

/// Why a text names no image.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It has no prefix that is known and is no reference.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// A prefix with nothing behind it.
    #[error("`{text}` names no {what}; write `{form}`")]
    Empty {
        /// The text.
        text: String,
        /// What is missing.
        what: &'static str,
        /// How it should look.
        form: &'static str,
    },
}

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        let (prefix, rest) = text.split_once(':').unwrap_or(("", text));
        let files = |kind: FileKind| {
            let (path, name) = rest.split_once(':').map_or((rest, None), |(path, name)| (path, Some(name)));
            if path.is_empty() || name == Some("") {
                return Err(SourceError::Empty { text: text.into(), what: kind.noun(), form: kind.form() });
            }
            Ok(Self::Files(FileSource { kind, path: path.into(), name: name.map(str::to_owned) }))
        };
        match prefix {
            "oci" => files(FileKind::Layout),
            "oci-archive" => files(FileKind::OciArchive),
            "docker-archive" => files(FileKind::DockerArchive),
            "docker-daemon" => Ok(Self::Docker(rest.parse()?)),
            "containerd" => Ok(Self::Containerd(rest.parse()?)),
            "docker" => match rest.strip_prefix("//") {
                Some(reference) => Ok(Self::Registry(reference.parse()?)),
                // `docker:24` is an image of that name.
                None if rest.contains(['/', ':', '@']) => Ok(Self::Docker(rest.parse()?)),
                None => Ok(Self::Registry(text.parse()?)),
            },
            _ => Ok(Self::Registry(text.parse()?)),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(reference) => reference.fmt(f),
            Self::Files(files) => files.fmt(f),
            Self::Docker(reference) => write!(f, "docker-daemon:{reference}"),
            Self::Containerd(reference) => write!(f, "containerd:{reference}"),
        }
    }
}

impl fmt::Display for FileSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = match self.kind {
            FileKind::Layout => "oci",
            FileKind::OciArchive => "oci-archive",
            FileKind::DockerArchive => "docker-archive",
        };
        write!(f, "{prefix}:{}", self.path.display())?;
        self.name.as_ref().map_or(Ok(()), |name| write!(f, ":{name}"))
    }
}

impl FileKind {
    fn noun(self) -> &'static str {
        match self {
            Self::Layout => "folder",
            Self::OciArchive | Self::DockerArchive => "file",
        }
    }

    fn form(self) -> &'static str {
        match self {
            Self::Layout => "oci:DIR[:NAME]",
            Self::OciArchive => "oci-archive:FILE[:NAME]",
            Self::DockerArchive => "docker-archive:FILE[:NAME]",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_needs_something_behind_it() {
        for text in
            ["oci:", "oci::a", "oci:dir:", "oci-archive:", "docker-archive:", "docker-daemon:", "containerd:", ""]
        {
            assert!(text.parse::<Source>().is_err(), "{text}");
        }
        assert!("docker-daemon:A/b".parse::<Source>().unwrap_err().to_string().contains("upper-case"));
    }

    #[test]
    fn a_source_is_read_as_it_is_written_and_printed_in_full() {
        let cases = [
            ("busybox", "docker.io/library/busybox"),
            ("docker:24-dind", "docker.io/library/docker:24-dind"),
            ("docker://quay.io/a", "quay.io/a"),
            ("docker:busybox:1", "docker-daemon:docker.io/library/busybox:1"),
            ("docker:me/a", "docker-daemon:docker.io/me/a"),
            ("docker-daemon:busybox", "docker-daemon:docker.io/library/busybox"),
            ("containerd:busybox", "containerd:docker.io/library/busybox"),
            ("oci:dir", "oci:dir"),
            ("oci:/a/b:busybox:1", "oci:/a/b:busybox:1"),
            ("oci-archive:a.tar.gz", "oci-archive:a.tar.gz"),
            ("docker-archive:a.tar:busybox", "docker-archive:a.tar:busybox"),
            ("localhost:5000/oci:1", "localhost:5000/oci:1"),
        ];
        for (text, full) in cases {
            assert_eq!(text.parse::<Source>().expect(text).to_string(), full);
        }
    }
}

//! The `files` and `volumes` sections.

use super::{FileMode, Id, Place};

/// One entry of `files`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Path below the root: relative, no empty, `.` or `..` part.
    pub path: String,
    /// What is written there.
    pub content: FileContent,
    /// Permission bits as they are written; see [`FileEntry::mode`].
    pub written_mode: Option<FileMode>,
    /// Owner, 0 if not given; see [`super::Config::id_number`].
    pub uid: Option<Id>,
    /// Group, 0 if not given; see [`super::Config::id_number`].
    pub gid: Option<Id>,
    /// Whether a missing `source` is passed over.
    pub optional: bool,
    /// Where the entry is written.
    pub place: Place,
}

impl FileEntry {
    /// Permission bits; 0600, for directories 0700, if not given.
    pub fn mode(&self) -> FileMode {
        let usual = if self.content == FileContent::Directory { 0o700 } else { 0o600 };
        self.written_mode.unwrap_or(FileMode::new(usual))
    }
}

/// What a file entry makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileContent {
    /// A directory.
    Directory,
    /// A symbolic link to this target.
    Symlink(String),
    /// A file with this text.
    Contents(String),
    /// A copy of this file of the host; the path is as it is written (`~/` and relative paths are the caller's).
    Source(String),
    /// The configuration itself.
    Metadata(MetadataFormat),
}

/// How the configuration is written into a `metadata` file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetadataFormat {
    /// As YAML.
    Yaml,
    /// As JSON.
    Json,
}

/// One entry of `volumes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Name: letters a-z, digits, `_` and `-`; never empty. Unique.
    pub name: String,
    /// Image to fill it with; an empty volume if not given.
    pub image: Option<String>,
    /// Whether containers may only read it.
    pub readonly: bool,
    /// What of the image is put there.
    pub format: VolumeFormat,
    /// Platforms of an OCI volume, as `linux/arm64`; all of the index if empty.
    pub platforms: Vec<String>,
    /// Where the image (or, without one, the entry) is written.
    pub place: Place,
    /// Where the name is written.
    pub name_place: Place,
}

impl Volume {
    /// Its directory in the root: `containers/volumes/NAME`. It has members `lower`, `tmp` and `merged`.
    pub fn dir(&self) -> String {
        format!("containers/volumes/{}", self.name)
    }
}

/// What of an image a volume holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VolumeFormat {
    /// The unpacked tree.
    #[default]
    Filesystem,
    /// An OCI image layout of the index.
    Oci,
}

//! `build.yml`: LinuxKit's fields, and the native `source` and `process` that need no Dockerfile.

use serde::Deserialize;

use crate::config::{ContainerOptions, FileMode};
use crate::tree::{PathFault, TreePath};

/// Organisation of packages that name none, as LinuxKit has it.
const ORG_DEFAULT: &str = "linuxkit";
/// Organisation of native packages that name none: LinuxKit could not have built them.
const NATIVE_ORG_DEFAULT: &str = "kiln";

/// All of a `build.yml`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Recipe {
    /// Name of the image, without organisation.
    pub image: String,
    /// Organisation, or a registry and a path. See [`Recipe::org`] for the default.
    #[serde(default)]
    pub org: Option<String>,
    /// The tag; `{{.Hash}}` stands for the hash.
    #[serde(default = "tag_default")]
    pub tag: String,
    /// File for a Dockerfile builder. Not used here.
    #[serde(default = "dockerfile_default")]
    pub dockerfile: String,
    /// Go's names of the architectures that it can be built for.
    #[serde(default = "arches_default")]
    pub arches: Vec<String>,
    /// Further folders that are part of the hash, `SOURCE:DESTINATION`.
    #[serde(default, rename = "extra-sources")]
    pub extra_sources: Vec<String>,
    /// Where the source lives; only a note.
    #[serde(default)]
    pub gitrepo: String,
    /// Whether a Dockerfile build may use the network. Not used here.
    #[serde(default)]
    pub network: bool,
    /// Whether a Dockerfile build starts anew. Not used here.
    #[serde(default, rename = "disable-cache")]
    pub disable_cache: bool,
    /// Defaults of the package's containers: becomes the label `org.mobyproject.config`.
    #[serde(default)]
    pub config: Option<ContainerOptions>,
    /// Arguments of a Dockerfile build. Not used here.
    #[serde(default)]
    pub build_args: Option<Vec<String>>,
    /// Images that a Dockerfile build wants. Not used here.
    #[serde(default)]
    pub depends: Option<Depends>,
    /// Where the image's files come from, in order: a later source wins.
    #[serde(default)]
    pub source: Vec<Source>,
    /// What the image runs.
    #[serde(default)]
    pub process: Process,
}

/// LinuxKit's `depends`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Depends {
    /// Images that are put into the build context.
    #[serde(rename = "docker-images")]
    pub docker_images: DockerImages,
}

/// LinuxKit's `depends.docker-images`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
#[expect(missing_docs, reason = "named and described by LinuxKit")]
pub struct DockerImages {
    pub target: String,
    pub target_dir: String,
    pub from_file: String,
    pub list: Vec<String>,
}

/// The process of an image that is run as a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Process {
    /// First words of the command.
    pub entrypoint: Vec<String>,
    /// Last words of the command.
    pub cmd: Vec<String>,
    /// `NAME=value` each.
    pub env: Vec<String>,
    /// Working directory.
    pub workdir: String,
}

/// One source of files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "SourceFields")]
pub enum Source {
    /// Programs of the Cargo workspace that the package is in.
    Cargo(Cargo),
    /// Packages of Debian.
    Debian(Debian),
    /// Debian's kernel.
    Kernel(Kernel),
    /// Files of the package, folders and links.
    Files(Vec<FileEntry>),
    /// Many names for one program.
    Links(Links),
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct SourceFields {
    cargo: Option<Cargo>,
    debian: Option<Debian>,
    kernel: Option<Kernel>,
    files: Option<Vec<FileEntry>>,
    links: Option<Links>,
}

impl TryFrom<SourceFields> for Source {
    type Error = &'static str;

    fn try_from(fields: SourceFields) -> Result<Self, Self::Error> {
        let SourceFields { cargo, debian, kernel, files, links } = fields;
        let given = [
            cargo.map(Self::Cargo),
            debian.map(Self::Debian),
            kernel.map(Self::Kernel),
            files.map(Self::Files),
            links.map(Self::Links),
        ];
        let mut given = given.into_iter().flatten();
        match (given.next(), given.next()) {
            (Some(source), None) => Ok(source),
            _ => Err("a source has exactly one of `cargo`, `debian`, `kernel`, `files` and `links`"),
        }
    }
}

/// A path in the image.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ImagePath(pub TreePath);

impl TryFrom<String> for ImagePath {
    type Error = PathFault;

    fn try_from(text: String) -> Result<Self, PathFault> {
        TreePath::from_user(&text).map(Self)
    }
}

/// Programs of one crate.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cargo {
    /// Name of the crate.
    pub package: String,
    /// Cargo's profile.
    #[serde(default = "profile_default")]
    pub profile: String,
    /// Whether the programs may need shared libraries.
    #[serde(default)]
    pub dynamic: bool,
    /// What to install.
    pub bins: Vec<Bin>,
}

/// One program of a crate.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bin {
    /// Name of the binary target.
    pub bin: String,
    /// Its path in the image.
    pub path: ImagePath,
    /// Permission bits; 0755 if not given.
    pub mode: Option<FileMode>,
    /// Paths of symbolic links to it.
    #[serde(default)]
    pub links: Vec<ImagePath>,
}

/// Debian packages, unpacked without their scripts.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Debian {
    /// Their names, as apt takes them: `NAME`, `NAME=VERSION` or `NAME/SUITE`.
    pub packages: Vec<String>,
    /// Whether all that they depend on comes along.
    #[serde(default)]
    pub with_depends: bool,
    /// Paths to take; everything if empty.
    #[serde(default)]
    pub include: Vec<String>,
    /// Paths to leave out.
    #[serde(default)]
    pub exclude: Vec<String>,
}

/// A kernel with modules.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Kernel {
    /// Debian's package, or the one that depends on the newest; `{{.Arch}}` stands for the architecture.
    pub package: String,
    /// Names or patterns of the modules to take; what they need comes along.
    #[serde(default)]
    pub modules: Vec<String>,
    /// The same, of modules that not every architecture's kernel has.
    #[serde(default, rename = "modules-if-there")]
    pub modules_if_there: Vec<String>,
    /// Patterns of device trees to take, such as `broadcom/bcm2837-*`.
    #[serde(default)]
    pub device_trees: Vec<String>,
}

/// Symbolic links of one folder to one program, such as busybox.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Links {
    /// Where they lead, as the links hold it.
    pub to: String,
    /// The folder that they are in.
    pub folder: ImagePath,
    /// Their names.
    pub names: Vec<ImagePath>,
}

/// One entry of `files`, written as in the YAML of a system.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "FileFields")]
pub struct FileEntry {
    /// Path in the image.
    pub path: TreePath,
    /// What is there.
    pub content: FileContent,
    /// Permission bits; if not given those of the copied file, 0644, or 0755 for a folder.
    pub mode: Option<FileMode>,
}

/// What a file entry makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileContent {
    /// A folder.
    Directory,
    /// A symbolic link to this.
    Symlink(String),
    /// A file with this text.
    Contents(String),
    /// A copy of this file or folder of the package.
    Source(TreePath),
    /// All files of earlier sources that fit the pattern, one behind the other.
    Joined(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileFields {
    path: ImagePath,
    #[serde(default)]
    directory: bool,
    symlink: Option<String>,
    contents: Option<String>,
    source: Option<ImagePath>,
    joined: Option<String>,
    mode: Option<FileMode>,
}

impl TryFrom<FileFields> for FileEntry {
    type Error = &'static str;

    fn try_from(fields: FileFields) -> Result<Self, Self::Error> {
        let FileFields { path, directory, symlink, contents, source, joined, mode } = fields;
        let given = [
            directory.then_some(FileContent::Directory),
            symlink.map(FileContent::Symlink),
            contents.map(FileContent::Contents),
            source.map(|ImagePath(source)| FileContent::Source(source)),
            joined.map(FileContent::Joined),
        ];
        let mut given = given.into_iter().flatten();
        match (given.next(), given.next()) {
            (Some(content), None) => Ok(Self { path: path.0, content, mode }),
            _ => Err("a file has exactly one of `directory`, `symlink`, `contents`, `source` and `joined`"),
        }
    }
}

impl Recipe {
    /// Whether it can be built here, without a Dockerfile.
    pub fn is_native(&self) -> bool {
        !self.source.is_empty()
    }

    /// The cargo sources.
    pub fn cargo(&self) -> impl Iterator<Item = &Cargo> {
        self.source.iter().filter_map(|source| match source {
            Source::Cargo(cargo) => Some(cargo),
            _ => None,
        })
    }

    /// The organisation that it says, or the default.
    pub fn org(&self) -> &str {
        let default = if self.is_native() { NATIVE_ORG_DEFAULT } else { ORG_DEFAULT };
        self.org.as_deref().filter(|org| !org.is_empty()).unwrap_or(default)
    }
}

fn tag_default() -> String {
    "{{.Hash}}".into()
}

fn dockerfile_default() -> String {
    "Dockerfile".into()
}

fn arches_default() -> Vec<String> {
    ["amd64", "arm64", "riscv64"].map(String::from).into()
}

fn profile_default() -> String {
    "release".into()
}

//! `kiln pkg` as its user typed it.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `kiln pkg`.
#[derive(Debug, Clone, Args)]
pub struct Pkg {
    /// Which package it is.
    #[command(flatten)]
    pub naming: PkgNaming,
    /// What to do with it.
    #[command(subcommand)]
    pub command: PkgCommand,
}

/// What to do with packages.
#[derive(Debug, Clone, Subcommand)]
pub enum PkgCommand {
    /// Build package folders into the image store
    Build(PkgBuild),
    /// Build and push: short for build -push
    Push(PkgBuild),
    /// Print the reference that a package folder is built as
    ShowTag(PkgShowTag),
    /// Make the index of all architectures that were pushed, and push it
    #[command(visible_alias = "index")]
    Manifest(PkgManifest),
    /// Give an image in a registry another tag, without fetching it
    RemoteTag(PkgRemoteTag),
}

/// What decides a package's name, in the place of its build.yml.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Package options")]
pub struct PkgNaming {
    /// Organisation of the images [env: KILN_PKG_ORG, LINUXKIT_PKG_ORG]
    #[arg(long, global = true)]
    pub org: Option<String>,
    /// Tag of the images; {{.Hash}} in it stands for the hash
    #[arg(long, global = true, value_name = "TEMPLATE")]
    pub tag: Option<String>,
    /// Hash to use in the place of git's
    #[arg(long, global = true)]
    pub hash: Option<String>,
    /// Commit that the hash is taken from [default: HEAD]
    #[arg(long, global = true, value_name = "COMMIT")]
    pub hash_commit: Option<String>,
    /// Folder that is hashed, one above the package [default: the package's]
    #[arg(long, global = true, value_name = "DIR")]
    pub hash_path: Option<PathBuf>,
    /// Take the packages for changed even if they are not
    #[arg(long, global = true)]
    pub force_dirty: bool,
    /// Organisation $USER and hash `dev`
    #[arg(long, global = true)]
    pub dev: bool,
    /// Name of the file that describes a package [default: build.yml]
    #[arg(long, global = true, value_name = "FILE")]
    pub build_yml: Option<String>,
    /// Give a Dockerfile's commands the network, whatever `network` says
    #[arg(long, global = true, conflicts_with = "nonetwork")]
    pub network: bool,
    /// Give them none
    #[arg(long, global = true)]
    pub nonetwork: bool,
    /// Do every step of a Dockerfile anew, whatever `disable-cache` says
    #[arg(long, global = true, conflicts_with = "enable_cache")]
    pub disable_cache: bool,
    /// Take steps from the builder's cache
    #[arg(long, global = true)]
    pub enable_cache: bool,
}

/// `kiln pkg build`.
#[derive(Debug, Clone, Args)]
pub struct PkgBuild {
    /// Folders that hold a build.yml
    #[arg(required = true, value_name = "DIR")]
    pub dirs: Vec<PathBuf>,
    /// Build even what is in the store or the registry already
    #[arg(long, conflicts_with_all = ["nobuild", "pull"])]
    pub force: bool,
    /// Architecture to build for: short for -platforms linux/ARCH
    #[arg(long, conflicts_with_all = ["platforms", "skip_platforms"])]
    pub arch: Option<String>,
    /// Platforms to build for: a list of linux/ARCH with commas [default: a Dockerfile's `arches` as far as they can be
    /// built here, of native packages this machine's]
    #[arg(long, value_name = "LIST", value_delimiter = ',', conflicts_with = "skip_platforms")]
    pub platforms: Vec<String>,
    /// Platforms to leave out
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub skip_platforms: Vec<String>,
    /// Push what was built, each architecture as TAG-ARCH and all of them as TAG
    #[arg(long)]
    pub push: bool,
    /// With -push: another tag to push as
    #[arg(long, value_name = "TAG")]
    pub release: Option<String>,
    /// Build nothing: push what the store has
    #[arg(long)]
    pub nobuild: bool,
    /// Take from the registry what the store lacks; what is done anyway
    #[arg(long)]
    pub pull: bool,
    /// Ask registries for base images even if the store has them
    #[arg(long)]
    pub ignore_cached: bool,
    /// Give the images to a running Docker too
    #[arg(long)]
    pub docker: bool,
    /// Print the commands that would build, and do nothing
    #[arg(long, visible_alias = "dry")]
    pub dry_run: bool,
    /// Who builds Dockerfiles: buildah, docker or podman [default: the first that works]
    #[arg(long, value_name = "NAME")]
    pub builder: Option<String>,
    /// Dockerfile in the package's folder [default: what build.yml says]
    #[arg(long, value_name = "FILE")]
    pub dockerfile: Option<String>,
    /// Build argument; @lkt:pkg:DIR in it stands for a package's reference. Repeatable
    #[arg(long, value_name = "NAME=VALUE")]
    pub build_arg: Vec<String>,
    /// File of build arguments, one a line; repeatable
    #[arg(long, value_name = "FILE")]
    pub build_arg_file: Vec<PathBuf>,
}

/// `kiln pkg manifest`.
#[derive(Debug, Clone, Args)]
pub struct PkgManifest {
    /// Folders that hold a build.yml
    #[arg(required = true, value_name = "DIR")]
    pub dirs: Vec<PathBuf>,
    /// Another tag to do the same for
    #[arg(long, value_name = "TAG")]
    pub release: Option<String>,
}

/// `kiln pkg remote-tag`.
#[derive(Debug, Clone, Args)]
pub struct PkgRemoteTag {
    /// The image as it is called now
    pub from: String,
    /// Its other name, a tag in the same repository
    pub to: String,
}

/// `kiln pkg show-tag`.
#[derive(Debug, Clone, Args)]
pub struct PkgShowTag {
    /// Folders that hold a build.yml
    #[arg(required = true, value_name = "DIR")]
    pub dirs: Vec<PathBuf>,
    /// Print the whole reference, with the registry: docker.io/linuxkit/a:b
    #[arg(long)]
    pub canonical: bool,
}

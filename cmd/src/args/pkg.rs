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
    /// Print the reference that a package folder is built as
    ShowTag(PkgShowTag),
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
    /// Build even what is in the store already
    #[arg(long)]
    pub force: bool,
    /// Architecture to build for: amd64 or arm64 [default: this machine's]
    #[arg(long)]
    pub arch: Option<String>,
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

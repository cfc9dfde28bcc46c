//! `kiln cache` as its user typed it.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// `kiln cache`.
#[derive(Debug, Clone, Subcommand)]
pub enum Cache {
    /// List the images in the store, with their sizes
    Ls(CacheLs),
    /// Fetch images from their registries, or from anywhere else an image can be
    Pull(CachePull),
    /// Send images to their registries
    Push(CachePush),
    /// Take over the images of an archive: an OCI layout, or what `docker save` wrote
    Import(CacheImport),
    /// Write an image as an archive
    Export(CacheExport),
    /// Remove images
    Rm(CacheRm),
    /// Remove everything
    Clean(CacheClean),
    /// Remove what no image needs
    Gc,
    /// Read every blob and compare it with its digest
    Verify(CacheVerify),
}

/// `kiln cache ls`.
#[derive(Debug, Clone, Args)]
pub struct CacheLs {
    /// Print it as JSON, sizes in bytes
    #[arg(long)]
    pub json: bool,
}

/// `kiln cache pull`.
#[derive(Debug, Clone, Args)]
pub struct CachePull {
    /// Images
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
    /// For this platform; repeatable [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", conflicts_with = "all_platforms")]
    pub platform: Vec<String>,
    /// For all platforms that there are, with attestations
    #[arg(long)]
    pub all_platforms: bool,
}

/// `kiln cache push`.
#[derive(Debug, Clone, Args)]
pub struct CachePush {
    /// Images in the store
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
    /// What it is to be called there, for one NAME [default: NAME]
    #[arg(long, value_name = "NAME")]
    pub remote_name: Option<String>,
    /// Only this platform
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<String>,
}

/// `kiln cache import`.
#[derive(Debug, Clone, Args)]
pub struct CacheImport {
    /// A tar archive, also compressed, or a folder; `-` is standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// What to call the one image in it [default: what the archive calls each]
    #[arg(long)]
    pub name: Option<String>,
}

/// `kiln cache export`.
#[derive(Debug, Clone, Args)]
pub struct CacheExport {
    /// The image
    pub name: String,
    /// File to write; `-` is standard output
    #[arg(long, value_name = "FILE")]
    pub outfile: PathBuf,
    /// What the archive is for
    #[arg(long, value_enum, default_value_t = ExportFormat::Oci)]
    pub format: ExportFormat,
    /// Only this platform [default: oci: all; others: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<String>,
    /// What it is called in the archive [default: NAME]
    #[arg(long = "name", value_name = "NAME", id = "exported_name")]
    pub exported_name: Option<String>,
}

/// What an exported archive is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// An OCI image layout
    Oci,
    /// For `docker load`
    Docker,
    /// The image's files, flattened
    Filesystem,
}

/// `kiln cache rm`.
#[derive(Debug, Clone, Args)]
pub struct CacheRm {
    /// Images
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
    /// Only those that their registries have too
    #[arg(long)]
    pub published_only: bool,
}

/// `kiln cache clean`.
#[derive(Debug, Clone, Args)]
pub struct CacheClean {
    /// Only images that their registries have too
    #[arg(long)]
    pub published_only: bool,
}

/// `kiln cache verify`.
#[derive(Debug, Clone, Args)]
pub struct CacheVerify {
    /// Remove what is damaged, so that it is fetched again when it is needed
    #[arg(long)]
    pub fix: bool,
}

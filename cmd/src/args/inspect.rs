//! Flags of `kiln inspect`.

use std::path::PathBuf;

use clap::Args;

/// `kiln inspect`.
#[derive(Debug, Clone, Args)]
pub struct Inspect {
    /// What was built: NAME stands for NAME-initrd.img with NAME-kernel, or for NAME.tar; or a file: a tar, an initrd. If
    /// there is none of these, the machine that runs under this name
    #[arg(value_name = "NAME")]
    pub name: PathBuf,
    /// Show the machine that runs under this name, whatever was built
    #[arg(long, conflicts_with = "svg")]
    pub machine: bool,
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
    /// Draw it into this file too
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

//! Flags of `kiln inspect`.

use std::path::PathBuf;

use clap::Args;

/// `kiln inspect`.
#[derive(Debug, Clone, Args)]
pub struct Inspect {
    /// What was built: NAME stands for NAME-initrd.img with NAME-kernel, or for NAME.tar; or a file: a tar, an initrd
    #[arg(value_name = "NAME")]
    pub name: PathBuf,
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
    /// Draw it into this file too
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

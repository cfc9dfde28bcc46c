//! Flags of `kiln build` about the software bill of materials.

use std::path::PathBuf;

use clap::Args;

/// What to write about the packages in an image.
#[derive(Debug, Clone, Args)]
pub struct Sbom {
    /// Write no software bill of materials
    #[arg(long)]
    pub no_sbom: bool,
    /// Its path in the image
    #[arg(long, value_name = "PATH", default_value = "sbom.spdx.json")]
    pub sbom_output: PathBuf,
    /// Date it now instead of by SOURCE_DATE_EPOCH
    #[arg(long)]
    pub sbom_current_time: bool,
}

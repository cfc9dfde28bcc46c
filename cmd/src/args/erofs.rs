//! Flags of `kiln build` about EROFS images.

use clap::Args;
use kiln_build::format::ErofsCompression;

/// How to make an EROFS image.
#[derive(Debug, Clone, Args)]
pub struct Erofs {
    /// Compression of EROFS images: `none`, `lz4`, `lz4hc`, or `lz4hc:1` to `lz4hc:12`
    #[arg(long, value_name = "COMPRESSION", default_value_t = ErofsCompression::default())]
    pub erofs: ErofsCompression,
}

//! Flags of `kiln build` about squashfs images.

use clap::Args;
use kiln_build::format::SquashfsOptions;

/// How a squashfs is packed.
#[derive(Debug, Clone, Args)]
pub struct Squashfs {
    /// How a squashfs is packed: gzip, zstd, xz, lz4 or none, its level, and the size of a block [default: gzip,block=128K]
    #[arg(long, value_name = "COMPRESSOR[:LEVEL][,block=SIZE]")]
    pub squashfs: Option<SquashfsOptions>,
}

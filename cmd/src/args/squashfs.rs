//! Flags of `kiln build` about squashfs images.

use std::path::PathBuf;

use clap::Args;
use kiln_build::format::SquashfsOptions;

/// How a squashfs is packed.
#[derive(Debug, Clone, Args)]
pub struct Squashfs {
    /// How a squashfs is packed: gzip, zstd, xz, lz4 or none, its level, and the size of a block [default: gzip,block=128K]
    #[arg(long, value_name = "COMPRESSOR[:LEVEL][,block=SIZE]")]
    pub squashfs: Option<SquashfsOptions>,
    /// What stands first in a squashfs: paths in the order of their use, or each with a priority, as mksquashfs sorts
    #[arg(long, value_name = "FILE")]
    pub squashfs_sort: Option<PathBuf>,
}

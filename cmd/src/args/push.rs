//! `kiln push` as its user typed it.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

/// `kiln push`.
#[derive(Debug, Clone, Args)]
pub struct Push {
    /// What was built: NAME stands for the files NAME-kernel, NAME-initrd.img and NAME-cmdline
    pub name: OsString,
    /// Where to: oci://REGISTRY/NAME:TAG
    #[arg(value_name = "oci://TARGET")]
    pub target: String,
    /// Kernel to push [default: NAME-kernel]
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
    /// Initial RAM disk [default: NAME-initrd.img]
    #[arg(long, value_name = "FILE")]
    pub initrd: Option<PathBuf>,
    /// Kernel command line [default: what NAME-cmdline holds]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub cmdline: Option<String>,
    /// Architecture: amd64, arm64 or riscv64 [default: told from the kernel]
    #[arg(long)]
    pub arch: Option<String>,
}

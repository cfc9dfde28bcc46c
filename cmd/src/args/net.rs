//! Flags of `kiln net`.

use std::path::PathBuf;

use clap::Args;

use super::Networking;

/// What `kiln net` offers, and where.
#[derive(Debug, Clone, Args)]
pub struct Net {
    /// Listen at PATH for one guest after the other, each frame behind its length: QEMU's `-netdev
    /// stream,id=n,server=off,addr.type=unix,addr.path=PATH`, and what speaks to passt
    #[arg(long, value_name = "PATH")]
    pub socket: PathBuf,
    /// Keep leases there [default: PATH-state]
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// About the network.
    #[command(flatten)]
    pub networking: Networking,
}

//! `kiln pause`, `kiln resume` and `kiln memory` as their user typed them.

use std::path::PathBuf;

use clap::Args;

use super::size;

/// A running machine.
#[derive(Debug, Clone, Args)]
pub struct Running {
    /// What `kiln run` was given, or the machine's state folder
    pub name: PathBuf,
}

/// `kiln memory`.
#[derive(Debug, Clone, Args)]
pub struct MemoryOf {
    /// The machine.
    #[command(flatten)]
    pub running: Running,
    /// Ask the guest to give so much memory to its balloon, in MiB or with a unit; 0 gives it all back
    #[arg(long, value_name = "SIZE", value_parser = size::balloon_bytes)]
    pub balloon: Option<u64>,
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
}

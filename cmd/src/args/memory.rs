//! Flags of `kiln run` about memory.

use clap::Args;
use kiln_run::config::{Balloon, MemoryOptions, Pages};

use super::size;

/// The memory of a machine, as typed.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Memory {
    /// Memory in MiB, or with a unit: 512M, 4G, 4GiB
    #[arg(long, value_name = "SIZE", default_value = "1024", value_parser = size::memory_mib)]
    pub mem: u64,
    /// Take all memory from the huge pages that are reserved on this host, before the guest starts; none goes back before
    /// its end
    #[arg(long)]
    pub hugepages: bool,
    /// No balloon: memory that the guest has used once does not go back to this host before the guest ends
    #[arg(long)]
    pub no_balloon: bool,
}

impl Memory {
    /// Where the memory comes from and goes to.
    pub fn options(&self) -> MemoryOptions {
        MemoryOptions {
            pages: if self.hugepages { Pages::Reserved } else { Pages::Ordinary },
            balloon: if self.no_balloon { Balloon::Absent } else { Balloon::Present },
        }
    }
}

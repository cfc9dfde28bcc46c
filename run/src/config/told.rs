//! What a machine is told by its tables, beside a command line.

use std::path::PathBuf;

/// Texts and files for the guest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// Strings of its maker's in the SMBIOS tables, in order. systemd takes credentials out of those that begin with
    /// `io.systemd.credential:`.
    pub oem_strings: Vec<String>,
    /// What Ignition, the first program of Fedora CoreOS and Flatcar, is to do.
    pub ignition: Option<PathBuf>,
}

impl Told {
    /// Most strings: their count has a byte.
    pub const MOST_OEM_STRINGS: usize = 255;
    /// Most bytes of all strings together: they lie in the 64 KiB below 1 MiB.
    pub const MOST_OEM_BYTES: usize = 60 << 10;
    /// Most bytes of a file for Ignition, which is held in memory.
    pub const MOST_IGNITION_BYTES: u64 = 16 << 20;
}

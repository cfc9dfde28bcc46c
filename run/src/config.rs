//! The description of a machine that every front of kiln is parsed into. Plain data: nothing is opened here.

use std::path::PathBuf;

/// One machine, as its user asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineConfig {
    /// Number of vCPUs.
    pub cpus: u32,
    /// Guest memory in MiB.
    pub memory_mib: u64,
    /// What it boots.
    pub boot: Boot,
    /// Disks in the order that the guest sees them: `/dev/vda`, `/dev/vdb`, …
    pub disks: Vec<Disk>,
    /// What a reset asked for by the guest does.
    pub on_reset: OnReset,
    /// Folder for what the machine keeps between runs; made only when all checks have passed.
    pub state_dir: PathBuf,
}

/// What a machine boots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Boot {
    /// A Linux kernel, started directly.
    Linux {
        /// A bzImage or an uncompressed ELF `vmlinux`.
        kernel: PathBuf,
        /// Initial RAM disk, if any.
        initrd: Option<PathBuf>,
        /// Kernel command line.
        cmdline: String,
    },
}

/// One disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The file behind it.
    pub path: PathBuf,
    /// Size in bytes to create the file with when it is missing.
    pub size_bytes: Option<u64>,
    /// How the file is laid out.
    pub format: DiskFormat,
    /// The guest may not write.
    pub read_only: bool,
}

/// Layout of a disk's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFormat {
    /// The disk's bytes as they are.
    Raw,
}

/// What a reset asked for by the guest does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnReset {
    /// The machine starts again.
    Reboot,
    /// The run ends.
    Stop,
}

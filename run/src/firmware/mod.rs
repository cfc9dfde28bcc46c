//! EFI firmware in the machine: EDK II's stock build for QEMU's Q35, unchanged. Here are its files (found, read, checked, the
//! variables kept) and the devices that only it uses. What it needs beside them is the machine's own: Q35's bridges, clock,
//! power management block, virtio.

mod debug_port;
mod fat;
mod find;
mod flash;
mod fw_cfg;
mod kernel;
mod media;
mod open;
mod unified;
mod volume;

pub use self::debug_port::{DebugPort, PORT as DEBUG_PORT};
pub use self::find::{Found, NotFound, find, template_of};
pub use self::flash::Flash;
pub use self::fw_cfg::{Contents, FwCfg};
pub use self::kernel::is_program;
pub use self::media::{BootsBy, boots_by};
pub use self::open::{FirmwareError, Image, MovedAside, OpenFirmware};
pub use self::unified::{Unified, unified};
pub use self::volume::{BadFirmware, BadVariables};

/// Of the configuration: the memory, in entries of address, length and kind.
pub const MEMORY_FILE: &str = "etc/e820";
/// What to boot from, in this order: Open Firmware's paths, a line each.
pub const BOOT_ORDER_FILE: &str = "bootorder";
/// What Ignition is to do, which that reads itself.
pub const IGNITION_FILE: &str = "opt/com.coreos/config";
/// How long to wait for the key to the menu: milliseconds, as two bytes.
pub const BOOT_MENU_WAIT_FILE: &str = "etc/boot-menu-wait";

/// Least memory of a machine with firmware, in MiB: EDK II does not start with 64.
pub const MIN_MEMORY_MIB: u64 = 128;

#[cfg(test)]
pub(crate) mod tests {
    pub(crate) use super::volume::tests::{code, variables};
}

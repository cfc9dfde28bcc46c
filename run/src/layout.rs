//! Where things are in the guest's address spaces: a Q35-like PC. Constants only; what depends on the size of memory is
//! in [`crate::mem::Split`].

/// One MiB in bytes.
pub const MIB: u64 = 1 << 20;
/// One GiB in bytes.
pub const GIB: u64 = 1 << 30;

/// RAM below 4 GiB ends here at the latest; the hole for devices begins right above.
pub const LOW_RAM_LIMIT: u64 = 3 * GIB;
/// RAM that did not fit below [`LOW_RAM_LIMIT`] goes on from here.
pub const HIGH_RAM_START: u64 = 4 * GIB;

/// With firmware RAM ends here at the latest: EDK II of 2022 and before puts ECAM there, for the Q35 that it expects.
pub const FIRMWARE_LOW_RAM_LIMIT: u64 = 0xB000_0000;
/// RAM below 4 GiB of a machine with firmware that has more than that. Above it firmware puts BARs.
pub const FIRMWARE_LOW_RAM: u64 = 2 * GIB;
/// First address past what firmware takes for BARs: above it are the chipset's own addresses.
pub const FIRMWARE_WINDOW32_END: u64 = 0xFC00_0000;
/// Firmware ends here, and has at most [`FIRMWARE_MAX`].
pub const FIRMWARE_END: u64 = 4 * GIB;
/// Most bytes of firmware with its variables: they begin above the chipset's addresses.
pub const FIRMWARE_MAX: u64 = 16 * MIB;

/// Start of the window for 32-bit PCI BARs.
pub const PCI_WINDOW32_START: u64 = LOW_RAM_LIMIT;
/// First address past the window for 32-bit PCI BARs.
pub const PCI_WINDOW32_END: u64 = ECAM_START;
/// PCI configuration space (ECAM) of bus 0: 32 devices, 8 functions, 4 KiB each.
pub const ECAM_START: u64 = 0xE000_0000;
/// Bytes of configuration space: one bus.
pub const ECAM_LEN: u64 = MIB;
/// Index and data port of configuration space, the older way into it.
pub const PCI_CONFIG_PORTS: u64 = 0xCF8;
/// Size of the window for 64-bit PCI BARs; it starts at [`crate::mem::Split::pci_window64_start`].
pub const PCI_WINDOW64_LEN: u64 = 16 * GIB;

/// The I/O APIC's registers.
pub const IOAPIC_START: u64 = 0xFEC0_0000;
/// Bytes of them.
pub const IOAPIC_LEN: u64 = 0x1000;
/// The chipset's own registers, where firmware of Q35 machines puts them.
pub const CHIPSET_START: u64 = 0xFED1_C000;
/// The one of them that is there: general control and status (ICH9 datasheet 10.1.75).
pub const GENERAL_STATUS: u64 = CHIPSET_START + 0x3410;
/// Bytes of it.
pub const GENERAL_STATUS_LEN: u64 = 4;
/// The local APIC's registers.
pub const LOCAL_APIC_START: u64 = 0xFEE0_0000;
/// Four pages that KVM needs for itself on old Intel processors; below any firmware that ends at 4 GiB.
pub const KVM_PAGES_START: u64 = 0xFEFF_C000;

/// Conventional memory ends here; the tables that the host writes for the guest lie above it, below 1 MiB.
pub const EBDA_START: u64 = 0x9_FC00;
/// Description of the machine for the kernel's entry point (PVH start info or the zero page).
pub const BOOT_INFO_START: u64 = 0x7000;
/// Page tables for the 64-bit entry of a bzImage.
pub const PAGE_TABLES_START: u64 = 0x9000;
/// Segment descriptors that both entry points want loaded.
pub const GDT_START: u64 = 0x500;
/// The kernel's command line.
pub const COMMAND_LINE_START: u64 = 0x2_0000;
/// Longest command line in bytes with its closing zero (x86 Linux: `COMMAND_LINE_SIZE`).
pub const COMMAND_LINE_MAX: usize = 2048;
/// ACPI tables; a kernel searches here for the RSDP when nobody tells it where it is.
pub const ACPI_START: u64 = 0xE_0000;
/// First address past the room for ACPI tables.
pub const ACPI_END: u64 = 0xF_0000;
/// SMBIOS tables; a kernel searches here for their entry point when nobody tells it where it is.
pub const SMBIOS_START: u64 = ACPI_END;
/// First address past the room for SMBIOS tables.
pub const SMBIOS_END: u64 = 0x10_0000;
/// Kernels live from here on.
pub const KERNEL_START: u64 = MIB;

/// Ports of the configuration for firmware: selector, data, and behind them the address of a DMA request.
pub const FW_CFG_PORT: u64 = 0x510;
/// Number of them.
pub const FW_CFG_PORTS: u64 = 12;
/// First serial port.
pub const SERIAL_PORT: u64 = 0x3F8;
/// Interrupt of the first serial port.
pub const SERIAL_IRQ: u32 = 4;
/// Index and data port of the clock's memory.
pub const CMOS_PORT: u64 = 0x70;
/// Keyboard controller's command port: only its reset line exists.
pub const KEYBOARD_COMMAND_PORT: u64 = 0x64;
/// The chipset's reset control port.
pub const RESET_PORT: u64 = 0xCF9;
/// Power management ports, where Q35 firmware puts them.
pub const PM_PORT: u64 = 0x600;
/// Number of power management ports.
pub const PM_PORTS: u64 = 0x10;
/// The watchdog's ports, where Q35's chipset has them behind the power management ports.
pub const WATCHDOG_PORT: u64 = PM_PORT + 0x60;
/// Number of them.
pub const WATCHDOG_PORTS: u64 = 0x20;
/// Interrupt of the power management block (SCI).
pub const SCI_IRQ: u32 = 9;

/// Lower interrupt lines may be pins of an I/O APIC; message-signalled ones get numbers from here.
pub const FIRST_MSI_LINE: u32 = 24;

const _: () = assert!(PCI_WINDOW32_END <= ECAM_START && ECAM_START + ECAM_LEN <= IOAPIC_START);
const _: () = assert!(LOW_RAM_LIMIT.is_multiple_of(2 * MIB) && HIGH_RAM_START.is_multiple_of(2 * MIB));
const _: () = assert!(KVM_PAGES_START + 0x4000 <= FIRMWARE_END - FIRMWARE_MAX);
const _: () = assert!(COMMAND_LINE_START + (COMMAND_LINE_MAX as u64) < EBDA_START);

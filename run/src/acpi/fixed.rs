//! FADT: where the power management block is, and what this machine does not have.

use acpi_tables::fadt::{FADT, FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};

use super::{OEM, OEM_REVISION, OEM_TABLE};
use crate::chipset::{RESET_COMMAND, pm};
use crate::layout::{PM_PORT, RESET_PORT, SCI_IRQ};

/// `IAPC_BOOT_ARCH`: no VGA adapter, no active state power management of PCI Express links, no clock. Also no keyboard
/// controller, for its bit is not set. The clock is there for firmware; a kernel that is told of it spends 150 exits on
/// it at boot, and has better clocks.
const BOOT_ARCHITECTURE: u16 = 1 << 2 | 1 << 4 | 1 << 5;
/// Latencies above these mean that the processor has no deeper sleep than C1 (microseconds).
const NO_C2: u16 = 101;
const NO_C3: u16 = 1001;

pub(super) fn table(facs: u64, dsdt: u64) -> FADT {
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        // No sleep button, and the clock cannot wake the machine. That the power button's bit is not set means that
        // there is one.
        .flag(Flags::SlpButton)
        .flag(Flags::FixRtc)
        .flag(Flags::ResetRegSup);
    let port = |offset: u64| u32::try_from(PM_PORT + offset).unwrap_or(0);
    fadt.sci_int = u16::try_from(SCI_IRQ).unwrap_or(0).into();
    fadt.pm1a_evt_blk = port(pm::EVENTS).into();
    fadt.pm1_evt_len = 4;
    fadt.pm1a_cnt_blk = port(pm::CONTROL).into();
    fadt.pm1_cnt_len = 2;
    fadt.pm_tmr_blk = port(pm::TIMER).into();
    fadt.pm_tmr_len = 4;
    fadt.x_pm1a_evt_blk = register(PM_PORT + pm::EVENTS, 32, AccessSize::WordAccess);
    fadt.x_pm1a_cnt_blk = register(PM_PORT + pm::CONTROL, 16, AccessSize::WordAccess);
    fadt.x_pm_tmr_blk = register(PM_PORT + pm::TIMER, 32, AccessSize::DwordAccess);
    fadt.p_lvl2_lat = NO_C2.into();
    fadt.p_lvl3_lat = NO_C3.into();
    fadt.iapc_boot_arch = BOOT_ARCHITECTURE.into();
    fadt.reset_reg = register(RESET_PORT, 8, AccessSize::ByteAccess);
    fadt.reset_value = RESET_COMMAND;
    fadt.x_firmware_ctrl = facs.into();
    fadt.x_dsdt = dsdt.into();
    // Tables lie below 4 GiB: readers that only know the old fields find them too.
    fadt.dsdt = u32::try_from(dsdt).unwrap_or(0).into();
    fadt.finalize()
}

fn register(port: u64, bits: u8, access: AccessSize) -> GAS {
    GAS::new(AddressSpace::SystemIo, bits, 0, access, port)
}

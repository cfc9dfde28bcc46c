//! WDAT: how a system drives the watchdog, as reads and writes of registers (Microsoft, "Hardware Watchdog Timers Design
//! Specification"). The same table fits QEMU's Q35, whose chipset has the same watchdog.

use acpi_tables::Aml;
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::sdt::Sdt;

use super::{OEM, OEM_REVISION, OEM_TABLE};
use crate::chipset::watchdog::{CONTROL, COUNT, HALT, MAX_TICKS, MIN_TICKS, NO_REBOOT, RELOAD, TICK};
use crate::layout::{GENERAL_STATUS, WATCHDOG_PORT};

/// Bytes of the table's own header, behind that of all tables.
const HEADER_BYTES: u32 = 32;
/// In place of a PCI address: there is none.
const NO_PCI_SEGMENT: u16 = 0xFF;
const NO_PCI_ADDRESS: [u8; 3] = [0xFF; 3];
/// Flag: the watchdog is there to be used.
const ENABLED: u8 = 1;

/// Instructions.
const WRITE_VALUE: u8 = 2;
const WRITE_COUNTDOWN: u8 = 3;
/// Added to an instruction: bits outside of the mask stay.
const PRESERVE: u8 = 0x80;

/// Actions.
const RESET: u8 = 1;
const SET_COUNTDOWN: u8 = 6;
const SET_RUNNING: u8 = 9;
const SET_STOPPED: u8 = 11;
const SET_REBOOT: u8 = 17;

/// The table.
///
/// There is no action that asks whether the watchdog runs: QEMU's says so even while it does not, and Linux would then
/// wind it up for ever on behalf of nobody.
pub(super) fn table() -> Sdt {
    let mut table = Sdt::new(*b"WDAT", 36, 1, OEM, OEM_TABLE, OEM_REVISION);
    let mut body = Vec::new();
    body.extend(HEADER_BYTES.to_le_bytes());
    body.extend(NO_PCI_SEGMENT.to_le_bytes());
    body.extend(NO_PCI_ADDRESS);
    body.extend([0; 3]);
    // It has to run down twice.
    let period_ms = u32::try_from(2 * TICK.as_millis()).unwrap_or(u32::MAX);
    for number in [period_ms, MAX_TICKS.into(), MIN_TICKS.into()] {
        body.extend(number.to_le_bytes());
    }
    body.extend([ENABLED, 0, 0, 0]);
    let entries = [
        entry(RESET, WRITE_VALUE, port(RELOAD), 1, 1),
        entry(SET_COUNTDOWN, WRITE_COUNTDOWN, port(COUNT), 0, MAX_TICKS.into()),
        entry(SET_RUNNING, WRITE_VALUE | PRESERVE, port(CONTROL), 0, HALT.into()),
        entry(SET_STOPPED, WRITE_VALUE | PRESERVE, port(CONTROL), HALT.into(), HALT.into()),
        entry(SET_REBOOT, WRITE_VALUE | PRESERVE, general_status(), 0, NO_REBOOT),
    ];
    body.extend(u32::try_from(entries.len()).unwrap_or(0).to_le_bytes());
    body.extend(entries.concat());
    table.append_slice(&body);
    table
}

fn entry(action: u8, instruction: u8, register: GAS, value: u32, mask: u32) -> Vec<u8> {
    let mut bytes = vec![action, instruction, 0, 0];
    register.to_aml_bytes(&mut bytes);
    bytes.extend(value.to_le_bytes());
    bytes.extend(mask.to_le_bytes());
    bytes
}

fn port(register: u64) -> GAS {
    GAS::new(AddressSpace::SystemIo, 16, 0, AccessSize::WordAccess, WATCHDOG_PORT + register)
}

fn general_status() -> GAS {
    GAS::new(AddressSpace::SystemMemory, 32, 0, AccessSize::DwordAccess, GENERAL_STATUS)
}

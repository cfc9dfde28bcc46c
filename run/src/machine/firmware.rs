//! The devices of a machine that starts with firmware: its memory, its variables, its configuration.

use std::sync::{Arc, Mutex, PoisonError};

use super::{Error, pci};
use crate::acpi::{self, Places};
use crate::bus::BusDevice;
use crate::chipset::Buses;
use crate::config::{Firmware, MachineConfig};
use crate::firmware::{
    BOOT_MENU_WAIT_FILE, BOOT_ORDER_FILE, Contents, DEBUG_PORT, DebugPort, FW_CFG_PORT, FW_CFG_PORTS, Flash, FwCfg,
    MEMORY_FILE, OpenFirmware,
};
use crate::hv::Roms;
use crate::layout::{FIRMWARE_END, PCI_CONFIG_PORTS};
use crate::mem::{GuestRam, Rom, Split};
use crate::pci::{DATA_PORT, PciBus, config_ports};

/// What firmware printed for debugging, in the state folder.
const LOG_FILE: &str = "firmware.log";
/// Kind of memory: to be used.
const RAM: u32 = 1;

/// What the devices need.
pub(super) struct Parts<'a> {
    pub(super) wanted: &'a Firmware,
    pub(super) opened: &'a OpenFirmware,
    pub(super) config: &'a MachineConfig,
    pub(super) ram: &'a GuestRam,
    pub(super) bus: Arc<Mutex<PciBus>>,
    /// Device numbers of the disks, in order.
    pub(super) slots: Vec<u8>,
    pub(super) roms: Arc<dyn Roms>,
}

/// Puts them on the buses, and the firmware into the guest's memory.
pub(super) fn attach(buses: &mut Buses<'_>, parts: Parts<'_>) -> Result<(), Error> {
    let Parts { wanted, opened, config, ram, bus, slots, roms } = parts;
    let (image, variables) = (&opened.image, &opened.variables);
    let code_start = FIRMWARE_END.saturating_sub(image.code.len() as u64);
    let code = Rom::new(code_start, &image.code).map_err(Error::Firmware)?;
    roms.show(&Arc::new(code))?;
    let mut kept = vec![0; image.template.len()];
    std::os::unix::fs::FileExt::read_exact_at(&**variables, &mut kept, 0).map_err(Error::Firmware)?;
    let kept = Rom::new(code_start.saturating_sub(kept.len() as u64), &kept).map_err(Error::Firmware)?;
    let kept = Arc::new(kept);
    roms.show(&kept)?;
    let (start, len) = (kept.start(), kept.len());
    buses.memory.insert(start, len, device(Flash::new(kept, roms, Arc::clone(variables))))?;

    let mut files = tables(ram.split(), config.cpus, &bus);
    files.push((MEMORY_FILE.into(), Contents::Bytes(memory_map(ram.split()))));
    files.push((BOOT_ORDER_FILE.into(), Contents::Bytes(boot_order(&slots))));
    if let Some(seconds) = wanted.menu_wait_s {
        let milliseconds = seconds.saturating_mul(1000);
        files.push((BOOT_MENU_WAIT_FILE.into(), Contents::Bytes(milliseconds.to_le_bytes().into())));
    }
    let fw_cfg = FwCfg::new(ram.memory().clone(), config.cpus, files);
    buses.ports.insert(FW_CFG_PORT, FW_CFG_PORTS, device(fw_cfg))?;
    buses.ports.insert(PCI_CONFIG_PORTS, 1, config_ports(&bus, 0))?;
    buses.ports.insert(PCI_CONFIG_PORTS + DATA_PORT, 4, config_ports(&bus, DATA_PORT))?;
    buses.ports.insert(DEBUG_PORT, 1, device(DebugPort::new(config.state_dir.join(LOG_FILE))))?;
    Ok(())
}

fn device(device: impl BusDevice + 'static) -> Arc<Mutex<dyn BusDevice>> {
    Arc::new(Mutex::new(device))
}

/// The tables. Firmware asks for them when it has set up the bus, and so they tell of where it put things.
fn tables(split: Split, cpus: u32, bus: &Arc<Mutex<PciBus>>) -> Vec<(String, Contents)> {
    let bus = Arc::clone(bus);
    let blobs = move || {
        let ecam = bus.lock().unwrap_or_else(PoisonError::into_inner).ecam();
        acpi::Blobs::new(&Places::chosen(split, pci::firmware_window(split), ecam), cpus)
    };
    let now = blobs();
    vec![
        (acpi::RSDP_FILE.into(), Contents::Bytes(now.rsdp)),
        (acpi::SCRIPT_FILE.into(), Contents::Bytes(now.script)),
        (acpi::TABLES_FILE.into(), Contents::Late(now.tables.len(), Box::new(move || blobs().tables))),
    ]
}

fn memory_map(split: Split) -> Vec<u8> {
    let entry =
        |(start, len): (u64, u64)| [start.to_le_bytes().as_slice(), &len.to_le_bytes(), &RAM.to_le_bytes()].concat();
    split.pieces().flat_map(entry).collect()
}

/// Open Firmware's paths of disks, with a closing zero.
fn boot_order(slots: &[u8]) -> Vec<u8> {
    let lines: Vec<_> = slots.iter().map(|slot| format!("/pci@i0cf8/scsi@{slot:x}/disk@0,0")).collect();
    format!("{}\0", lines.join("\n")).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::GIB;

    #[test]
    fn the_order_to_boot_in_is_that_of_the_disks() {
        let expected = "/pci@i0cf8/scsi@3/disk@0,0\n/pci@i0cf8/scsi@1b/disk@0,0\0";
        assert_eq!(boot_order(&[3, 27]), expected.as_bytes());
        assert_eq!(boot_order(&[]), [0]);
    }

    #[test]
    fn the_map_of_memory_is_that_of_ram() {
        let map = memory_map(Split::with_firmware(5 * GIB));
        let words: Vec<_> = map.chunks(20).map(|entry| u64::from_le_bytes(entry[8..16].try_into().unwrap())).collect();
        assert_eq!(words, [2 * GIB, 3 * GIB]);
    }
}

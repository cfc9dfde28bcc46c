//! The devices of a machine that starts with firmware: its memory, its variables, its configuration. Without firmware there is
//! a configuration too if the guest is to find a file there.

use std::fs;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Error, pci};
use crate::acpi::{self, Places};
use crate::bus::BusDevice;
use crate::chipset::Buses;
use crate::config::{Boot, Firmware, MachineConfig, Told};
use crate::firmware::{
    BOOT_MENU_WAIT_FILE, BOOT_ORDER_FILE, Contents, DEBUG_PORT, DebugPort, Flash, FwCfg, IGNITION_FILE, MEMORY_FILE,
    OpenFirmware,
};
use crate::hv::Roms;
use crate::layout::{FIRMWARE_END, FW_CFG_PORT, FW_CFG_PORTS, PCI_CONFIG_PORTS};
use crate::mem::{GuestRam, Rom, Split};
use crate::pci::{DATA_PORT, PciBus, config_ports};
use crate::smbios::{self, Bios, Uuid};

/// What firmware printed for debugging, in the state folder.
const LOG_FILE: &str = "firmware.log";
/// Kind of memory: to be used.
const RAM: u32 = 1;

/// A file of the configuration.
type Item = (String, Contents);

/// What the devices need.
pub(super) struct Parts<'a> {
    /// The firmware's files, if the machine has some.
    pub(super) opened: Option<&'a OpenFirmware>,
    pub(super) config: &'a MachineConfig,
    pub(super) ram: &'a GuestRam,
    pub(super) bus: Arc<Mutex<PciBus>>,
    /// Device numbers of the disks, in order.
    pub(super) slots: Vec<u8>,
    pub(super) roms: Arc<dyn Roms>,
}

/// Whether a machine has a configuration without firmware.
pub(super) fn has_fw_cfg(told: &Told) -> bool {
    told.ignition.is_some()
}

/// Puts them on the buses, and the firmware into the guest's memory.
pub(super) fn attach(buses: &mut Buses<'_>, parts: Parts<'_>) -> Result<(), Error> {
    let Parts { opened, config, ram, bus, slots, roms } = parts;
    let mut files = vec![];
    if let Some(path) = &config.told.ignition {
        let bytes = fs::read(path).map_err(|source| Error::Ignition { path: path.clone(), source })?;
        files.push((IGNITION_FILE.into(), Contents::Bytes(bytes)));
    }
    if let (Boot::Firmware(wanted), Some(opened)) = (&config.boot, opened) {
        flash(buses, opened, roms)?;
        ports(buses, &bus, config)?;
        files.extend(asked_for(wanted, config, ram.split(), &bus, &slots));
    }
    if !files.is_empty() {
        let mut fw_cfg = FwCfg::new(ram.memory().clone(), config.cpus, files);
        if let Boot::Firmware(Firmware { kernel: Some(kernel), .. }) = &config.boot {
            fw_cfg = fw_cfg.with_kernel(kernel).map_err(Error::KernelFiles)?;
        }
        buses.ports.insert(FW_CFG_PORT, FW_CFG_PORTS, device(fw_cfg))?;
    }
    Ok(())
}

/// What runs, and the variables right below it.
fn flash(buses: &mut Buses<'_>, opened: &OpenFirmware, roms: Arc<dyn Roms>) -> Result<(), Error> {
    let OpenFirmware { image, variables, .. } = opened;
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
    Ok(())
}

fn ports(buses: &mut Buses<'_>, bus: &Arc<Mutex<PciBus>>, config: &MachineConfig) -> Result<(), Error> {
    buses.ports.insert(PCI_CONFIG_PORTS, 1, config_ports(bus, 0))?;
    buses.ports.insert(PCI_CONFIG_PORTS + DATA_PORT, 4, config_ports(bus, DATA_PORT))?;
    buses.ports.insert(DEBUG_PORT, 1, device(DebugPort::new(config.state_dir.join(LOG_FILE))))?;
    Ok(())
}

fn device(device: impl BusDevice + 'static) -> Arc<Mutex<dyn BusDevice>> {
    Arc::new(Mutex::new(device))
}

/// What firmware asks for by name.
fn asked_for(
    wanted: &Firmware,
    config: &MachineConfig,
    split: Split,
    bus: &Arc<Mutex<PciBus>>,
    slots: &[u8],
) -> Vec<Item> {
    let mut files = tables(split, config.cpus, bus);
    let mut bytes = |name: &str, bytes: Vec<u8>| files.push((name.into(), Contents::Bytes(bytes)));
    bytes(MEMORY_FILE, memory_map(split));
    bytes(BOOT_ORDER_FILE, boot_order(slots));
    let told = smbios::Tables::new(Bios::Firmware, Uuid::of(&config.state_dir), &config.told.oem_strings);
    bytes(smbios::ANCHOR_FILE, told.anchor);
    bytes(smbios::TABLES_FILE, told.structures);
    if let Some(seconds) = wanted.menu_wait_s {
        bytes(BOOT_MENU_WAIT_FILE, seconds.saturating_mul(1000).to_le_bytes().into());
    }
    files
}

/// The tables. Firmware asks for them when it has set up the bus, and so they tell of where it put things.
fn tables(split: Split, cpus: u32, bus: &Arc<Mutex<PciBus>>) -> Vec<Item> {
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

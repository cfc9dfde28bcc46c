//! DSDT: what cannot be found by asking buses.

use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Interrupt, Memory32Fixed, Name, Package, Path,
    ResourceTemplate, ZERO,
};
use acpi_tables::sdt::Sdt;

use super::{OEM, OEM_REVISION, OEM_TABLE, Places};
use crate::chipset::panic_port;
use crate::layout::{ECAM_LEN, FW_CFG_PORT, FW_CFG_PORTS, SERIAL_IRQ, SERIAL_PORT};

pub(super) fn table(places: &Places) -> Sdt {
    let mut body = Vec::new();
    pci_root(places, &mut body);
    motherboard(places.ecam, &mut body);
    serial_port(&mut body);
    panic_port(&mut body);
    if places.has_fw_cfg {
        fw_cfg(&mut body);
    }
    // Sleep type 0 is power-off, as on Q35: firmware has that number built in.
    Name::new("_S5_".into(), &Package::new(vec![&ZERO, &ZERO, &ZERO, &ZERO])).to_aml_bytes(&mut body);
    let mut table = Sdt::new(*b"DSDT", 36, 2, OEM, OEM_TABLE, OEM_REVISION);
    table.append_slice(&body);
    table
}

/// A device below the system bus.
fn device(name: &str, children: Vec<&dyn Aml>, body: &mut Vec<u8>) {
    Device::new(Path::new(name), children).to_aml_bytes(body);
}

/// PCI Express root: bus 0 only, with windows for BARs. All its devices signal interrupts by message.
fn pci_root(places: &Places, body: &mut Vec<u8>) {
    let low = |address: u64| u32::try_from(address).unwrap_or(0);
    let bus = AddressSpace::<u16>::new_bus_number(0, 0);
    // All ports but those of the other way into configuration space. The LPC bridge's own ports are among them.
    let ports_below = AddressSpace::<u16>::new_io(0, 0xCF7, None);
    let ports_above = AddressSpace::<u16>::new_io(0xD00, 0xFFFF, None);
    let window32 = AddressSpace::<u32>::new_memory(
        AddressSpaceCacheable::NotCacheable,
        true,
        low(places.window32.start),
        low(places.window32.end - 1),
        None,
    );
    let window64 = AddressSpace::<u64>::new_memory(
        AddressSpaceCacheable::NotCacheable,
        true,
        places.window64.start,
        places.window64.end - 1,
        None,
    );
    device(
        "_SB_.PCI0",
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0A08")),
            &Name::new("_CID".into(), &EISAName::new("PNP0A03")),
            &Name::new("_SEG".into(), &ZERO),
            &Name::new("_BBN".into(), &ZERO),
            &Name::new("_UID".into(), &ZERO),
            // Devices see what processors wrote without any cache maintenance.
            &Name::new("_CCA".into(), &acpi_tables::aml::ONE),
            &Name::new(
                "_CRS".into(),
                &ResourceTemplate::new(vec![&bus, &ports_below, &ports_above, &window32, &window64]),
            ),
        ],
        body,
    );
}

/// Reserves configuration space, which Linux wants to see before it trusts the MCFG table.
fn motherboard(ecam: u64, body: &mut Vec<u8>) {
    let start = u32::try_from(ecam).unwrap_or(0);
    let len = u32::try_from(ECAM_LEN).unwrap_or(0);
    let config_space = Memory32Fixed::new(true, start, len);
    device(
        "_SB_.MBRD",
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0C02")),
            &Name::new("_UID".into(), &ZERO),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&config_space])),
        ],
        body,
    );
}

fn serial_port(body: &mut Vec<u8>) {
    let port = u16::try_from(SERIAL_PORT).unwrap_or(0);
    device(
        "_SB_.COM1",
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0501")),
            &Name::new("_UID".into(), &ZERO),
            &Name::new(
                "_CRS".into(),
                &ResourceTemplate::new(vec![
                    &IO::new(port, port, 0, 8),
                    &Interrupt::new(true, true, false, false, SERIAL_IRQ),
                ]),
            ),
        ],
        body,
    );
}

/// The name is the one by which Linux's driver knows the device.
fn panic_port(body: &mut Vec<u8>) {
    let port = u16::try_from(panic_port::PORT).unwrap_or(0);
    device(
        "_SB_.PEVT",
        vec![
            &Name::new("_HID".into(), &"QEMU0001"),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&IO::new(port, port, 1, 1)])),
        ],
        body,
    );
}

/// As above: Linux shows its files below `/sys/firmware/qemu_fw_cfg`.
fn fw_cfg(body: &mut Vec<u8>) {
    let port = u16::try_from(FW_CFG_PORT).unwrap_or(0);
    let ports = u8::try_from(FW_CFG_PORTS).unwrap_or(0);
    device(
        "_SB_.FWCF",
        vec![
            &Name::new("_HID".into(), &"QEMU0002"),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&IO::new(port, port, 1, ports)])),
        ],
        body,
    );
}

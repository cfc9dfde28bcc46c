//! The one BAR of a virtio function and the capabilities that tell of it (4.1.4).

use crate::{
    pci::{Bar, ConfigSpace, Identity, Msix},
    virtio::spec::DeviceType,
};

/// Vendor of all virtio devices (4.1.2).
const VENDOR: u16 = 0x1AF4;
/// Device ids begin here, by device type (4.1.2.1).
const DEVICE_BASE: u16 = 0x1040;
/// Revision of devices that are not transitional (4.1.2.1).
const REVISION: u8 = 1;
/// Capability id: vendor-specific.
const VENDOR_CAPABILITY: u8 = 0x09;

/// Kinds of virtio capabilities (4.1.4).
const COMMON_CFG: u8 = 1;
const NOTIFY_CFG: u8 = 2;
const ISR_CFG: u8 = 3;
const DEVICE_CFG: u8 = 4;
const PCI_CFG: u8 = 5;

/// Bytes of `struct virtio_pci_cap` (4.1.4).
const CAPABILITY_BYTES: u8 = 16;
/// Offset of the field that follows `struct virtio_pci_cap` in the notify and PCI configuration capabilities.
pub(super) const CAPABILITY_EXTRA: usize = 16;
/// Offsets in `struct virtio_pci_cap` that a driver writes to reach the BAR through configuration space (4.1.4.9).
pub(super) const CAPABILITY_BAR: usize = 4;
pub(super) const CAPABILITY_OFFSET: usize = 8;
pub(super) const CAPABILITY_LENGTH: usize = 12;

/// The one BAR.
pub(super) const BAR: Bar = Bar { index: 0, len: 0x8000 };
/// Parts of the BAR: a page each, so that a page has one purpose.
pub(super) const PAGE: u64 = 0x1000;
pub(super) const COMMON: u64 = 0x0000;
pub(super) const ISR: u64 = 0x1000;
pub(super) const DEVICE: u64 = 0x2000;
pub(super) const NOTIFY: u64 = 0x3000;
pub(super) const MSIX_TABLE: u64 = 0x4000;
pub(super) const MSIX_PENDING: u64 = 0x5000;
/// Bytes between the doorbells of two queues (4.1.4.4).
pub(super) const NOTIFY_MULTIPLIER: u64 = 4;
/// Most queues of a device: their doorbells fit their page.
pub(super) const MAX_QUEUES: usize = 1024;

const _: () = assert!(MAX_QUEUES as u64 * NOTIFY_MULTIPLIER <= PAGE);
const _: () = assert!(crate::pci::MAX_VECTORS as u64 * 16 <= PAGE && MSIX_PENDING + PAGE <= BAR.len);

/// Where the capabilities that the transport watches are in configuration space.
#[derive(Debug, Clone, Copy)]
pub(super) struct Places {
    /// MSI-X.
    pub msix: usize,
    /// Access to the BAR through configuration space.
    pub pci_cfg: usize,
}

/// PCI class of a device; a driver goes by the device id, tools show the class.
fn class(device_type: DeviceType) -> u32 {
    match device_type {
        DeviceType::Net => 0x02_00_00,
        DeviceType::Block => 0x01_00_00,
        DeviceType::Console | DeviceType::Socket => 0x07_80_00,
        DeviceType::FileSystem => 0x01_80_00,
        DeviceType::Entropy | DeviceType::Balloon => 0x00_FF_00,
    }
}

/// Configuration space of a device with its capabilities.
pub(super) fn config_space(device_type: DeviceType, msix: &Msix) -> (ConfigSpace, Places) {
    let device = DEVICE_BASE + device_type as u16;
    let mut config = ConfigSpace::new(Identity {
        vendor: VENDOR,
        device,
        revision: REVISION,
        class: class(device_type),
        subsystem: (VENDOR, device),
    });
    config.add_bar(BAR);
    add(&mut config, COMMON_CFG, COMMON, &[]);
    add(&mut config, ISR_CFG, ISR, &[]);
    add(&mut config, DEVICE_CFG, DEVICE, &[]);
    add(&mut config, NOTIFY_CFG, NOTIFY, &NOTIFY_MULTIPLIER.to_le_bytes()[..4]);
    let pci_cfg = add(&mut config, PCI_CFG, 0, &[0; 4]);
    config.allow(pci_cfg + CAPABILITY_BAR, &[0xff]);
    config.allow(pci_cfg + CAPABILITY_OFFSET, &[0xff; 8]);
    let body = msix.capability(0, offset32(MSIX_TABLE), offset32(MSIX_PENDING));
    let msix = config.add_capability(crate::pci::MSIX_CAPABILITY_ID, &body);
    config.allow(msix + 2, &Msix::WRITABLE);
    (config, Places { msix, pci_cfg })
}

fn offset32(offset: u64) -> u32 {
    u32::try_from(offset).expect("an offset within the BAR")
}

/// Adds a `struct virtio_pci_cap` followed by `extra`.
fn add(config: &mut ConfigSpace, kind: u8, offset: u64, extra: &[u8]) -> usize {
    // The access window of PCI_CFG is the driver's to set.
    let len = if kind == PCI_CFG { 0 } else { offset32(PAGE) };
    let cap_len = CAPABILITY_BYTES + u8::try_from(extra.len()).expect("four bytes at most");
    let mut body = vec![cap_len, kind, 0, 0, 0, 0];
    body.extend(offset32(offset).to_le_bytes());
    body.extend(len.to_le_bytes());
    body.extend(extra);
    config.add_capability(VENDOR_CAPABILITY, &body)
}

//! The bridges by which firmware and systems know the machine: Intel Q35's host bridge and ICH9's LPC bridge. Registers
//! only: what they would switch is where the machine put it from the start.

use std::ops::Range;

use super::{ConfigSpace, Identity, PciFunction};

const INTEL: u16 = 0x8086;

/// Host bridge register: where ECAM is (82Q35 datasheet, PCIEXBAR).
const PCIEXBAR: usize = 0x60;
/// PCIEXBAR: decoding is on.
const PCIEXBAR_ENABLE: u64 = 1;
/// PCIEXBAR: 64 MiB, the least that it can say. A size less halves it, from 256 MiB on.
const PCIEXBAR_64_MIB: u64 = 0b10 << 1;
/// PCIEXBAR: the address, as far as 64 MiB need it.
const PCIEXBAR_ADDRESS: u64 = 0x0000_000F_FC00_0000;

/// LPC bridge registers (ICH9 datasheet, 13.1).
const PMBASE: usize = 0x40;
const ACPI_CONTROL: usize = 0x44;
const PIRQ_A_TO_D: usize = 0x60;
const PIRQ_E_TO_H: usize = 0x68;
const RCBA: usize = 0xF0;
/// RCBA: the chipset's own registers answer.
const RCBA_ENABLE: u32 = 1;
/// ACPI_CNTL: the power management ports answer.
const ACPI_ENABLE: u8 = 1 << 7;
/// PIRQ: the pin goes nowhere.
const PIRQ_OFF: [u8; 4] = [0x80; 4];

/// 00:00.0, 8086:29C0.
#[derive(Debug)]
pub struct HostBridge {
    config: ConfigSpace,
}

impl HostBridge {
    /// A bridge by which ECAM is at `ecam`, or nowhere before firmware says where.
    #[must_use]
    pub fn new(ecam: Option<u64>) -> Self {
        let mut config = ConfigSpace::new(Identity {
            vendor: INTEL,
            device: 0x29C0,
            revision: 2,
            class: 0x06_00_00,
            subsystem: (0x1AF4, 0x1100),
        });
        if let Some(ecam) = ecam {
            config.set(PCIEXBAR, &(ecam | PCIEXBAR_64_MIB | PCIEXBAR_ENABLE).to_le_bytes());
        }
        config.allow(PCIEXBAR, &(PCIEXBAR_ADDRESS | PCIEXBAR_64_MIB | 1 << 1 | PCIEXBAR_ENABLE).to_le_bytes());
        Self { config }
    }
}

/// Where a host bridge with this configuration space shows that of the bus.
pub(super) fn ecam_of(config: &ConfigSpace) -> Option<Range<u64>> {
    let register = u64::from(config.u32_at(PCIEXBAR)) | u64::from(config.u32_at(PCIEXBAR + 4)) << 32;
    let len = match register >> 1 & 0b11 {
        size @ 0..=2 => (256 << 20) >> size,
        _ => return None,
    };
    let start = register & PCIEXBAR_ADDRESS & !(len - 1);
    (register & PCIEXBAR_ENABLE != 0).then_some(start..start + len)
}

impl PciFunction for HostBridge {
    fn config(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }
}

/// 00:1f.0, 8086:2918.
#[derive(Debug)]
pub struct LpcBridge {
    config: ConfigSpace,
}

impl LpcBridge {
    /// A bridge that tells that the power management ports begin at `pm_base`, and the chipset's own registers at
    /// `chipset`.
    #[must_use]
    pub fn new(pm_base: u16, chipset: u32) -> Self {
        let mut config = ConfigSpace::new(Identity {
            vendor: INTEL,
            device: 0x2918,
            revision: 2,
            class: 0x06_01_00,
            subsystem: (0x1AF4, 0x1100),
        });
        config.set_multi_function();
        // Firmware looks for a serial port only behind a bridge whose ports it can switch on.
        config.allow_ports();
        // Bit 0 is fixed: the register holds the base of I/O ports.
        config.set(PMBASE, &u32::from(pm_base | 1).to_le_bytes());
        config.allow(PMBASE, &0xFF80_u32.to_le_bytes());
        config.set(ACPI_CONTROL, &[ACPI_ENABLE]);
        config.allow(ACPI_CONTROL, &[0x87]);
        for pirq in [PIRQ_A_TO_D, PIRQ_E_TO_H] {
            config.set(pirq, &PIRQ_OFF);
            config.allow(pirq, &[0x8F; 4]);
        }
        config.set(RCBA, &(chipset | RCBA_ENABLE).to_le_bytes());
        config.allow(RCBA, &0xFFFF_C001_u32.to_le_bytes());
        Self { config }
    }
}

impl PciFunction for LpcBridge {
    fn config(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }
}

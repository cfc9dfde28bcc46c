//! PCI bus 0 (PCI Local Bus specification 3.0): configuration space through ECAM or the two ports, memory BARs wherever
//! the guest puts them, MSI-X, and the bridges that make the machine a Q35.
//!
//! There are no I/O BARs, no interrupt pins and no further buses. A function knows its own registers only; where its
//! BARs are is the bus's business.

mod bar;
mod bus;
mod chipset;
mod config_space;
mod msix;

pub use bus::{AddError, DATA_PORT, NoRoom, PciBus, Windows, config_ports, memory_range};
pub use chipset::{HostBridge, LpcBridge};
pub use config_space::{Bar, ConfigSpace, Identity};
pub use msix::{CAPABILITY_ID as MSIX_CAPABILITY_ID, MAX_VECTORS, Msix};

/// Where a function is on bus 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PciAddress(u8);

impl PciAddress {
    /// Device 0 to 31, function 0 to 7; `None` for other numbers.
    #[must_use]
    pub const fn new(device: u8, function: u8) -> Option<Self> {
        if device < 32 && function < 8 { Some(Self(device << 3 | function)) } else { None }
    }

    /// The host bridge, 00:00.0.
    pub const HOST_BRIDGE: Self = Self(0);
    /// The bridge to the ports of a PC, 00:1f.0.
    pub const LPC_BRIDGE: Self = Self(31 << 3);

    /// Device number, 0 to 31.
    #[must_use]
    pub const fn device(self) -> u8 {
        self.0 >> 3
    }

    /// Function number, 0 to 7.
    #[must_use]
    pub const fn function(self) -> u8 {
        self.0 & 7
    }
}

/// One function of a device on the bus. The guest chooses offsets, lengths and data: nothing here may panic on them.
pub trait PciFunction: Send {
    /// Its configuration space, for the bus to find BARs in.
    fn config(&mut self) -> &mut ConfigSpace;

    /// The guest reads configuration space.
    fn read_config(&mut self, offset: u16, data: &mut [u8]) {
        self.config().read(offset, data);
    }

    /// The guest writes configuration space.
    fn write_config(&mut self, offset: u16, data: &[u8]) {
        self.config().write(offset, data);
    }

    /// The guest reads a BAR's memory. `data` holds all ones when the call comes.
    fn read_bar(&mut self, _bar: usize, _offset: u64, _data: &mut [u8]) {}

    /// The guest writes a BAR's memory.
    fn write_bar(&mut self, _bar: usize, _offset: u64, _data: &[u8]) {}

    /// The BAR is now seen at this guest-physical address, or nowhere.
    fn place_bar(&mut self, _bar: usize, _address: Option<u64>) {}
}

//! The 256 bytes of configuration space of a function without bridge windows (PCI 3.0, 6.1, header type 0).

/// Size of configuration space, in bytes. What ECAM shows above it reads as zeros: no extended capabilities.
pub const CONFIG_BYTES: usize = 256;

const VENDOR: usize = 0x00;
const DEVICE: usize = 0x02;
const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const REVISION: usize = 0x08;
const CLASS: usize = 0x09;
const CACHE_LINE: usize = 0x0C;
const HEADER_TYPE: usize = 0x0E;
const BARS: usize = 0x10;
const SUBSYSTEM_VENDOR: usize = 0x2C;
const SUBSYSTEM: usize = 0x2E;
const CAPABILITIES: usize = 0x34;
const INTERRUPT_LINE: usize = 0x3C;
/// First byte past the header.
const HEADER_END: usize = 0x40;

/// Command bit: the function answers at its ports.
const COMMAND_PORTS: u16 = 1;
/// Command bit: the function answers at its memory BARs.
const COMMAND_MEMORY: u16 = 1 << 1;
/// Command bits that the guest may write: memory, bus master, interrupt disable.
const COMMAND_WRITABLE: u16 = COMMAND_MEMORY | 1 << 2 | 1 << 10;
/// Status bit: there is a list of capabilities.
const STATUS_CAPABILITIES: u8 = 1 << 4;
/// BAR bits: memory, 64 bits wide, with side effects on reading. Without the bit it is 32 bits wide.
const BAR_MEMORY_64: u8 = 0b0100;
/// BARs up to this size are 32 bits wide: there is room for all of them below 4 GiB, where every guest and every firmware
/// can reach them.
pub const SMALL_BAR_BYTES: u64 = 1 << 20;
/// Low bits of a BAR that are no address.
const BAR_FLAGS: u64 = 0xF;

/// What a function is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Revision.
    pub revision: u8,
    /// Class, subclass and programming interface, as in `0x06_00_00`.
    pub class: u32,
    /// Subsystem vendor id and subsystem id.
    pub subsystem: (u16, u16),
}

/// A memory BAR. The two registers `index` and `index + 1` are its own; a small one needs the first only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bar {
    /// 0, 2 or 4.
    pub index: usize,
    /// Its length in bytes: a power of two, at least 4 KiB.
    pub len: u64,
}

/// Configuration space: the bytes, and which bits of them the guest may change.
#[derive(Debug, Clone)]
pub struct ConfigSpace {
    bytes: [u8; CONFIG_BYTES],
    writable: [u8; CONFIG_BYTES],
    bars: Vec<Bar>,
    /// Where the next capability is linked from, and where it can start.
    link: usize,
    free: usize,
}

impl Bar {
    fn is_wide(self) -> bool {
        self.len > SMALL_BAR_BYTES
    }
}

impl ConfigSpace {
    /// A function with no BARs and no capabilities.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        let mut space = Self {
            bytes: [0; CONFIG_BYTES],
            writable: [0; CONFIG_BYTES],
            bars: Vec::new(),
            link: CAPABILITIES,
            free: HEADER_END,
        };
        space.set(VENDOR, &identity.vendor.to_le_bytes());
        space.set(DEVICE, &identity.device.to_le_bytes());
        space.set(REVISION, &[identity.revision]);
        let [interface, subclass, class, _] = identity.class.to_le_bytes();
        space.set(CLASS, &[interface, subclass, class]);
        space.set(SUBSYSTEM_VENDOR, &identity.subsystem.0.to_le_bytes());
        space.set(SUBSYSTEM, &identity.subsystem.1.to_le_bytes());
        space.allow(COMMAND, &COMMAND_WRITABLE.to_le_bytes());
        space.allow(CACHE_LINE, &[0xff]);
        space.allow(INTERRUPT_LINE, &[0xff]);
        space
    }

    /// The function is one of several of its device.
    pub fn set_multi_function(&mut self) {
        self.set(HEADER_TYPE, &[0x80]);
    }

    /// Sets bytes, whoever may write them. For assembly and for registers that the device changes.
    pub fn set(&mut self, offset: usize, bytes: &[u8]) {
        for (to, from) in self.bytes.iter_mut().skip(offset).zip(bytes) {
            *to = *from;
        }
    }

    /// Lets the guest change the bits that are set in `mask`.
    pub fn allow(&mut self, offset: usize, mask: &[u8]) {
        for (to, from) in self.writable.iter_mut().skip(offset).zip(mask) {
            *to = *from;
        }
    }

    /// Lets the guest switch on that the function answers at ports. It does so anyway: the ports are the chipset's.
    pub fn allow_ports(&mut self) {
        self.allow(COMMAND, &(COMMAND_WRITABLE | COMMAND_PORTS).to_le_bytes());
    }

    /// Adds a BAR. For assembly.
    ///
    /// # Panics
    /// If the BAR is not as [`Bar`] says.
    pub fn add_bar(&mut self, bar: Bar) {
        assert!(bar.index < 6 && bar.index.is_multiple_of(2), "a 64-bit BAR starts at register 0, 2 or 4");
        assert!(bar.len.is_power_of_two() && bar.len >= 4096, "a BAR's length is a power of two and fills pages");
        let offset = BARS + 4 * bar.index;
        // The guest learns the length from the bits that do not take a one (PCI 3.0, 6.2.5.1).
        let mask = (!(bar.len - 1)).to_le_bytes();
        if bar.is_wide() {
            self.set(offset, &[BAR_MEMORY_64]);
            self.allow(offset, &mask);
        } else {
            self.allow(offset, mask.get(..4).unwrap_or_default());
        }
        self.bars.push(bar);
    }

    /// Adds a capability whose bytes after identifier and link are `body`, and returns where it starts. For assembly.
    ///
    /// # Panics
    /// If there is no room for it.
    pub fn add_capability(&mut self, id: u8, body: &[u8]) -> usize {
        let start = self.free;
        let end = start + 2 + body.len();
        assert!(end <= CONFIG_BYTES, "capabilities fit into configuration space");
        let link = u8::try_from(start).expect("below 256, as asserted");
        self.set(self.link, &[link]);
        self.set(start, &[id, 0]);
        self.set(start + 2, body);
        self.set(STATUS, &[STATUS_CAPABILITIES]);
        self.link = start + 1;
        self.free = end.next_multiple_of(4);
        start
    }

    /// The guest reads. What is past the end reads as zeros.
    pub fn read(&self, offset: u16, data: &mut [u8]) {
        let bytes = self.bytes.iter().skip(usize::from(offset)).chain(std::iter::repeat(&0));
        for (to, from) in data.iter_mut().zip(bytes) {
            *to = *from;
        }
    }

    /// The guest writes. Bits that it may not change stay.
    pub fn write(&mut self, offset: u16, data: &[u8]) {
        let offset = usize::from(offset);
        let bytes = self.bytes.iter_mut().zip(&self.writable).skip(offset);
        for ((byte, mask), new) in bytes.zip(data) {
            *byte = *byte & !mask | new & mask;
        }
    }

    /// The byte at `offset`; zero past the end.
    #[must_use]
    pub fn u8_at(&self, offset: usize) -> u8 {
        self.bytes.get(offset).copied().unwrap_or(0)
    }

    /// The little-endian 16 bits at `offset`.
    #[must_use]
    pub fn u16_at(&self, offset: usize) -> u16 {
        u16::from_le_bytes([self.u8_at(offset), self.u8_at(offset + 1)])
    }

    /// The little-endian 32 bits at `offset`.
    #[must_use]
    pub fn u32_at(&self, offset: usize) -> u32 {
        u32::from(self.u16_at(offset)) | u32::from(self.u16_at(offset + 2)) << 16
    }

    /// The BARs, wherever they are.
    #[must_use]
    pub fn bars(&self) -> &[Bar] {
        &self.bars
    }

    /// The address that the guest has written into a BAR, whether it decodes or not.
    #[must_use]
    pub fn bar_address(&self, bar: Bar) -> u64 {
        let offset = BARS + 4 * bar.index;
        let high = if bar.is_wide() { self.u32_at(offset + 4) } else { 0 };
        (u64::from(self.u32_at(offset)) | u64::from(high) << 32) & !BAR_FLAGS
    }

    /// Puts a BAR somewhere, as firmware does.
    pub fn set_bar_address(&mut self, bar: Bar, address: u64) {
        let flags = if bar.is_wide() { BAR_MEMORY_64 } else { 0 };
        let bytes = (address & !BAR_FLAGS | u64::from(flags)).to_le_bytes();
        let registers = if bar.is_wide() { 8 } else { 4 };
        self.set(BARS + 4 * bar.index, bytes.get(..registers).unwrap_or_default());
    }

    /// Whether the function answers at its memory BARs.
    #[must_use]
    pub fn memory_enabled(&self) -> bool {
        self.u16_at(COMMAND) & COMMAND_MEMORY != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> ConfigSpace {
        let mut space = ConfigSpace::new(Identity {
            vendor: 0x1af4,
            device: 0x1042,
            revision: 1,
            class: 0x01_80_00,
            subsystem: (0x1af4, 0x1042),
        });
        space.add_bar(Bar { index: 0, len: 0x8000 });
        space
    }

    fn read_u32(space: &ConfigSpace, offset: u16) -> u32 {
        let mut data = [0xff; 4];
        space.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    #[test]
    fn accesses_past_the_end_read_zeros_and_write_nothing() {
        let mut space = space();
        for offset in [253, 256, 4095, u16::MAX] {
            space.write(offset, &[0xff; 8]);
            assert_eq!(read_u32(&space, offset), 0, "{offset}");
        }
    }

    #[test]
    fn what_is_read_only_stays() {
        let mut space = space();
        for offset in [0, 8, 0x2C, 0x34] {
            let before = read_u32(&space, offset);
            space.write(offset, &[!0; 4]);
            assert_eq!(read_u32(&space, offset), before, "{offset:#x}");
        }
        space.write(4, &[!0; 4]);
        assert_eq!(read_u32(&space, 4), 0x0406, "no capabilities, only three command bits");
    }

    #[test]
    fn a_bar_tells_its_length() {
        let mut space = space();
        space.write(0x10, &[!0; 8]);
        assert_eq!((read_u32(&space, 0x10), read_u32(&space, 0x14)), (0xffff_8000, 0));
        space.write(0x10, &0x1_2345_c00f_u64.to_le_bytes());
        let small = space.bars()[0];
        assert_eq!(space.bar_address(small), 0x2345_8000);
        let large = Bar { index: 2, len: SMALL_BAR_BYTES * 2 };
        space.add_bar(large);
        space.write(0x18, &[!0; 8]);
        assert_eq!((read_u32(&space, 0x18), read_u32(&space, 0x1C)), (0xffe0_0004, 0xffff_ffff));
        space.write(0x18, &0x1_2345_c00f_u64.to_le_bytes());
        assert_eq!(space.bar_address(large), 0x1_2340_0000);
        assert_eq!(read_u32(&space, 0x20), 0, "no third register");
    }

    #[test]
    fn capabilities_are_linked_in_order() {
        let mut space = space();
        assert_eq!(space.add_capability(9, &[1, 2, 3]), 0x40);
        assert_eq!(space.add_capability(0x11, &[4; 10]), 0x48);
        assert_eq!(space.u16_at(0x06), 0x10);
        assert_eq!(space.u8_at(0x34), 0x40);
        assert_eq!((space.u8_at(0x40), space.u8_at(0x41)), (9, 0x48));
        assert_eq!((space.u8_at(0x48), space.u8_at(0x49)), (0x11, 0));
    }
}

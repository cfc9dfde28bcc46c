//! Memory that the guest only reads: the host writes it, and the guest sees that at once.

use std::io;

use vm_memory::{Bytes, GuestAddress, GuestMemoryRegion, GuestRegionMmap, MemoryRegionAddress, MmapRegion};

/// One piece of it.
#[derive(Debug)]
pub struct Rom {
    region: GuestRegionMmap<()>,
}

impl Rom {
    /// Memory that holds `bytes`, whole pages of 4 KiB, at the guest's address `start`.
    ///
    /// # Errors
    /// The host has no memory for it, or it does not fill pages.
    pub fn new(start: u64, bytes: &[u8]) -> io::Result<Self> {
        if bytes.is_empty() || !bytes.len().is_multiple_of(4096) || !start.is_multiple_of(4096) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mapping = MmapRegion::new(bytes.len()).map_err(io::Error::other)?;
        let region = GuestRegionMmap::new(mapping, GuestAddress(start)).ok_or(io::ErrorKind::InvalidInput)?;
        let rom = Self { region };
        rom.write(0, bytes);
        Ok(rom)
    }

    /// Its first guest address.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.region.start_addr().0
    }

    /// Its length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.region.len()
    }

    /// Never: there is no such piece.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where this process has it.
    pub(crate) fn host_address(&self) -> u64 {
        self.region.as_ptr().addr() as u64
    }

    /// Puts bytes at `offset`; what does not fit is left out.
    pub fn write(&self, offset: u64, bytes: &[u8]) {
        let _cut_short = self.region.write(bytes, MemoryRegionAddress(offset));
    }

    /// Reads bytes at `offset`; what lies behind the end stays as it is in `bytes`.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) {
        let _cut_short = self.region.read(bytes, MemoryRegionAddress(offset));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fills_no_pages_is_refused() {
        for (start, len) in [(0, 0), (0, 4095), (1, 4096), (u64::MAX - 4095, 8192)] {
            assert!(Rom::new(start, &vec![0; len]).is_err(), "{start:#x}+{len}");
        }
    }

    #[test]
    fn accesses_past_the_end_are_cut_short() {
        let rom = Rom::new(0xFFFF_F000, &[7; 4096]).unwrap();
        rom.write(4094, &[1, 2, 3, 4]);
        rom.write(u64::MAX, &[9]);
        let mut bytes = [0xFF; 4];
        rom.read(4093, &mut bytes);
        assert_eq!(bytes, [7, 1, 2, 0xFF]);
    }
}

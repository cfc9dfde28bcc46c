//! Where a port or memory access of the guest goes. Built once, frozen before the first vCPU runs.

use std::sync::{Arc, Mutex, PoisonError};

/// A device as the bus sees it. The guest chooses offset, length and data: nothing here may panic on any value of them.
pub trait BusDevice: Send {
    /// The guest reads `data.len()` bytes (1, 2, 4 or 8) at `offset` from the start of the device's range. `data` holds
    /// all ones when the call comes, which is what an access that means nothing to the device leaves there.
    fn read(&mut self, offset: u64, data: &mut [u8]);

    /// The guest writes `data` at `offset`.
    fn write(&mut self, offset: u64, data: &[u8]);
}

/// A range of an address space and the device behind it.
struct Entry {
    start: u64,
    /// First address past the range.
    end: u64,
    device: Arc<Mutex<dyn BusDevice>>,
}

/// One address space: the I/O ports, or the memory that is not RAM. A read of an address that nobody claimed gives all
/// ones, a write to it does nothing, as on a real machine.
#[derive(Default)]
pub struct Bus {
    /// Sorted by `start`, never overlapping.
    entries: Vec<Entry>,
}

/// A range that cannot be claimed.
#[derive(Debug, thiserror::Error)]
#[error("bus range {start:#x}..{end:#x} is empty or overlaps another")]
pub struct Overlap {
    start: u64,
    end: u64,
}

impl Bus {
    /// Puts `device` at `start`, `len` bytes long.
    pub fn insert(&mut self, start: u64, len: u64, device: Arc<Mutex<dyn BusDevice>>) -> Result<(), Overlap> {
        let overlap = Overlap { start, end: start.saturating_add(len) };
        let Some(end) = start.checked_add(len).filter(|end| *end > start) else { return Err(overlap) };
        let at = self.entries.partition_point(|entry| entry.start < start);
        let before_is_clear = at.checked_sub(1).and_then(|i| self.entries.get(i)).is_none_or(|e| e.end <= start);
        let after_is_clear = self.entries.get(at).is_none_or(|e| end <= e.start);
        if !before_is_clear || !after_is_clear {
            return Err(overlap);
        }
        self.entries.insert(at, Entry { start, end, device });
        Ok(())
    }

    /// The guest reads at `address`.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let Some((device, offset)) = self.find(address) {
            device.lock().unwrap_or_else(PoisonError::into_inner).read(offset, data);
        }
    }

    /// The guest writes at `address`.
    pub fn write(&self, address: u64, data: &[u8]) {
        if let Some((device, offset)) = self.find(address) {
            device.lock().unwrap_or_else(PoisonError::into_inner).write(offset, data);
        }
    }

    fn find(&self, address: u64) -> Option<(&Mutex<dyn BusDevice>, u64)> {
        let at = self.entries.partition_point(|entry| entry.start <= address).checked_sub(1)?;
        let entry = self.entries.get(at)?;
        (address < entry.end).then(|| (&*entry.device, address - entry.start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Register(u8);

    impl BusDevice for Register {
        fn read(&mut self, offset: u64, data: &mut [u8]) {
            if offset == 0 {
                data.fill(self.0);
            }
        }

        fn write(&mut self, _offset: u64, data: &[u8]) {
            self.0 = data.first().copied().unwrap_or(0);
        }
    }

    fn register() -> Arc<Mutex<dyn BusDevice>> {
        Arc::new(Mutex::new(Register(7)))
    }

    #[test]
    fn what_nobody_claimed_reads_as_ones() {
        let bus = Bus::default();
        let mut data = [0; 4];
        bus.read(0xFED4_0000, &mut data);
        bus.write(u64::MAX, &data);
        assert_eq!(data, [0xff; 4]);
    }

    #[test]
    fn overlapping_and_empty_ranges_are_refused() {
        let mut bus = Bus::default();
        bus.insert(0x100, 0x10, register()).unwrap();
        for (start, len) in [(0xff, 2), (0x10f, 1), (0x100, 0x10), (0x90, 0x100), (0x200, 0), (u64::MAX, 2)] {
            assert!(bus.insert(start, len, register()).is_err(), "{start:#x}+{len:#x}");
        }
        bus.insert(0x110, 1, register()).unwrap();
        bus.insert(0xff, 1, register()).unwrap();
    }

    #[test]
    fn a_device_sees_offsets_from_its_own_start() {
        let mut bus = Bus::default();
        bus.insert(0x100, 0x10, register()).unwrap();
        bus.write(0x10f, &[9]);
        let mut data = [0; 2];
        bus.read(0x100, &mut data);
        assert_eq!(data, [9, 9]);
    }
}

//! The clock and its memory (Motorola MC146818): the host's time in UTC, never updating while it is read. The guest can
//! write the plain memory and nothing else.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::bus::BusDevice;

/// Bytes behind the index port; its top bit masks NMI and is not part of the index.
const BYTES: u8 = 128;
/// Register A: divider and rate as set by every firmware; bit 7 (update in progress) is never seen.
const STATUS_A: u8 = 0x26;
/// Register B: 24 hours, BCD.
const STATUS_B: u8 = 0x02;
/// Register D: the battery is good.
const STATUS_D: u8 = 0x80;
const SECONDS_PER_DAY: u64 = 86_400;

pub(super) struct Cmos {
    index: u8,
    memory: [u8; BYTES as usize],
    now: fn() -> SystemTime,
}

impl Cmos {
    pub(super) fn new(now: fn() -> SystemTime) -> Self {
        Self { index: 0, memory: [0; BYTES as usize], now }
    }

    fn value(&self) -> u8 {
        let seconds = (self.now)().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let (year, month, day) = kiln_abi::date((seconds / SECONDS_PER_DAY).cast_signed());
        let year = year.unsigned_abs();
        let value = match self.index {
            0x00 => seconds % 60,
            0x02 => seconds / 60 % 60,
            0x04 => seconds / 3600 % 24,
            // Sunday is 1, and 1970 began on a Thursday.
            0x06 => (seconds / SECONDS_PER_DAY + 4) % 7 + 1,
            0x07 => day,
            0x08 => month,
            0x09 => year % 100,
            0x32 => year / 100,
            0x0A => return STATUS_A,
            0x0B => return STATUS_B,
            0x0C => return 0,
            0x0D => return STATUS_D,
            index => return self.memory.get(usize::from(index)).copied().unwrap_or(0xFF),
        };
        bcd(value)
    }
}

impl BusDevice for Cmos {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if let (1, [byte]) = (offset, data) {
            *byte = self.value();
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        match (offset, data) {
            (0, [index]) => self.index = index % BYTES,
            (1, [value]) => {
                if let Some(byte) = self.memory.get_mut(usize::from(self.index)) {
                    *byte = *value;
                }
            }
            _ => {}
        }
    }
}

fn bcd(value: u64) -> u8 {
    u8::try_from(((value / 10 % 10) << 4) | (value % 10)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn read(cmos: &mut Cmos, index: u8) -> u8 {
        cmos.write(0, &[index]);
        let mut byte = [0xFF];
        cmos.read(1, &mut byte);
        byte[0]
    }

    #[test]
    fn the_clock_tells_bcd_and_is_never_in_an_update() {
        let mut cmos =
            Cmos::new(|| UNIX_EPOCH + Duration::from_secs(20_778 * SECONDS_PER_DAY + 23 * 3600 + 59 * 60 + 58));
        let values = [0x32, 9, 8, 7, 6, 4, 2, 0].map(|index| read(&mut cmos, index));
        assert_eq!(values, [0x20, 0x26, 0x11, 0x21, 7, 0x23, 0x59, 0x58]);
        assert_eq!(read(&mut cmos, 0x0A) & 0x80, 0);
        assert_eq!(read(&mut cmos, 0x0D), 0x80);
    }

    #[test]
    fn every_index_and_width_is_harmless_and_plain_memory_is_kept() {
        let mut cmos = Cmos::new(SystemTime::now);
        for index in 0..=u8::MAX {
            read(&mut cmos, index);
            cmos.write(1, &[0x5A]);
        }
        cmos.write(1, &[1, 2, 3, 4]);
        let mut wide = [0xFF; 4];
        cmos.read(0, &mut wide);
        assert_eq!(wide, [0xFF; 4]);
        assert_eq!(read(&mut cmos, 0x8F), 0x5A);
    }
}

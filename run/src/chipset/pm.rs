//! Power management block (ACPI 6.5, 4.8): event and control registers of PM1a and the power management timer.

use std::sync::Arc;
use std::time::Instant;

use super::ioapic::{Level, Pins};
use super::{OnWish, Wish};
use crate::bus::BusDevice;
use crate::layout::SCI_IRQ;

/// Offset of the status register; the enable register follows.
pub const EVENTS: u64 = 0;
const ENABLE: u64 = 2;
/// Offset of the control register.
pub const CONTROL: u64 = 4;
/// Offset of the timer.
pub const TIMER: u64 = 8;

/// Status and enable bit of the power button.
const POWER_BUTTON: u16 = 1 << 8;
/// Status bits that exist here; each is cleared by writing a one.
const STATUS_BITS: u16 = POWER_BUTTON;
/// Control bit: ACPI is on, always.
const SCI_ENABLED: u16 = 1;
/// Control bit: go to the sleep state whose type is in bits 10 to 12.
const SLEEP_ENABLE: u16 = 1 << 13;
const SLEEP_TYPE_SHIFT: u32 = 10;
/// Sleep type of power-off, as the DSDT says.
const SLEEP_TYPE_OFF: u16 = 0;
/// The timer counts 24 bits at this frequency, in Hz.
const TIMER_HZ: u128 = 3_579_545;
const TIMER_MASK: u128 = 0xFF_FFFF;
const NANOSECONDS: u128 = 1_000_000_000;

/// The registers.
pub struct PowerBlock {
    status: u16,
    enable: u16,
    control: u16,
    started: Instant,
    pins: Arc<Pins>,
    on_wish: OnWish,
}

impl PowerBlock {
    pub(super) fn new(pins: Arc<Pins>, on_wish: OnWish) -> Self {
        Self { status: 0, enable: 0, control: 0, started: Instant::now(), pins, on_wish }
    }

    /// Presses the power button. The guest hears of it if its kernel has a driver for the button.
    pub fn press_button(&mut self) {
        self.status |= POWER_BUTTON;
        self.signal();
    }

    /// Raises or lowers the interrupt, as status and enable registers say.
    fn signal(&self) {
        let level = if self.status & self.enable == 0 { Level::Idle } else { Level::Asserted };
        self.pins.set_level(SCI_IRQ, level);
    }

    fn register(&self, offset: u64) -> u16 {
        match offset {
            EVENTS => self.status,
            ENABLE => self.enable,
            CONTROL => self.control | SCI_ENABLED,
            _ => 0,
        }
    }

    fn timer(&self) -> u32 {
        let ticks = self.started.elapsed().as_nanos() * TIMER_HZ / NANOSECONDS;
        u32::try_from(ticks & TIMER_MASK).unwrap_or(0)
    }

    fn write_control(&mut self, value: u16) {
        self.control = value & !SLEEP_ENABLE;
        let sleep_type = (value >> SLEEP_TYPE_SHIFT) & 7;
        if value & SLEEP_ENABLE != 0 && sleep_type == SLEEP_TYPE_OFF {
            (self.on_wish)(Wish::PowerOff);
        }
    }

    fn write_register(&mut self, offset: u64, value: u16) {
        match offset {
            EVENTS => {
                self.status &= !(value & STATUS_BITS);
                self.signal();
            }
            ENABLE => {
                self.enable = value;
                self.signal();
            }
            CONTROL => self.write_control(value),
            _ => {}
        }
    }
}

impl BusDevice for PowerBlock {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let registers =
            u64::from(self.register(offset & !1)) | u64::from(self.register((offset & !1).saturating_add(2))) << 16;
        let value = if (TIMER..TIMER + 4).contains(&offset) {
            u64::from(self.timer()) >> (8 * (offset - TIMER))
        } else {
            registers >> (8 * (offset & 1))
        };
        for (byte, value) in data.iter_mut().zip(value.to_le_bytes()) {
            *byte = value;
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        match data {
            // Firmware writes the status register byte by byte; zeros in the other half change nothing there.
            [value] if offset == EVENTS + 1 => self.write_register(EVENTS, u16::from(*value) << 8),
            [value] if offset == ENABLE + 1 => {
                self.write_register(ENABLE, (self.enable & 0xFF) | u16::from(*value) << 8);
            }
            [value] if offset == CONTROL + 1 => {
                self.write_register(CONTROL, (self.control & 0xFF) | u16::from(*value) << 8);
            }
            [value] => self.write_register(offset, u16::from(*value)),
            [low, high] => self.write_register(offset, u16::from_le_bytes([*low, *high])),
            [a, b, c, d] => {
                self.write_register(offset, u16::from_le_bytes([*a, *b]));
                self.write_register(offset.saturating_add(2), u16::from_le_bytes([*c, *d]));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::chipset::ioapic::IoApic;
    use crate::hv::scripted::Scripted;
    use crate::hv::{Hypervisor, Vm};
    use crate::mem::GuestRam;

    type Wishes = Arc<Mutex<Vec<Wish>>>;

    /// A block whose interrupt is open.
    fn block() -> (PowerBlock, Wishes, Scripted) {
        let hypervisor = Scripted::new(vec![]);
        let ram = GuestRam::new(4096).unwrap();
        let pins = Arc::new(Pins::new(hypervisor.create_vm(ram.memory(), 1).unwrap().messages()));
        let mut registers = IoApic::new(Arc::clone(&pins));
        registers.write(0, &[0x10 + 2 * 9]);
        registers.write(0x10, &(0x30u32 | 1 << 15).to_le_bytes());
        let wishes = Wishes::default();
        let seen = Arc::clone(&wishes);
        let on_wish: OnWish = Arc::new(move |wish| seen.lock().unwrap().push(wish));
        (PowerBlock::new(pins, on_wish), wishes, hypervisor)
    }

    fn read16(block: &mut PowerBlock, offset: u64) -> u16 {
        let mut data = [0xFF; 2];
        block.read(offset, &mut data);
        u16::from_le_bytes(data)
    }

    #[test]
    fn every_offset_and_width_is_harmless() {
        let (mut block, wishes, _) = block();
        for offset in (0..16).chain([u64::MAX]) {
            for len in [1, 2, 4, 8] {
                block.read(offset, &mut vec![0; len]);
                block.write(offset, &vec![0xFF; len]);
            }
        }
        assert!(wishes.lock().unwrap().is_empty());
    }

    #[test]
    fn only_sleep_type_zero_with_the_enable_bit_powers_off() {
        let (mut block, wishes, _) = block();
        for value in [0u16, 1, 1 << 10, SLEEP_ENABLE | 5 << 10] {
            block.write(CONTROL, &value.to_le_bytes());
            assert!(wishes.lock().unwrap().is_empty(), "{value:#x}");
        }
        block.write(CONTROL, &(SLEEP_ENABLE | 1).to_le_bytes());
        block.write(CONTROL + 1, &[0x20]);
        assert_eq!(*wishes.lock().unwrap(), [Wish::PowerOff, Wish::PowerOff]);
    }

    #[test]
    fn the_button_interrupts_once_enabled_until_its_status_is_cleared() {
        let (mut block, _, hypervisor) = block();
        let interrupts = || hypervisor.record.lock().unwrap().messages.len();
        block.press_button();
        assert_eq!(interrupts(), 0);
        block.write(ENABLE, &POWER_BUTTON.to_le_bytes());
        assert_eq!(interrupts(), 1);
        assert_eq!(read16(&mut block, EVENTS), POWER_BUTTON);
        block.write(EVENTS, &POWER_BUTTON.to_le_bytes());
        assert_eq!((interrupts(), read16(&mut block, EVENTS)), (1, 0));
        block.press_button();
        assert_eq!(interrupts(), 2);
    }

    #[test]
    fn acpi_is_always_on_and_the_timer_keeps_to_24_bits() {
        let (mut block, _, _) = block();
        assert_eq!(read16(&mut block, CONTROL) & SCI_ENABLED, SCI_ENABLED);
        let mut timer = [0xFF; 4];
        block.read(TIMER, &mut timer);
        assert_eq!(timer[3], 0);
    }
}

//! I/O APIC (Intel 82093AA): the pins of the two devices that have no message-signalled interrupts. It is ours and not
//! the hypervisor's because a kernel goes through every pin about forty times while it boots: few pins, few exits.
//!
//! A level is sent again when its device says so, not at the end of an interrupt, which nobody tells us about. The one
//! device with a level, the power management block, does so whenever its registers change.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::bus::BusDevice;
use crate::hv::{Messages, MsiMessage};
use crate::layout::{SCI_IRQ, SERIAL_IRQ};

/// Number of pins: the old ISA interrupts, for which Linux wants a pin each.
pub const PINS: u32 = 16;
const _: () = assert!(SERIAL_IRQ < PINS && SCI_IRQ < PINS);

const SELECT: u64 = 0x00;
const WINDOW: u64 = 0x10;
const REGISTER_VERSION: u8 = 1;
const FIRST_REDIRECTION: u8 = 0x10;
const VERSION: u32 = 0x11;

const MASKED: u64 = 1 << 16;
const LEVEL_TRIGGERED: u64 = 1 << 15;
const LOGICAL_DESTINATION: u64 = 1 << 11;
/// Delivery status and remote IRR belong to us; here no interrupt is ever under way.
const READ_ONLY: u64 = 1 << 12 | 1 << 14;
/// Vector and delivery mode are where a message has them too.
const VECTOR_AND_MODE: u64 = 0x7FF;

/// State of a level-triggered pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// The device wants service.
    Asserted,
    /// It does not.
    Idle,
}

/// The pins, as devices see them. Shared with the register file; no lock is held while a message is sent.
pub struct Pins {
    redirections: [AtomicU64; PINS as usize],
    /// One bit for each pin whose device asserts it.
    asserted: AtomicU32,
    /// One of them was not masked once.
    used: AtomicBool,
    messages: Arc<dyn Messages>,
}

impl Pins {
    /// All pins masked.
    pub fn new(messages: Arc<dyn Messages>) -> Self {
        let redirections = std::array::from_fn(|_| AtomicU64::new(MASKED));
        Self { redirections, asserted: AtomicU32::new(0), used: AtomicBool::new(false), messages }
    }

    /// Whether somebody wanted interrupts of any.
    pub fn were_used(&self) -> bool {
        self.used.load(Ordering::SeqCst)
    }

    /// One edge on `pin`; lost if the pin is masked.
    pub fn pulse(&self, pin: u32) {
        let Some(redirection) = self.redirections.get(pin as usize) else { return };
        let redirection = redirection.load(Ordering::SeqCst);
        if redirection & MASKED == 0 {
            // A message that the hypervisor refuses has a vector that no processor takes: real hardware drops it too.
            let _dropped = self.messages.send(message(redirection));
        }
    }

    /// Sets the level of `pin`; an asserted one interrupts now, or once it is no longer masked.
    pub fn set_level(&self, pin: u32, level: Level) {
        let bit = 1u32.checked_shl(pin).unwrap_or(0);
        match level {
            Level::Asserted => {
                self.asserted.fetch_or(bit, Ordering::SeqCst);
                self.pulse(pin);
            }
            Level::Idle => {
                self.asserted.fetch_and(!bit, Ordering::SeqCst);
            }
        }
    }

    fn redirection(&self, index: u8) -> Option<(u32, &AtomicU64)> {
        let pin = index.checked_sub(FIRST_REDIRECTION)? / 2;
        self.redirections.get(usize::from(pin)).map(|redirection| (pin.into(), redirection))
    }
}

/// The message that a redirection entry stands for.
fn message(redirection: u64) -> MsiMessage {
    let destination = redirection >> 56;
    let logical = u64::from(redirection & LOGICAL_DESTINATION != 0);
    let level = redirection & LEVEL_TRIGGERED;
    // A level-triggered message also says that it asserts (bit 14).
    let data = redirection & VECTOR_AND_MODE | level | level >> 1;
    MsiMessage { address: 0xFEE0_0000 | destination << 12 | logical << 2, data: u32::try_from(data).unwrap_or(0) }
}

/// The register file on the memory bus.
pub struct IoApic {
    select: u8,
    pins: Arc<Pins>,
}

impl IoApic {
    /// Registers for `pins`.
    pub fn new(pins: Arc<Pins>) -> Self {
        Self { select: 0, pins }
    }

    fn value(&self) -> u32 {
        if self.select == REGISTER_VERSION {
            return VERSION | (PINS - 1) << 16;
        }
        let Some((_, redirection)) = self.pins.redirection(self.select) else { return 0 };
        let [a, b, c, d, e, f, g, h] = redirection.load(Ordering::SeqCst).to_le_bytes();
        if self.select.is_multiple_of(2) { u32::from_le_bytes([a, b, c, d]) } else { u32::from_le_bytes([e, f, g, h]) }
    }

    fn set_value(&self, value: u32) {
        let Some((pin, redirection)) = self.pins.redirection(self.select) else { return };
        let old = redirection.load(Ordering::SeqCst);
        let new = if self.select.is_multiple_of(2) {
            (old & !u64::from(u32::MAX)) | (u64::from(value) & !READ_ONLY)
        } else {
            (old & u64::from(u32::MAX)) | u64::from(value) << 32
        };
        redirection.store(new, Ordering::SeqCst);
        if new & MASKED == 0 {
            self.pins.used.store(true, Ordering::SeqCst);
        }
        let is_asserted = self.pins.asserted.load(Ordering::SeqCst) & (1 << pin) != 0;
        if is_asserted && new & LEVEL_TRIGGERED != 0 && old & MASKED != 0 {
            self.pins.pulse(pin);
        }
    }
}

impl BusDevice for IoApic {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let value = match offset {
            SELECT => u32::from(self.select),
            WINDOW => self.value(),
            _ => return,
        };
        for (byte, value) in data.iter_mut().zip(value.to_le_bytes()) {
            *byte = value;
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let [select, ..] = data else { return };
        match (offset, data.first_chunk()) {
            (SELECT, _) => self.select = *select,
            (WINDOW, Some(value)) => self.set_value(u32::from_le_bytes(*value)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Sent(Mutex<Vec<MsiMessage>>);

    impl Messages for Sent {
        fn send(&self, message: MsiMessage) -> std::io::Result<()> {
            self.0.lock().unwrap().push(message);
            Ok(())
        }
    }

    fn ioapic() -> (IoApic, Arc<Pins>, Arc<Sent>) {
        let sent = Arc::new(Sent::default());
        let pins = Arc::new(Pins::new(Arc::clone(&sent) as _));
        (IoApic::new(Arc::clone(&pins)), pins, sent)
    }

    fn write(ioapic: &mut IoApic, register: u8, value: u32) {
        ioapic.write(SELECT, &[register, 0, 0, 0]);
        ioapic.write(WINDOW, &value.to_le_bytes());
    }

    fn read(ioapic: &mut IoApic, register: u8) -> u32 {
        ioapic.write(SELECT, &[register]);
        let mut value = [0xFF; 4];
        ioapic.read(WINDOW, &mut value);
        u32::from_le_bytes(value)
    }

    #[test]
    fn every_register_offset_and_width_is_harmless() {
        let (mut ioapic, pins, _) = ioapic();
        for register in 0..=u8::MAX {
            write(&mut ioapic, register, u32::MAX);
            read(&mut ioapic, register);
        }
        for offset in [0, 1, 0x10, 0x40, u64::MAX] {
            for len in [0, 1, 2, 8] {
                ioapic.write(offset, &vec![0xFF; len]);
                ioapic.read(offset, &mut vec![0; len]);
            }
        }
        pins.pulse(u32::MAX);
        pins.set_level(u32::MAX, Level::Asserted);
    }

    #[test]
    fn a_masked_pin_is_silent_and_an_open_one_sends_what_its_entry_says() {
        let (mut ioapic, pins, sent) = ioapic();
        pins.pulse(4);
        write(&mut ioapic, 0x10 + 2 * 4 + 1, 3 << 24);
        write(&mut ioapic, 0x10 + 2 * 4, 0x31 | 1 << 11);
        assert!(sent.0.lock().unwrap().is_empty());
        pins.pulse(4);
        assert_eq!(*sent.0.lock().unwrap(), [MsiMessage { address: 0xFEE0_3004, data: 0x31 }]);
        assert_eq!(read(&mut ioapic, 0x10 + 2 * 4), 0x31 | 1 << 11);
    }

    #[test]
    fn an_asserted_level_is_sent_when_its_pin_is_opened() {
        let (mut ioapic, pins, sent) = ioapic();
        pins.set_level(9, Level::Asserted);
        write(&mut ioapic, 0x10 + 2 * 9, 0x40 | 1 << 15);
        assert_eq!(*sent.0.lock().unwrap(), [MsiMessage { address: 0xFEE0_0000, data: 0x40 | 3 << 14 }]);
        pins.set_level(9, Level::Idle);
        write(&mut ioapic, 0x10 + 2 * 9, 0x40 | 1 << 15 | 1 << 16);
        write(&mut ioapic, 0x10 + 2 * 9, 0x40 | 1 << 15);
        assert_eq!(sent.0.lock().unwrap().len(), 1);
    }

    #[test]
    fn the_version_tells_how_many_pins_there_are() {
        let (mut ioapic, _, _) = ioapic();
        assert_eq!(read(&mut ioapic, 1) >> 16, PINS - 1);
    }
}

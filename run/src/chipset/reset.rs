//! The two ways in which software resets a PC.

use super::{OnWish, Wish};
use crate::bus::BusDevice;

/// Value for the reset control port that resets everything: bit 1 says what, bit 2 does it.
pub const RESET_COMMAND: u8 = 0x06;
const RESET_PROCESSOR: u8 = 1 << 2;
/// Command of the keyboard controller that pulses the processor's reset line.
const PULSE_RESET: u8 = 0xFE;

/// Reset control register of the chipset (port 0xCF9).
pub(super) struct ResetControl {
    value: u8,
    on_wish: OnWish,
}

impl ResetControl {
    pub(super) fn new(on_wish: &OnWish) -> Self {
        Self { value: 0, on_wish: on_wish.clone() }
    }
}

impl BusDevice for ResetControl {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        if let [byte] = data {
            *byte = self.value;
        }
    }

    fn write(&mut self, _offset: u64, data: &[u8]) {
        if let [value] = data {
            self.value = *value & !RESET_PROCESSOR;
            if value & RESET_PROCESSOR != 0 {
                (self.on_wish)(Wish::Reset);
            }
        }
    }
}

/// Status of the keyboard controller: there is a byte to read, and it came neither whole nor in time. Firmware knows by this
/// that there is no keyboard (EDK II, `Ps2KeyboardDxe`); a controller that is merely idle it asks for a long time. It is ready
/// to be written, for which those wait who pulse the reset line.
const NO_KEYBOARD: u8 = 1 << 7 | 1 << 6 | 1;

/// A keyboard controller without keyboard, whose reset line works.
pub(super) struct KeyboardController {
    on_wish: OnWish,
}

impl KeyboardController {
    pub(super) fn new(on_wish: &OnWish) -> Self {
        Self { on_wish: on_wish.clone() }
    }
}

impl BusDevice for KeyboardController {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(NO_KEYBOARD);
    }

    fn write(&mut self, _offset: u64, data: &[u8]) {
        if data == [PULSE_RESET] {
            (self.on_wish)(Wish::Reset);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn only_the_reset_bits_and_the_pulse_command_reset() {
        let count = Arc::new(Mutex::new(0));
        let seen = Arc::clone(&count);
        let on_wish: OnWish = Arc::new(move |wish| {
            assert_eq!(wish, Wish::Reset);
            *seen.lock().unwrap() += 1;
        });
        let mut control = ResetControl::new(&on_wish);
        let mut keyboard = KeyboardController::new(&on_wish);
        for data in [[0].as_slice(), &[0x02], &[0x06, 0], &[]] {
            control.write(0, data);
            keyboard.write(0, data);
        }
        assert_eq!(*count.lock().unwrap(), 0);
        control.write(0, &[RESET_COMMAND]);
        keyboard.write(0, &[PULSE_RESET]);
        assert_eq!(*count.lock().unwrap(), 2);
    }
}

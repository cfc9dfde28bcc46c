//! The port by which a guest's kernel says that it panicked (the `pvpanic` device, which Linux has drivers for).

use super::{OnWish, Wish};
use crate::bus::BusDevice;

/// Port number that the device has on every machine.
pub const PORT: u64 = 0x505;
/// Event bit, read as "can be told" and written as "happened": the kernel panicked.
const PANICKED: u8 = 1;

pub(super) struct PanicPort {
    on_wish: OnWish,
}

impl PanicPort {
    pub(super) fn new(on_wish: &OnWish) -> Self {
        Self { on_wish: on_wish.clone() }
    }
}

impl BusDevice for PanicPort {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        if let [byte] = data {
            *byte = PANICKED;
        }
    }

    fn write(&mut self, _offset: u64, data: &[u8]) {
        if let [events] = data
            && events & PANICKED != 0
        {
            (self.on_wish)(Wish::EndAfterPanic);
        }
    }
}

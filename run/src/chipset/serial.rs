//! The first serial port, a 16550A: what the guest prints goes to the console at once, what was typed comes in as far
//! as the port's own buffer has room.

use std::convert::Infallible;
use std::sync::Arc;

use vm_superio::serial::NoEvents;
use vm_superio::{Serial, Trigger};

use super::ioapic::Pins;
use crate::bus::BusDevice;
use crate::console::{ConsoleInput, ConsoleSink};
use crate::layout::SERIAL_IRQ;

/// The port's interrupt.
struct Interrupt(Arc<Pins>);

impl Trigger for Interrupt {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        self.0.pulse(SERIAL_IRQ);
        Ok(())
    }
}

/// The port. Typed bytes wait in its [`ConsoleInput`] until [`SerialPort::receive`] takes them.
pub struct SerialPort {
    port: Serial<Interrupt, NoEvents, ConsoleSink>,
    input: ConsoleInput,
}

impl SerialPort {
    pub(super) fn new(pins: Arc<Pins>, output: ConsoleSink, input: ConsoleInput) -> Self {
        Self { port: Serial::new(Interrupt(pins), output), input }
    }

    /// Takes typed bytes, as many as there is room for. The rest follows when the guest has read.
    pub fn receive(&mut self) {
        let typed = self.input.take(self.port.fifo_capacity());
        if !typed.is_empty() {
            // Room was asked for just before, so it cannot be full.
            let _always_room = self.port.enqueue_raw_bytes(&typed);
        }
    }
}

impl BusDevice for SerialPort {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if let (Ok(offset), [byte]) = (u8::try_from(offset), data) {
            *byte = self.port.read(offset);
            if offset == 0 && !self.input.is_empty() {
                self.receive();
            }
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if let (Ok(offset), [byte]) = (u8::try_from(offset), data) {
            // Neither sink nor interrupt can fail.
            let _always_ok = self.port.write(offset, *byte);
        }
    }
}

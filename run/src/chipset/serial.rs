//! The first serial port, a 16550A: what the guest prints goes to the console at once, what was typed comes in as far
//! as the port's own buffer has room.

use std::io;

use vm_superio::serial::NoEvents;
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::EventFd;

use crate::bus::BusDevice;
use crate::console::{ConsoleInput, ConsoleSink};

/// The port's interrupt.
struct Interrupt(EventFd);

impl Trigger for Interrupt {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// The port. Typed bytes wait in its [`ConsoleInput`] until [`SerialPort::receive`] takes them.
pub struct SerialPort {
    port: Serial<Interrupt, NoEvents, ConsoleSink>,
    input: ConsoleInput,
}

impl SerialPort {
    pub(super) fn new(interrupt: EventFd, output: ConsoleSink, input: ConsoleInput) -> Self {
        Self { port: Serial::new(Interrupt(interrupt), output), input }
    }

    /// Takes typed bytes, as many as there is room for. The rest follows when the guest has read.
    pub fn receive(&mut self) {
        let typed = self.input.take(self.port.fifo_capacity());
        if !typed.is_empty() {
            // Room was asked for just before; an interrupt that cannot be raised costs a keystroke until the next one.
            let _delayed = self.port.enqueue_raw_bytes(&typed);
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
            // The sink never fails, and a lost interrupt only delays the guest's next byte.
            let _delayed = self.port.write(offset, *byte);
        }
    }
}

//! The few legacy devices that every PC has, on I/O ports: clock memory, power management, reset lines, serial port.

mod cmos;
pub mod pm;
mod reset;
mod serial;

use std::io;
use std::sync::{Arc, Mutex};

pub use self::pm::PowerBlock;
pub use self::reset::RESET_COMMAND;
pub use self::serial::SerialPort;
use crate::bus::{Bus, Overlap};
use crate::console::{ConsoleInput, ConsoleSink};
use crate::hv::Pins;
use crate::layout::{CMOS_PORT, KEYBOARD_COMMAND_PORT, PM_PORT, PM_PORTS, RESET_PORT, SERIAL_IRQ, SERIAL_PORT};

/// What the guest wants of the whole machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Power off.
    PowerOff,
    /// Start again.
    Reset,
}

/// Called on a vCPU's thread with what its guest wants.
pub type OnWish = Arc<dyn Fn(Wish) + Send + Sync>;

/// A chipset that could not be assembled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The serial port's interrupt.
    #[error("cannot connect the serial port's interrupt")]
    Interrupt(#[source] io::Error),
    /// Two devices want the same ports.
    #[error("chipset devices collide")]
    Overlap(#[from] Overlap),
}

/// The parts that others reach for later.
pub struct Chipset {
    /// For the power button.
    pub power: Arc<Mutex<PowerBlock>>,
    /// For typed bytes.
    pub serial: Arc<Mutex<SerialPort>>,
}

impl Chipset {
    /// Makes all devices and puts them on `ports`.
    pub fn new(
        ports: &mut Bus,
        pins: &Arc<dyn Pins>,
        output: ConsoleSink,
        input: ConsoleInput,
        on_wish: &OnWish,
    ) -> Result<Self, Error> {
        let interrupt = pins.edge(SERIAL_IRQ).map_err(Error::Interrupt)?;
        let serial = Arc::new(Mutex::new(SerialPort::new(interrupt, output, input)));
        let power = Arc::new(Mutex::new(PowerBlock::new(Arc::clone(pins), Arc::clone(on_wish))));
        ports.insert(SERIAL_PORT, 8, Arc::clone(&serial) as _)?;
        ports.insert(PM_PORT, PM_PORTS, Arc::clone(&power) as _)?;
        ports.insert(CMOS_PORT, 2, Arc::new(Mutex::new(cmos::Cmos::new(std::time::SystemTime::now))))?;
        ports.insert(KEYBOARD_COMMAND_PORT, 1, Arc::new(Mutex::new(reset::KeyboardController::new(on_wish))))?;
        ports.insert(RESET_PORT, 1, Arc::new(Mutex::new(reset::ResetControl::new(on_wish))))?;
        Ok(Self { power, serial })
    }
}

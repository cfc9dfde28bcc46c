//! The few legacy devices that every PC has, mostly on I/O ports: clock memory, power management, reset lines, serial port, and the
//! interrupt controller for them.

mod awaited;
mod cmos;
mod ioapic;
pub mod panic_port;
pub mod pm;
mod reset;
mod serial;
pub mod watchdog;

use std::sync::{Arc, Mutex};

pub use self::awaited::Awaited;
use self::ioapic::{IoApic, Pins};
pub use self::pm::PowerBlock;
pub use self::reset::RESET_COMMAND;
pub use self::serial::SerialPort;
use self::watchdog::Watchdog;
use crate::bus::{Bus, Overlap};
use crate::console::{ConsoleInput, ConsoleSink};
use crate::event::Timer;
use crate::hv::Messages;
use crate::layout::{
    CMOS_PORT, GENERAL_STATUS, GENERAL_STATUS_LEN, IOAPIC_LEN, IOAPIC_START, KEYBOARD_COMMAND_PORT, PM_PORT, PM_PORTS,
    RESET_PORT, SERIAL_PORT, WATCHDOG_PORT, WATCHDOG_PORTS,
};

/// What the guest wants of the whole machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Power off.
    PowerOff,
    /// Start again.
    Reset,
    /// Its kernel panicked and waits for nothing any more.
    EndAfterPanic,
    /// Its watchdog ran down.
    EndAfterHang,
    /// No operating system started in time.
    EndNotBooted,
}

/// Called on a vCPU's thread with what its guest wants.
pub type OnWish = Arc<dyn Fn(Wish) + Send + Sync>;

/// The parts that others reach for later.
pub struct Chipset {
    /// For the power button.
    pub power: Arc<Mutex<PowerBlock>>,
    /// For typed bytes.
    pub serial: Arc<Mutex<SerialPort>>,
    /// For its timer, and to be paused.
    pub watchdog: Arc<Mutex<Watchdog>>,
    /// Who uses its pins is an operating system.
    pins: Arc<Pins>,
}

impl Chipset {
    /// Makes all devices and puts them on the buses. `timer` is the watchdog's.
    pub fn new(
        buses: &mut Buses<'_>,
        messages: Arc<dyn Messages>,
        output: ConsoleSink,
        input: ConsoleInput,
        timer: Timer,
        on_wish: &OnWish,
    ) -> Result<Self, Overlap> {
        let pins = Arc::new(Pins::new(messages));
        let serial = Arc::new(Mutex::new(SerialPort::new(Arc::clone(&pins), output, input)));
        let power = Arc::new(Mutex::new(PowerBlock::new(Arc::clone(&pins), Arc::clone(on_wish))));
        let watchdog = Arc::new(Mutex::new(Watchdog::new(timer, Arc::clone(on_wish))));
        let Buses { ports, memory } = buses;
        memory.insert(IOAPIC_START, IOAPIC_LEN, Arc::new(Mutex::new(IoApic::new(Arc::clone(&pins)))))?;
        ports.insert(SERIAL_PORT, 8, Arc::clone(&serial) as _)?;
        ports.insert(PM_PORT, PM_PORTS, Arc::clone(&power) as _)?;
        ports.insert(CMOS_PORT, 2, Arc::new(Mutex::new(cmos::Cmos::new(std::time::SystemTime::now))))?;
        ports.insert(KEYBOARD_COMMAND_PORT, 1, Arc::new(Mutex::new(reset::KeyboardController::new(on_wish))))?;
        ports.insert(panic_port::PORT, 1, Arc::new(Mutex::new(panic_port::PanicPort::new(on_wish))))?;
        ports.insert(RESET_PORT, 1, Arc::new(Mutex::new(reset::ResetControl::new(on_wish))))?;
        ports.insert(WATCHDOG_PORT, WATCHDOG_PORTS, Arc::clone(&watchdog) as _)?;
        let general = watchdog::GeneralStatus(Arc::clone(&watchdog));
        memory.insert(GENERAL_STATUS, GENERAL_STATUS_LEN, Arc::new(Mutex::new(general)))?;
        Ok(Self { power, serial, watchdog, pins })
    }
}

/// Both address spaces, while they are being filled.
pub struct Buses<'a> {
    /// I/O ports.
    pub ports: &'a mut Bus,
    /// Memory that is not RAM.
    pub memory: &'a mut Bus,
}

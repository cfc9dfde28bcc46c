//! The watchdog of Intel's ICH9 (datasheet section 13.9, "TCO"): a timer that a program of the guest winds up again and
//! again. Once it has run down twice, the guest hangs. The WDAT table (`acpi/watchdog.rs`) tells Linux of it.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{OnWish, Wish};
use crate::bus::BusDevice;
use crate::event::{EventHandler, Interest, Timer};

/// One count of the timer.
pub const TICK: Duration = Duration::from_millis(600);
/// Largest count.
pub const MAX_TICKS: u16 = 0x3FF;
/// Smallest count at which the timer runs.
pub const MIN_TICKS: u16 = 2;

/// Registers of 16 bits: a write winds the timer up; what is left of it reads back.
pub const RELOAD: u64 = 0x00;
const STATUS1: u64 = 0x04;
const STATUS2: u64 = 0x06;
/// Control, with [`HALT`].
pub const CONTROL: u64 = 0x08;
/// What the timer counts down from.
pub const COUNT: u64 = 0x12;

/// Control bit: the timer does not run.
pub const HALT: u16 = 1 << 11;
/// Status bits; each is cleared by writing a one.
const TIMEOUT: u16 = 1 << 3;
const SECOND_TIMEOUT: u16 = 1 << 1;

/// Bit of the chipset's general status (datasheet 10.1.75) that keeps the watchdog from resetting the machine.
pub const NO_REBOOT: u32 = 1 << 5;

/// The registers.
pub struct Watchdog {
    count: u16,
    control: u16,
    status1: u16,
    status2: u16,
    general: u32,
    timer: Timer,
    /// The machine is paused, with so much time left.
    held: Option<Duration>,
    on_wish: OnWish,
}

impl Watchdog {
    /// A watchdog that sleeps, as firmware leaves it.
    pub(super) fn new(timer: Timer, on_wish: OnWish) -> Self {
        Self { count: 4, control: HALT, status1: 0, status2: 0, general: 0, timer, held: None, on_wish }
    }

    /// Time stands still for the guest.
    pub fn pause(&mut self) {
        if let Some(left) = self.timer.left() {
            self.held = Some(left);
            self.timer.clear();
        }
    }

    /// Time goes on for the guest.
    pub fn resume(&mut self) {
        if let Some(left) = self.held.take() {
            self.timer.set(left);
        }
    }

    fn wind_up(&mut self) {
        self.status1 &= !TIMEOUT;
        if self.control & HALT == 0 && self.count >= MIN_TICKS {
            self.timer.set(TICK * u32::from(self.count));
        } else {
            self.timer.clear();
        }
    }

    /// The timer has run down: the first time it starts again by itself.
    fn run_down(&mut self) {
        if self.status1 & TIMEOUT == 0 {
            self.wind_up();
            self.status1 |= TIMEOUT;
            return;
        }
        self.status2 |= SECOND_TIMEOUT;
        if self.general & NO_REBOOT == 0 {
            (self.on_wish)(Wish::EndAfterHang);
        }
    }

    fn left(&self) -> u16 {
        let left = self.timer.left().unwrap_or_default().as_millis() / TICK.as_millis();
        u16::try_from(left).unwrap_or(MAX_TICKS)
    }

    fn register(&self, register: u64) -> u16 {
        match register {
            RELOAD => self.left(),
            STATUS1 => self.status1,
            STATUS2 => self.status2,
            CONTROL => self.control,
            COUNT => self.count,
            _ => 0,
        }
    }

    /// Writes the bits of `mask`.
    fn write_register(&mut self, register: u64, value: u16, mask: u16) {
        let merged = |old: u16| old & !mask | value & mask;
        match register {
            RELOAD => self.wind_up(),
            STATUS1 => self.status1 &= !(value & mask & TIMEOUT),
            STATUS2 => self.status2 &= !(value & mask & SECOND_TIMEOUT),
            CONTROL => {
                let before = self.control;
                self.control = merged(before);
                if (before ^ self.control) & HALT != 0 {
                    self.wind_up();
                }
            }
            COUNT => self.count = merged(self.count) & MAX_TICKS,
            _ => {}
        }
    }
}

impl BusDevice for Watchdog {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        for (byte, at) in data.iter_mut().zip(0..) {
            let at = offset.saturating_add(at);
            let [low, high] = self.register(at & !1).to_le_bytes();
            *byte = if at & 1 == 0 { low } else { high };
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        match (offset & 1, data) {
            (0, [value]) => self.write_register(offset, u16::from(*value), 0x00FF),
            (_, [value]) => self.write_register(offset & !1, u16::from(*value) << 8, 0xFF00),
            (0, [low, high]) => self.write_register(offset, u16::from_le_bytes([*low, *high]), u16::MAX),
            _ => {}
        }
    }
}

/// The chipset's general control and status, of which the guest finds one bit.
pub(super) struct GeneralStatus(pub(super) Arc<Mutex<Watchdog>>);

impl BusDevice for GeneralStatus {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let general = lock(&self.0).general.to_le_bytes();
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        for (to, from) in data.iter_mut().zip(general.iter().skip(offset)) {
            *to = *from;
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        // The bit is in the first byte, however wide the access.
        if let (0, Some(low)) = (offset, data.first()) {
            lock(&self.0).general = u32::from(*low) & NO_REBOOT;
        }
    }
}

/// Waits for the timer of a watchdog.
pub(crate) struct RunsDown(pub(crate) Arc<Mutex<Watchdog>>);

impl EventHandler for RunsDown {
    fn start(&mut self, interest: &mut Interest<'_>) -> io::Result<()> {
        interest.watch(&lock(&self.0).timer, 0)
    }

    fn ready(&mut self, _token: u32, _interest: &mut Interest<'_>) {
        let mut watchdog = lock(&self.0);
        // A guest that was quicker has wound it up meanwhile.
        if watchdog.timer.take() {
            watchdog.run_down();
        }
    }
}

fn lock(watchdog: &Mutex<Watchdog>) -> std::sync::MutexGuard<'_, Watchdog> {
    watchdog.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Wishes = Arc<Mutex<Vec<Wish>>>;

    fn watchdog() -> (Watchdog, Wishes) {
        let wishes = Wishes::default();
        let seen = Arc::clone(&wishes);
        let on_wish: OnWish = Arc::new(move |wish| seen.lock().unwrap().push(wish));
        (Watchdog::new(Timer::new().unwrap(), on_wish), wishes)
    }

    fn write(watchdog: &mut Watchdog, register: u64, value: u16) {
        watchdog.write(register, &value.to_le_bytes());
    }

    fn ticks_left(watchdog: &Watchdog) -> Option<u128> {
        Some(watchdog.timer.left()?.as_millis().div_ceil(TICK.as_millis()))
    }

    #[test]
    fn every_offset_and_width_is_harmless() {
        let (mut watchdog, wishes) = watchdog();
        for offset in (0..0x22).chain([u64::MAX - 8]) {
            for len in [1, 2, 4, 8] {
                watchdog.read(offset, &mut vec![0; len]);
                watchdog.write(offset, &vec![0xFF; len]);
            }
        }
        let mut general = GeneralStatus(Arc::new(Mutex::new(watchdog)));
        for offset in [0, 1, 3, u64::MAX] {
            general.read(offset, &mut [0; 8]);
            general.write(offset, &[0xFF; 8]);
        }
        assert!(wishes.lock().unwrap().is_empty());
    }

    #[test]
    fn a_watchdog_that_nobody_started_never_runs() {
        let (mut watchdog, _) = watchdog();
        write(&mut watchdog, COUNT, 100);
        write(&mut watchdog, RELOAD, 1);
        assert_eq!(ticks_left(&watchdog), None);
        write(&mut watchdog, COUNT, MIN_TICKS - 1);
        write(&mut watchdog, CONTROL, 0);
        assert_eq!(ticks_left(&watchdog), None, "the count is too small");
    }

    #[test]
    fn it_runs_from_its_start_until_it_is_halted_and_each_reload_winds_it_up() {
        let (mut watchdog, _) = watchdog();
        write(&mut watchdog, COUNT, 0xF000 | 100);
        watchdog.write(CONTROL + 1, &[0]);
        assert_eq!(ticks_left(&watchdog), Some(100));
        write(&mut watchdog, COUNT, 200);
        write(&mut watchdog, CONTROL, 0);
        assert_eq!(ticks_left(&watchdog), Some(100), "it ran already");
        watchdog.write(RELOAD, &[1]);
        assert_eq!(ticks_left(&watchdog), Some(200));
        watchdog.pause();
        watchdog.pause();
        assert_eq!(ticks_left(&watchdog), None);
        watchdog.resume();
        assert_eq!(ticks_left(&watchdog), Some(200));
        write(&mut watchdog, CONTROL, HALT);
        assert_eq!(ticks_left(&watchdog), None);
    }

    #[test]
    fn the_second_time_it_runs_down_the_guest_hangs_unless_it_said_otherwise() {
        for (general, expected) in [(0_u32, vec![Wish::EndAfterHang]), (NO_REBOOT, vec![])] {
            let (mut watchdog, wishes) = watchdog();
            write(&mut watchdog, COUNT, 100);
            write(&mut watchdog, CONTROL, 0);
            watchdog.run_down();
            write(&mut watchdog, RELOAD, 1);
            watchdog.run_down();
            assert!(wishes.lock().unwrap().is_empty(), "it was wound up in between");
            assert_eq!(ticks_left(&watchdog), Some(100));
            let watchdog = Arc::new(Mutex::new(watchdog));
            GeneralStatus(Arc::clone(&watchdog)).write(0, &general.to_le_bytes());
            lock(&watchdog).run_down();
            assert_eq!(*wishes.lock().unwrap(), expected);
        }
    }
}

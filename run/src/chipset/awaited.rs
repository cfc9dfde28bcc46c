//! An operating system that is waited for, in vain when firmware or a boot loader found none. What tells it from them is that
//! it takes interrupts of the chipset's: firmware asks its devices by and by.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::ioapic::Pins;
use super::{Chipset, OnWish, Wish};
use crate::event::{EventHandler, Interest, Timer};

/// The wait.
pub struct Awaited {
    timer: Timer,
    pins: Arc<Pins>,
    on_wish: OnWish,
}

impl Awaited {
    /// A wait of so long, from now on, for one that uses this chipset.
    ///
    /// # Errors
    /// The host has no more timers.
    pub fn new(time: Duration, chipset: &Chipset, on_wish: OnWish) -> io::Result<Self> {
        Self::of(time, Arc::clone(&chipset.pins), on_wish)
    }

    fn of(time: Duration, pins: Arc<Pins>, on_wish: OnWish) -> io::Result<Self> {
        let timer = Timer::new()?;
        timer.set(time);
        Ok(Self { timer, pins, on_wish })
    }
}

impl EventHandler for Awaited {
    fn start(&mut self, interest: &mut Interest<'_>) -> io::Result<()> {
        interest.watch(&self.timer, 0)
    }

    fn ready(&mut self, _token: u32, _interest: &mut Interest<'_>) {
        if self.timer.take() && !self.pins.were_used() {
            (self.on_wish)(Wish::EndNotBooted);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::super::ioapic::IoApic;
    use super::*;
    use crate::bus::BusDevice;
    use crate::event::{EventThread, Served};
    use crate::hv::{Messages, MsiMessage};

    struct Nowhere;

    impl Messages for Nowhere {
        fn send(&self, _message: MsiMessage) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn who_takes_no_interrupts_is_no_operating_system() {
        let thread = EventThread::start("test").unwrap();
        let (told, wishes) = mpsc::channel();
        let wait = |pins: &Arc<Pins>, milliseconds| {
            let told = told.clone();
            let on_wish: OnWish = Arc::new(move |wish| told.send((milliseconds, wish)).unwrap());
            let awaited = Awaited::of(Duration::from_millis(milliseconds), Arc::clone(pins), on_wish).unwrap();
            Served::new(&thread.events(), Box::new(awaited)).unwrap()
        };
        let [used, masked] = [(); 2].map(|()| Arc::new(Pins::new(Arc::new(Nowhere))));
        for (pins, value) in [(&used, 0x31_u32), (&masked, 0x1_0031)] {
            let mut ioapic = IoApic::new(Arc::clone(pins));
            ioapic.write(0, &[0x10 + 2 * 4]);
            ioapic.write(0x10, &value.to_le_bytes());
        }
        let _waits = [wait(&used, 1), wait(&masked, 2)];
        assert_eq!(wishes.recv().unwrap(), (2, Wish::EndNotBooted));
    }
}

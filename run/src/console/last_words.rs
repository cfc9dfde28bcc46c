//! Hears from the console that the guest's kernel panicked: for kernels that have no driver for the panic port, or did not
//! get as far as to load it.

use std::io;
use std::time::Duration;

use super::ConsoleSink;
use crate::event::{EventHandler, Interest, Timer};

/// How long the console is silent after a panic's last line before that line is believed: a program may print an old log.
const SILENCE: Duration = Duration::from_secs(5);

const SAID: u32 = 0;
const SILENT: u32 = 1;

/// Calls `on_panic` when a panic's last line has been the end of what was printed for some seconds.
pub struct LastWords<F> {
    sink: ConsoleSink,
    timer: Timer,
    on_panic: F,
}

impl<F: Fn() + Send> LastWords<F> {
    /// Listens to what is printed to `sink`.
    pub fn new(sink: ConsoleSink, on_panic: F) -> io::Result<Self> {
        Ok(Self { sink, timer: Timer::new()?, on_panic })
    }
}

impl<F: Fn() + Send> EventHandler for LastWords<F> {
    fn start(&mut self, interest: &mut Interest<'_>) -> io::Result<()> {
        interest.watch(self.sink.panic_said(), SAID)?;
        interest.watch(&self.timer, SILENT)
    }

    fn ready(&mut self, token: u32, _interest: &mut Interest<'_>) {
        match token {
            SAID => {
                self.sink.panic_said().take();
                self.timer.set(SILENCE);
            }
            _ if self.timer.take() && self.sink.ends_with_panic() => (self.on_panic)(),
            _ => {}
        }
    }
}

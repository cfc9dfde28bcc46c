//! The user's hand on a running machine, from any thread.

use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Event;
use crate::chipset::PowerBlock;

/// Presses the power button of a machine or ends it. Cheap to clone; may be used before the machine runs and after.
#[derive(Debug, Clone, Default)]
pub struct Control {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    stop: bool,
    press: bool,
    machine: Option<Machine>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("stop", &self.stop).field("runs", &self.machine.is_some()).finish_non_exhaustive()
    }
}

struct Machine {
    events: Sender<Event>,
    power: Arc<Mutex<PowerBlock>>,
}

impl Control {
    /// A handle to be given to [`super::run`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Presses the power button: asks the guest to power off. It may not be listening, so never wait for it without a
    /// bound. A press before the machine runs counts when it does.
    pub fn press_power_button(&self) {
        let mut state = self.lock();
        match &state.machine {
            Some(machine) => machine.press(),
            None => state.press = true,
        }
    }

    /// Ends the machine as if its plug were pulled, now and at any later start.
    pub fn stop(&self) {
        let mut state = self.lock();
        state.stop = true;
        if let Some(machine) = &state.machine {
            // A machine that just ended by itself does not listen any more.
            let _ended = machine.events.send(Event::Stop);
        }
    }

    /// Connects a machine until the returned value is dropped.
    pub(super) fn attach(&self, events: Sender<Event>, power: Arc<Mutex<PowerBlock>>) -> Attached<'_> {
        let mut state = self.lock();
        let machine = Machine { events, power };
        if state.stop {
            let _ended = machine.events.send(Event::Stop);
        }
        if std::mem::take(&mut state.press) {
            machine.press();
        }
        state.machine = Some(machine);
        Attached(self)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Machine {
    fn press(&self) {
        self.power.lock().unwrap_or_else(PoisonError::into_inner).press_button();
    }
}

/// A machine is connected while this lives.
pub(super) struct Attached<'a>(&'a Control);

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        self.0.lock().machine = None;
    }
}

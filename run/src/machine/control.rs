//! The user's hand on a running machine, from any thread.

use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use super::Event;
use super::gate::Gate;
use crate::chipset::PowerBlock;
use crate::chipset::watchdog::Watchdog;
use crate::hands::{BalloonUse, Hands, MemoryUse, Refusal};
use crate::mem::GuestMemory;
use crate::mem::discard::resident_bytes;
use crate::virtio::balloon::BalloonHandle;

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

/// The parts of a machine that the user's hand reaches.
#[derive(Clone)]
pub(super) struct Machine {
    pub(super) events: Sender<Event>,
    pub(super) power: Arc<Mutex<PowerBlock>>,
    pub(super) watchdog: Arc<Mutex<Watchdog>>,
    pub(super) gate: Arc<Gate>,
    pub(super) memory: GuestMemory,
    pub(super) balloon: Option<BalloonHandle>,
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
    pub(super) fn attach(&self, machine: Machine) -> Attached<'_> {
        let mut state = self.lock();
        if state.stop {
            let _ended = machine.events.send(Event::Stop);
        }
        if std::mem::take(&mut state.press) {
            machine.press();
        }
        state.machine = Some(machine);
        Attached(self)
    }

    fn machine(&self) -> Result<Machine, Refusal> {
        self.lock().machine.clone().ok_or(Refusal::NotRunning)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hands for Control {
    fn pause(&self) -> Result<(), Refusal> {
        let machine = self.machine()?;
        machine.gate.pause().map_err(|_too_slow| Refusal::Busy)?;
        lock(&machine.watchdog).pause();
        Ok(())
    }

    fn resume(&self) -> Result<(), Refusal> {
        let machine = self.machine()?;
        lock(&machine.watchdog).resume();
        machine.gate.resume();
        Ok(())
    }

    fn memory(&self) -> Result<MemoryUse, Refusal> {
        let machine = self.machine()?;
        let resident_bytes = resident_bytes(&machine.memory).map_err(|_| Refusal::Unknown)?;
        let total_bytes = machine.memory.iter().map(GuestMemoryRegion::len).sum();
        let balloon = machine.balloon.map(|balloon| {
            let state = balloon.state();
            BalloonUse {
                target_bytes: state.target_bytes,
                actual_bytes: state.actual_bytes,
                free_bytes: state.stats.free_bytes,
                available_bytes: state.stats.available_bytes,
            }
        });
        Ok(MemoryUse { total_bytes, resident_bytes, balloon })
    }

    fn set_balloon(&self, target_bytes: u64) -> Result<(), Refusal> {
        self.machine()?.balloon.ok_or(Refusal::NoBalloon)?.set_target(target_bytes);
        Ok(())
    }
}

fn lock<T>(part: &Mutex<T>) -> MutexGuard<'_, T> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Machine {
    fn press(&self) {
        lock(&self.power).press_button();
    }
}

/// A machine is connected while this lives.
pub(super) struct Attached<'a>(&'a Control);

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        self.0.lock().machine = None;
    }
}

//! A hand on a machine under QEMU.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::Sender;

use super::machine::Event;
use super::qmp::Request;
use crate::config::MachineConfig;
use crate::hands::{BalloonUse, Hands, MemoryUse, Refusal};
use crate::layout::MIB;

/// What is known of QEMU's memory.
#[derive(Debug)]
pub(super) struct Shared {
    total_bytes: u64,
    has_balloon: bool,
    /// QEMU's process; 0 when there is none.
    process: AtomicU32,
    /// What the balloon is asked for, in bytes.
    target_bytes: AtomicU64,
    /// What it leaves to the guest, in bytes.
    left_bytes: AtomicU64,
}

impl Shared {
    pub(super) fn new(config: &MachineConfig) -> Self {
        let total_bytes = config.memory_mib * MIB;
        Self {
            total_bytes,
            has_balloon: config.memory.has_balloon(),
            process: AtomicU32::new(0),
            target_bytes: AtomicU64::new(0),
            left_bytes: AtomicU64::new(total_bytes),
        }
    }

    pub(super) fn started(&self, process: u32) {
        self.left_bytes.store(self.total_bytes, Ordering::SeqCst);
        self.process.store(process, Ordering::SeqCst);
    }

    pub(super) fn ended(&self) {
        self.process.store(0, Ordering::SeqCst);
    }

    pub(super) fn set_left(&self, bytes: u64) {
        self.left_bytes.store(bytes.min(self.total_bytes), Ordering::SeqCst);
    }

    /// QEMU's process, if there is one.
    fn process(&self) -> Result<u32, Refusal> {
        match self.process.load(Ordering::SeqCst) {
            0 => Err(Refusal::NotRunning),
            process => Ok(process),
        }
    }
}

/// Reaches a running machine from another thread. Does nothing once the machine has ended.
#[derive(Debug, Clone)]
pub struct Remote {
    sender: Sender<Event>,
    shared: Arc<Shared>,
}

impl Remote {
    pub(super) fn new(sender: Sender<Event>, shared: Arc<Shared>) -> Self {
        Self { sender, shared }
    }

    /// Presses the power button: the guest is asked to power off.
    pub fn power_button(&self) {
        self.send(Event::Ask(Request::PowerButton));
    }

    /// Ends the machine now, without asking the guest.
    pub fn stop(&self) {
        self.send(Event::Stop);
    }

    fn send(&self, event: Event) {
        // No receiver: the machine has ended.
        let _ended = self.sender.send(event);
    }
}

impl Hands for Remote {
    fn pause(&self) -> Result<(), Refusal> {
        self.shared.process()?;
        self.send(Event::Ask(Request::Pause));
        Ok(())
    }

    fn resume(&self) -> Result<(), Refusal> {
        self.shared.process()?;
        self.send(Event::Ask(Request::Resume));
        Ok(())
    }

    fn memory(&self) -> Result<MemoryUse, Refusal> {
        let process = self.shared.process()?;
        let resident_bytes = resident_bytes(process).ok_or(Refusal::Unknown)?;
        let Shared { total_bytes, has_balloon, .. } = *self.shared;
        let balloon = has_balloon.then(|| BalloonUse {
            target_bytes: self.shared.target_bytes.load(Ordering::SeqCst),
            actual_bytes: total_bytes.saturating_sub(self.shared.left_bytes.load(Ordering::SeqCst)),
            free_bytes: None,
            available_bytes: None,
        });
        Ok(MemoryUse { total_bytes, resident_bytes, balloon })
    }

    fn set_balloon(&self, target_bytes: u64) -> Result<(), Refusal> {
        self.shared.process()?;
        if !self.shared.has_balloon {
            return Err(Refusal::NoBalloon);
        }
        let target_bytes = target_bytes.min(self.shared.total_bytes);
        self.shared.target_bytes.store(target_bytes, Ordering::SeqCst);
        // QEMU takes no request that leaves the guest nothing.
        let left = self.shared.total_bytes.saturating_sub(target_bytes).max(MIB);
        self.send(Event::Ask(Request::Leave(left)));
        Ok(())
    }
}

/// Memory that a process has (proc(5): `VmRSS`), in bytes.
fn resident_bytes(process: u32) -> Option<u64> {
    let told = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let kib = told.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix(" kB")?;
    kib.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_process_is_told_while_it_lives() {
        assert!(resident_bytes(std::process::id()).is_some_and(|bytes| bytes > 4096));
        assert_eq!(resident_bytes(u32::MAX), None);
    }
}

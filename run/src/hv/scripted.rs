//! A hypervisor that replays exits: the machine's loop under test, on hosts without any real one.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use vmm_sys_util::eventfd::EventFd;

use super::{Doorbells, Entry, Error, Exit, Hypervisor, Kick, Messages, MsiLine, MsiLines, MsiMessage, Roms, Vcpu, Vm};
use crate::mem::{GuestMemory, Rom};

/// One step of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A read of `width` bytes from a port.
    PortRead(u16, usize),
    /// A write to a port.
    PortWrite(u16, Vec<u8>),
    /// A read of so many bytes of memory.
    MemoryRead(u64, usize),
    /// A write to memory.
    MemoryWrite(u64, Vec<u8>),
    /// A triple fault.
    Shutdown,
    /// The hypervisor fails.
    Fail,
}

/// What the script saw, in order.
#[derive(Debug, Default)]
pub struct Record {
    /// Values read, in order.
    pub reads: Vec<Vec<u8>>,
    /// Entries set.
    pub entries: Vec<Entry>,
    /// Where read-only memory is shown.
    pub shown: Vec<u64>,
    /// Messages sent.
    pub messages: Vec<MsiMessage>,
    /// How often a vCPU was told of a pause.
    pub pauses: u32,
}

/// Replays one script for each vCPU; a vCPU whose script has ended waits until it is kicked.
pub struct Scripted {
    scripts: Vec<Vec<Step>>,
    /// Shared with every machine made.
    pub record: Arc<Mutex<Record>>,
}

impl Scripted {
    /// A hypervisor whose machines run `scripts`, one for each vCPU.
    pub fn new(scripts: Vec<Vec<Step>>) -> Self {
        Self { scripts, record: Arc::default() }
    }
}

impl Hypervisor for Scripted {
    type Vm = ScriptedVm;

    fn create_vm(&self, _memory: &GuestMemory, _cpus: u32) -> Result<ScriptedVm, Error> {
        let lines = Arc::new(Lines { allocated: AtomicU32::new(0), record: Arc::clone(&self.record) });
        Ok(ScriptedVm { scripts: self.scripts.clone(), record: Arc::clone(&self.record), lines })
    }
}

/// A machine that replays.
pub struct ScriptedVm {
    scripts: Vec<Vec<Step>>,
    record: Arc<Mutex<Record>>,
    lines: Arc<Lines>,
}

impl Vm for ScriptedVm {
    type Vcpu = ScriptedVcpu;

    fn create_vcpu(&self, index: u32) -> Result<ScriptedVcpu, Error> {
        let steps = self.scripts.get(index as usize).cloned().unwrap_or_default().into();
        let (kick, kicked) = channel();
        let kick = Arc::new(ScriptedKick(Mutex::new(kick)));
        Ok(ScriptedVcpu { steps, data: Vec::new(), was_read: false, record: Arc::clone(&self.record), kick, kicked })
    }

    fn msi_lines(&self) -> Arc<dyn MsiLines> {
        Arc::clone(&self.lines) as Arc<dyn MsiLines>
    }

    fn doorbells(&self) -> Arc<dyn Doorbells> {
        Arc::clone(&self.lines) as Arc<dyn Doorbells>
    }

    fn messages(&self) -> Arc<dyn Messages> {
        Arc::clone(&self.lines) as Arc<dyn Messages>
    }

    fn roms(&self) -> Arc<dyn Roms> {
        Arc::clone(&self.lines) as Arc<dyn Roms>
    }
}

struct Lines {
    allocated: AtomicU32,
    record: Arc<Mutex<Record>>,
}

impl MsiLines for Lines {
    fn allocate(&self) -> io::Result<MsiLine> {
        let number = self.allocated.fetch_add(1, Ordering::Relaxed);
        Ok(MsiLine { number, event: EventFd::new(libc::EFD_NONBLOCK)? })
    }

    fn connect(&self, _changes: &[(&MsiLine, Option<MsiMessage>)]) -> io::Result<()> {
        Ok(())
    }
}

impl Doorbells for Lines {
    fn attach(&self, _address: u64, _event: &EventFd) -> io::Result<()> {
        Ok(())
    }

    fn detach(&self, _address: u64, _event: &EventFd) -> io::Result<()> {
        Ok(())
    }
}

impl Messages for Lines {
    fn send(&self, message: MsiMessage) -> io::Result<()> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).messages.push(message);
        Ok(())
    }
}

impl Roms for Lines {
    fn show(&self, rom: &Arc<Rom>) -> Result<(), Error> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).shown.push(rom.start());
        Ok(())
    }

    fn hide(&self, rom: &Arc<Rom>) -> Result<(), Error> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).shown.retain(|start| *start != rom.start());
        Ok(())
    }
}

/// A vCPU that replays.
pub struct ScriptedVcpu {
    steps: VecDeque<Step>,
    data: Vec<u8>,
    was_read: bool,
    record: Arc<Mutex<Record>>,
    kick: Arc<ScriptedKick>,
    kicked: Receiver<()>,
}

impl Vcpu for ScriptedVcpu {
    fn start_at(&mut self, entry: Entry) -> Result<(), Error> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).entries.push(entry);
        Ok(())
    }

    fn run(&mut self) -> Result<Exit<'_>, Error> {
        if std::mem::take(&mut self.was_read) {
            self.record.lock().unwrap_or_else(PoisonError::into_inner).reads.push(self.data.clone());
        }
        let Some(step) = self.steps.pop_front() else {
            let _gone = self.kicked.recv();
            return Ok(Exit::Interrupted);
        };
        self.was_read = matches!(step, Step::PortRead(..) | Step::MemoryRead(..));
        match step {
            Step::PortRead(port, width) => {
                self.data = vec![0; width];
                Ok(Exit::PortRead { port, width, data: &mut self.data })
            }
            Step::PortWrite(port, data) => {
                self.data = data;
                Ok(Exit::PortWrite { port, width: self.data.len(), data: &self.data })
            }
            Step::MemoryRead(address, len) => {
                self.data = vec![0; len];
                Ok(Exit::MemoryRead { address, data: &mut self.data })
            }
            Step::MemoryWrite(address, data) => {
                self.data = data;
                Ok(Exit::MemoryWrite { address, data: &self.data })
            }
            Step::Shutdown => Ok(Exit::Shutdown),
            Step::Fail => Err(Error::Stuck { vcpu: 0, address: 0, reason: "the script says so".into() }),
        }
    }

    fn kick(&self) -> Arc<dyn Kick> {
        Arc::clone(&self.kick) as Arc<dyn Kick>
    }

    /// A kick counts for one call of `run`.
    fn forget_kicks(&mut self) {}

    fn tell_pause(&mut self) {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).pauses += 1;
    }
}

struct ScriptedKick(Mutex<Sender<()>>);

impl Kick for ScriptedKick {
    fn kick(&self) {
        let _gone = self.0.lock().unwrap_or_else(PoisonError::into_inner).send(());
    }
}

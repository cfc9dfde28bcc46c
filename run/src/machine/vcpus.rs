//! One thread for each vCPU: run, answer, run again.

use std::sync::mpsc::{Receiver, Sender};
use std::thread::{Builder, Scope, ScopedJoinHandle, scope};

use super::assemble::Assembled;
use super::gate::Pass;
use super::{Error, Event};
use crate::bus::Bus;
use crate::hv::{self, Entry, Exit, Vcpu, Vm};

/// Runs all vCPUs until the first event, then stops them, the last one first.
pub(super) fn run_until_event<V: Vm>(
    vm: &V,
    cpus: u32,
    assembled: &Assembled,
    events: &Sender<Event>,
    first_event: &Receiver<Event>,
) -> Result<Event, Error> {
    let crew = Crew { vm, assembled };
    scope(|scope| {
        let mut threads = Vec::new();
        for index in 0..cpus {
            match crew.start(scope, index, events.clone()) {
                Ok(thread) => threads.push(thread),
                Err(source) => {
                    crew.stop(threads);
                    return Err(Error::Thread(source));
                }
            }
        }
        // `events` itself keeps the channel open, so this always gets one.
        let event = first_event.recv().unwrap_or(Event::ThreadEnded);
        crew.stop(threads);
        Ok(event)
    })
}

/// What the vCPUs' threads share.
struct Crew<'a, V> {
    vm: &'a V,
    assembled: &'a Assembled,
}

impl<V: Vm> Crew<'_, V> {
    fn start<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        index: u32,
        events: Sender<Event>,
    ) -> std::io::Result<ScopedJoinHandle<'scope, ()>> {
        let entry = (index == 0).then_some(self.assembled.entry);
        Builder::new().name(format!("vcpu{index}")).spawn_scoped(scope, move || {
            let ended = TellsEnd(events);
            if let Some(event) = self.run(index, entry).unwrap_or_else(|error| Some(Event::Failed(error))) {
                ended.tell(event);
            }
        })
    }

    /// Makes a vCPU and runs it. `None` when it was told to stop.
    fn run(&self, index: u32, entry: Option<Entry>) -> Result<Option<Event>, hv::Error> {
        let mut vcpu = self.vm.create_vcpu(index)?;
        if let Some(entry) = entry {
            vcpu.start_at(entry)?;
        }
        self.assembled.gate.join(vcpu.kick());
        loop {
            vcpu.forget_kicks();
            match self.assembled.gate.pass() {
                Pass::Go => {}
                Pass::GoOn => vcpu.tell_pause(),
                Pass::Stop => return Ok(None),
            }
            let interrupted = loop {
                match vcpu.run()? {
                    Exit::Interrupted => break true,
                    Exit::Shutdown => break false,
                    exit => self.serve(exit),
                }
            };
            if !interrupted {
                return Ok(Some(Event::TripleFault));
            }
        }
    }

    fn serve(&self, exit: Exit<'_>) {
        let Assembled { ports, memory, .. } = self.assembled;
        match exit {
            Exit::PortRead { port, width, data } => {
                data.chunks_mut(width.max(1)).for_each(|value| ports.read(port.into(), value));
            }
            Exit::PortWrite { port, width, data } => {
                data.chunks(width.max(1)).for_each(|value| ports.write(port.into(), value));
            }
            Exit::MemoryRead { address, data } => Bus::read(memory, address, data),
            Exit::MemoryWrite { address, data } => Bus::write(memory, address, data),
            Exit::Interrupted | Exit::Shutdown => {}
        }
    }

    fn stop(&self, threads: Vec<ScopedJoinHandle<'_, ()>>) {
        self.assembled.gate.stop();
        for thread in threads.into_iter().rev() {
            // A panic of the thread is our own mistake; the panic hook has told of it.
            let _broke_down = thread.join();
        }
    }
}

/// Tells the machine that a vCPU's thread ended, also when it panics.
struct TellsEnd(Sender<Event>);

impl TellsEnd {
    fn tell(&self, event: Event) {
        let _already_stopped = self.0.send(event);
    }
}

impl Drop for TellsEnd {
    fn drop(&mut self) {
        self.tell(Event::ThreadEnded);
    }
}

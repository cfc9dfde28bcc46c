//! The device as its driver configures it.

use std::io;

use super::worker::Worker;
use crate::{
    console::{ConsoleInput, ConsoleSink, TerminalSize},
    event::{Events, HandlerId},
    virtio::{Activation, VirtioDevice, spec::DeviceType},
};

/// Feature bit (5.3.3): the configuration holds the size of the screen.
const FEATURE_SIZE: u64 = 1 << 0;
/// Buffers that may wait, in descriptors.
const QUEUE_SIZE: u16 = 64;

/// A console, served by a thread that it shares.
#[derive(Debug)]
pub struct VirtioConsole {
    sink: ConsoleSink,
    input: Option<ConsoleInput>,
    size: Option<TerminalSize>,
    events: Events,
    handler: Option<HandlerId>,
}

impl VirtioConsole {
    /// A console that prints to `sink`, takes what is typed from `input` if it is the one that gets it, and tells the
    /// driver the size of the terminal if there is one.
    #[must_use]
    pub fn new(sink: ConsoleSink, input: Option<ConsoleInput>, size: Option<TerminalSize>, events: Events) -> Self {
        Self { sink, input, size, events, handler: None }
    }
}

impl VirtioDevice for VirtioConsole {
    fn device_type(&self) -> DeviceType {
        DeviceType::Console
    }

    fn features(&self) -> u64 {
        if self.size.is_some() { FEATURE_SIZE } else { 0 }
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE, QUEUE_SIZE]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let (columns, rows) = self.size.as_ref().map_or((0, 0), TerminalSize::get);
        let fields = columns.to_le_bytes().into_iter().chain(rows.to_le_bytes());
        for (to, from) in data.iter_mut().zip(fields.skip(usize::try_from(offset).unwrap_or(usize::MAX))) {
            *to = from;
        }
    }

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        let mut rings = activation.rings.into_iter();
        let (receive, transmit) = (rings.next().flatten(), rings.next().flatten());
        let size = self.size.as_ref().filter(|_| activation.features & FEATURE_SIZE != 0).cloned();
        let worker = Worker::new(
            activation.memory,
            activation.signal,
            (receive, self.input.clone()),
            (transmit, self.sink.clone()),
            size,
        );
        self.handler = Some(self.events.add(Box::new(worker))?);
        Ok(())
    }

    fn reset(&mut self) {
        if let Some(handler) = self.handler.take() {
            self.events.remove(handler);
        }
    }
}

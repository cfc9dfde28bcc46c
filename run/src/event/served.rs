//! A handler's stay on a thread.

use std::io;

use super::{EventHandler, Events, HandlerId};

/// A handler that is served while this lives.
#[derive(Debug)]
pub struct Served {
    events: Events,
    id: HandlerId,
}

impl Served {
    /// Puts `handler` on the thread of `events`. Never call it, or drop what it made, from a handler of that thread.
    pub fn new(events: &Events, handler: Box<dyn EventHandler>) -> io::Result<Self> {
        let id = events.add(handler)?;
        Ok(Self { events: events.clone(), id })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.events.remove(self.id);
    }
}

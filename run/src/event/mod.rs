//! Waiting: flags that threads raise for each other, and the threads that serve the events of devices.
//!
//! One [`EventThread`] serves the devices that have little to do (console, random numbers, serial input); a device that
//! blocks, like a disk, runs [`serve`] on a thread of its own. Whoever waits here is a file descriptor and a handler; no
//! handler may wait for another one of the same thread.

mod flag;
mod interest;
mod served;
mod thread;
mod timer;

pub use flag::Flag;
pub use interest::{Interest, serve};
pub use served::Served;
pub use thread::{EventThread, Events, HandlerId};
pub use timer::Timer;

use std::io;

/// Somebody who serves events on a thread that is not his own.
pub trait EventHandler: Send {
    /// Called first: names the descriptors to wait for. The handler owns them, and keeps them open, until it is dropped.
    fn start(&mut self, interest: &mut Interest<'_>) -> io::Result<()>;

    /// A descriptor watched under `token` is readable (or broken), and stays so until it is read or ignored.
    fn ready(&mut self, token: u32, interest: &mut Interest<'_>);
}

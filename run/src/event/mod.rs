//! Waiting: flags that threads raise for each other, and the thread that serves events of several devices.

mod flag;

pub use flag::Flag;

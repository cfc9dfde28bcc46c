//! The console device (section 5.3) with one port and no control queues.

mod device;
mod worker;

pub use device::VirtioConsole;

#[cfg(test)]
mod tests;

//! The block device (section 5.2) over any [`BlockBackend`].

mod device;
mod pool;
mod request;
mod spec;
mod worker;

pub use device::{BlockOptions, MAX_QUEUES, VirtioBlock};

#[cfg(test)]
mod tests;

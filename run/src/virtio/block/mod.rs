//! The block device (section 5.2) over any [`BlockBackend`].

mod device;
mod request;
mod spec;
mod worker;

pub use device::VirtioBlock;

#[cfg(test)]
mod tests;

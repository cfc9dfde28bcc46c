//! The file system device (section 5.11): carries FUSE requests of its driver to a share.

mod device;
mod exchange;
mod spec;
#[cfg(test)]
mod tests;
mod worker;

pub(crate) use device::QUEUE_SIZE;
pub use device::VirtioFs;

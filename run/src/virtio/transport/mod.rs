//! How drivers reach virtio devices: virtio over PCI, modern only (section 4.1).

mod capabilities;
mod pci;
mod queue_setup;
mod registers;
mod signal;
#[cfg(test)]
mod tests;

pub use pci::{Resources, VirtioPci};

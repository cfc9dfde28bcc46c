//! Block devices: which there are, what their superblocks say, and what the tables of their partitions call them.

pub mod control;
mod devices;
pub mod loops;
pub(crate) mod nodes;
mod partition;
pub mod superblock;

pub use devices::{Device, DeviceName, Devices};

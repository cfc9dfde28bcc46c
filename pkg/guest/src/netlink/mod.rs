//! Netlink: the kernel's news about devices, and requests about network links.

mod link;
mod uevent;

pub use link::{LinkError, Links, NewLink};
pub use uevent::{Uevent, Uevents};

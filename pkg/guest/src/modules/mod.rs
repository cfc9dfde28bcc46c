//! Kernel modules: which ones the devices ask for, and loading them with all they need.
//!
//! Works on depmod's text files (`modules.dep(5)`, `modules.alias`, `modules.softdep`). They lie in RAM or in the page
//! cache, so they are scanned for each batch of devices instead of being kept.

mod alias;
mod coldplug;
mod dependency;
mod load;
pub mod modprobe;

pub use coldplug::coldplug;
pub use load::{LoadError, Loader};

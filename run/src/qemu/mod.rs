//! The way out for hosts without a usable KVM: the same machine description, run by QEMU's software CPU.
//!
//! This is the one room of the crate that starts a program. QEMU is driven over an inherited socket (QMP), its consoles
//! are inherited sockets too, so that nothing is left in the file system and the terminal stays with this process.

mod child;
mod command;
mod find;
mod machine;
mod pump;
mod qmp;
mod remote;
mod tied;
mod vhost_user;

pub use command::DiskWords;
pub use find::{Qemu, ask, program};
pub use machine::{Machine, Programs, QemuError};
pub use remote::Remote;
pub use tied::{TIED_COMMAND, TiedError, exec_tied};
pub use vhost_user::Served;

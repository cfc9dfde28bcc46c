//! The machine: one description ([`config::MachineConfig`]), checked as a whole, assembled in one place and run by one
//! thread per vCPU until the first reason to stop. Nothing here prints.

#[cfg(target_arch = "x86_64")]
pub mod acpi;
pub mod agent;
pub mod block;
#[cfg(target_arch = "x86_64")]
pub mod boot;
pub mod bus;
pub mod cable;
pub mod cards;
#[cfg(target_arch = "x86_64")]
pub mod check;
#[cfg(target_arch = "x86_64")]
pub mod chipset;
pub mod config;
pub mod console;
pub mod control;
pub mod detach;
pub mod disks;
pub mod event;
pub mod exit;
pub mod firmware;
pub mod hands;
pub mod host;
pub mod hv;
pub mod layout;
pub mod lent;
#[cfg(target_arch = "x86_64")]
pub mod machine;
mod macs;
pub mod mem;
pub mod opened;
pub mod pci;
pub mod qemu;
pub mod share;
pub mod smbios;
mod started;
pub mod virtio;
pub mod vsock;

pub use started::Started;

/// The network, whose plain types descriptions of machines are made of.
pub use kiln_net as net;

//! The hypervisor boundary. What devices may ask of it stands here; the virtual machine and its processors follow.

use std::io;

use vmm_sys_util::eventfd::EventFd;

/// What a message-signalled interrupt writes, and where (PCI Local Bus 3.0, 6.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MsiMessage {
    /// Guest-physical address of the write.
    pub address: u64,
    /// The value written.
    pub data: u32,
}

/// One interrupt line of the hypervisor that a device fires by writing to `event`.
#[derive(Debug)]
pub struct MsiLine {
    /// Number of the line within the hypervisor (a GSI).
    pub number: u32,
    /// Written by the device, read by the hypervisor.
    pub event: EventFd,
}

/// Gives message-signalled interrupts to devices (KVM: irqfd and the GSI routing table).
pub trait MsiLines: Send + Sync {
    /// A new line, connected to nothing yet.
    fn allocate(&self) -> io::Result<MsiLine>;

    /// Connects each line to its message, or disconnects it with `None`: all in one update, for an update rewrites the
    /// hypervisor's whole table. An event that was written while disconnected is not delivered later: the caller keeps
    /// pending bits.
    fn connect(&self, changes: &[(&MsiLine, Option<MsiMessage>)]) -> io::Result<()>;
}

/// Turns a guest's write to an address into a signal on an event, with no exit to this process (KVM: ioeventfd).
pub trait Doorbells: Send + Sync {
    /// From now on any write of any width to `address` signals `event`.
    fn attach(&self, address: u64, event: &EventFd) -> io::Result<()>;

    /// Ends what `attach` began.
    fn detach(&self, address: u64, event: &EventFd) -> io::Result<()>;
}

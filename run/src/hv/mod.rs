//! The hypervisor boundary: what the machine needs of one (`Hypervisor`, `Vm`, `Vcpu`) and what devices may ask of it
//! (`MsiLines`, `Doorbells`, `Messages`). Nothing outside this folder knows which hypervisor runs.

use std::io;
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use crate::mem::{GuestMemory, Rom};

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod kvm;
#[cfg(test)]
pub mod scripted;
#[cfg(target_arch = "x86_64")]
pub(crate) mod segments;

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

/// Sends single messages to local APICs, for the I/O APIC, whose entries change too often for a [`MsiLine`].
pub trait Messages: Send + Sync {
    /// Delivers one.
    fn send(&self, message: MsiMessage) -> io::Result<()>;
}

/// Shows read-only memory to the guest (KVM: read-only memory slots). Its writes there come as [`Exit::MemoryWrite`].
pub trait Roms: Send + Sync {
    /// The guest reads and runs this memory from now on.
    fn show(&self, rom: &Arc<Rom>) -> Result<(), Error>;

    /// Its reads come as [`Exit::MemoryRead`] from now on, until it is shown again.
    fn hide(&self, rom: &Arc<Rom>) -> Result<(), Error>;
}

/// What a hypervisor refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// One of its calls failed.
    #[error("{call} failed")]
    Call {
        /// The call's name in the hypervisor's documentation.
        call: &'static str,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// More vCPUs than it makes for one machine.
    #[error("this host makes machines of at most {most} CPUs, not {cpus}")]
    TooManyCpus {
        /// Asked for.
        cpus: u32,
        /// Its limit.
        most: usize,
    },
    /// A vCPU could not enter the guest, or the hypervisor could not go on with it.
    #[error("vCPU {vcpu} stopped at {address:#x}: {reason}")]
    Stuck {
        /// Which vCPU.
        vcpu: u32,
        /// Its instruction pointer.
        address: u64,
        /// The hypervisor's own words or numbers.
        reason: String,
    },
}

/// A hypervisor of this host.
pub trait Hypervisor {
    /// Its virtual machines.
    type Vm: Vm;

    /// A new machine for `cpus` vCPUs with this memory and local APICs, and no vCPU yet.
    fn create_vm(&self, memory: &GuestMemory, cpus: u32) -> Result<Self::Vm, Error>;
}

/// One virtual machine.
pub trait Vm: Send + Sync {
    /// Its processors.
    type Vcpu: Vcpu;

    /// Makes vCPU number `index`, to be called on the thread that will run it, once for each index.
    fn create_vcpu(&self, index: u32) -> Result<Self::Vcpu, Error>;

    /// Message-signalled interrupts.
    fn msi_lines(&self) -> Arc<dyn MsiLines>;

    /// Doorbells.
    fn doorbells(&self) -> Arc<dyn Doorbells>;

    /// Single messages.
    fn messages(&self) -> Arc<dyn Messages>;

    /// Read-only memory.
    fn roms(&self) -> Arc<dyn Roms>;
}

/// One virtual processor; it stays on the thread that made it.
pub trait Vcpu {
    /// Sets where it starts. A vCPU without an entry waits until another one wakes it.
    fn start_at(&mut self, entry: Entry) -> Result<(), Error>;

    /// Runs until there is something to do for the host. Reads must be answered into the data of the exit before the
    /// next call.
    fn run(&mut self) -> Result<Exit<'_>, Error>;

    /// Interrupts `run` from another thread.
    fn kick(&self) -> Arc<dyn Kick>;

    /// Forgets the kicks so far: the caller looks now for what they meant.
    fn forget_kicks(&mut self);

    /// Tells the guest that the vCPU did not run for a while, so that it does not take that for a hang of its own.
    fn tell_pause(&mut self);
}

/// Makes a vCPU return from `run`, now and at every later call, until it forgets; harmless when the vCPU is gone.
pub trait Kick: Send + Sync {
    /// Does it.
    fn kick(&self);
}

/// Where and how a vCPU starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// As after power-on: 16-bit real mode, 16 bytes below 4 GiB (Intel SDM 3A, 10.1.4).
    Reset,
    /// 32-bit protected mode without paging, flat segments (PVH entry of x86/HVM direct boot).
    Protected {
        /// First instruction.
        address: u32,
        /// Value of EBX.
        ebx: u32,
    },
    /// 64-bit mode with identity paging (64-bit entry of the Linux boot protocol).
    Long {
        /// First instruction.
        address: u64,
        /// Value of RSI.
        rsi: u64,
        /// Address of the top page table.
        page_tables: u64,
    },
}

/// Why a vCPU stopped running.
#[derive(Debug, PartialEq, Eq)]
pub enum Exit<'a> {
    /// The guest reads from a port; `data` holds one or, for a string instruction, several values of `width` bytes.
    PortRead {
        /// Port number.
        port: u16,
        /// Bytes of one value.
        width: usize,
        /// To be filled in.
        data: &'a mut [u8],
    },
    /// The guest writes to a port.
    PortWrite {
        /// Port number.
        port: u16,
        /// Bytes of one value.
        width: usize,
        /// One or several values.
        data: &'a [u8],
    },
    /// The guest reads memory that is not RAM.
    MemoryRead {
        /// Guest-physical address.
        address: u64,
        /// To be filled in.
        data: &'a mut [u8],
    },
    /// The guest writes memory that is not RAM.
    MemoryWrite {
        /// Guest-physical address.
        address: u64,
        /// What it writes.
        data: &'a [u8],
    },
    /// `run` was interrupted: look whether the machine is to stop, else run again.
    Interrupted,
    /// The processor shut itself down (a triple fault).
    Shutdown,
}

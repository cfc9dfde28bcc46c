//! One vCPU of KVM, and the handle that interrupts it.

use std::io;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};

use kvm_ioctls::{VcpuExit, VcpuFd};

use super::super::{Entry, Error, Exit, Kick, Vcpu};
use super::{failed, registers};

pub struct KvmVcpu {
    fd: VcpuFd,
    index: u32,
    target: Arc<KvmKick>,
    /// Not `Send`: `target` names the thread that made it.
    stays: PhantomData<*const ()>,
}

impl KvmVcpu {
    pub(super) fn new(mut fd: VcpuFd, index: u32) -> Result<Self, Error> {
        install_kick_handler().map_err(|source| Error::Call { call: "sigaction", source })?;
        let immediate_exit: *mut u8 = &raw mut fd.get_kvm_run().immediate_exit;
        // SAFETY: pthread_self has no preconditions.
        let thread = unsafe { libc::pthread_self() };
        let target = Target { immediate_exit: immediate_exit.cast(), thread };
        Ok(Self { fd, index, target: Arc::new(KvmKick(Mutex::new(Some(target)))), stays: PhantomData })
    }

    #[cfg(test)]
    pub(super) fn fd(&self) -> &VcpuFd {
        &self.fd
    }

    fn stuck(&self, reason: String) -> Error {
        let address = self.fd.get_regs().map_or(0, |regs| regs.rip);
        Error::Stuck { vcpu: self.index, address, reason }
    }
}

impl Drop for KvmVcpu {
    /// The kick must not reach for the kvm_run page or the thread any more.
    fn drop(&mut self) {
        self.target.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// What `run` learnt, free of the borrow that a `VcpuExit` holds.
enum Seen {
    Port { port: u16, is_write: bool, data: *mut [u8] },
    Memory { address: u64, is_write: bool, data: *mut [u8] },
    Interrupted,
    Shutdown,
    Other(String),
}

impl Vcpu for KvmVcpu {
    fn start_at(&mut self, entry: Entry) -> Result<(), Error> {
        registers::set_entry(&self.fd, entry)
    }

    fn run(&mut self) -> Result<Exit<'_>, Error> {
        let seen = match self.fd.run() {
            Ok(VcpuExit::IoIn(port, data)) => Seen::Port { port, is_write: false, data },
            Ok(VcpuExit::IoOut(port, data)) => {
                Seen::Port { port, is_write: true, data: std::ptr::from_ref(data).cast_mut() }
            }
            Ok(VcpuExit::MmioRead(address, data)) => Seen::Memory { address, is_write: false, data },
            Ok(VcpuExit::MmioWrite(address, data)) => {
                Seen::Memory { address, is_write: true, data: std::ptr::from_ref(data).cast_mut() }
            }
            Ok(VcpuExit::Intr | VcpuExit::IrqWindowOpen | VcpuExit::Hlt) => Seen::Interrupted,
            Ok(VcpuExit::Shutdown) => Seen::Shutdown,
            Ok(VcpuExit::SystemEvent(kind, _)) if kind == kvm_bindings::KVM_SYSTEM_EVENT_CRASH => Seen::Shutdown,
            Ok(VcpuExit::InternalError) => Seen::Other(String::new()),
            Ok(other) => Seen::Other(format!("{other:?}")),
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => Seen::Interrupted,
            Err(error) => return Err(failed("KVM_RUN")(error)),
        };
        match seen {
            Seen::Port { port, is_write, data } => {
                // SAFETY: the exit was an I/O one, which fills in the `io` member.
                let width = usize::from(unsafe { self.fd.get_kvm_run().__bindgen_anon_1.io.size });
                // SAFETY: `data` lies in the kvm_run mapping, which lives as long as `self` and which the kernel leaves
                // alone until the next call of `run`; the borrow of `self` that the exit carries prevents that call.
                let data = unsafe { &mut *data };
                Ok(if is_write { Exit::PortWrite { port, width, data } } else { Exit::PortRead { port, width, data } })
            }
            Seen::Memory { address, is_write, data } => {
                // SAFETY: as above.
                let data = unsafe { &mut *data };
                Ok(if is_write { Exit::MemoryWrite { address, data } } else { Exit::MemoryRead { address, data } })
            }
            Seen::Interrupted => Ok(Exit::Interrupted),
            Seen::Shutdown => Ok(Exit::Shutdown),
            Seen::Other(reason) if reason.is_empty() => {
                // SAFETY: the exit was an internal error, which fills in the `internal` member.
                let suberror = unsafe { self.fd.get_kvm_run().__bindgen_anon_1.internal.suberror };
                Err(self.stuck(format!("KVM internal error {suberror}")))
            }
            Seen::Other(reason) => Err(self.stuck(reason)),
        }
    }

    fn kick(&self) -> Arc<dyn Kick> {
        Arc::clone(&self.target) as Arc<dyn Kick>
    }

    fn forget_kicks(&mut self) {
        let target = self.target.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(target) = &*target else { return };
        // SAFETY: the vCPU is `self`, so the mapping that the flag is in lives.
        let immediate_exit = unsafe { &*target.immediate_exit };
        immediate_exit.store(0, Ordering::SeqCst);
    }

    fn tell_pause(&mut self) {
        // A guest that does not use KVM's clock cannot be told, and does not ask.
        let _not_told = self.fd.kvmclock_ctrl();
    }
}

struct Target {
    /// In the kvm_run page: the kernel refuses to enter the guest while it is not 0.
    immediate_exit: *const AtomicU8,
    thread: libc::pthread_t,
}

/// `None` once the vCPU is gone.
struct KvmKick(Mutex<Option<Target>>);

// SAFETY: the pointer is only followed under the lock while the vCPU, and with it the mapping, is alive.
unsafe impl Send for KvmKick {}
// SAFETY: as above.
unsafe impl Sync for KvmKick {}

impl Kick for KvmKick {
    /// First the flag, then the signal: a vCPU about to enter sees the flag, one inside is interrupted by the signal.
    fn kick(&self) {
        let target = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(target) = &*target else { return };
        // SAFETY: the vCPU lives, for its drop takes the target away under this lock; so its mapping does.
        let immediate_exit = unsafe { &*target.immediate_exit };
        immediate_exit.store(1, Ordering::SeqCst);
        // SAFETY: the thread runs, for it still owns the vCPU.
        let result = unsafe { libc::pthread_kill(target.thread, kick_signal()) };
        debug_assert_eq!(result, 0, "a running thread can be signalled");
    }
}

fn kick_signal() -> i32 {
    libc::SIGRTMIN()
}

extern "C" fn do_nothing(_signal: i32) {}

/// A handler that does nothing, without SA_RESTART: all that is wanted is that KVM_RUN returns.
fn install_kick_handler() -> io::Result<()> {
    static INSTALL: Once = Once::new();
    let mut result = Ok(());
    INSTALL.call_once(|| {
        // SAFETY: all zeros is a valid sigaction: empty mask, no flags.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = do_nothing as extern "C" fn(i32) as usize;
        // SAFETY: the handler does nothing and so is safe in any context.
        if unsafe { libc::sigaction(kick_signal(), &raw const action, std::ptr::null_mut()) } != 0 {
            result = Err(io::Error::last_os_error());
        }
    });
    result
}

//! KVM on x86_64: local APICs in the kernel, doorbells as ioeventfd, interrupts as irqfd.
#![expect(unsafe_code, reason = "ioctls that take pointers, and the kvm_run page shared with the kernel")]

mod cpuid;
mod interrupts;
mod probe;
mod registers;
mod roms;
mod vcpu;

use std::io;
use std::sync::Arc;

use kvm_bindings::{KVM_CAP_SPLIT_IRQCHIP, kvm_enable_cap, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm as KvmFd, VmFd};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use self::interrupts::Interrupts;
pub use self::probe::{Unusable, probe};
use self::roms::Slots;
use self::vcpu::KvmVcpu;
use super::{Doorbells, Error, Hypervisor, Messages, MsiLines, Roms, Vm};
use crate::layout::{FIRST_MSI_LINE, KVM_PAGES_START};
use crate::mem::GuestMemory;

/// KVM of this host, found usable by [`probe`].
#[derive(Debug)]
pub struct Kvm {
    fd: KvmFd,
}

#[cfg(test)]
mod tests;

/// Names the KVM call that failed.
fn failed(call: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Error {
    move |error| Error::Call { call, source: io::Error::from_raw_os_error(error.errno()) }
}

impl Hypervisor for Kvm {
    type Vm = KvmVm;

    fn create_vm(&self, memory: &GuestMemory, cpus: u32) -> Result<KvmVm, Error> {
        let most = self.fd.get_max_vcpus();
        if usize::try_from(cpus).is_ok_and(|cpus| cpus > most) {
            return Err(Error::TooManyCpus { cpus, most });
        }
        let fd = self.fd.create_vm().map_err(failed("KVM_CREATE_VM"))?;
        fd.set_identity_map_address(KVM_PAGES_START).map_err(failed("KVM_SET_IDENTITY_MAP_ADDR"))?;
        let tss = usize::try_from(KVM_PAGES_START).map_or(0, |start| start + 0x1000);
        fd.set_tss_address(tss).map_err(failed("KVM_SET_TSS_ADDR"))?;
        split_interrupt_controllers(&fd)?;
        for (slot, region) in (0..).zip(memory.iter()) {
            let region = kvm_userspace_memory_region {
                slot,
                flags: 0,
                guest_phys_addr: region.start_addr().0,
                memory_size: region.len(),
                userspace_addr: region.as_ptr().addr() as u64,
            };
            // SAFETY: `GuestRam` keeps its mapping until the process ends, and the regions do not overlap.
            let result = unsafe { fd.set_user_memory_region(region) };
            result.map_err(failed("KVM_SET_USER_MEMORY_REGION"))?;
        }
        let supported = self
            .fd
            .get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES)
            .map_err(failed("KVM_GET_SUPPORTED_CPUID"))?;
        let deadline_timer = self.fd.check_extension_raw(u64::from(kvm_bindings::KVM_CAP_TSC_DEADLINE_TIMER)) > 0;
        let fd = Arc::new(fd);
        let interrupts = Arc::new(Interrupts::new(Arc::clone(&fd)));
        let features = cpuid::Features { supported, cpus, deadline_timer };
        let slots = Arc::new(Slots::new(Arc::clone(&fd)));
        Ok(KvmVm { fd, interrupts, slots, features })
    }
}

/// Local APICs in the kernel; no I/O APIC, no old interrupt controllers and no old timer there.
fn split_interrupt_controllers(fd: &VmFd) -> Result<(), Error> {
    let mut split = kvm_enable_cap { cap: KVM_CAP_SPLIT_IRQCHIP, ..Default::default() };
    split.args[0] = FIRST_MSI_LINE.into();
    fd.enable_cap(&split).map_err(failed("KVM_ENABLE_CAP(KVM_CAP_SPLIT_IRQCHIP)"))
}

/// A virtual machine of KVM.
pub struct KvmVm {
    fd: Arc<VmFd>,
    interrupts: Arc<Interrupts>,
    slots: Arc<Slots>,
    features: cpuid::Features,
}

impl Vm for KvmVm {
    type Vcpu = KvmVcpu;

    fn create_vcpu(&self, index: u32) -> Result<KvmVcpu, Error> {
        let fd = self.fd.create_vcpu(u64::from(index)).map_err(failed("KVM_CREATE_VCPU"))?;
        fd.set_cpuid2(&self.features.of_vcpu(index)?).map_err(failed("KVM_SET_CPUID2"))?;
        registers::set_machine_specific(&fd)?;
        KvmVcpu::new(fd, index)
    }

    fn msi_lines(&self) -> Arc<dyn MsiLines> {
        Arc::clone(&self.interrupts) as Arc<dyn MsiLines>
    }

    fn doorbells(&self) -> Arc<dyn Doorbells> {
        Arc::clone(&self.interrupts) as Arc<dyn Doorbells>
    }

    fn messages(&self) -> Arc<dyn Messages> {
        Arc::clone(&self.interrupts) as Arc<dyn Messages>
    }

    fn roms(&self) -> Arc<dyn Roms> {
        Arc::clone(&self.slots) as Arc<dyn Roms>
    }
}

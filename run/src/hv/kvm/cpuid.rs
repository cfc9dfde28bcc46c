//! What CPUID tells the guest: what KVM supports, with this machine's own topology in place of the host's.

use kvm_bindings::{CpuId, kvm_cpuid_entry2};

use super::super::Error;

/// Leaf 1, ECX: the local APIC's timer can be set by TSC value.
const TSC_DEADLINE: u32 = 1 << 24;
/// Leaf 1, ECX: there is a hypervisor.
const HYPERVISOR: u32 = 1 << 31;
/// Leaf 0x8000_0007, EDX: the time stamp counter runs evenly whatever the processor does.
const INVARIANT_TSC: u32 = 1 << 8;
/// Leaf 1, EDX: the count of logical processors is valid.
const MULTI_THREADING: u32 = 1 << 28;

pub(super) struct Features {
    pub(super) supported: CpuId,
    pub(super) cpus: u32,
    /// KVM's local APIC has the TSC deadline timer, which its list of features does not tell on old kernels.
    pub(super) deadline_timer: bool,
}

impl Features {
    /// The list for one vCPU: its own APIC id, one package with one thread for each vCPU.
    pub(super) fn of_vcpu(&self, index: u32) -> Result<CpuId, Error> {
        let entries: Vec<_> = self.supported.as_slice().iter().filter_map(|entry| self.adapt(*entry, index)).collect();
        CpuId::from_entries(&entries).map_err(|_too_many| Error::Call {
            call: "KVM_SET_CPUID2",
            source: std::io::ErrorKind::QuotaExceeded.into(),
        })
    }

    /// Bits that an APIC id needs for the vCPUs of the machine.
    fn id_bits(&self) -> u32 {
        self.cpus.max(1).next_power_of_two().trailing_zeros()
    }

    fn adapt(&self, mut entry: kvm_cpuid_entry2, index: u32) -> Option<kvm_cpuid_entry2> {
        let last = self.cpus.saturating_sub(1).min(0xFF);
        match entry.function {
            1 => {
                let count = (1u32 << self.id_bits()).min(0xFF);
                entry.ebx = (entry.ebx & 0xFFFF) | count << 16 | index << 24;
                entry.ecx |= HYPERVISOR;
                if self.deadline_timer {
                    entry.ecx |= TSC_DEADLINE;
                }
                entry.edx = if self.cpus > 1 { entry.edx | MULTI_THREADING } else { entry.edx & !MULTI_THREADING };
            }
            // Caches: the first two levels belong to one vCPU, the third to all; every vCPU is a core of its own.
            4 if entry.eax & 0x1F != 0 => {
                let level = (entry.eax >> 5) & 7;
                let sharing = if level >= 3 { last.min(0xFFF) } else { 0 };
                entry.eax = (entry.eax & 0x3FFF) | sharing << 14 | last.min(0x3F) << 26;
            }
            0xB | 0x1F => self.adapt_topology(&mut entry, index)?,
            // It stands still while the host sleeps. A guest that trusts it would wake with the wrong time; KVM's own clock,
            // which it then takes, goes on.
            0x8000_0007 => entry.edx &= !INVARIANT_TSC,
            0x8000_0008 => entry.ecx = (entry.ecx & !0xF0FF) | last | self.id_bits() << 12,
            0x8000_001D if entry.eax & 0x1F != 0 => {
                let level = (entry.eax >> 5) & 7;
                let sharing = if level >= 3 { last } else { 0 };
                entry.eax = (entry.eax & 0x3FFF) | sharing << 14;
            }
            0x8000_001E => {
                entry.eax = index;
                entry.ebx = (entry.ebx & !0xFFFF) | (index & 0xFF);
                entry.ecx &= !0x7FF;
            }
            _ => {}
        }
        Some(entry)
    }

    /// Leaf 0xB: level 0 is one thread a core, level 1 the cores of the package, then the end.
    fn adapt_topology(&self, entry: &mut kvm_cpuid_entry2, index: u32) -> Option<()> {
        let (shift, count, kind) = match entry.index {
            0 => (0, 1, 1),
            1 => (self.id_bits(), self.cpus, 2),
            2 => (0, 0, 0),
            _ => return None,
        };
        entry.eax = shift;
        entry.ebx = count;
        entry.ecx = entry.index | kind << 8;
        entry.edx = index;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapted(function: u32, index: u32, cpus: u32, vcpu: u32) -> Option<kvm_cpuid_entry2> {
        let entry = kvm_cpuid_entry2 { function, index, eax: 0x21, ecx: 0, edx: u32::MAX, ..Default::default() };
        let supported = CpuId::from_entries(&[entry]).unwrap();
        let list = Features { supported, cpus, deadline_timer: true }.of_vcpu(vcpu).unwrap();
        list.as_slice().first().copied()
    }

    #[test]
    fn every_vcpu_has_its_own_apic_id() {
        for vcpu in 0..4 {
            assert_eq!(adapted(1, 0, 4, vcpu).unwrap().ebx >> 24, vcpu);
            assert_eq!(adapted(0xB, 0, 4, vcpu).unwrap().edx, vcpu);
            assert_eq!(adapted(0x8000_001E, 0, 4, vcpu).unwrap().eax, vcpu);
        }
    }

    #[test]
    fn the_host_s_topology_is_not_seen() {
        let cores = adapted(0xB, 1, 3, 0).unwrap();
        assert_eq!((cores.eax, cores.ebx, cores.ecx), (2, 3, 0x201));
        assert!(adapted(0xB, 3, 3, 0).is_none());
        assert_eq!(adapted(1, 0, 1, 0).unwrap().edx & MULTI_THREADING, 0);
        assert_eq!(adapted(0x8000_0008, 0, 3, 0).unwrap().ecx, 2 | 2 << 12);
    }

    #[test]
    fn a_counter_that_sleeps_with_the_host_is_not_said_to_be_even() {
        assert_eq!(adapted(0x8000_0007, 0, 1, 0).unwrap().edx, !INVARIANT_TSC);
    }

    #[test]
    fn linux_finds_a_hypervisor_and_the_deadline_timer() {
        assert_eq!(adapted(1, 0, 1, 0).unwrap().ecx, HYPERVISOR | TSC_DEADLINE);
    }
}

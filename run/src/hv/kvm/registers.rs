//! Registers of a vCPU at its entry.

use kvm_bindings::{Msrs, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs};
use kvm_ioctls::VcpuFd;

use super::super::segments::{CODE_SELECTOR, CODE32, CODE64, DATA, DATA_SELECTOR, GDT_BYTES, TASK, TASK_SELECTOR};
use super::super::{Entry, Error};
use super::failed;
use crate::layout::GDT_START;

const CR0_PROTECTED: u64 = 1;
const CR0_EXTENSION_TYPE: u64 = 1 << 4;
const CR0_PAGING: u64 = 1 << 31;
const CR4_PHYSICAL_ADDRESS_EXTENSION: u64 = 1 << 5;
const EFER_LONG_MODE_ENABLE: u64 = 1 << 8;
const EFER_LONG_MODE_ACTIVE: u64 = 1 << 10;
/// The one bit of RFLAGS that is always set.
const RFLAGS_FIXED: u64 = 1 << 1;

/// `IA32_MISC_ENABLE`, bit 0: fast string operations.
const MSR_MISC_ENABLE: (u32, u64) = (0x1A0, 1);
/// `IA32_MTRR_DEF_TYPE`: enabled, everything write-back.
const MSR_MTRR_DEFAULT: (u32, u64) = (0x2FF, 1 << 11 | 6);

pub(super) fn set_machine_specific(vcpu: &VcpuFd) -> Result<(), Error> {
    for (index, data) in [MSR_MISC_ENABLE, MSR_MTRR_DEFAULT] {
        let entry = kvm_msr_entry { index, data, ..Default::default() };
        if let Ok(list) = Msrs::from_entries(&[entry]) {
            // A processor without the register is no worse off: nothing depends on these two.
            vcpu.set_msrs(&list).map_err(failed("KVM_SET_MSRS"))?;
        }
    }
    Ok(())
}

pub(super) fn set_entry(vcpu: &VcpuFd, entry: Entry) -> Result<(), Error> {
    let mut special = vcpu.get_sregs().map_err(failed("KVM_GET_SREGS"))?;
    let regs = match entry {
        // So KVM makes each vCPU.
        Entry::Reset => return Ok(()),
        Entry::Protected { address, ebx } => {
            set_segments(&mut special, CODE32);
            special.cr0 = CR0_PROTECTED | CR0_EXTENSION_TYPE;
            special.cr4 = 0;
            special.efer = 0;
            kvm_regs { rip: address.into(), rbx: ebx.into(), rflags: RFLAGS_FIXED, ..Default::default() }
        }
        Entry::Long { address, rsi, page_tables } => {
            set_segments(&mut special, CODE64);
            special.cr3 = page_tables;
            special.cr4 = CR4_PHYSICAL_ADDRESS_EXTENSION;
            special.cr0 = CR0_PROTECTED | CR0_EXTENSION_TYPE | CR0_PAGING;
            special.efer = EFER_LONG_MODE_ENABLE | EFER_LONG_MODE_ACTIVE;
            kvm_regs { rip: address, rsi, rflags: RFLAGS_FIXED, ..Default::default() }
        }
    };
    vcpu.set_sregs(&special).map_err(failed("KVM_SET_SREGS"))?;
    vcpu.set_regs(&regs).map_err(failed("KVM_SET_REGS"))
}

fn set_segments(special: &mut kvm_sregs, code: u64) {
    special.gdt.base = GDT_START;
    special.gdt.limit = GDT_BYTES - 1;
    special.idt.limit = 0;
    special.cs = segment(code, CODE_SELECTOR);
    let data = segment(DATA, DATA_SELECTOR);
    special.ds = data;
    special.es = data;
    special.fs = data;
    special.gs = data;
    special.ss = data;
    special.tr = segment(TASK, TASK_SELECTOR);
}

/// A descriptor, taken apart into the form that KVM wants (Intel SDM 3A, 3.4.5). All of ours have base 0.
fn segment(descriptor: u64, selector: u16) -> kvm_segment {
    let [low0, low1, _, _, _, access, high, _] = descriptor.to_le_bytes();
    let granular = high >> 7;
    let limit = u32::from_le_bytes([low0, low1, high & 0xF, 0]);
    kvm_segment {
        base: 0,
        limit: if granular == 1 { limit << 12 | 0xFFF } else { limit },
        selector,
        type_: access & 0xF,
        s: (access >> 4) & 1,
        dpl: (access >> 5) & 3,
        present: access >> 7,
        avl: (high >> 4) & 1,
        l: (high >> 5) & 1,
        db: (high >> 6) & 1,
        g: granular,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_come_apart_as_the_processor_reads_them() {
        let code = segment(CODE32, CODE_SELECTOR);
        assert_eq!(
            (code.limit, code.type_, code.s, code.present, code.db, code.l, code.g),
            (u32::MAX, 11, 1, 1, 1, 0, 1)
        );
        let code = segment(CODE64, CODE_SELECTOR);
        assert_eq!((code.db, code.l), (0, 1));
        let task = segment(TASK, TASK_SELECTOR);
        assert_eq!((task.limit, task.type_, task.s, task.present, task.g), (0x67, 11, 0, 1, 0));
    }
}

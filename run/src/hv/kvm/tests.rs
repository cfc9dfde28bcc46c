//! A few instructions under the host's own KVM, in real mode: even a KVM without hardware runs those. On a host without
//! `/dev/kvm` there is nothing to run them; the whole machine is then only tested in the lab.

use std::os::fd::{FromRawFd, IntoRawFd};

use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use super::*;
use crate::hv::{Entry, Exit, MsiMessage, Vcpu};
use crate::mem::GuestRam;

const CODE: u16 = 0x1000;

struct Rig {
    vm: KvmVm,
    ram: GuestRam,
}

/// A machine of 1 MiB with `code` at [`CODE`].
fn rig(code: &[u8]) -> Option<Rig> {
    let file = std::fs::File::options().read(true).write(true).open("/dev/kvm").ok()?;
    // SAFETY: the descriptor was just opened and is given away here.
    let kvm = Kvm { fd: unsafe { KvmFd::from_raw_fd(file.into_raw_fd()) } };
    let ram = GuestRam::new(1 << 20).unwrap();
    ram.memory().write_slice(code, GuestAddress(CODE.into())).unwrap();
    Some(Rig { vm: kvm.create_vm(ram.memory(), 1).unwrap(), ram })
}

/// A vCPU in real mode at [`CODE`].
fn vcpu(vm: &KvmVm) -> KvmVcpu {
    let vcpu = vm.create_vcpu(0).unwrap();
    let mut special = vcpu.fd().get_sregs().unwrap();
    special.cs.base = 0;
    special.cs.selector = 0;
    vcpu.fd().set_sregs(&special).unwrap();
    let regs = kvm_bindings::kvm_regs { rip: CODE.into(), rflags: 2, ..Default::default() };
    vcpu.fd().set_regs(&regs).unwrap();
    vcpu
}

#[test]
fn port_accesses_come_with_their_values_and_take_an_answer() {
    // in al, 0x10; inc al; out 0x11, al
    let Some(rig) = rig(&[0xE4, 0x10, 0xFE, 0xC0, 0xE6, 0x11]) else { return };
    let mut vcpu = vcpu(&rig.vm);
    let Ok(Exit::PortRead { port: 0x10, width: 1, data }) = vcpu.run() else { panic!("no read") };
    data.fill(0x41);
    assert_eq!(vcpu.run().unwrap(), Exit::PortWrite { port: 0x11, width: 1, data: &[0x42] });
}

#[test]
fn a_kick_before_run_is_not_missed_and_one_after_the_vcpu_s_end_is_harmless() {
    // jmp to itself
    let Some(rig) = rig(&[0xEB, 0xFE]) else { return };
    let mut vcpu = vcpu(&rig.vm);
    let kick = vcpu.kick();
    kick.kick();
    assert_eq!(vcpu.run().unwrap(), Exit::Interrupted);
    drop(vcpu);
    kick.kick();
}

#[test]
fn a_kick_from_another_thread_ends_an_endless_loop() {
    // out 0x11, al; then jmp to itself
    let Some(rig) = rig(&[0xE6, 0x11, 0xEB, 0xFE]) else { return };
    let mut vcpu = vcpu(&rig.vm);
    assert!(matches!(vcpu.run().unwrap(), Exit::PortWrite { .. }));
    let kick = vcpu.kick();
    let kicker = std::thread::spawn(move || kick.kick());
    assert_eq!(vcpu.run().unwrap(), Exit::Interrupted);
    kicker.join().unwrap();
}

#[test]
fn a_doorbell_rings_without_an_exit() {
    // mov word [0xF000], ax with ds at 0xF0000+: ds = 0xFFFF, so the address is 0x10EFF0; then out 0x11, al
    let code = [0xB8, 0xFF, 0xFF, 0x8E, 0xD8, 0xA3, 0x00, 0xF0, 0xE6, 0x11];
    let Some(rig) = rig(&code) else { return };
    let event = EventFd::new(libc::EFD_NONBLOCK).unwrap();
    rig.vm.doorbells().attach(0x10_EFF0, &event).unwrap();
    let mut vcpu = vcpu(&rig.vm);
    assert!(matches!(vcpu.run().unwrap(), Exit::PortWrite { port: 0x11, .. }));
    assert_eq!(event.read().unwrap(), 1);
    rig.vm.doorbells().detach(0x10_EFF0, &event).unwrap();
    assert_eq!(rig.ram.split().low_bytes, 1 << 20);
}

#[test]
fn lines_connect_move_and_disconnect_and_forget_what_was_written_before() {
    let Some(rig) = rig(&[]) else { return };
    let lines = rig.vm.msi_lines();
    let (one, two) = (lines.allocate().unwrap(), lines.allocate().unwrap());
    assert_ne!(one.number, two.number);
    let message = |data| Some(MsiMessage { address: 0xFEE0_0000, data });
    one.event.write(1).unwrap();
    lines.connect(&[(&one, message(0x40)), (&two, message(0x41))]).unwrap();
    assert!(one.event.read().is_err());
    lines.connect(&[(&one, message(0x42)), (&two, None)]).unwrap();
    lines.connect(&[(&one, None), (&two, None)]).unwrap();
}

#[test]
fn an_entry_sets_what_the_boot_protocol_asks_for() {
    let Some(rig) = rig(&[]) else { return };
    let mut vcpu = rig.vm.create_vcpu(0).unwrap();
    vcpu.start_at(Entry::Protected { address: 0x10_0000, ebx: 0x7000 }).unwrap();
    let (regs, special) = (vcpu.fd().get_regs().unwrap(), vcpu.fd().get_sregs().unwrap());
    assert_eq!((regs.rip, regs.rbx, special.cr0 & 1, special.cr0 >> 31), (0x10_0000, 0x7000, 1, 0));
    assert_eq!((special.cs.db, special.cs.limit, special.cs.base), (1, u32::MAX, 0));
}

//! Read-only memory slots.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use kvm_bindings::{KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;

use super::super::{Error, Roms};
use super::failed;
use crate::mem::Rom;

/// Slots of read-only memory have numbers from here on; those below are RAM's.
const FIRST_SLOT: u32 = 8;

pub(super) struct Slots {
    vm: Arc<VmFd>,
    /// By guest address, what is or was shown, and in which slot. It is kept for as long as the machine is: a vCPU may
    /// look at it until then.
    used: Mutex<BTreeMap<u64, (u32, Arc<Rom>)>>,
}

impl Slots {
    pub(super) fn new(vm: Arc<VmFd>) -> Self {
        Self { vm, used: Mutex::default() }
    }

    /// Gives the slot of `rom` this length; 0 takes it away.
    fn set(&self, rom: &Arc<Rom>, len: u64) -> Result<(), Error> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let free = FIRST_SLOT + u32::try_from(used.len()).unwrap_or(0);
        let (slot, rom) = &*used.entry(rom.start()).or_insert_with(|| (free, Arc::clone(rom)));
        let region = kvm_userspace_memory_region {
            slot: *slot,
            flags: KVM_MEM_READONLY,
            guest_phys_addr: rom.start(),
            memory_size: len,
            userspace_addr: rom.host_address(),
        };
        // SAFETY: `used` holds the mapping, which has this length, until the machine and its slots are gone.
        let result = unsafe { self.vm.set_user_memory_region(region) };
        result.map_err(failed("KVM_SET_USER_MEMORY_REGION"))
    }
}

impl Roms for Slots {
    fn show(&self, rom: &Arc<Rom>) -> Result<(), Error> {
        self.set(rom, rom.len())
    }

    fn hide(&self, rom: &Arc<Rom>) -> Result<(), Error> {
        self.set(rom, 0)
    }
}

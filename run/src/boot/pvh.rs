//! The description that the PVH entry wants (Xen `docs/misc/pvh.pandoc`, `start_info.h`).

use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::{Told, memory_map};
use crate::hv::Entry;
use crate::layout::{BOOT_INFO_START, COMMAND_LINE_START};
use crate::mem::GuestRam;

const MAGIC: u32 = 0x336E_C578;
/// Version 1 has the memory map.
const VERSION: u32 = 1;
const START_INFO_BYTES: u64 = 56;
const MODULE_BYTES: u64 = 32;

/// Writes the description; the machine starts at `entry`.
pub(super) fn describe(ram: &GuestRam, entry: u32, told: &Told) -> Result<Entry, GuestMemoryError> {
    let module_start = BOOT_INFO_START + START_INFO_BYTES;
    let map_start = module_start + MODULE_BYTES;
    let map = memory_map::ranges(ram.split());
    let map_len = u32::try_from(map.len()).unwrap_or(0);
    let has_module = told.initrd.is_some();
    let mut bytes = Vec::with_capacity(256);
    for word in [MAGIC, VERSION, 0, u32::from(has_module)] {
        bytes.extend(word.to_le_bytes());
    }
    for address in [if has_module { module_start } else { 0 }, COMMAND_LINE_START, told.rsdp, map_start] {
        bytes.extend(address.to_le_bytes());
    }
    bytes.extend(map_len.to_le_bytes());
    bytes.extend(0u32.to_le_bytes());
    let (start, len_bytes) = told.initrd.map_or((0, 0), |initrd| (initrd.start, initrd.len_bytes));
    for word in [start, len_bytes, 0, 0] {
        bytes.extend(word.to_le_bytes());
    }
    for range in map {
        bytes.extend(range.start.to_le_bytes());
        bytes.extend(range.len_bytes.to_le_bytes());
        bytes.extend((range.kind as u32).to_le_bytes());
        bytes.extend(0u32.to_le_bytes());
    }
    ram.memory().write_slice(&bytes, GuestAddress(BOOT_INFO_START))?;
    Ok(Entry::Protected { address: entry, ebx: START_INFO_POINTER })
}

#[expect(clippy::cast_possible_truncation, reason = "checked below")]
const START_INFO_POINTER: u32 = BOOT_INFO_START as u32;
const _: () = assert!(START_INFO_POINTER as u64 == BOOT_INFO_START);

//! Gives guest memory back to the host, and counts what the guest really has.

use std::io;

use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use super::GuestMemory;

/// The host gives and takes pages of this size.
const PAGE_BYTES: usize = 4096;
/// Bytes of memory asked about at once, a byte of answer for each page.
const ASKED_BYTES: usize = 16 << 20;

/// Gives the whole pages among `len` bytes at `address` back to the host; the guest reads zeros there until it writes.
/// Nothing but guest memory is touched, whatever the numbers.
///
/// # Errors
/// The range is not all guest memory, or the host does not take it.
pub fn discard(memory: &GuestMemory, address: GuestAddress, len: u64) -> io::Result<()> {
    let len = usize::try_from(len).map_err(io::Error::other)?;
    for slice in GuestMemoryBackend::get_slices(memory, address, len) {
        let slice = slice.map_err(io::Error::other)?;
        let start = slice.ptr_guard_mut().as_ptr();
        let head = start.addr().next_multiple_of(PAGE_BYTES) - start.addr();
        let bytes = slice.len().saturating_sub(head) / PAGE_BYTES * PAGE_BYTES;
        if bytes > 0 {
            let first = start.wrapping_add(head);
            // SAFETY: the range lies inside `slice`, which is guest memory and stays mapped while `memory` is borrowed.
            // Contents change, as they do there at any time: Rust holds no reference into guest memory.
            let result = unsafe { libc::madvise(first.cast(), bytes, libc::MADV_DONTNEED) };
            if result != 0 {
                return Err(io::Error::last_os_error());
            }
        }
    }
    Ok(())
}

/// Bytes of guest memory that the host has given to the guest by now. The rest was never touched, was given back, or is
/// in the host's swap.
///
/// # Errors
/// The host's.
pub fn resident_bytes(memory: &GuestMemory) -> io::Result<u64> {
    let mut pages = vec![0_u8; ASKED_BYTES / PAGE_BYTES];
    let mut resident = 0_u64;
    for region in memory.iter() {
        let len = usize::try_from(region.len()).map_err(io::Error::other)?;
        for offset in (0..len).step_by(ASKED_BYTES) {
            let asked = ASKED_BYTES.min(len - offset);
            let first = region.as_ptr().wrapping_add(offset);
            // SAFETY: the range lies inside the region's mapping, which lives while `memory` is borrowed and starts at a
            // page; `pages` has a byte for each page of the range. Guest memory itself is not touched.
            let result = unsafe { libc::mincore(first.cast(), asked, pages.as_mut_ptr()) };
            if result != 0 {
                return Err(io::Error::last_os_error());
            }
            let there = pages.iter().take(asked.div_ceil(PAGE_BYTES)).filter(|page| **page & 1 != 0).count();
            resident += (there * PAGE_BYTES) as u64;
        }
    }
    Ok(resident)
}

#[cfg(test)]
mod tests {
    use vm_memory::Bytes;

    use super::*;
    use crate::layout::{LOW_RAM_LIMIT, MIB};
    use crate::mem::GuestRam;

    #[test]
    fn what_is_no_memory_is_refused() {
        let ram = GuestRam::new(4 * MIB).unwrap();
        for (address, len) in [(4 * MIB, 4096), (LOW_RAM_LIMIT, 1), (u64::MAX, 2), (4 * MIB - 4096, 8192)] {
            assert!(discard(ram.memory(), GuestAddress(address), len).is_err(), "{address:#x}");
        }
    }

    #[test]
    fn pages_that_were_given_back_are_zeros_and_only_whole_ones_go() {
        let ram = GuestRam::new(64 * MIB).unwrap();
        let memory = ram.memory();
        for page in 0..MIB / 4096 {
            memory.write_obj(1_u64, GuestAddress(page * 4096)).unwrap();
        }
        let before = resident_bytes(memory).unwrap();
        assert!((MIB..64 * MIB).contains(&before), "{before}");
        discard(memory, GuestAddress(4000), 4096 + 4096).unwrap();
        let word = |address| memory.read_obj::<u64>(GuestAddress(address)).unwrap();
        assert_eq!((word(0), word(4096), word(8192)), (1, 0, 1));
        discard(memory, GuestAddress(0), 64 * MIB).unwrap();
        assert_eq!(resident_bytes(memory).unwrap(), 0);
        assert_eq!(word(8192), 0);
    }
}

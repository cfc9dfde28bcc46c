//! Guest memory: one anonymous mapping, placed so that the host can back it with huge pages, seen by everybody else
//! through `vm-memory`. Nothing outside this module and the hypervisor's touches it by pointer.
#![expect(unsafe_code, reason = "maps guest memory and hands the mapping to vm-memory")]

pub mod discard;
mod rom;
pub mod transfer;
pub mod uring;

use std::io;
use std::num::NonZeroUsize;
use std::ptr::{self, NonNull};

use vm_memory::{GuestAddress, GuestRegionMmap, MmapRegion};

pub use self::rom::Rom;
use crate::config::Pages;
use crate::layout::{FIRMWARE_LOW_RAM, FIRMWARE_LOW_RAM_LIMIT, GIB, HIGH_RAM_START, LOW_RAM_LIMIT};

/// Guest memory as devices see it: cheap to clone, bounds-checked.
pub type GuestMemory = vm_memory::GuestMemoryMmap<()>;

/// The hypervisor can map a huge page only where host and guest address differ by a multiple of this.
pub(crate) const HUGE_PAGE_BYTES: usize = 2 << 20;
const PROTECTION: i32 = libc::PROT_READ | libc::PROT_WRITE;
const FLAGS: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
/// Without `MAP_NORESERVE` the host refuses at once what it cannot give later.
const RESERVED_FLAGS: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB | libc::MAP_HUGE_2MB;

/// How much memory lies below the hole for devices and how much above 4 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Split {
    /// Bytes from address 0.
    pub low_bytes: u64,
    /// Bytes from [`HIGH_RAM_START`].
    pub high_bytes: u64,
}

impl Split {
    /// Splits `ram_bytes`.
    pub fn new(ram_bytes: u64) -> Self {
        let low_bytes = ram_bytes.min(LOW_RAM_LIMIT);
        Self { low_bytes, high_bytes: ram_bytes - low_bytes }
    }

    /// Splits `ram_bytes` of a machine with firmware, which wants a larger hole.
    pub fn with_firmware(ram_bytes: u64) -> Self {
        let low_bytes = if ram_bytes <= FIRMWARE_LOW_RAM_LIMIT { ram_bytes } else { FIRMWARE_LOW_RAM };
        Self { low_bytes, high_bytes: ram_bytes - low_bytes }
    }

    /// All of it, in bytes.
    pub fn bytes(self) -> u64 {
        self.low_bytes.saturating_add(self.high_bytes)
    }

    /// The pieces of RAM as (start, length in bytes), none empty, in rising order.
    pub fn pieces(self) -> impl Iterator<Item = (u64, u64)> {
        [(0, self.low_bytes), (HIGH_RAM_START, self.high_bytes)].into_iter().filter(|(_, bytes)| *bytes > 0)
    }

    /// First address past all RAM and past 4 GiB, rounded up to a GiB: the window for 64-bit PCI BARs.
    pub fn pci_window64_start(self) -> u64 {
        HIGH_RAM_START + self.high_bytes.next_multiple_of(GIB)
    }
}

/// Memory that could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host refused the mapping.
    #[error("cannot reserve {mib} MiB of address space for guest memory")]
    Map {
        /// Wanted MiB.
        mib: u64,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// Too few huge pages are reserved on the host.
    #[error(
        "cannot take {mib} MiB of memory from this host's huge pages, of which {} are free: `echo {} | sudo tee /proc/sys/vm/nr_hugepages` reserves enough",
        free.map_or("an unknown number".to_owned(), |free| free.to_string()), mib.div_ceil(2)
    )]
    HugePages {
        /// Wanted MiB.
        mib: u64,
        /// Huge pages of 2 MiB that are free, as far as the host tells.
        free: Option<u64>,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// More than the host's address space, or nothing at all.
    #[error("guest memory of {bytes} bytes cannot be addressed")]
    Size {
        /// Wanted bytes.
        bytes: u64,
    },
}

/// The memory of one machine. Dropping it gives the pages back to the host; clones of [`GuestMemory`] that outlive it
/// stay valid and read as zeros, for the address range itself is kept until the process ends.
#[derive(Debug)]
pub struct GuestRam {
    split: Split,
    pages: Pages,
    mapping: NonNull<u8>,
    len_bytes: NonZeroUsize,
    memory: GuestMemory,
}

// SAFETY: `mapping` is only passed to `madvise`, which any thread may call; all access goes through `memory`.
unsafe impl Send for GuestRam {}

impl GuestRam {
    /// Reserves `ram_bytes`, a multiple of 4096, without touching it. Fails if the host has not that much address space.
    pub fn new(ram_bytes: u64) -> Result<Self, Error> {
        Self::of(Split::new(ram_bytes), Pages::Ordinary)
    }

    /// As [`Self::new`], split so, of these pages; if they are the host's reserved ones, a multiple of 2 MiB. Fails if the host has
    /// not as many.
    pub fn of(split: Split, pages: Pages) -> Result<Self, Error> {
        let ram_bytes = split.bytes();
        let unaddressable = Error::Size { bytes: ram_bytes };
        let Some(len_bytes) = usize::try_from(ram_bytes).ok().and_then(NonZeroUsize::new) else {
            return Err(unaddressable);
        };
        let unit = match pages {
            Pages::Ordinary => 4096,
            Pages::Reserved => HUGE_PAGE_BYTES as u64,
        };
        if !ram_bytes.is_multiple_of(unit) || ram_bytes > 1 << 46 {
            return Err(unaddressable);
        }
        let mib = ram_bytes >> 20;
        let mapping = match pages {
            Pages::Ordinary => map_aligned(len_bytes).map_err(|source| Error::Map { mib, source })?,
            Pages::Reserved => {
                map_reserved(len_bytes).map_err(|source| Error::HugePages { mib, free: free_huge_pages(), source })?
            }
        };
        let memory = regions(mapping, split).ok_or(unaddressable)?;
        Ok(Self { split, pages, mapping, len_bytes, memory })
    }

    /// The memory as devices see it.
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// Where it lies in the guest.
    pub fn split(&self) -> Split {
        self.split
    }

    /// Forgets all contents: the guest will read zeros. No vCPU may run and no device may be active.
    pub fn clear(&mut self) {
        match self.pages {
            Pages::Ordinary => self.give_back(),
            // What is given back of reserved pages may be another's when the guest wants it again.
            Pages::Reserved => {
                // SAFETY: the mapping has this length and lives; nobody else writes to guest memory now, and Rust holds
                // no reference into it.
                unsafe { self.mapping.as_ptr().write_bytes(0, self.len_bytes.get()) };
            }
        }
    }

    fn give_back(&self) {
        advise(self.mapping, self.len_bytes, libc::MADV_DONTNEED);
    }
}

impl Drop for GuestRam {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// Memory of the huge pages that are reserved on the host.
fn map_reserved(len: NonZeroUsize) -> io::Result<NonNull<u8>> {
    // SAFETY: a new private anonymous mapping at an address of the kernel's choice touches no memory of ours.
    let start = unsafe { libc::mmap(ptr::null_mut(), len.get(), PROTECTION, RESERVED_FLAGS, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let mapping = NonNull::new(start.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
    advise(mapping, len, libc::MADV_DONTDUMP);
    Ok(mapping)
}

/// Huge pages of the usual size that nobody has.
fn free_huge_pages() -> Option<u64> {
    let told = std::fs::read_to_string("/proc/meminfo").ok()?;
    told.lines().find_map(|line| line.strip_prefix("HugePages_Free:"))?.trim().parse().ok()
}

/// Anonymous memory that starts at a multiple of [`HUGE_PAGE_BYTES`], huge pages wanted, nothing populated.
fn map_aligned(len: NonZeroUsize) -> io::Result<NonNull<u8>> {
    let reserved = len.get().checked_add(HUGE_PAGE_BYTES).ok_or(io::ErrorKind::OutOfMemory)?;
    // SAFETY: a new private anonymous mapping at an address of the kernel's choice touches no memory of ours.
    let start = unsafe { libc::mmap(ptr::null_mut(), reserved, PROTECTION, FLAGS, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let head = start.addr().next_multiple_of(HUGE_PAGE_BYTES) - start.addr();
    let aligned = start.wrapping_byte_add(head);
    let tail = aligned.wrapping_byte_add(len.get());
    unmap(start, head);
    unmap(tail, HUGE_PAGE_BYTES - head);
    let mapping = NonNull::new(aligned.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
    advise(mapping, len, libc::MADV_HUGEPAGE);
    advise(mapping, len, libc::MADV_DONTDUMP);
    Ok(mapping)
}

/// Gives `len` bytes of the reservation that nobody has seen yet back to the host.
fn unmap(start: *mut libc::c_void, len: usize) {
    if len > 0 {
        // SAFETY: the caller cuts off an end of the mapping that it has just made and not handed out.
        let result = unsafe { libc::munmap(start, len) };
        debug_assert_eq!(result, 0, "an end of our own fresh mapping can always be cut off");
    }
}

/// A wish about the whole mapping. A host that refuses it (no huge pages, an old kernel) is merely slower.
fn advise(mapping: NonNull<u8>, len: NonZeroUsize, advice: i32) {
    // SAFETY: the range is exactly a mapping made by `map_aligned` that is never unmapped; the advice used here changes
    // contents at most, which guest memory does at any time anyway.
    let _refused = unsafe { libc::madvise(mapping.as_ptr().cast(), len.get(), advice) };
}

/// The mapping as `vm-memory` regions: low RAM from its start, high RAM right behind it.
fn regions(mapping: NonNull<u8>, split: Split) -> Option<GuestMemory> {
    let mut offset = 0usize;
    let mut regions = Vec::with_capacity(2);
    for (start, bytes) in split.pieces() {
        let bytes = usize::try_from(bytes).ok()?;
        let host = mapping.as_ptr().wrapping_add(offset);
        // SAFETY: the pieces add up to the mapping's length, and the mapping stays for the life of the process.
        let region = unsafe { MmapRegion::build_raw(host, bytes, PROTECTION, FLAGS) }.ok()?;
        regions.push(GuestRegionMmap::new(region, GuestAddress(start))?);
        offset = offset.checked_add(bytes)?;
    }
    GuestMemory::from_regions(regions).ok()
}

#[cfg(test)]
mod tests {
    use vm_memory::{Bytes, GuestMemoryBackend};

    use super::*;
    use crate::layout::MIB;

    #[test]
    fn sizes_that_no_machine_can_have_are_refused() {
        for bytes in [0, 1, 4095, u64::MAX, u64::MAX - 4095, 1 << 47] {
            assert!(GuestRam::new(bytes).is_err(), "{bytes}");
        }
    }

    #[test]
    fn reserved_pages_that_the_host_has_not_are_refused_with_the_way_to_them() {
        assert!(matches!(GuestRam::of(Split::new(3 * MIB), Pages::Reserved), Err(Error::Size { .. })));
        let text = GuestRam::of(Split::new(1 << 45), Pages::Reserved).unwrap_err().to_string();
        assert!(text.contains("echo 16777216 | sudo tee /proc/sys/vm/nr_hugepages"), "{text}");
    }

    #[test]
    fn the_hole_right_above_three_gib_is_not_memory() {
        let ram = GuestRam::new(5 * GIB).unwrap();
        let memory = ram.memory();
        for (address, expected) in [
            (0, true),
            (LOW_RAM_LIMIT - 1, true),
            (LOW_RAM_LIMIT, false),
            (HIGH_RAM_START - 1, false),
            (HIGH_RAM_START, true),
            (HIGH_RAM_START + 2 * GIB - 1, true),
            (HIGH_RAM_START + 2 * GIB, false),
        ] {
            assert_eq!(memory.address_in_range(GuestAddress(address)), expected, "{address:#x}");
        }
        assert_eq!(ram.split().pci_window64_start(), 6 * GIB);
    }

    #[test]
    fn host_and_guest_addresses_differ_by_whole_huge_pages() {
        let ram = GuestRam::new(3 * GIB + 64 * MIB).unwrap();
        for guest in [0, HIGH_RAM_START] {
            let host = ram.memory().get_host_address(GuestAddress(guest)).unwrap().addr();
            assert_eq!(host % HUGE_PAGE_BYTES, 0, "{guest:#x}");
        }
    }

    #[test]
    fn cleared_memory_reads_as_zeros_and_outlives_its_owner() {
        let mut ram = GuestRam::new(4 * MIB).unwrap();
        let memory = ram.memory().clone();
        memory.write_obj(7u64, GuestAddress(0x1000)).unwrap();
        ram.clear();
        assert_eq!(memory.read_obj::<u64>(GuestAddress(0x1000)).unwrap(), 0);
        memory.write_obj(8u64, GuestAddress(0x1000)).unwrap();
        drop(ram);
        assert_eq!(memory.read_obj::<u64>(GuestAddress(0x1000)).unwrap(), 0);
    }
}

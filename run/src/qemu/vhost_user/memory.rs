//! Guest memory that QEMU has, mapped here too.

use std::fs::File;

use vhost::vhost_user::message::VhostUserMemoryRegion;
use vm_memory::{FileOffset, GuestAddress, GuestRegionMmap};

use crate::mem::GuestMemory;

/// Guest memory, and where it lies in QEMU.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) memory: GuestMemory,
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, Copy)]
struct Piece {
    /// Address in QEMU.
    theirs: u64,
    /// Address in the guest.
    guest: u64,
    bytes: u64,
}

impl Table {
    /// Maps what QEMU tells of. `None` if it cannot be: a piece that is no file's, or pieces that overlap.
    pub(super) fn map(regions: &[VhostUserMemoryRegion], files: Vec<File>) -> Option<Self> {
        let mut mapped = Vec::with_capacity(regions.len());
        let mut pieces = Vec::with_capacity(regions.len());
        for (region, file) in regions.iter().zip(files) {
            // The structure is packed: its fields are copied.
            let VhostUserMemoryRegion { guest_phys_addr: guest, memory_size: bytes, user_addr: theirs, mmap_offset } =
                *region;
            let file = FileOffset::new(file, mmap_offset);
            mapped
                .push(GuestRegionMmap::from_range(GuestAddress(guest), usize::try_from(bytes).ok()?, Some(file)).ok()?);
            pieces.push(Piece { theirs, guest, bytes });
        }
        mapped.sort_by_key(|region| vm_memory::GuestMemoryRegion::start_addr(region).0);
        Some(Self { memory: GuestMemory::from_regions(mapped).ok()?, pieces })
    }

    /// The guest's address of what has this one in QEMU.
    pub(super) fn guest_address(&self, theirs: u64) -> Option<u64> {
        self.pieces.iter().find_map(|piece| {
            let offset = theirs.checked_sub(piece.theirs).filter(|offset| *offset < piece.bytes)?;
            piece.guest.checked_add(offset)
        })
    }
}

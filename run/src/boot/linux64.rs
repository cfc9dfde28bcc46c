//! The 64-bit entry of a bzImage (Linux `Documentation/arch/x86/boot.rst`): the zero page and identity page tables.

use linux_loader::loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::{Told, memory_map};
use crate::hv::Entry;
use crate::layout::{BOOT_INFO_START, COMMAND_LINE_START, GIB, PAGE_TABLES_START};
use crate::mem::GuestRam;

/// The 64-bit entry lies so far behind the kernel's start.
const ENTRY_OFFSET: u64 = 0x200;
/// `type_of_loader` of a boot loader without a number of its own.
const LOADER_UNDEFINED: u8 = 0xFF;
const PAGE_BYTES: u64 = 4096;
/// Present and writable.
const TABLE: u64 = 0x3;
/// Present, writable, a page of 2 MiB.
const HUGE_PAGE: u64 = 0x83;
/// The first 4 GiB are mapped: kernel, zero page and RAM disk lie below.
const MAPPED_GIB: u64 = 4;

/// Writes zero page and page tables for the kernel loaded at `start` with `setup` as its header.
pub(super) fn describe(
    ram: &GuestRam,
    setup: setup_header,
    start: u64,
    told: &Told,
) -> Result<Entry, GuestMemoryError> {
    let mut params = boot_params { hdr: setup, acpi_rsdp_addr: told.rsdp, ..Default::default() };
    params.hdr.type_of_loader = LOADER_UNDEFINED;
    params.hdr.cmd_line_ptr = low32(COMMAND_LINE_START);
    params.hdr.cmdline_size = told.cmdline_bytes;
    if let Some(initrd) = told.initrd {
        params.hdr.ramdisk_image = low32(initrd.start);
        params.ext_ramdisk_image = low32(initrd.start >> 32);
        params.hdr.ramdisk_size = low32(initrd.len_bytes);
        params.ext_ramdisk_size = low32(initrd.len_bytes >> 32);
    }
    let map = memory_map::ranges(ram.split());
    params.e820_entries = u8::try_from(map.len()).unwrap_or(0);
    for (entry, range) in params.e820_table.iter_mut().zip(map) {
        *entry = boot_e820_entry { addr: range.start, size: range.len_bytes, r#type: range.kind as u32 };
    }
    ram.memory().write_obj(params, GuestAddress(BOOT_INFO_START))?;
    write_page_tables(ram)?;
    Ok(Entry::Long { address: start + ENTRY_OFFSET, rsi: BOOT_INFO_START, page_tables: PAGE_TABLES_START })
}

/// One top table, one table of GiBs, and for each GiB a table of pages of 2 MiB.
fn write_page_tables(ram: &GuestRam) -> Result<(), GuestMemoryError> {
    let of_gib = PAGE_TABLES_START + PAGE_BYTES;
    let of_pages = |gib: u64| of_gib + PAGE_BYTES * (gib + 1);
    ram.memory().write_obj(of_gib | TABLE, GuestAddress(PAGE_TABLES_START))?;
    for gib in 0..MAPPED_GIB {
        ram.memory().write_obj(of_pages(gib) | TABLE, GuestAddress(of_gib + 8 * gib))?;
        let pages: Vec<u8> = (0..512).flat_map(|page| ((gib * GIB + (page << 21)) | HUGE_PAGE).to_le_bytes()).collect();
        ram.memory().write_slice(&pages, GuestAddress(of_pages(gib)))?;
    }
    Ok(())
}

fn low32(value: u64) -> u32 {
    (value & 0xFFFF_FFFF) as u32
}

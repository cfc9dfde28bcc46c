//! Tables for firmware that puts them where it likes: blobs with offsets in place of addresses, and the script by which
//! it makes addresses of them (QEMU's `docs/specs/acpi_hest_ghes.rst` names its commands; EDK II's
//! `OvmfPkg/AcpiPlatformDxe/QemuLoader.h` has their layout).

use super::{Places, Room, rsdp, tables};

/// What the blobs are called in the firmware's configuration.
pub const TABLES_FILE: &str = "etc/acpi/tables";
/// The RSDP.
pub const RSDP_FILE: &str = "etc/acpi/rsdp";
/// The script.
pub const SCRIPT_FILE: &str = "etc/table-loader";

/// Bytes of a command, and of a file's name in it.
const COMMAND_BYTES: usize = 128;
const NAME_BYTES: usize = 56;
/// Kinds of commands.
const ALLOCATE: u32 = 1;
const ADD_POINTER: u32 = 2;
const ADD_CHECKSUM: u32 = 3;
/// Where memory is to be: anywhere below 4 GiB, or in the 64 KiB below 1 MiB.
const ZONE_HIGH: u8 = 1;
const ZONE_LOW: u8 = 2;
/// The checksum of a table's header, and of the whole RSDP.
const TABLE_CHECKSUM: usize = 9;
const RSDP_CHECKSUM: usize = 32;
/// Where the RSDP points to the XSDT.
const RSDP_XSDT: usize = 24;
/// Bytes of a table's header.
const HEADER_BYTES: usize = 36;
/// Places of pointers in a FADT and their bytes: DSDT, FACS, DSDT again.
const FADT_POINTERS: [(usize, u8); 3] = [(40, 4), (132, 8), (140, 8)];

/// What firmware makes tables of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blobs {
    /// [`TABLES_FILE`]. Its length does not depend on places.
    pub tables: Vec<u8>,
    /// [`RSDP_FILE`].
    pub rsdp: Vec<u8>,
    /// [`SCRIPT_FILE`]. It does not depend on places.
    pub script: Vec<u8>,
}

impl Blobs {
    /// The tables of a machine with `cpus` vCPUs.
    #[must_use]
    pub fn new(places: &Places, cpus: u32) -> Self {
        let (room, xsdt) = tables(Room { start: 0, bytes: vec![] }, places, cpus);
        let mut blobs = Self { tables: room.bytes, rsdp: rsdp(xsdt), script: vec![] };
        blobs.allocate(RSDP_FILE, 16, ZONE_LOW);
        blobs.allocate(TABLES_FILE, 64, ZONE_HIGH);
        let xsdt = usize::try_from(xsdt).unwrap_or(0);
        for entry in (HEADER_BYTES..blobs.table_len(xsdt)).step_by(8).map(|at| xsdt + at) {
            blobs.point(TABLES_FILE, entry, 8);
            let table = usize::try_from(blobs.number(entry)).unwrap_or(0);
            if blobs.tables.get(table..table + 4) == Some(b"FACP") {
                FADT_POINTERS.into_iter().for_each(|(at, bytes)| blobs.point(TABLES_FILE, table + at, bytes));
                blobs.sum_table(table);
            }
        }
        blobs.sum_table(xsdt);
        blobs.point(RSDP_FILE, RSDP_XSDT, 8);
        if let Some(byte) = blobs.rsdp.get_mut(RSDP_CHECKSUM) {
            *byte = 0;
        }
        let len = blobs.rsdp.len();
        blobs.sum(RSDP_FILE, RSDP_CHECKSUM, 0, len);
        blobs
    }

    fn number(&self, at: usize) -> u64 {
        self.tables.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    fn table_len(&self, table: usize) -> usize {
        usize::try_from(self.number(table) >> 32).unwrap_or(0)
    }

    /// A checksum is right only when the pointers are: the script makes it anew, from zero.
    fn sum_table(&mut self, table: usize) {
        if let Some(byte) = self.tables.get_mut(table + TABLE_CHECKSUM) {
            *byte = 0;
        }
        let len = self.table_len(table);
        self.sum(TABLES_FILE, table + TABLE_CHECKSUM, table, len);
    }

    fn allocate(&mut self, file: &str, alignment: u32, zone: u8) {
        self.command(ALLOCATE, &[&name(file), &alignment.to_le_bytes(), &[zone]]);
    }

    /// The number of `bytes` at `at` of `file` is an offset in the tables.
    fn point(&mut self, file: &str, at: usize, bytes: u8) {
        self.command(ADD_POINTER, &[&name(file), &name(TABLES_FILE), &offset(at), &[bytes]]);
    }

    fn sum(&mut self, file: &str, at: usize, start: usize, len: usize) {
        self.command(ADD_CHECKSUM, &[&name(file), &offset(at), &offset(start), &offset(len)]);
    }

    fn command(&mut self, kind: u32, parts: &[&[u8]]) {
        let mut command = kind.to_le_bytes().to_vec();
        command.extend(parts.concat());
        command.resize(COMMAND_BYTES, 0);
        self.script.extend(command);
    }
}

fn name(file: &str) -> [u8; NAME_BYTES] {
    let mut name = [0; NAME_BYTES];
    name.iter_mut().zip(file.bytes()).for_each(|(to, from)| *to = from);
    name
}

fn offset(at: usize) -> [u8; 4] {
    u32::try_from(at).unwrap_or(u32::MAX).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::GIB;
    use crate::mem::Split;

    fn places(ecam: u64) -> Places {
        Places { ecam, ..Places::fixed(Split::new(GIB)) }
    }

    fn word(bytes: &[u8], at: usize) -> usize {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
    }

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    /// What firmware does with the blobs: the tables at `base`.
    fn run_script(blobs: &Blobs, base: u64) -> (Vec<u8>, Vec<u8>) {
        let (mut tables, mut rsdp) = (blobs.tables.clone(), blobs.rsdp.clone());
        for command in blobs.script.chunks(COMMAND_BYTES) {
            let file = if command[4..].starts_with(RSDP_FILE.as_bytes()) { &mut rsdp } else { &mut tables };
            match word(command, 0) {
                2 => {
                    let (at, len) = (word(command, 4 + 2 * NAME_BYTES), usize::from(command[8 + 2 * NAME_BYTES]));
                    let mut number = [0; 8];
                    number[..len].copy_from_slice(&file[at..at + len]);
                    let number = u64::from_le_bytes(number) + base;
                    file[at..at + len].copy_from_slice(&number.to_le_bytes()[..len]);
                }
                3 => {
                    let [at, start, len] = [0, 4, 8].map(|part| word(command, 4 + NAME_BYTES + part));
                    file[at] = sum(&file[start..start + len]).wrapping_neg();
                }
                kind => assert_eq!(kind, 1),
            }
        }
        (tables, rsdp)
    }

    #[test]
    fn after_the_script_every_table_is_reachable_and_its_checksum_is_right() {
        let base = 0x7F00_0000;
        let (tables, rsdp) = run_script(&Blobs::new(&places(0xB000_0000), 3), base);
        let at = |address: u64| usize::try_from(address - base).unwrap();
        let long = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let table = |address: u64| &tables[at(address)..][..word(&tables, at(address) + 4)];
        assert_eq!((sum(&rsdp), sum(&rsdp[..20])), (0, 0));
        let xsdt = table(long(&rsdp, RSDP_XSDT));
        assert_eq!((&xsdt[..4], sum(xsdt)), (b"XSDT".as_slice(), 0));
        let mut names = vec![];
        for entry in xsdt[HEADER_BYTES..].chunks(8) {
            let table = table(long(entry, 0));
            assert_eq!(sum(table), 0);
            names.push(String::from_utf8(table[..4].to_vec()).unwrap());
        }
        assert_eq!(names, ["FACP", "APIC", "MCFG", "WDAT"]);
        let fadt = table(long(&xsdt[HEADER_BYTES..], 0));
        let dsdt = table(long(fadt, 140));
        assert_eq!((&dsdt[..4], sum(dsdt)), (b"DSDT".as_slice(), 0));
        assert_eq!(u64::from(u32::try_from(word(fadt, 40)).unwrap()), long(fadt, 140));
        assert_eq!(table(long(fadt, 132)).get(..4), Some(b"FACS".as_slice()));
    }

    #[test]
    fn where_firmware_puts_things_changes_no_length() {
        let [one, other] = [0xB000_0000, 0xE000_0000].map(|ecam| Blobs::new(&places(ecam), 2));
        assert_ne!(one.tables, other.tables);
        assert_eq!((one.tables.len(), one.script), (other.tables.len(), other.script));
    }
}

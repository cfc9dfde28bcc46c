//! ACPI tables (ACPI 6.5) of the Q35-like machine. Full hardware, not the reduced kind: firmware, BSD and Windows
//! understand the same power management block as Linux.

mod dsdt;
mod fixed;
mod loader;
mod places;
mod watchdog;

use acpi_tables::Aml;
use acpi_tables::facs::FACS;
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use vm_memory::{Bytes, GuestAddress};

pub use self::loader::{Blobs, RSDP_FILE, SCRIPT_FILE, TABLES_FILE};
pub use self::places::Places;
use crate::layout::{ACPI_END, ACPI_START, IOAPIC_START, LOCAL_APIC_START, SCI_IRQ};
use crate::mem::GuestMemory;

const OEM: [u8; 6] = *b"KILN  ";
const OEM_TABLE: [u8; 8] = *b"KILNVIRT";
const OEM_REVISION: u32 = 1;
/// Tables begin at multiples of this; the FACS wants it.
const ALIGNMENT: u64 = 64;

/// The tables did not fit where they belong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// More tables than room: too many vCPUs.
    #[error("ACPI tables need {bytes} bytes, there is room for {}", ACPI_END - ACPI_START)]
    TooLarge {
        /// Bytes needed.
        bytes: u64,
    },
    /// Guest memory ends before them.
    #[error("guest memory is too small for ACPI tables")]
    Memory(#[source] vm_memory::GuestMemoryError),
}

/// Writes all tables for `cpus` vCPUs; returns the address of the RSDP.
pub fn write(memory: &GuestMemory, places: &Places, cpus: u32) -> Result<u64, Error> {
    let room = Room { start: ACPI_START, bytes: vec![0; Rsdp::len()] };
    let (mut room, xsdt) = tables(room, places, cpus);
    let rsdp = rsdp(ACPI_START + xsdt);
    let bytes = room.bytes.len() as u64;
    if ACPI_START + bytes > ACPI_END {
        return Err(Error::TooLarge { bytes });
    }
    room.bytes.splice(..rsdp.len(), rsdp);
    memory.write_slice(&room.bytes, GuestAddress(ACPI_START)).map_err(Error::Memory)?;
    Ok(ACPI_START)
}

/// Puts all tables into `room`; tells the place of the XSDT in it. All tables have the same length whatever `places` says.
fn tables(mut room: Room, places: &Places, cpus: u32) -> (Room, u64) {
    let facs = room.put(&FACS::new());
    let dsdt = room.put(&dsdt::table(places));
    let mut xsdt = XSDT::new(OEM, OEM_TABLE, OEM_REVISION);
    let fadt = fixed::table(facs, dsdt);
    let mut mcfg = MCFG::new(OEM, OEM_TABLE, OEM_REVISION);
    mcfg.add_ecam(places.ecam, 0, 0, 0);
    xsdt.add_entry(room.put(&fadt));
    xsdt.add_entry(room.put(&interrupt_controllers(cpus)));
    xsdt.add_entry(room.put(&mcfg));
    xsdt.add_entry(room.put(&watchdog::table()));
    let at = room.put(&xsdt) - room.start;
    (room, at)
}

fn rsdp(xsdt: u64) -> Vec<u8> {
    let mut rsdp = Vec::new();
    Rsdp::new(OEM, xsdt).to_aml_bytes(&mut rsdp);
    rsdp
}

/// The table that tells of the watchdog, as bytes: QEMU has the watchdog, and no such table.
pub fn watchdog_table() -> Vec<u8> {
    watchdog::table().as_slice().to_vec()
}

/// Tables, one behind the other.
struct Room {
    /// Guest address of the first byte.
    start: u64,
    bytes: Vec<u8>,
}

impl Room {
    /// Appends a table; returns its guest address.
    fn put(&mut self, table: &dyn Aml) -> u64 {
        let at = (self.bytes.len() as u64).next_multiple_of(ALIGNMENT);
        while (self.bytes.len() as u64) < at {
            self.bytes.push(0);
        }
        table.to_aml_bytes(&mut self.bytes);
        self.start + at
    }
}

/// MADT: one local APIC for each vCPU, the I/O APIC, and the one interrupt that is not as on the ISA bus.
fn interrupt_controllers(cpus: u32) -> Sdt {
    const LOCAL_APIC: u8 = 0;
    const IO_APIC: u8 = 1;
    const SOURCE_OVERRIDE: u8 = 2;
    const LOCAL_APIC_NMI: u8 = 4;
    const ENABLED: u32 = 1;
    /// Active high, level triggered.
    const HIGH_LEVEL: u16 = 0xD;
    let mut table = Sdt::new(*b"APIC", 36, 5, OEM, OEM_TABLE, OEM_REVISION);
    let mut body = Vec::new();
    body.extend(u32::try_from(LOCAL_APIC_START).unwrap_or(0).to_le_bytes());
    // Flags: no old interrupt controllers to be switched off.
    body.extend(0u32.to_le_bytes());
    for cpu in (0..=u8::MAX).take(cpus as usize) {
        body.extend([LOCAL_APIC, 8, cpu, cpu]);
        body.extend(ENABLED.to_le_bytes());
    }
    body.extend([IO_APIC, 12, 0, 0]);
    body.extend(u32::try_from(IOAPIC_START).unwrap_or(0).to_le_bytes());
    body.extend(0u32.to_le_bytes());
    body.extend([SOURCE_OVERRIDE, 10, 0, u8::try_from(SCI_IRQ).unwrap_or(0)]);
    body.extend(SCI_IRQ.to_le_bytes());
    body.extend(HIGH_LEVEL.to_le_bytes());
    // Of all processors, input 1.
    body.extend([LOCAL_APIC_NMI, 6, 0xFF, 0, 0, 1]);
    table.append_slice(&body);
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::MIB;
    use crate::mem::GuestRam;

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    fn read(memory: &GuestMemory, start: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        memory.read_slice(&mut bytes, GuestAddress(start)).unwrap();
        bytes
    }

    fn word(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    fn table(memory: &GuestMemory, start: u64) -> Vec<u8> {
        let len = u32::from_le_bytes(read(memory, start + 4, 4).try_into().unwrap());
        read(memory, start, len as usize)
    }

    #[test]
    fn too_many_processors_for_the_room_are_refused() {
        let ram = GuestRam::new(2 * MIB).unwrap();
        assert!(write(ram.memory(), &Places::fixed(ram.split()), 256).is_ok());
        let small = GuestRam::new(64 * 1024).unwrap();
        assert!(matches!(write(small.memory(), &Places::fixed(small.split()), 1), Err(Error::Memory(_))));
    }

    #[test]
    fn every_table_is_reachable_and_its_checksum_is_right() {
        let ram = GuestRam::new(2 * MIB).unwrap();
        let memory = ram.memory();
        let rsdp = read(memory, write(memory, &places(&ram), 3).unwrap(), 36);
        assert_eq!((&rsdp[..8], sum(&rsdp[..20]), sum(&rsdp)), (b"RSD PTR ".as_slice(), 0, 0));
        let xsdt = table(memory, word(&rsdp, 24));
        let mut found = vec![];
        for entry in xsdt[36..].chunks(8) {
            let table = table(memory, word(entry, 0));
            assert_eq!(sum(&table), 0);
            found.push(String::from_utf8(table[..4].to_vec()).unwrap());
            if &table[..4] == b"FACP" {
                let dsdt = self::table(memory, word(&table, 140));
                assert_eq!((&dsdt[..4], sum(&dsdt)), (b"DSDT".as_slice(), 0));
                assert_eq!(read(memory, word(&table, 132), 4), b"FACS");
            }
            if &table[..4] == b"APIC" {
                assert_eq!(table.len(), 44 + 3 * 8 + 12 + 10 + 6);
            }
        }
        assert_eq!(found, ["FACP", "APIC", "MCFG", "WDAT"]);
    }

    /// With all that any machine has.
    fn places(ram: &GuestRam) -> Places {
        Places { has_fw_cfg: true, ..Places::fixed(ram.split()) }
    }

    /// The compiler of ACPICA, the code by which Linux, the BSDs and macOS read these tables, takes them apart and puts the
    /// same bytes together again (Debian: `acpica-tools`).
    #[test]
    fn the_reference_compiler_finds_nothing_wrong_with_any_table() {
        use std::process::Command;
        let folder = tempfile::tempdir().unwrap();
        let iasl = |words: &[&str]| {
            let output = Command::new("iasl").args(words).current_dir(&folder).output().expect("iasl starts");
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said).into_owned();
            assert!(output.status.success(), "{words:?}: {said}");
            said
        };
        let ram = GuestRam::new(2 * MIB).unwrap();
        let memory = ram.memory();
        let rsdp = read(memory, write(memory, &places(&ram), 3).unwrap(), 36);
        let xsdt = table(memory, word(&rsdp, 24));
        let mut tables: Vec<Vec<u8>> = xsdt[36..].chunks(8).map(|entry| table(memory, word(entry, 0))).collect();
        let dsdt = tables.iter().find(|bytes| bytes.starts_with(b"FACP")).map(|fadt| word(fadt, 140)).unwrap();
        tables.extend([table(memory, dsdt), xsdt]);
        for bytes in tables {
            let name = String::from_utf8_lossy(&bytes[..4]).into_owned();
            let [table, text] = ["aml", "dsl"].map(|end| format!("{name}.{end}"));
            std::fs::write(folder.path().join(&table), &bytes).unwrap();
            let said = iasl(&["-d", &table]);
            for bad in ["rror", "arning", "nvalid", "nknown"] {
                assert!(!said.contains(bad), "{said}");
            }
            let said = iasl(&["-p", "again", &text]);
            assert!(said.contains("0 Errors, 0 Warnings"), "{name}: {said}");
            // Behind the header, which has the compiler's own name and number and a checksum over them.
            assert_eq!(std::fs::read(folder.path().join("again.aml")).unwrap()[36..], bytes[36..], "{name}");
        }
    }
}

//! What the machine says of itself and its maker: the tables of the System Management BIOS (DMTF DSP0134 3.6), with the
//! entry point that has 64 bits. Linux shows them below `/sys/class/dmi/id`.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use sha2::{Digest, Sha256};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use crate::layout::{SMBIOS_END, SMBIOS_START};
use crate::mem::GuestMemory;

/// Of the firmware's configuration: the entry point, and the tables.
pub const ANCHOR_FILE: &str = "etc/smbios/smbios-anchor";
/// The tables.
pub const TABLES_FILE: &str = "etc/smbios/smbios-tables";

/// Who made the machine, and what it is.
pub const MAKER: &str = "kiln";
/// What it is.
pub const PRODUCT: &str = "virtual machine";

/// Bytes of the entry point (5.2.2).
const ANCHOR_BYTES: u8 = 24;
const ANCHOR_CHECKSUM: usize = 5;
/// Where the tables lie behind it when no firmware moves them.
const TABLES_OFFSET: u64 = 32;
/// Version of the specification: 3.6.
const VERSION: [u8; 2] = [3, 6];

/// Kinds of structures (7).
const BIOS: u8 = 0;
const SYSTEM: u8 = 1;
const BOARD: u8 = 2;
const CHASSIS: u8 = 3;
const OEM_STRINGS: u8 = 11;
const BOOT_STATUS: u8 = 32;
const END: u8 = 127;
/// Handle of the chassis, which the board names.
const CHASSIS_HANDLE: u16 = 0x0300;
/// BIOS characteristics (7.1.1, 7.1.2.2): none are told, and it is a virtual machine.
const NO_CHARACTERISTICS: u64 = 1 << 3;
const VIRTUAL_MACHINE: u8 = 1 << 4;
/// Woken by the power switch; a motherboard that hosts the others; a chassis of another kind, whose state is unknown.
const POWER_SWITCH: u8 = 6;
const HOSTING: u8 = 1;
const MOTHERBOARD: u8 = 10;
const OTHER: u8 = 1;
const UNKNOWN: u8 = 2;

/// Who writes the BIOS's own structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bios {
    /// Nobody else: there is no firmware.
    None,
    /// Firmware, about itself.
    Firmware,
}

/// The number of a machine, in the order of RFC 9562.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uuid([u8; 16]);

impl Uuid {
    /// The number of the machine whose state folder this is: the same for as long as the folder is; a copy of the folder is
    /// another machine.
    #[must_use]
    pub fn of(state_dir: &Path) -> Self {
        let mut hash = Sha256::new_with_prefix("kiln machine\0");
        let path = std::fs::canonicalize(state_dir).unwrap_or_else(|_| state_dir.into());
        hash.update(path.as_os_str().as_bytes());
        hash.update(std::fs::metadata(&path).map_or(0, |folder| folder.ino()).to_le_bytes());
        let mut bytes = [0; 16];
        bytes.iter_mut().zip(hash.finalize()).for_each(|(to, from)| *to = from);
        // Version 8: made in a way of one's own (RFC 9562, 5.8).
        bytes[6] = bytes[6] & 0x0F | 0x80;
        bytes[8] = bytes[8] & 0x3F | 0x80;
        Self(bytes)
    }

    /// The first three numbers are little-endian here (7.2.1).
    fn stored(self) -> [u8; 16] {
        let [a, b, c, d, e, f, g, h, rest @ ..] = self.0;
        let [i, j, k, l, m, n, o, p] = rest;
        [d, c, b, a, f, e, h, g, i, j, k, l, m, n, o, p]
    }
}

impl std::fmt::Display for Uuid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            let dash = if matches!(at, 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(f, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}

/// Entry point and tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tables {
    /// What is searched for; it tells where the tables are.
    pub anchor: Vec<u8>,
    /// All structures.
    pub structures: Vec<u8>,
}

impl Tables {
    /// The tables of a machine with these strings of its maker's, none of them empty.
    #[must_use]
    pub fn new(bios: Bios, uuid: Uuid, oem_strings: &[String]) -> Self {
        let mut structures = Structures::default();
        if bios == Bios::None {
            structures.bios();
        }
        structures.system(uuid);
        structures.board_and_chassis();
        if !oem_strings.is_empty() {
            let strings: Vec<_> = oem_strings.iter().map(String::as_str).collect();
            let count = u8::try_from(strings.len()).unwrap_or(u8::MAX);
            structures.add(OEM_STRINGS, 0x0B00, &[count], &strings);
        }
        // No fault at the last boot (7.33).
        structures.add(BOOT_STATUS, 0x2000, &[0; 7], &[]);
        structures.add(END, 0x7F00, &[], &[]);
        let structures = structures.0;
        Self { anchor: anchor(structures.len()), structures }
    }

    /// Puts both where a system searches for them that no firmware tells of them.
    ///
    /// # Errors
    /// There is no memory.
    pub fn write(&self, memory: &GuestMemory) -> Result<(), GuestMemoryError> {
        let room = usize::try_from(SMBIOS_END - SMBIOS_START - TABLES_OFFSET).unwrap_or(0);
        let structures = self.structures.get(..room).unwrap_or(&self.structures);
        memory.write_slice(&self.anchor, GuestAddress(SMBIOS_START))?;
        memory.write_slice(structures, GuestAddress(SMBIOS_START + TABLES_OFFSET))
    }
}

fn anchor(len: usize) -> Vec<u8> {
    let [major, minor] = VERSION;
    let mut anchor = b"_SM3_\0".to_vec();
    anchor.extend([ANCHOR_BYTES, major, minor, 0, 1, 0]);
    anchor.extend(u32::try_from(len).unwrap_or(0).to_le_bytes());
    anchor.extend((SMBIOS_START + TABLES_OFFSET).to_le_bytes());
    let sum = anchor.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    if let Some(checksum) = anchor.get_mut(ANCHOR_CHECKSUM) {
        *checksum = sum.wrapping_neg();
    }
    anchor
}

#[derive(Default)]
struct Structures(Vec<u8>);

impl Structures {
    /// One structure: its header, its formatted part, and the strings that it names by their numbers from 1.
    fn add(&mut self, kind: u8, handle: u16, formatted: &[u8], strings: &[&str]) {
        let len = u8::try_from(formatted.len() + 4).unwrap_or(u8::MAX);
        self.0.extend([kind, len]);
        self.0.extend(handle.to_le_bytes());
        self.0.extend(formatted);
        for string in strings {
            self.0.extend(string.bytes());
            self.0.push(0);
        }
        self.0.extend(if strings.is_empty() { [0, 0].as_slice() } else { &[0] });
    }

    fn bios(&mut self) {
        // Vendor, version, no segment, date, 64 KiB.
        let mut formatted = vec![1, 2, 0, 0, 3, 0];
        formatted.extend(NO_CHARACTERISTICS.to_le_bytes());
        // No release of it or of a controller, no larger size.
        formatted.extend([0, VIRTUAL_MACHINE, 0, 0, 0xFF, 0xFF, 0, 0]);
        self.add(BIOS, 0, &formatted, &[MAKER, env!("CARGO_PKG_VERSION"), "01/01/2026"]);
    }

    fn system(&mut self, uuid: Uuid) {
        let number = uuid.to_string();
        let mut formatted = vec![1, 2, 3, 4];
        formatted.extend(uuid.stored());
        formatted.extend([POWER_SWITCH, 0, 0]);
        self.add(SYSTEM, 0x0100, &formatted, &[MAKER, PRODUCT, env!("CARGO_PKG_VERSION"), &number]);
    }

    fn board_and_chassis(&mut self) {
        let mut board = vec![1, 2, 0, 0, 0, HOSTING, 0];
        board.extend(CHASSIS_HANDLE.to_le_bytes());
        board.extend([MOTHERBOARD, 0]);
        self.add(BOARD, 0x0200, &board, &[MAKER, PRODUCT]);
        let mut chassis = vec![1, OTHER, 0, 0, 0, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN];
        // Nothing of its maker's, no height, cords or contents.
        chassis.extend([0; 9]);
        self.add(CHASSIS, CHASSIS_HANDLE, &chassis, &[MAKER]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::MIB;
    use crate::mem::GuestRam;

    /// Structures as (kind, formatted part, strings).
    fn taken_apart(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>, Vec<String>)> {
        let mut found = vec![];
        while let [kind, len, ..] = *bytes {
            let (formatted, rest) = bytes.split_at(len.into());
            let end = rest.windows(2).position(|pair| pair == [0, 0]).unwrap();
            let strings = rest[..end].split(|byte| *byte == 0).filter(|string| !string.is_empty());
            let strings = strings.map(|string| String::from_utf8(string.to_vec()).unwrap()).collect();
            found.push((kind, formatted[4..].to_vec(), strings));
            bytes = &rest[end + 2..];
        }
        found
    }

    #[test]
    fn every_structure_is_whole_and_the_last_one_ends_them() {
        let strings = ["io.systemd.credential:a=b".to_owned(), "x".repeat(300)];
        let uuid = Uuid([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
        let tables = Tables::new(Bios::None, uuid, &strings);
        let found = taken_apart(&tables.structures);
        let kinds: Vec<_> = found.iter().map(|(kind, ..)| *kind).collect();
        assert_eq!(kinds, [BIOS, SYSTEM, BOARD, CHASSIS, OEM_STRINGS, BOOT_STATUS, END]);
        // Lengths of formatted parts in this version (7.1 to 7.4, 7.12, 7.33), without their headers.
        let lengths: Vec<_> = found.iter().map(|(_, formatted, _)| formatted.len() + 4).collect();
        assert_eq!(lengths, [0x1A, 0x1B, 0x0F, 0x16, 5, 11, 4]);
        assert_eq!(found[1].1[4..20], [4, 3, 2, 1, 6, 5, 8, 7, 9, 10, 11, 12, 13, 14, 15, 16]);
        assert_eq!(found[1].2[3], "01020304-0506-0708-090a-0b0c0d0e0f10");
        assert_eq!((&found[4].1, &found[4].2[..]), (&vec![2], &strings[..]));
        let firmware = Tables::new(Bios::Firmware, uuid, &[]);
        assert!(taken_apart(&firmware.structures).iter().all(|(kind, ..)| ![BIOS, OEM_STRINGS].contains(kind)));
    }

    #[test]
    fn a_system_that_searches_finds_them() {
        let ram = GuestRam::new(2 * MIB).unwrap();
        let tables = Tables::new(Bios::None, Uuid::of(Path::new("/")), &[]);
        tables.write(ram.memory()).unwrap();
        let mut anchor = [0_u8; ANCHOR_BYTES as usize];
        ram.memory().read_slice(&mut anchor, GuestAddress(0xF_0000)).unwrap();
        assert!(anchor.starts_with(b"_SM3_") && anchor.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)) == 0);
        let len = u32::from_le_bytes(anchor[12..16].try_into().unwrap()) as usize;
        let at = u64::from_le_bytes(anchor[16..24].try_into().unwrap());
        let mut structures = vec![0; len];
        ram.memory().read_slice(&mut structures, GuestAddress(at)).unwrap();
        assert_eq!(structures, tables.structures);
    }

    #[test]
    fn a_machine_keeps_its_number_and_another_has_another() {
        let [one, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        assert_eq!(Uuid::of(one.path()), Uuid::of(&one.path().join(".")));
        assert_ne!(Uuid::of(one.path()), Uuid::of(other.path()));
        let text = Uuid::of(one.path()).to_string();
        assert!(text.len() == 36 && text.as_bytes()[14] == b'8', "{text}");
    }
}

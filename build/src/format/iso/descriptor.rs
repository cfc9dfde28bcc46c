//! Volume descriptors (ECMA-119 8): what the volume is called, how long it is and where its hierarchies are.

use super::date::{Date, NO_LONG_DATE};
use super::number::{both16, both32};
use super::{Namespace, SECTOR, VolumeDates};

/// What Joliet's descriptor says of its character set: UCS-2, level 3.
const UCS_2: &[u8] = b"%/E";

/// Where the path tables and the root of one hierarchy are.
pub(super) struct Hierarchy {
    pub(super) namespace: Namespace,
    pub(super) path_table_bytes: u32,
    /// Little-endian, big-endian.
    pub(super) path_table_sectors: [u32; 2],
    /// The root's directory record.
    pub(super) root: Vec<u8>,
}

/// What both hierarchies' descriptors tell alike.
pub(super) struct About<'a> {
    pub(super) label: &'a str,
    pub(super) sectors: u32,
    pub(super) dates: VolumeDates,
}

/// The primary descriptor, or Joliet's.
pub(super) fn hierarchy(about: &About<'_>, hierarchy: &Hierarchy) -> [u8; SECTOR] {
    let joliet = hierarchy.namespace == Namespace::Joliet;
    let mut sector = started(if joliet { 2 } else { 1 });
    let text = |text: &str, len: usize| match hierarchy.namespace {
        Namespace::Primary => padded(text.bytes().collect(), b" ", len),
        Namespace::Joliet => padded(text.encode_utf16().flat_map(u16::to_be_bytes).collect(), b"\0 ", len),
    };
    let mut put = |at: usize, bytes: &[u8]| sector[at..at + bytes.len()].copy_from_slice(bytes);
    put(8, &text("LINUX", 32));
    put(40, &text(about.label, 32));
    put(80, &both32(about.sectors));
    if joliet {
        put(88, UCS_2);
    }
    put(120, &both16(1));
    put(124, &both16(1));
    put(128, &both16(u16::try_from(SECTOR).unwrap_or(0)));
    put(132, &both32(hierarchy.path_table_bytes));
    put(140, &hierarchy.path_table_sectors[0].to_le_bytes());
    put(148, &hierarchy.path_table_sectors[1].to_be_bytes());
    put(156, &hierarchy.root);
    for (at, len, content) in [
        (190, 128, ""),
        (318, 128, ""),
        (446, 128, ""),
        (574, 128, "KILN"),
        (702, 37, ""),
        (739, 37, ""),
        (776, 37, ""),
    ] {
        put(at, &text(content, len));
    }
    let VolumeDates { created_s, changed } = about.dates;
    put(813, &Date::of(created_s).long(0));
    put(830, &changed);
    put(847, &NO_LONG_DATE);
    put(864, &NO_LONG_DATE);
    // The version of the structure.
    put(881, &[1]);
    sector
}

/// The one that says where El Torito's catalog is.
pub(super) fn boot_record(catalog_sector: u32) -> [u8; SECTOR] {
    const SYSTEM: &[u8] = b"EL TORITO SPECIFICATION";
    let mut sector = started(0);
    sector[7..7 + SYSTEM.len()].copy_from_slice(SYSTEM);
    sector[71..75].copy_from_slice(&catalog_sector.to_le_bytes());
    sector
}

/// The one behind which there are no more.
pub(super) fn terminator() -> [u8; SECTOR] {
    started(255)
}

fn started(kind: u8) -> [u8; SECTOR] {
    let mut sector = [0; SECTOR];
    sector[0] = kind;
    sector[1..6].copy_from_slice(b"CD001");
    sector[6] = 1;
    sector
}

/// Cut or filled to `len` bytes; what is left of a character stays zero.
fn padded(mut text: Vec<u8>, space: &[u8], len: usize) -> Vec<u8> {
    text.truncate(len);
    while text.len() + space.len() <= len {
        text.extend_from_slice(space);
    }
    text.resize(len, 0);
    text
}

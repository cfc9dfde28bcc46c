//! The superblock: 128 bytes, 1024 bytes into the image.

use super::BLOCK_BYTES;

/// Where it stands. The kilobyte in front is for boot code.
pub(super) const OFFSET_BYTES: u64 = 1024;

pub(super) const LEN_BYTES: usize = 128;

/// The rest of its block, which the checksum covers too.
pub(super) const BEHIND_BYTES: usize = 4096 - 1024 - LEN_BYTES;

const MAGIC: u32 = 0xe0f5_e1e2;

/// There is a checksum.
const COMPAT_CHECKSUM: u32 = 1;

/// Times are those of the last change of content.
const COMPAT_MTIME: u32 = 2;

/// Compressed clusters stand at the end of their blocks (Linux 5.4).
pub(super) const INCOMPATIBLE_ZERO_PADDING: u32 = 1;

/// What it tells.
pub(super) struct Superblock {
    pub(super) root_nid: u16,
    pub(super) inodes: u64,
    /// The time of all compact inodes, in seconds since 1970.
    pub(super) time_s: i64,
    pub(super) blocks: u32,
    pub(super) xattr_block: u32,
    pub(super) uuid: [u8; 16],
    pub(super) label: [u8; 16],
    /// What a kernel must know to read it.
    pub(super) incompatible: u32,
}

impl Superblock {
    /// With the checksum over it and `behind`, the rest of its block.
    pub(super) fn encode(&self, behind: &[u8; BEHIND_BYTES]) -> [u8; LEN_BYTES] {
        let mut bytes = [0; LEN_BYTES];
        let mut put = |offset: usize, field: &[u8]| bytes[offset..offset + field.len()].copy_from_slice(field);
        put(0, &MAGIC.to_le_bytes());
        put(8, &(COMPAT_CHECKSUM | COMPAT_MTIME).to_le_bytes());
        put(12, &[BLOCK_BYTES.trailing_zeros().to_le_bytes()[0]]);
        put(14, &self.root_nid.to_le_bytes());
        put(16, &self.inodes.to_le_bytes());
        put(24, &self.time_s.to_le_bytes());
        put(36, &self.blocks.to_le_bytes());
        // The inodes are counted from block 0 on.
        put(40, &0_u32.to_le_bytes());
        put(44, &self.xattr_block.to_le_bytes());
        put(48, &self.uuid);
        put(64, &self.label);
        put(80, &self.incompatible.to_le_bytes());
        let checksum = crc32c(crc32c(u32::MAX, &bytes), behind);
        bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }
}

/// Castagnoli's CRC, without the inversion that others do at the end.
fn crc32c(start: u32, bytes: &[u8]) -> u32 {
    const REVERSED_POLYNOMIAL: u32 = 0x82f6_3b78;
    bytes.iter().fold(start, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { REVERSED_POLYNOMIAL } else { 0 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(!crc32c(u32::MAX, b"123456789"), 0xe306_9283);
    }
}

//! The setup header of a bzImage (Linux `Documentation/arch/x86/boot.rst`): the fields that matter here, checked.

use super::NotAKernel;
use crate::layout::KERNEL_START;

/// Offset of the header's magic number in the file.
const MAGIC_OFFSET: usize = 0x202;
const MAGIC: [u8; 4] = *b"HdrS";
/// Bytes of the file that [`Header::parse`] needs.
pub const HEADER_END: usize = 0x268;
/// Protocol 2.12: `xloadflags`; every kernel since 3.8 (2013) has it.
const MIN_VERSION: u16 = 0x20C;
const SECTOR_BYTES: u64 = 512;
/// `loadflags`: the kernel is loaded at 1 MiB or above.
const LOADED_HIGH: u8 = 1;
/// `xloadflags`: there is a 64-bit entry.
const KERNEL_64: u16 = 1;

/// Where things are in a bzImage and where they want to be in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Offset of the protected-mode code in the file.
    code_offset: u64,
    payload_offset: u32,
    payload_length: u32,
    init_size: u32,
    preferred_address: u64,
    initrd_address_max: u32,
    xloadflags: u16,
}

impl Header {
    /// Whether a file that begins with `start` claims to be a bzImage.
    pub fn is_claimed_by(start: &[u8]) -> bool {
        start.get(MAGIC_OFFSET..MAGIC_OFFSET + MAGIC.len()) == Some(&MAGIC)
    }

    /// Reads the header from the first [`HEADER_END`] bytes of the file.
    pub fn parse(start: &[u8]) -> Result<Self, NotAKernel> {
        let short = NotAKernel::Short;
        let version = u16::from_le_bytes(field(start, 0x206).ok_or(short)?);
        let loadflags: [u8; 1] = field(start, 0x211).ok_or(short)?;
        if version < MIN_VERSION || loadflags[0] & LOADED_HIGH == 0 {
            return Err(NotAKernel::TooOld { version });
        }
        let [sectors]: [u8; 1] = field(start, 0x1F1).ok_or(short)?;
        // 0 means 4, says the protocol.
        let sectors = if sectors == 0 { 4 } else { u64::from(sectors) };
        let header = Self {
            code_offset: (sectors + 1) * SECTOR_BYTES,
            payload_offset: u32::from_le_bytes(field(start, 0x248).ok_or(short)?),
            payload_length: u32::from_le_bytes(field(start, 0x24C).ok_or(short)?),
            init_size: u32::from_le_bytes(field(start, 0x260).ok_or(short)?),
            preferred_address: u64::from_le_bytes(field(start, 0x258).ok_or(short)?),
            initrd_address_max: u32::from_le_bytes(field(start, 0x22C).ok_or(short)?),
            xloadflags: u16::from_le_bytes(field(start, 0x236).ok_or(short)?),
        };
        if header.preferred_address < KERNEL_START || header.preferred_address > u64::from(u32::MAX) {
            return Err(NotAKernel::LoadAddress { address: header.preferred_address });
        }
        Ok(header)
    }

    /// Where the packed kernel is in the file, as (offset, length in bytes).
    pub fn payload(&self) -> (u64, u64) {
        (self.code_offset + u64::from(self.payload_offset), u64::from(self.payload_length))
    }

    /// Where the kernel wants to be.
    pub fn load_address(&self) -> u64 {
        self.preferred_address
    }

    /// First address past what the kernel needs before it can look at the memory map.
    pub fn end(&self) -> u64 {
        self.preferred_address + u64::from(self.init_size)
    }

    /// First address that the RAM disk may not reach.
    pub fn initrd_limit(&self) -> u64 {
        u64::from(self.initrd_address_max) + 1
    }

    /// Whether it can be entered in 64-bit mode.
    pub fn has_64bit_entry(&self) -> bool {
        self.xloadflags & KERNEL_64 != 0
    }
}

fn field<const N: usize>(start: &[u8], offset: usize) -> Option<[u8; N]> {
    start.get(offset..)?.first_chunk().copied()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A bzImage with one setup sector whose payload is `payload`.
    pub fn bzimage(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 1024];
        image[0x1F1] = 1;
        image[MAGIC_OFFSET..MAGIC_OFFSET + 4].copy_from_slice(&MAGIC);
        image[0x206..0x208].copy_from_slice(&0x20Fu16.to_le_bytes());
        image[0x211] = LOADED_HIGH;
        image[0x22C..0x230].copy_from_slice(&0x7FFF_FFFFu32.to_le_bytes());
        image[0x236] = 1;
        image[0x24C..0x250].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
        image[0x258..0x260].copy_from_slice(&(16u64 << 20).to_le_bytes());
        image[0x260..0x264].copy_from_slice(&(8u32 << 20).to_le_bytes());
        image.extend_from_slice(payload);
        image
    }

    #[test]
    fn a_header_cut_off_anywhere_is_refused() {
        let image = bzimage(&[]);
        for len in 0..0x264 {
            assert!(Header::parse(&image[..len]).is_err(), "{len}");
        }
        assert!(Header::parse(&image).is_ok());
    }

    #[test]
    fn kernels_of_the_last_century_and_wild_addresses_are_refused() {
        let mut old = bzimage(&[]);
        old[0x206] = 0;
        assert!(matches!(Header::parse(&old), Err(NotAKernel::TooOld { .. })));
        for address in [0, 0xFFFF, 1 << 32, u64::MAX] {
            let mut wild = bzimage(&[]);
            wild[0x258..0x260].copy_from_slice(&address.to_le_bytes());
            assert!(matches!(Header::parse(&wild), Err(NotAKernel::LoadAddress { .. })), "{address:#x}");
        }
    }
}

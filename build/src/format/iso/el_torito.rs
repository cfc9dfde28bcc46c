//! The catalog of what a firmware can start (El Torito 1.0; UEFI 13.3.2): images that it reads as they are.

use super::SECTOR;

const ENTRY_BYTES: usize = 32;

/// For whom an image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootPlatform {
    /// A BIOS loads the first sectors and jumps to them.
    Bios,
    /// UEFI takes it for a FAT volume.
    Efi,
}

/// An image that a firmware starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootImage {
    /// Whose.
    pub platform: BootPlatform,
    /// The first sector of 2048 bytes.
    pub sector: u32,
    /// What a BIOS loads of it; how large the volume is for UEFI.
    pub len_bytes: u64,
}

impl BootImage {
    /// In sectors of 512 bytes. UEFI takes 1 for "to the end of the medium": images of 32 MiB and more are told so.
    fn sectors_512(self) -> u16 {
        let exact = u16::try_from(self.len_bytes.div_ceil(512)).ok();
        exact.unwrap_or(match self.platform {
            BootPlatform::Bios => u16::MAX,
            BootPlatform::Efi => 1,
        })
    }

    fn entry(self) -> [u8; ENTRY_BYTES] {
        const BOOTABLE: u8 = 0x88;
        let mut entry = [0; ENTRY_BYTES];
        entry[0] = BOOTABLE;
        entry[6..8].copy_from_slice(&self.sectors_512().to_le_bytes());
        entry[8..12].copy_from_slice(&self.sector.to_le_bytes());
        entry
    }
}

impl BootPlatform {
    fn id(self) -> u8 {
        match self {
            Self::Bios => 0,
            Self::Efi => 0xef,
        }
    }
}

/// The catalog: the first image is the default one, each other is a section of its own.
pub(super) fn catalog(images: &[BootImage]) -> Vec<u8> {
    let mut catalog = Vec::with_capacity(SECTOR);
    if let Some(first) = images.first() {
        catalog.extend(validation(first.platform));
        catalog.extend(first.entry());
    }
    for (index, image) in images.iter().enumerate().skip(1) {
        const HEADER: u8 = 0x90;
        const LAST_HEADER: u8 = 0x91;
        let mut header = [0; ENTRY_BYTES];
        header[0] = if index + 1 == images.len() { LAST_HEADER } else { HEADER };
        header[1] = image.platform.id();
        header[2] = 1;
        catalog.extend(header);
        catalog.extend(image.entry());
    }
    catalog.resize(SECTOR, 0);
    catalog
}

/// Its words add up to zero.
fn validation(platform: BootPlatform) -> [u8; ENTRY_BYTES] {
    let mut entry = [0; ENTRY_BYTES];
    entry[0] = 1;
    entry[1] = platform.id();
    entry[30..].copy_from_slice(&[0x55, 0xaa]);
    let sum = entry.chunks(2).fold(0_u16, |sum, word| sum.wrapping_add(u16::from_le_bytes([word[0], word[1]])));
    entry[28..30].copy_from_slice(&sum.wrapping_neg().to_le_bytes());
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_beyond_the_sector_count_reaches_to_the_end() {
        let sectors = |platform, len_bytes| BootImage { platform, sector: 9, len_bytes }.sectors_512();
        for (platform, len_bytes, count) in [
            (BootPlatform::Efi, 4096, 8),
            (BootPlatform::Efi, 65_535 * 512, 65_535),
            (BootPlatform::Efi, 65_535 * 512 + 1, 1),
            (BootPlatform::Bios, 2049, 5),
        ] {
            assert_eq!(sectors(platform, len_bytes), count, "{len_bytes}");
        }
    }
}

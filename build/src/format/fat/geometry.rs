//! Where the parts of a FAT volume stand, decided by its size alone (Microsoft's *FAT File System Specification*, 3.5).

/// Bytes of a sector.
pub(super) const SECTOR_LEN: usize = 512;
pub(super) const SECTOR_BYTES: u64 = SECTOR_LEN as u64;

/// Contents begin at a multiple of so many sectors, 4 KiB: file systems can then share their blocks with the image.
const ALIGN_SECTORS: u32 = 8;

/// Entries of the root folder of FAT12 and FAT16, which has its own place: 512, as everybody has it.
pub(super) const ROOT_ENTRIES: u32 = 512;

const ROOT_SECTORS: u32 = ROOT_ENTRIES * 32 / 512;

/// How wide an entry of the table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Fat12,
    Fat16,
    Fat32,
}

impl Kind {
    /// How many clusters tell this kind. Sixteen less at both ends, because drivers differ in where exactly they end.
    fn clusters(self) -> std::ops::RangeInclusive<u32> {
        match self {
            Self::Fat12 => 1..=4084 - 16,
            Self::Fat16 => 4085 + 16..=65_524 - 16,
            Self::Fat32 => 65_525 + 16..=0x0fff_fff4,
        }
    }

    fn entry_bits(self) -> u64 {
        match self {
            Self::Fat12 => 12,
            Self::Fat16 => 16,
            Self::Fat32 => 32,
        }
    }

    /// What the entry of a file's last cluster holds.
    pub(super) fn end(self) -> u32 {
        match self {
            Self::Fat12 => 0xfff,
            Self::Fat16 => 0xffff,
            Self::Fat32 => 0x0fff_ffff,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    pub(super) kind: Kind,
    pub(super) sectors: u32,
    pub(super) cluster_sectors: u32,
    pub(super) reserved_sectors: u32,
    pub(super) fat_sectors: u32,
    /// Clusters for contents; the first is number 2.
    pub(super) clusters: u32,
}

impl Geometry {
    /// Of a volume of so many sectors: FAT32 from where it is valid, 33 MiB, FAT16 below, FAT12 below 2 MiB. `None` if that
    /// is too few.
    pub(super) fn of(sectors: u32) -> Option<Self> {
        // 3.5: "DskTableFAT32".
        let cluster_sectors = match sectors {
            0..=532_480 => 1,
            532_481..=16_777_216 => 8,
            16_777_217..=33_554_432 => 16,
            33_554_433..=67_108_864 => 32,
            _ => 64,
        };
        let choices =
            [(Kind::Fat32, cluster_sectors), (Kind::Fat16, 1), (Kind::Fat16, 2), (Kind::Fat12, 1), (Kind::Fat12, 2)];
        choices.into_iter().find_map(|(kind, cluster_sectors)| Self::with(kind, sectors, cluster_sectors))
    }

    fn with(kind: Kind, sectors: u32, cluster_sectors: u32) -> Option<Self> {
        let (least_reserved, root_sectors) = match kind {
            Kind::Fat12 | Kind::Fat16 => (1, ROOT_SECTORS),
            Kind::Fat32 => (32, 0),
        };
        let most_clusters = sectors.checked_sub(least_reserved + root_sectors)? / cluster_sectors;
        let fat_bytes = ((u64::from(most_clusters) + 2) * kind.entry_bits()).div_ceil(8);
        let fat_sectors = u32::try_from(fat_bytes.div_ceil(SECTOR_BYTES)).ok()?;
        let before_data = (least_reserved + 2 * fat_sectors + root_sectors).next_multiple_of(ALIGN_SECTORS);
        let clusters = sectors.checked_sub(before_data)? / cluster_sectors;
        kind.clusters().contains(&clusters).then_some(Self {
            kind,
            sectors,
            cluster_sectors,
            reserved_sectors: before_data - 2 * fat_sectors - root_sectors,
            fat_sectors,
            clusters,
        })
    }

    pub(super) fn cluster_bytes(&self) -> u64 {
        u64::from(self.cluster_sectors) * SECTOR_BYTES
    }

    /// Where the table begins, the first or the second.
    pub(super) fn fat_offset(&self, copy: u32) -> u64 {
        u64::from(self.reserved_sectors + copy * self.fat_sectors) * SECTOR_BYTES
    }

    /// Where the root folder of FAT12 and FAT16 begins.
    pub(super) fn root_offset(&self) -> u64 {
        self.fat_offset(2)
    }

    fn data_offset(&self) -> u64 {
        let root_sectors = if self.kind == Kind::Fat32 { 0 } else { ROOT_SECTORS };
        self.root_offset() + u64::from(root_sectors) * SECTOR_BYTES
    }

    /// Where cluster `number`, 2 or more, begins.
    pub(super) fn offset_of(&self, number: u32) -> u64 {
        self.data_offset() + u64::from(number - 2) * self.cluster_bytes()
    }

    /// The first cluster from `number` on that begins at a multiple of 4 KiB.
    pub(super) fn aligned(&self, number: u32) -> u32 {
        let clusters = (ALIGN_SECTORS / self.cluster_sectors).max(1);
        (number - 2).next_multiple_of(clusters) + 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_has_a_geometry_of_its_kind() {
        let (mut sectors, mut kinds) = (128, Vec::new());
        while sectors < u32::MAX / 3 * 2 {
            let geometry = Geometry::of(sectors).unwrap_or_else(|| panic!("none for {sectors} sectors"));
            assert_eq!(geometry.offset_of(2) % 4096, 0);
            let end = geometry.offset_of(2) + u64::from(geometry.clusters) * geometry.cluster_bytes();
            assert!(end <= u64::from(sectors) * SECTOR_BYTES);
            assert!(u64::from(sectors) * SECTOR_BYTES - end < geometry.cluster_bytes());
            let entries = u64::from(geometry.fat_sectors) * SECTOR_BYTES * 8 / geometry.kind.entry_bits();
            assert!(entries >= u64::from(geometry.clusters) + 2, "{geometry:?}");
            if kinds.last() != Some(&geometry.kind) {
                kinds.push(geometry.kind);
            }
            sectors += 1 + sectors / 1000;
        }
        assert_eq!(kinds, [Kind::Fat12, Kind::Fat16, Kind::Fat32]);
        assert_eq!(Geometry::of(40), None);
    }
}

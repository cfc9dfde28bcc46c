//! Finds a file on a FAT file system (Microsoft, "FAT: General Overview of On-Disk Format", 1.03). The image is whoever's, so
//! every number in it is checked; what makes no sense is as a file that is not there.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// Longest table of clusters that is read, in bytes: that of a volume of 64 GiB.
const MOST_TABLE_BYTES: u64 = 64 << 20;
/// Longest folder that is looked through, in bytes.
const MOST_FOLDER_BYTES: u64 = 1 << 20;
/// Most pieces of a file: more than any has that was written to a fresh volume.
const MOST_PIECES: usize = 1 << 16;
/// Bytes of a folder's entry.
const ENTRY: usize = 32;
const DELETED: u8 = 0xE5;
const ATTRIBUTES: usize = 11;
const IS_FOLDER: u8 = 0x10;
/// A volume's name, and pieces of a long name.
const IS_LABEL: u8 = 0x08;
/// The first cluster has this number.
const FIRST_CLUSTER: u32 = 2;
/// Fewer clusters than these mean entries of 12 and of 16 bits.
const LEAST_FAT16: u64 = 4085;
const LEAST_FAT32: u64 = 65_525;

/// A file of the volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Where its bytes are in the image, in order.
    pub pieces: Vec<Range<u64>>,
    /// How many they are.
    pub len: u64,
}

/// The volume that starts at a byte of an image.
pub(super) struct Volume<'a> {
    file: &'a File,
    table: Vec<u8>,
    entry_bits: u32,
    clusters: u32,
    cluster_bytes: u64,
    /// Where the first cluster is, and the root folder if it is no chain of clusters.
    data: u64,
    root: Root,
}

#[derive(Clone)]
enum Root {
    Fixed(Range<u64>),
    Chain(u32),
}

impl<'a> Volume<'a> {
    /// The volume at byte `start`; `None` if there is none.
    pub fn at(file: &'a File, start: u64) -> io::Result<Option<Self>> {
        let Some(header) = read(file, start, 512)? else { return Ok(None) };
        let byte = |at: usize| header.get(at).copied().map_or(0, u64::from);
        let word = |at: usize| byte(at) | byte(at + 1) << 8;
        let long = |at: usize| word(at) | word(at + 2) << 16;
        let (sector, per_cluster, tables) = (word(11), byte(13), byte(16));
        let either = |short: u64, at: usize| if short == 0 { long(at) } else { short };
        let (total, table_sectors) = (either(word(19), 32), either(word(22), 36));
        let is_one = matches!(sector, 512 | 1024 | 2048 | 4096)
            && per_cluster.is_power_of_two()
            && (1..=2).contains(&tables)
            && table_sectors * sector <= MOST_TABLE_BYTES;
        if !is_one {
            return Ok(None);
        }
        let root_bytes = word(17) * ENTRY as u64;
        let tables_end = word(14) + tables * table_sectors;
        let data_sector = tables_end + root_bytes.div_ceil(sector);
        let Some(clusters) = total.checked_sub(data_sector).map(|sectors| sectors / per_cluster) else {
            return Ok(None);
        };
        let entry_bits = match clusters {
            LEAST_FAT32.. => 32,
            LEAST_FAT16.. => 16,
            _ => 12,
        };
        let at = |sectors: u64| start.saturating_add(sectors * sector);
        let root = match entry_bits {
            32 => Root::Chain(u32::try_from(long(44)).unwrap_or(0)),
            _ => Root::Fixed(at(tables_end)..at(tables_end).saturating_add(root_bytes)),
        };
        let table_bytes = usize::try_from(table_sectors * sector).unwrap_or(0);
        let Some(table) = read(file, at(word(14)), table_bytes)? else { return Ok(None) };
        Ok(Some(Self {
            file,
            table,
            entry_bits,
            clusters: u32::try_from(clusters).unwrap_or(u32::MAX),
            cluster_bytes: sector * per_cluster,
            data: at(data_sector),
            root,
        }))
    }

    /// The file behind these names, each as a folder has it: eight letters and three, filled up with blanks.
    pub fn find(&self, names: &[&[u8; 11]]) -> io::Result<Option<Found>> {
        let Some((last, folders)) = names.split_last() else { return Ok(None) };
        let mut folder = match self.root.clone() {
            Root::Fixed(range) => vec![range],
            Root::Chain(cluster) => self.pieces(cluster, MOST_FOLDER_BYTES),
        };
        for name in folders {
            match self.entry(&folder, name)? {
                Some((cluster, _, true)) => folder = self.pieces(cluster, MOST_FOLDER_BYTES),
                _ => return Ok(None),
            }
        }
        Ok(match self.entry(&folder, last)? {
            Some((cluster, len, false)) => {
                let pieces = self.pieces(cluster, len);
                let has: u64 = pieces.iter().map(|piece| piece.end - piece.start).sum();
                (has >= len).then_some(Found { pieces, len })
            }
            _ => None,
        })
    }

    /// The first cluster of a folder's entry, its length in bytes, and whether it is a folder itself.
    fn entry(&self, folder: &[Range<u64>], name: &[u8; 11]) -> io::Result<Option<(u32, u64, bool)>> {
        for piece in folder {
            let len = usize::try_from(piece.end.saturating_sub(piece.start)).unwrap_or(0);
            let Some(bytes) = read(self.file, piece.start, len)? else { return Ok(None) };
            for entry in bytes.chunks_exact(ENTRY) {
                let byte = |at: usize| entry.get(at).copied().map_or(0, u32::from);
                let word = |at: usize| byte(at) | byte(at + 1) << 8;
                let attributes = entry.get(ATTRIBUTES).copied().unwrap_or(0);
                match entry.first() {
                    Some(0) | None => return Ok(None),
                    Some(&DELETED) => continue,
                    _ if attributes & IS_LABEL != 0 || !entry.starts_with(name) => continue,
                    _ => {}
                }
                let len = u64::from(word(28) | word(30) << 16);
                return Ok(Some((word(26) | word(20) << 16, len, attributes & IS_FOLDER != 0)));
            }
        }
        Ok(None)
    }

    /// Where the chain from `cluster` on is, up to `most` bytes, which also end a chain that runs in a circle. Nothing of one
    /// that is scattered wildly.
    fn pieces(&self, mut cluster: u32, most: u64) -> Vec<Range<u64>> {
        let mut pieces: Vec<Range<u64>> = vec![];
        let mut left = most;
        while left > 0 && pieces.len() < MOST_PIECES {
            let Some(number) = cluster.checked_sub(FIRST_CLUSTER).filter(|number| *number < self.clusters) else {
                break;
            };
            let start = self.data.saturating_add(u64::from(number) * self.cluster_bytes);
            let end = start.saturating_add(self.cluster_bytes);
            match pieces.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => pieces.push(start..end),
            }
            left = left.saturating_sub(self.cluster_bytes);
            cluster = self.next(cluster);
        }
        pieces
    }

    fn next(&self, cluster: u32) -> u32 {
        let cluster = usize::try_from(cluster).unwrap_or(usize::MAX);
        let byte = |at: usize| self.table.get(at).copied().map_or(0, u32::from);
        match self.entry_bits {
            12 => {
                let at = cluster.saturating_mul(3) / 2;
                let pair = byte(at) | byte(at.saturating_add(1)) << 8;
                if cluster.is_multiple_of(2) { pair & 0xFFF } else { pair >> 4 }
            }
            16 => byte(cluster.saturating_mul(2)) | byte(cluster.saturating_mul(2) + 1) << 8,
            _ => {
                let at = cluster.saturating_mul(4);
                (0..4).fold(0, |entry, part| entry | byte(at.saturating_add(part)) << (8 * part)) & 0x0FFF_FFFF
            }
        }
    }
}

/// `len` bytes at `offset`; `None` if the file ends before.
fn read(file: &File, offset: u64, len: usize) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = vec![0; len];
    match file.read_exact_at(&mut bytes, offset) {
        Ok(()) => Ok(Some(bytes)),
        Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::{Read, Seek, SeekFrom, Write};

    use super::*;

    pub(crate) const PATH: [&[u8; 11]; 3] = [b"EFI        ", b"BOOT       ", b"BOOTX64 EFI"];

    /// A part of a file as a file.
    struct Part(File, u64);

    impl Read for Part {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            self.0.read(bytes)
        }
    }

    impl Write for Part {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Seek for Part {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            let to = if let SeekFrom::Start(at) = to { SeekFrom::Start(at + self.1) } else { to };
            Ok(self.0.seek(to)? - self.1)
        }
    }

    /// An image with a volume from byte `start` on, whose program lies in many pieces.
    pub(crate) fn image(start: u64, len: u64, program: &[u8]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(start + len).unwrap();
        let part = || {
            let mut part = Part(file.try_clone().unwrap(), start);
            part.seek(SeekFrom::Start(0)).unwrap();
            part
        };
        let options = fatfs::FormatVolumeOptions::new().total_sectors(u32::try_from(len / 512).unwrap());
        fatfs::format_volume(part(), options).unwrap();
        let volume = fatfs::FileSystem::new(part(), fatfs::FsOptions::new()).unwrap();
        let folder = volume.root_dir().create_dir("EFI").unwrap().create_dir("BOOT").unwrap();
        folder.create_file("A file with a long name").unwrap();
        let mut files = ["BOOTX64.EFI", "OTHER"].map(|name| folder.create_file(name).unwrap());
        for piece in program.chunks(5000) {
            files.iter_mut().for_each(|file| file.write_all(piece).unwrap());
        }
        drop(files);
        drop(folder);
        volume.unmount().unwrap();
        file
    }

    #[test]
    fn files_are_found_on_volumes_of_each_size() {
        let program: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).take(77_777).collect();
        for len in [2 << 20, 30 << 20, 600 << 20] {
            let file = image(7 * 2048, len, &program);
            let volume = Volume::at(&file, 7 * 2048).unwrap().unwrap();
            let found = volume.find(&PATH).unwrap().unwrap();
            assert!(found.pieces.len() > 1);
            let mut bytes = vec![];
            for piece in &found.pieces {
                let len = usize::try_from(piece.end - piece.start).unwrap();
                bytes.extend(read(&file, piece.start, len).unwrap().unwrap());
            }
            assert!(bytes.starts_with(&program) && found.len == program.len() as u64, "{len}");
            assert_eq!(volume.find(&[PATH[0], PATH[2]]).unwrap(), None);
            assert_eq!(volume.find(&[PATH[2]]).unwrap(), None);
            assert_eq!(volume.find(&PATH[..2]).unwrap(), None, "a folder is no file");
        }
    }

    #[test]
    fn numbers_of_any_nonsense_are_harmless() {
        let file = image(0, 2 << 20, &[7; 20_000]);
        let look = || Volume::at(&file, 0).unwrap().map(|volume| volume.find(&PATH).unwrap());
        assert!(look().flatten().is_some());
        for at in (11..48).chain(512..560) {
            let mut before = [0];
            file.read_exact_at(&mut before, at).unwrap();
            for value in [0, 1, 2, 0x7F, 0x80, 0xFF] {
                file.write_all_at(&[value], at).unwrap();
                look();
            }
            file.write_all_at(&before, at).unwrap();
        }
        assert!(Volume::at(&file, u64::MAX - 5).unwrap().is_none());
        // A chain that is a circle.
        file.write_all_at(&[3, 0x30, 0, 3, 0x30, 0], 512 + 3).unwrap();
        look();
    }
}

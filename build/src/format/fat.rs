//! FAT volumes (Microsoft's *FAT File System Specification* of 2005): EFI system partitions, and what BIOS loaders read.
//!
//! Files lie in one piece each, in the order they are given, and none is copied: a volume is a list of where everything
//! stands. Its serial number comes from what is in it.

mod folder;
mod geometry;

use std::collections::BTreeMap;
use std::io;

use super::{Extents, fingerprint::Fingerprint};
use folder::{Folder, Place, SLOT_BYTES, Stamp, Target};
use geometry::{Geometry, Kind, ROOT_ENTRIES, SECTOR_BYTES, SECTOR_LEN};

/// Longest file: its length has 32 bits.
const FILE_LIMIT_BYTES: u64 = u32::MAX as u64;

/// Sizes of volumes are multiples of this, as partitions are.
const VOLUME_UNIT_BYTES: u64 = 1 << 20;

/// Of the fixed disk, as everywhere.
const MEDIA: u8 = 0xf8;

/// What a FAT volume is to hold.
#[derive(Debug, Clone, Default)]
pub(super) struct FatFiles {
    /// Its name, one to eleven letters.
    pub(super) label: &'static str,
    /// Paths, with `/` between folders, and contents. Folders come by themselves.
    pub(super) files: Vec<(String, Extents)>,
    /// Time of all of them, in seconds since 1970.
    pub(super) time_s: i64,
    /// It is at least so long; zero for as small as can be. A multiple of 1 MiB in any case.
    pub(super) min_bytes: u64,
    /// Sectors of the disk in front of it.
    pub(super) start_sector: u32,
}

/// A FAT volume.
#[derive(Debug, Clone)]
pub(super) struct FatVolume {
    /// All of it.
    pub(super) extents: Extents,
    is_fat32: bool,
    offsets: BTreeMap<String, u64>,
}

impl FatVolume {
    /// Whether it is FAT32, not FAT12 or FAT16.
    pub(super) fn is_fat32(&self) -> bool {
        self.is_fat32
    }

    /// Where the content of the file at `path` begins, in bytes from the volume's start. It is in one piece.
    pub(super) fn offset_of(&self, path: &str) -> Option<u64> {
        self.offsets.get(path).copied()
    }
}

/// Why there is no such volume.
#[derive(Debug, thiserror::Error)]
pub enum FatError {
    /// A content cannot be read.
    #[error("cannot read what goes onto a FAT volume")]
    Io(#[from] io::Error),
    /// A file is longer than a file can be.
    #[error(
        "`{path}` is {len_bytes} bytes long, more than the {FILE_LIMIT_BYTES} that a file on a FAT volume can be; make the root smaller, or use kernel+squashfs or kernel+erofs, which do not put it into one file"
    )]
    TooLong {
        /// Its path in the volume.
        path: String,
        /// Its length.
        len_bytes: u64,
    },
    /// A name cannot be told.
    #[error("`{path}` cannot be on a FAT volume: its name {why}")]
    Name {
        /// The whole path.
        path: String,
        /// What is wrong with the name.
        why: &'static str,
    },
    /// It would be longer than a volume can be.
    #[error("a FAT volume of {len_bytes} bytes cannot be; 2 TiB is the most")]
    TooLarge {
        /// How long it would be.
        len_bytes: u64,
    },
}

/// Lays out a volume as small as its files and [`FatFiles::min_bytes`] allow.
pub(super) fn volume(files: &FatFiles) -> Result<FatVolume, FatError> {
    let folders = folders(files)?;
    let content_bytes: u64 = files.files.iter().map(|(_, content)| content.len_bytes()).sum();
    let mut len_bytes = files.min_bytes.max(content_bytes).max(1).next_multiple_of(VOLUME_UNIT_BYTES);
    loop {
        let sectors = u32::try_from(len_bytes / SECTOR_BYTES).map_err(|_| FatError::TooLarge { len_bytes })?;
        if let Some(geometry) = Geometry::of(sectors)
            && let Some(layout) = Layout::new(geometry, &folders, files)
        {
            let serial = Fingerprint::of(&files.files)?.number("FAT volume");
            return Ok(Writer { geometry, layout, folders: &folders, files, serial }.volume());
        }
        len_bytes += VOLUME_UNIT_BYTES;
    }
}

fn folders(files: &FatFiles) -> Result<Vec<Folder>, FatError> {
    let mut folders = vec![Folder::default()];
    for (index, (path, content)) in files.files.iter().enumerate() {
        if content.len_bytes() > FILE_LIMIT_BYTES {
            return Err(FatError::TooLong { path: path.clone(), len_bytes: content.len_bytes() });
        }
        let (parents, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut here = 0;
        for parent in parents.split('/').filter(|parent| !parent.is_empty()) {
            here = match folders[here].folder(parent) {
                Some(there) => there,
                None => {
                    let there = folders.len();
                    folders[here].add(path, parent, Target::Folder(there))?;
                    folders.push(Folder::below(here));
                    there
                }
            };
        }
        folders[here].add(path, name, Target::File(index))?;
    }
    // The label is an entry too.
    if folders[0].slots() >= ROOT_ENTRIES as usize {
        let path = files.files.first().map(|(path, _)| path.clone()).unwrap_or_default();
        return Err(FatError::Name { path, why: "is one of too many in the root folder" });
    }
    Ok(folders)
}

/// Where contents are: runs of clusters, each its first and their number.
struct Layout {
    folders: Vec<Run>,
    files: Vec<Run>,
    /// The first cluster behind all.
    end: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Run {
    first: u32,
    clusters: u32,
}

impl Layout {
    /// `None` if they do not fit.
    fn new(geometry: Geometry, folders: &[Folder], files: &FatFiles) -> Option<Self> {
        let mut end = 2;
        let mut run = |len_bytes: u64, first: u32| {
            let clusters = u32::try_from(len_bytes.div_ceil(geometry.cluster_bytes())).ok()?;
            let after = first.checked_add(clusters)?;
            if clusters == 0 {
                return Some((Run::default(), end));
            }
            end = after;
            (after - 2 <= geometry.clusters).then_some((Run { first, clusters }, after))
        };
        let mut next = 2;
        let mut folder_runs = Vec::new();
        for (index, folder) in folders.iter().enumerate() {
            let has_own_place = index == 0 && geometry.kind != Kind::Fat32;
            let slots = if index == 0 { 1 } else { 2 } + folder.slots();
            let len_bytes = if has_own_place { 0 } else { (slots * SLOT_BYTES) as u64 };
            let placed = run(len_bytes, next)?;
            next = placed.1;
            folder_runs.push(placed.0);
        }
        let mut file_runs = Vec::new();
        for (_, content) in &files.files {
            let placed = run(content.len_bytes(), geometry.aligned(next))?;
            next = placed.1;
            file_runs.push(placed.0);
        }
        Some(Self { folders: folder_runs, files: file_runs, end })
    }

    fn runs(&self) -> impl Iterator<Item = Run> {
        self.folders.iter().chain(&self.files).copied().filter(|run| run.clusters > 0)
    }
}

struct Writer<'a> {
    geometry: Geometry,
    layout: Layout,
    folders: &'a [Folder],
    files: &'a FatFiles,
    serial: [u8; 4],
}

impl Writer<'_> {
    fn volume(&self) -> FatVolume {
        let mut extents = Extents::default();
        let boot = self.boot_sector();
        extents.put_bytes(0, boot);
        if self.geometry.kind == Kind::Fat32 {
            let information = self.information_sector();
            extents.put_bytes(SECTOR_BYTES, information);
            extents.put_bytes(6 * SECTOR_BYTES, boot);
            extents.put_bytes(7 * SECTOR_BYTES, information);
        }
        let table = self.table();
        extents.put_bytes(self.geometry.fat_offset(0), &table);
        extents.put_bytes(self.geometry.fat_offset(1), &table);
        for index in 0..self.folders.len() {
            extents.put_bytes(self.folder_offset(index), self.folder_bytes(index));
        }
        let mut offsets = BTreeMap::new();
        for ((path, content), run) in self.files.files.iter().zip(&self.layout.files) {
            let offset = if run.clusters == 0 { 0 } else { self.geometry.offset_of(run.first) };
            if run.clusters > 0 {
                extents.put_extents(offset, content);
            }
            offsets.insert(path.clone(), offset);
        }
        extents.extend_to(u64::from(self.geometry.sectors) * SECTOR_BYTES);
        FatVolume { extents, is_fat32: self.geometry.kind == Kind::Fat32, offsets }
    }

    fn boot_sector(&self) -> [u8; SECTOR_LEN] {
        let Geometry { kind, sectors, reserved_sectors, fat_sectors, cluster_sectors, .. } = self.geometry;
        let is_fat32 = kind == Kind::Fat32;
        let mut boot = [0; SECTOR_LEN];
        let mut put = |at: usize, bytes: &[u8]| boot[at..at + bytes.len()].copy_from_slice(bytes);
        let word = |number: u32| u16::try_from(number).unwrap_or(0).to_le_bytes();
        put(3, b"MSWIN4.1");
        put(11, &word(512));
        put(13, &word(cluster_sectors)[..1]);
        put(14, &word(reserved_sectors));
        put(16, &[2]);
        put(17, &word(if is_fat32 { 0 } else { ROOT_ENTRIES }));
        match u16::try_from(sectors) {
            Ok(_) if !is_fat32 => put(19, &word(sectors)),
            _ => put(32, &sectors.to_le_bytes()),
        }
        put(21, &[MEDIA]);
        put(24, &word(63));
        put(26, &word(255));
        put(28, &self.files.start_sector.to_le_bytes());
        // 36 bytes are common to all kinds; of the rest each has its own place.
        let rest = if is_fat32 {
            put(36, &fat_sectors.to_le_bytes());
            put(44, &2_u32.to_le_bytes());
            put(48, &word(1));
            put(50, &word(6));
            64
        } else {
            put(22, &word(fat_sectors));
            36
        };
        let name: &[u8; 8] = match kind {
            Kind::Fat12 => b"FAT12   ",
            Kind::Fat16 => b"FAT16   ",
            Kind::Fat32 => b"FAT32   ",
        };
        put(rest, &[0x80, 0, 0x29]);
        put(rest + 3, &self.serial);
        put(rest + 7, &self.label());
        put(rest + 18, name);
        // Whoever starts it as a program: `int 0x18`, the BIOS goes on to the next disk; then it stays where it is.
        let code = u8::try_from(rest + 26).unwrap_or(0);
        put(usize::from(code), &[0xcd, 0x18, 0xeb, 0xfe]);
        put(0, &[0xeb, code - 2, 0x90]);
        put(510, &[0x55, 0xaa]);
        boot
    }

    /// FSInfo: how many clusters are free, and from where on.
    fn information_sector(&self) -> [u8; SECTOR_LEN] {
        let used: u32 = self.layout.runs().map(|run| run.clusters).sum();
        let mut sector = [0; SECTOR_LEN];
        sector[..4].copy_from_slice(b"RRaA");
        sector[484..488].copy_from_slice(b"rrAa");
        sector[488..492].copy_from_slice(&(self.geometry.clusters - used).to_le_bytes());
        sector[492..496].copy_from_slice(&self.layout.end.min(self.geometry.clusters + 1).to_le_bytes());
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        sector
    }

    /// The table as far as clusters are in use.
    fn table(&self) -> Vec<u8> {
        let end = self.geometry.kind.end();
        let mut entries = vec![0; self.layout.end as usize];
        entries[0] = end - 0xff + u32::from(MEDIA);
        entries[1] = end;
        for run in self.layout.runs() {
            let last = run.first + run.clusters - 1;
            for cluster in run.first..=last {
                entries[cluster as usize] = if cluster == last { end } else { cluster + 1 };
            }
        }
        match self.geometry.kind {
            Kind::Fat12 => entries
                .chunks(2)
                .flat_map(|pair| (pair[0] | pair.get(1).unwrap_or(&0) << 12).to_le_bytes().into_iter().take(3))
                .collect(),
            Kind::Fat16 => entries.iter().flat_map(|entry| entry.to_le_bytes().into_iter().take(2)).collect(),
            Kind::Fat32 => entries.iter().flat_map(|entry| entry.to_le_bytes()).collect(),
        }
    }

    fn folder_offset(&self, index: usize) -> u64 {
        match self.layout.folders[index] {
            Run { clusters: 0, .. } => self.geometry.root_offset(),
            run => self.geometry.offset_of(run.first),
        }
    }

    fn folder_bytes(&self, index: usize) -> Vec<u8> {
        let stamp = Stamp::of(self.files.time_s);
        let parent = self.folders[index].parent;
        let mut bytes = match index {
            0 => folder::label_slot(&self.label(), stamp).to_vec(),
            // The root's number is not told.
            _ if parent == 0 => folder::dot_slots(self.layout.folders[index].first, 0, stamp),
            _ => folder::dot_slots(self.layout.folders[index].first, self.layout.folders[parent].first, stamp),
        };
        bytes.extend(self.folders[index].bytes(stamp, |target| match target {
            Target::Folder(folder) => Place { cluster: self.layout.folders[folder].first, len_bytes: 0 },
            Target::File(file) => Place {
                cluster: self.layout.files[file].first,
                // No file is longer than the limit, which was looked at.
                len_bytes: u32::try_from(self.files.files[file].1.len_bytes()).unwrap_or(u32::MAX),
            },
        }));
        bytes
    }

    fn label(&self) -> [u8; 11] {
        let mut label = [b' '; 11];
        for (to, from) in label.iter_mut().zip(self.files.label.bytes()) {
            *to = from.to_ascii_uppercase();
        }
        label
    }
}

#[cfg(test)]
mod tests;

//! What a block device holds, told by its superblock: which file system, how it is called, how long it is.

use std::io;
use std::os::unix::fs::FileExt;

/// Length of `s` in a volume's name, ISO 9660's being the longest.
const NAME_BYTES: usize = 32;

/// A file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSystem {
    /// As mount(2) calls it.
    pub kind: &'static str,
    /// Its label, if it has one.
    pub label: Option<String>,
    /// Its UUID, in lower case, if it has one.
    pub uuid: Option<String>,
    /// Its length in bytes, where it is of use: of those that are never written.
    pub len_bytes: u64,
}

/// Reads `device`. `None` if it holds none of the file systems that are known here.
///
/// # Errors
/// The device's, unless it is too short.
pub fn read(device: &impl FileExt) -> io::Result<Option<FileSystem>> {
    for known in [squashfs, erofs, iso9660, ext, xfs, btrfs, vfat] {
        match known(device) {
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            found => return found,
        }
    }
    Ok(None)
}

/// Linux' `fs/squashfs/squashfs_fs.h`. It has neither label nor UUID.
fn squashfs(device: &impl FileExt) -> io::Result<Option<FileSystem>> {
    let block: [u8; 96] = bytes(device, 0)?;
    if block[..4] != *b"hsqs" {
        return Ok(None);
    }
    Ok(Some(FileSystem { kind: "squashfs", label: None, uuid: None, len_bytes: u64_at(&block, 40) }))
}

/// Linux' `fs/erofs/erofs_fs.h`.
fn erofs(device: &impl FileExt) -> io::Result<Option<FileSystem>> {
    let block: [u8; 128] = bytes(device, 1024)?;
    let (block_bits, blocks) = (block[12], u64::from(u32_at(&block, 36)));
    if u32_at(&block, 0) != 0xe0f5_e1e2 || block_bits > 16 {
        return Ok(None);
    }
    let len_bytes = blocks << block_bits;
    Ok(Some(FileSystem { kind: "erofs", label: text(&block[64..80]), uuid: uuid(&block[48..64]), len_bytes }))
}

/// ECMA-119, 8.4: the primary volume descriptor is the 17th sector. The UUID is the time of the last change, as util-linux
/// has it.
fn iso9660(device: &impl FileExt) -> io::Result<Option<FileSystem>> {
    let block: [u8; 2048] = bytes(device, 16 * 2048)?;
    if block[..6] != *b"\x01CD001" {
        return Ok(None);
    }
    let time = [830, 813].into_iter().find_map(|at| time(&block[at..at + 16]));
    let len_bytes = u64::from(u32_at(&block, 80)) * 2048;
    Ok(Some(FileSystem { kind: "iso9660", label: text(&block[40..40 + NAME_BYTES]), uuid: time, len_bytes }))
}

/// Linux' `Documentation/filesystems/ext4/super.rst`. ext4's driver has ext2 and ext3 too.
fn ext(device: &impl FileExt) -> io::Result<Option<FileSystem>> {
    let block: [u8; 136] = bytes(device, 1024)?;
    if block[56..58] != [0x53, 0xef] {
        return Ok(None);
    }
    Ok(Some(FileSystem { kind: "ext4", label: text(&block[120..136]), uuid: uuid(&block[104..120]), len_bytes: 0 }))
}

/// Linux' `fs/xfs/libxfs/xfs_format.h`.
fn xfs(device: &impl FileExt) -> io::Result<Option<FileSystem>> {
    let block: [u8; 120] = bytes(device, 0)?;
    if block[..4] != *b"XFSB" {
        return Ok(None);
    }
    Ok(Some(FileSystem { kind: "xfs", label: text(&block[108..120]), uuid: uuid(&block[32..48]), len_bytes: 0 }))
}

/// Linux' `include/uapi/linux/btrfs_tree.h`: the first superblock.
fn btrfs(device: &impl FileExt) -> io::Result<Option<FileSystem>> {
    let block: [u8; 0x22b] = bytes(device, 0x1_0000)?;
    if block[0x40..0x48] != *b"_BHRfS_M" {
        return Ok(None);
    }
    let label = text(&block[0x12b..]);
    Ok(Some(FileSystem { kind: "btrfs", label, uuid: uuid(&block[0x20..0x30]), len_bytes: 0 }))
}

/// Microsoft's FAT specification (1.03), "Boot Sector and BPB". The serial number stands for a UUID.
fn vfat(device: &impl FileExt) -> io::Result<Option<FileSystem>> {
    let block: [u8; 512] = bytes(device, 0)?;
    let (label, serial) = match (&block[54..57], &block[82..87]) {
        (b"FAT", _) => (&block[43..54], u32_at(&block, 39)),
        (_, b"FAT32") => (&block[71..82], u32_at(&block, 67)),
        _ => return Ok(None),
    };
    if block[510..] != [0x55, 0xaa] {
        return Ok(None);
    }
    let label = text(label).filter(|label| label != "NO NAME");
    let uuid = Some(format!("{:04x}-{:04x}", serial >> 16, serial & 0xffff));
    Ok(Some(FileSystem { kind: "vfat", label, uuid, len_bytes: 0 }))
}

fn bytes<const N: usize>(device: &impl FileExt, offset: u64) -> io::Result<[u8; N]> {
    let mut block = [0; N];
    device.read_exact_at(&mut block, offset)?;
    Ok(block)
}

/// A little-endian number at `offset`, zero if that is outside.
pub fn u32_at(block: &[u8], offset: usize) -> u32 {
    block.get(offset..offset + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// As [`u32_at`].
pub fn u64_at(block: &[u8], offset: usize) -> u64 {
    block.get(offset..offset + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// Up to the first NUL, without spaces behind.
fn text(field: &[u8]) -> Option<String> {
    let field = field.split(|byte| *byte == 0).next().unwrap_or_default();
    let text = String::from_utf8_lossy(field).trim_end().to_owned();
    (!text.is_empty()).then_some(text)
}

fn uuid(field: &[u8]) -> Option<String> {
    field.iter().any(|byte| *byte != 0).then(|| dashed(field))
}

/// Sixteen bytes with dashes, as UUIDs are written.
pub fn dashed(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (at, byte) in bytes.iter().enumerate() {
        if [4, 6, 8, 10].contains(&at) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// `YYYYMMDDhhmmsscc`, with dashes; none if all of it is zero.
fn time(field: &[u8]) -> Option<String> {
    if !field.iter().all(u8::is_ascii_digit) || field.iter().all(|digit| *digit == b'0') {
        return None;
    }
    let digits = String::from_utf8_lossy(field);
    let parts = [0..4, 4..6, 6..8, 8..10, 10..12, 12..14, 14..16].map(|range| digits.get(range).unwrap_or_default());
    Some(parts.join("-"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn device(pieces: &[(usize, &[u8])]) -> std::fs::File {
        let mut bytes = vec![0; 68 << 10];
        for (at, piece) in pieces {
            bytes[*at..at + piece.len()].copy_from_slice(piece);
        }
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        file
    }

    #[test]
    fn what_is_too_short_or_nothing_known_is_no_file_system() {
        for len in [0, 3, 1100, 40_000] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&vec![b'x'; len]).unwrap();
            assert_eq!(read(&file).unwrap(), None, "{len}");
        }
        // Block size of 2^255.
        let absurd = device(&[(1024, &0xe0f5_e1e2_u32.to_le_bytes()), (1036, &[255])]);
        assert_eq!(read(&absurd).unwrap(), None);
    }

    #[test]
    fn names_and_lengths_are_read() {
        let squashfs = read(&device(&[(0, b"hsqs"), (40, &12345_u64.to_le_bytes())])).unwrap().unwrap();
        assert_eq!((squashfs.kind, squashfs.len_bytes), ("squashfs", 12345));
        let erofs = read(&device(&[
            (1024, &0xe0f5_e1e2_u32.to_le_bytes()),
            (1036, &[12]),
            (1060, &7_u32.to_le_bytes()),
            (1072, &[0x11; 16]),
            (1088, b"my root\0\0"),
        ]));
        let erofs = erofs.unwrap().unwrap();
        assert_eq!((erofs.kind, erofs.len_bytes, erofs.label.as_deref()), ("erofs", 7 << 12, Some("my root")));
        assert_eq!(erofs.uuid.as_deref(), Some("11111111-1111-1111-1111-111111111111"));
        let iso = read(&device(&[
            (32768, b"\x01CD001"),
            (32808, b"LinuxKit      "),
            (32848, &99_u32.to_le_bytes()),
            (33581, b"2017041816300000"),
            (33598, b"0000000000000000"),
        ]));
        let iso = iso.unwrap().unwrap();
        assert_eq!((iso.kind, iso.label.as_deref(), iso.len_bytes), ("iso9660", Some("LinuxKit"), 99 * 2048));
        assert_eq!(iso.uuid.as_deref(), Some("2017-04-18-16-30-00-00"));
        let ext = read(&device(&[(1080, &[0x53, 0xef]), (1144, b"data")])).unwrap().unwrap();
        assert_eq!((ext.kind, ext.label.as_deref(), ext.uuid), ("ext4", Some("data"), None));
        let xfs = read(&device(&[(0, b"XFSB"), (32, &[0x22; 16]), (108, b"big\0")])).unwrap().unwrap();
        assert_eq!((xfs.kind, xfs.label.as_deref()), ("xfs", Some("big")));
        let btrfs = read(&device(&[(0x1_0040, b"_BHRfS_M"), (0x1_012b, b"tree")])).unwrap().unwrap();
        assert_eq!((btrfs.kind, btrfs.label.as_deref(), btrfs.uuid), ("btrfs", Some("tree"), None));
        let fat = |pieces: &[(usize, &[u8])]| read(&device(pieces)).unwrap().map(|fat| (fat.label, fat.uuid));
        let end: (usize, &[u8]) = (510, &[0x55, 0xaa]);
        let small = fat(&[(39, &[0x34, 0x12, 0xcd, 0xab]), (43, b"CIDATA     FAT16   "), end]);
        assert_eq!(small, Some((Some("CIDATA".into()), Some("abcd-1234".into()))));
        let large = fat(&[(71, b"NO NAME    FAT32   "), end]);
        assert_eq!(large, Some((None, Some("0000-0000".into()))));
        assert_eq!(fat(&[(82, b"FAT32")]), None);
    }
}

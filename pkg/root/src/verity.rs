//! dm-verity: the hash tree stands behind the file system, with a superblock in front as cryptsetup writes it
//! (`Documentation/admin-guide/device-mapper/verity.rst`, cryptsetup's wiki "DMVerity").

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use kiln_guest::device_mapper::{self, Access, Target};

use crate::wanted::OnDamage;
use kiln_guest::block::superblock::{FileSystem, u32_at, u64_at};

/// Where the superblock starts is a multiple of this, in bytes.
const ALIGN_BYTES: u64 = 4096;
const SUPERBLOCK_BYTES: usize = 512;
const SALT_LIMIT_BYTES: usize = 256;
/// Name of the checked device.
const NAME: &str = "kiln-root";

/// Why a root is not trusted.
#[derive(Debug, thiserror::Error)]
pub enum VerityError {
    /// There is nothing to check it with.
    #[error("there is a `roothash=`, and behind the {kind} on `{}` is no hash tree: it was built without `--verity`, or is cut", device.display())]
    NoTree {
        /// The device.
        device: PathBuf,
        /// Its file system.
        kind: &'static str,
    },
    /// The superblock cannot be right.
    #[error("the hash tree on `{}` has a superblock that is damaged or of another kind", device.display())]
    Superblock {
        /// The device.
        device: PathBuf,
    },
    /// It cannot be read.
    #[error("cannot read `{}`", device.display())]
    Read {
        /// The device.
        device: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel does not make the device.
    #[error("the kernel does not check `{}` by dm-verity", device.display())]
    Kernel {
        /// The device.
        device: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What a superblock says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Tree {
    algorithm: String,
    data_block_bytes: u32,
    hash_block_bytes: u32,
    data_blocks: u64,
    salt: String,
    /// First block of the tree itself, counted in its blocks.
    first_block: u64,
}

/// A device whose blocks are those of `path`, each checked when it is read. The file system on it is found as on any other.
pub fn checked(
    (path, device): (&Path, &File),
    file_system: &FileSystem,
    roothash: &str,
    on_damage: OnDamage,
) -> Result<PathBuf, VerityError> {
    let offset = file_system.len_bytes.checked_next_multiple_of(ALIGN_BYTES).filter(|offset| *offset > 0);
    let no_tree = || VerityError::NoTree { device: path.into(), kind: file_system.kind };
    let mut superblock = [0; SUPERBLOCK_BYTES];
    let offset = offset.ok_or_else(no_tree)?;
    match device.read_exact_at(&mut superblock, offset) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(no_tree()),
        Err(source) => return Err(VerityError::Read { device: path.into(), source }),
        Ok(()) if superblock[..8] != *b"verity\0\0" => return Err(no_tree()),
        Ok(()) => {}
    }
    let tree = read(&superblock, offset).ok_or_else(|| VerityError::Superblock { device: path.into() })?;
    let target = target(path, &tree, roothash, on_damage);
    device_mapper::create(NAME, &target).map_err(|source| VerityError::Kernel { device: path.into(), source })
}

fn read(block: &[u8; SUPERBLOCK_BYTES], offset: u64) -> Option<Tree> {
    let (version, kind) = (u32_at(block, 8), u32_at(block, 12));
    let (data_block_bytes, hash_block_bytes) = (u32_at(block, 64), u32_at(block, 68));
    let salt_bytes = usize::from(u16::from_le_bytes([block[80], block[81]]));
    let sizes = [data_block_bytes, hash_block_bytes];
    let sizes_fit = sizes.into_iter().all(|bytes| bytes.is_power_of_two() && (512..=1 << 19).contains(&bytes));
    if version != 1 || kind != 1 || !sizes_fit || salt_bytes > SALT_LIMIT_BYTES {
        return None;
    }
    let data_blocks = u64_at(block, 72);
    if data_blocks == 0 || data_blocks.checked_mul(data_block_bytes.into())? > offset {
        return None;
    }
    let algorithm = block[32..64].split(|byte| *byte == 0).next()?;
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
    let algorithm = Some(algorithm).filter(|name| !name.is_empty() && name.iter().all(is_name))?;
    let salt = block.get(88..88 + salt_bytes)?.iter().map(|byte| format!("{byte:02x}")).collect();
    let first_block = (offset + SUPERBLOCK_BYTES as u64).div_ceil(hash_block_bytes.into());
    let algorithm = String::from_utf8_lossy(algorithm).into_owned();
    Some(Tree { algorithm, data_block_bytes, hash_block_bytes, data_blocks, salt, first_block })
}

fn target(path: &Path, tree: &Tree, roothash: &str, on_damage: OnDamage) -> Target {
    let Tree { algorithm, data_block_bytes, hash_block_bytes, data_blocks, salt, first_block } = tree;
    let device = path.display();
    let salt = if salt.is_empty() { "-" } else { salt };
    let mut parameters = format!(
        "1 {device} {device} {data_block_bytes} {hash_block_bytes} {data_blocks} {first_block} {algorithm} {roothash} {salt}"
    );
    parameters.push_str(match on_damage {
        OnDamage::Error => "",
        OnDamage::Panic => " 1 panic_on_corruption",
        OnDamage::Reboot => " 1 restart_on_corruption",
    });
    Target {
        access: Access::Read,
        sectors: data_blocks * u64::from(data_block_bytes / 512),
        kind: "verity",
        parameters,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "ab";

    fn superblock(edit: impl FnOnce(&mut [u8; SUPERBLOCK_BYTES])) -> [u8; SUPERBLOCK_BYTES] {
        let mut block = [0; SUPERBLOCK_BYTES];
        block[..8].copy_from_slice(b"verity\0\0");
        block[8] = 1;
        block[12] = 1;
        block[32..38].copy_from_slice(b"sha256");
        block[64..68].copy_from_slice(&4096_u32.to_le_bytes());
        block[68..72].copy_from_slice(&4096_u32.to_le_bytes());
        block[72..80].copy_from_slice(&5_u64.to_le_bytes());
        edit(&mut block);
        block
    }

    #[test]
    fn a_superblock_that_cannot_be_right_is_refused() {
        let edits: [fn(&mut [u8; SUPERBLOCK_BYTES]); 9] = [
            |block| block[8] = 2,
            |block| block[12] = 0,
            |block| block[64] = 1,
            |block| block[71] = 0x80,
            |block| block[72] = 0,
            |block| block[72] = 6,
            |block| block[79] = 0xff,
            |block| block[81] = 2,
            |block| block[32] = b' ',
        ];
        for (number, edit) in edits.into_iter().enumerate() {
            assert_eq!(read(&superblock(edit), 5 * 4096), None, "{number}");
        }
    }

    #[test]
    fn a_root_without_a_tree_behind_it_is_no_checked_root() {
        let file = tempfile::tempfile().unwrap();
        let root = |len_bytes| FileSystem { kind: "squashfs", label: None, uuid: None, len_bytes };
        file.set_len(20_000).unwrap();
        for len_bytes in [0, 1, 19_000, 30_000, u64::MAX] {
            let error = checked((Path::new("/dev/x"), &file), &root(len_bytes), HASH, OnDamage::Error).unwrap_err();
            assert!(matches!(error, VerityError::NoTree { .. }), "{len_bytes}: {error}");
        }
    }

    #[test]
    fn the_kernel_is_told_what_the_superblock_says() {
        let tree = read(&superblock(|_| {}), 5 * 4096).unwrap();
        let made = target(Path::new("/dev/vda"), &tree, HASH, OnDamage::Error);
        assert_eq!(made.parameters, "1 /dev/vda /dev/vda 4096 4096 5 6 sha256 ab -");
        assert_eq!(made.sectors, 40);
        let salted =
            read(&superblock(|block| block[80..90].copy_from_slice(&[2, 0, 0, 0, 0, 0, 0, 0, 1, 0xfe])), 5 * 4096);
        let made = target(Path::new("/dev/vda"), &salted.unwrap(), HASH, OnDamage::Panic);
        assert!(made.parameters.ends_with(" ab 01fe 1 panic_on_corruption"), "{}", made.parameters);
    }
}

//! Swap that is encrypted with a key which nobody keeps: a file, a loop device of it, dm-crypt over that. Nothing but the
//! kernel has the key, and it is gone when the machine ends.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use kiln_guest::block::loops;
use kiln_guest::device_mapper::{self, Access, Target};

use crate::disk::random;

/// AES-256 in XTS, which takes two keys.
const CIPHER: &str = "aes-xts-plain64";
const KEY_BYTES: usize = 64;

/// Makes an encrypted block device of `file`, which is on no path that anybody else may write. Gives its node, and the name
/// by which it is removed.
///
/// # Errors
/// The kernel's: it lacks loop devices, device mapper (`ENODEV`) or the cipher (`EINVAL`).
pub(super) fn device(file: &File, bytes: u64) -> io::Result<(PathBuf, String)> {
    // Held until device mapper holds it.
    let plain = loops::attach(file)?;
    let number = plain.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let name = format!("swap-{number}");
    let node = device_mapper::create(&name, &target(&plain.path, bytes, &random()?))?;
    Ok((node, name))
}

fn target(plain: &Path, bytes: u64, key: &[u8; KEY_BYTES]) -> Target {
    let key: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let parameters = format!("{CIPHER} {key} 0 {} 0", plain.display());
    Target { access: Access::Write, sectors: bytes / 512, kind: "crypt", parameters }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dm_crypt_is_told_cipher_key_and_device_and_nobody_else_the_key() {
        let target = target(Path::new("/dev/loop3"), 4097, &[0xab; KEY_BYTES]);
        assert_eq!((target.sectors, target.kind, target.access), (8, "crypt", Access::Write));
        assert_eq!(target.parameters, format!("aes-xts-plain64 {} 0 /dev/loop3 0", "ab".repeat(64)));
        assert!(!format!("{target:?}").contains("abab"));
    }
}

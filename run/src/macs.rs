//! The hardware addresses of a machine's network cards: made by chance once, then kept in its state folder, so that a
//! guest finds the same cards at every start.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use kiln_net::wire::Mac;
use rustix::rand::{GetRandomFlags, getrandom};

/// File in the state folder: the folder's own number, then an address a line.
const FILE: &str = "mac";
/// Its most bytes: more cards than a machine has places for.
const FILE_BYTES: usize = 4096;
/// Start of all addresses: the block that virtual machines have long used, locally administered (IEEE 802, section 8.4).
const PREFIX: [u8; 3] = [0x52, 0x54, 0x00];

/// The addresses cannot be kept.
#[derive(Debug, thiserror::Error)]
#[error("cannot keep the addresses of network cards in `{}`", path.display())]
pub struct MacError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// The addresses of the first `count` cards of the machine whose state folder this is. Those that are new are kept there.
/// A copy of the folder is another machine, and gets others.
///
/// # Errors
/// The file can be neither read nor written.
pub(crate) fn kept(state_dir: &Path, count: usize) -> Result<Vec<Mac>, MacError> {
    let path = state_dir.join(FILE);
    let failed = |source| MacError { path: path.clone(), source };
    let folder = fs::metadata(state_dir).map_err(failed)?.ino();
    let text = match fs::read(&path) {
        Ok(bytes) if bytes.len() <= FILE_BYTES => String::from_utf8_lossy(&bytes).into_owned(),
        Ok(_) => String::new(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(failed(error)),
    };
    let mut macs = read(&text, folder);
    if macs.len() >= count {
        macs.truncate(count);
        return Ok(macs);
    }
    while macs.len() < count {
        let mac = random().map_err(failed)?;
        if !macs.contains(&mac) {
            macs.push(mac);
        }
    }
    let lines: String = macs.iter().map(|mac| format!("{mac}\n")).collect();
    let fresh = path.with_extension("new");
    fs::write(&fresh, format!("folder {folder}\n{lines}")).and_then(|()| fs::rename(&fresh, &path)).map_err(failed)?;
    Ok(macs)
}

/// What the file holds; nothing if it is of another folder, or not as it was written.
fn read(text: &str, folder: u64) -> Vec<Mac> {
    let mut lines = text.lines();
    if lines.next().and_then(|line| line.strip_prefix("folder ")?.parse().ok()) != Some(folder) {
        return Vec::new();
    }
    lines.map_while(|line| line.parse().ok()).filter(|mac: &Mac| !mac.is_group()).collect()
}

fn random() -> io::Result<Mac> {
    let mut last = [0; 3];
    getrandom(&mut last[..], GetRandomFlags::empty())?;
    let ([a, b, c], [d, e, f]) = (PREFIX, last);
    Ok(Mac([a, b, c, d, e, f]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_broken_or_of_another_folder_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(FILE);
        let own = fs::metadata(folder.path()).unwrap().ino();
        for text in ["", "folder", "folder 1\n52:54:00:00:00:01\n", "nonsense\n52:54:00:00:00:01\n"] {
            fs::write(&file, text).unwrap();
            let macs = kept(folder.path(), 1).unwrap();
            assert!(macs[0].0.starts_with(&PREFIX) && macs[0].0 != [0x52, 0x54, 0, 0, 0, 1], "{text}: {macs:?}");
        }
        fs::write(&file, format!("folder {own}\n52:54:00:00:00:01\nnonsense\n52:54:00:00:00:02\n")).unwrap();
        let macs = kept(folder.path(), 2).unwrap();
        assert_eq!(macs[0], Mac([0x52, 0x54, 0, 0, 0, 1]));
        assert_ne!(macs[1], Mac([0x52, 0x54, 0, 0, 0, 2]));
        assert_eq!(kept(folder.path(), 2).unwrap(), macs);
    }
}

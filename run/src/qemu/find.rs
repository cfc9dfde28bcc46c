//! Which QEMU there is.

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// An installed QEMU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qemu {
    /// The program.
    pub path: PathBuf,
    /// What it calls itself, such as `7.2.22`; empty when it does not say.
    pub version: String,
}

/// Name of the program that emulates this host's architecture.
pub fn program() -> String {
    format!("qemu-system-{}", std::env::consts::ARCH)
}

/// Looks for [`program`] in a `PATH` and asks it for its version.
pub fn find(search_path: &OsStr) -> Option<Qemu> {
    let path = executable(&program(), search_path)?;
    let said = Command::new(&path).arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    Some(Qemu { version: version_word(&String::from_utf8_lossy(&said.stdout)), path })
}

/// The first executable file of this name in a `PATH`.
fn executable(name: &str, search_path: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(search_path)
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.mode() & 0o111 != 0))
}

fn version_word(said: &str) -> String {
    let mut words = said.split_ascii_whitespace().skip_while(|word| *word != "version");
    words.nth(1).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_word_after_version() {
        assert_eq!(version_word("QEMU emulator version 7.2.22 (Debian 1:7.2)\n"), "7.2.22");
        assert_eq!(version_word("nonsense"), "");
    }

    #[test]
    fn a_program_that_may_not_be_executed_is_not_found() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("prog"), "").unwrap();
        assert_eq!(executable("prog", folder.path().as_os_str()), None);
        assert!(executable("sh", OsStr::new("/nonexistent:/bin")).is_some());
    }
}

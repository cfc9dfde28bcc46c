//! Which QEMU there is.

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

/// Asks the program at `path` for its version; `None` when it does not start.
pub fn ask(path: PathBuf) -> Option<Qemu> {
    let said = Command::new(&path).arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    Some(Qemu { version: version_word(&String::from_utf8_lossy(&said.stdout)), path })
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
}

//! How the files of a machine are called.

use std::path::{Path, PathBuf};

/// `demo/minimal` and `-kernel` make `demo/minimal-kernel`.
pub fn with_suffix(name: &Path, suffix: &str) -> PathBuf {
    let mut path = name.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

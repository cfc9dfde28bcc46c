//! Programs, as a shell finds them.

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// The first executable file of this name in a `PATH`.
pub fn find_program(name: &str, search_path: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(search_path)
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.mode() & 0o111 != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_may_not_be_executed_is_not_found() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("prog"), "").unwrap();
        assert_eq!(find_program("prog", folder.path().as_os_str()), None);
        assert!(find_program("sh", OsStr::new("/nonexistent:/bin")).is_some());
    }
}

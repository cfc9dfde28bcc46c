//! What the tests stand on: the program under test, a registry, guests, and a place where KVM works.

pub mod firmware;
pub mod fixtures;
pub mod images;
pub mod initrd;
pub mod kiln;
pub mod kvm;
mod lab;
pub mod layout;
pub mod listing;
pub mod pcap;
pub mod registry;
pub mod roots;

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// The root of the tree under test, without links and dots.
pub fn tree() -> &'static Path {
    static TREE: LazyLock<PathBuf> = LazyLock::new(|| {
        let above = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests' package is in the tree");
        std::fs::canonicalize(above).expect("the tree is there")
    });
    &TREE
}

/// A folder that outlives a run, for what is costly to fetch and never changes. Below the target folder, so that
/// `cargo clean` removes it.
pub fn cache_dir() -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kiln-tests");
    std::fs::create_dir_all(&dir).expect("the target folder is writable");
    dir
}

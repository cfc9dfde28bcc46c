//! `kernel+iso`: the root less what is in `boot`, for a kernel that is started by someone else.

use super::{IsoOptions, volume};
use crate::format::{Extents, FormatError};
use crate::tree::{Tree, TreePath};

/// What LinuxKit calls its volumes.
pub(super) const LABEL: &str = "LinuxKit";

/// The volume.
pub(super) fn kernel_iso(tree: &Tree) -> Result<Extents, FormatError> {
    let root = without_boot(tree);
    Ok(volume(&root, &IsoOptions { label: LABEL, is_bootable: false, elsewhere: &[] })?)
}

/// What is in `boot` is for who starts the kernel.
fn without_boot(tree: &Tree) -> Tree {
    let mut root = tree.clone();
    root.clear(&TreePath::from_user("boot").unwrap_or_default());
    root
}

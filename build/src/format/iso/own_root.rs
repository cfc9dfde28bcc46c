//! What the ISOs whose volume is the root share: how a kernel gets at it, and what tells one from another.

use super::uuid;
use crate::format::root::{RootOn, RootWords, boot_initrd, cmdline};
use crate::format::{FormatError, Material, Watch};
use crate::tree::{Body, TreePath};

/// The initrd that finds the volume, if the kernel cannot mount it alone, and the command line. A kernel knows no volume by
/// its UUID; then it is the drive that LinuxKit names.
pub(super) fn own_root(material: &Material<'_>, watch: Watch<'_>) -> Result<(Option<Body>, Vec<u8>), FormatError> {
    let initrd = boot_initrd(material, RootOn::Iso, watch)?;
    let device = match (&initrd, material.options.architecture.as_str()) {
        (Some(_), _) => format!("UUID={}", uuid(material.tree)),
        (None, "arm64") => "/dev/vda".into(),
        (None, _) => "/dev/sr0".into(),
    };
    let cmdline = cmdline(material, RootOn::Iso, RootWords { device: &device, roothash: None })?;
    Ok((initrd, cmdline))
}

pub(super) fn path(name: &str) -> TreePath {
    TreePath::from_user(name).unwrap_or_default()
}

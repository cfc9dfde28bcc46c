//! Kernel, initrd and command line as one tar: what image makers take on their standard input.

use super::{FormatError, Material, Sink, Watch, file, initrd, spooled, tar};
use crate::tree::{Attributes, CMDLINE_PATH, KERNEL_PATH, Kind, Origin, Tree, TreePath, UCODE_PATH};

/// Writes what `tree` has of it, in LinuxKit's order. The microcode is a member of its own, not in front of the initrd.
pub(super) fn write(material: &Material<'_>, sink: &mut dyn Sink, watch: Watch<'_>) -> Result<(), FormatError> {
    let tree = material.tree;
    let initrd = spooled(watch, |sink| initrd::write_root(material, sink, watch))?;
    let members = [
        ("kernel", file(tree, KERNEL_PATH).cloned()),
        ("initrd.img", Some(initrd)),
        ("cmdline", file(tree, CMDLINE_PATH).cloned()),
        ("ucode.cpio", file(tree, UCODE_PATH).cloned()),
    ];
    let mut all = Tree::new(tree.implied_mtime_s());
    all.set_origin(Origin::default());
    for (name, body) in members {
        let Some(body) = body.filter(|body| !body.is_empty()) else { continue };
        let path = TreePath::from_user(name).unwrap_or_default();
        let attributes = Attributes::of_root(0o644, tree.implied_mtime_s());
        all.put(&path, attributes, Kind::File(body)).map_err(|source| FormatError::Tree { path: name, source })?;
    }
    tar::write(&all, sink, watch)
}

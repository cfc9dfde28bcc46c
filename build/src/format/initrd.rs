//! The initial RAM disk: microcode as it is, then the root as one gzip stream of a cpio archive.

use super::{FormatError, Material, Sink, Watch, copy, cpio, file, gzip};
use crate::tree::UCODE_PATH;

pub(super) fn write(material: &Material<'_>, sink: &mut dyn Sink, watch: Watch<'_>) -> Result<(), FormatError> {
    if let Some(ucode) = file(material.tree, UCODE_PATH) {
        copy(ucode, sink, watch)?;
        // Linux wants what follows an archive at a multiple of four.
        let pad = usize::try_from(ucode.len().wrapping_neg() % 4).unwrap_or(0);
        sink.write_all(&[0; 4][..pad])?;
    }
    write_root(material, sink, watch)
}

/// The gzip stream alone.
pub(super) fn write_root(material: &Material<'_>, sink: &mut dyn Sink, watch: Watch<'_>) -> Result<(), FormatError> {
    let linked;
    let tree = match material.options.compat.is_linuxkit() {
        // LinuxKit knows no hard links in an initrd.
        true => {
            let links = material.tree.with_symlinks_for_hard_links();
            linked = links.map_err(|source| FormatError::Tree { path: "the links of the initrd", source })?;
            &linked
        }
        false => material.tree,
    };
    gzip::compress(sink, material.packing, |packer| cpio::write(tree, packer, watch))?;
    sink.flush()?;
    Ok(())
}

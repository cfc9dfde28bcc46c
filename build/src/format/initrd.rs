//! The initial RAM disk: microcode as it is, then the root as one gzip stream of a cpio archive.

use super::{FormatError, Packing, Sink, Watch, copy, cpio, file, gzip};
use crate::tree::{Tree, UCODE_PATH};

pub(super) fn write(
    tree: &Tree,
    sink: &mut dyn Sink,
    packing: Packing<'_>,
    watch: Watch<'_>,
) -> Result<(), FormatError> {
    if let Some(ucode) = file(tree, UCODE_PATH) {
        copy(ucode, sink, watch)?;
        // Linux wants what follows an archive at a multiple of four.
        let pad = usize::try_from(ucode.len().wrapping_neg() % 4).unwrap_or(0);
        sink.write_all(&[0; 4][..pad])?;
    }
    write_root(tree, sink, packing, watch)
}

/// The gzip stream alone.
pub(super) fn write_root(
    tree: &Tree,
    sink: &mut dyn Sink,
    packing: Packing<'_>,
    watch: Watch<'_>,
) -> Result<(), FormatError> {
    gzip::compress(sink, packing, |packer| cpio::write(tree, packer, watch))?;
    sink.flush()?;
    Ok(())
}

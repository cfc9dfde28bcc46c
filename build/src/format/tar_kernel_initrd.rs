//! Kernel, initrd and command line as one tar: what image makers take on their standard input.

use std::io::{BufWriter, Write};
use std::sync::Arc;

use super::{FormatError, Packing, Sink, StreamSink, Watch, file, initrd, tar};
use crate::tree::{Attributes, Body, CMDLINE_PATH, KERNEL_PATH, Kind, Origin, Spool, Tree, TreePath, UCODE_PATH};

/// Writes what `tree` has of it, in LinuxKit's order. The microcode is a member of its own, not in front of the initrd.
pub(super) fn write(
    tree: &Tree,
    sink: &mut dyn Sink,
    packing: Packing<'_>,
    watch: Watch<'_>,
) -> Result<(), FormatError> {
    let spool = Spool::create(watch.folder)?;
    let mut packed = StreamSink(BufWriter::with_capacity(256 << 10, spool.file()));
    initrd::write_root(tree, &mut packed, packing, watch)?;
    packed.flush()?;
    drop(packed);
    let len = spool.file().metadata()?.len();
    let initrd = Body::Spooled { spool: Arc::new(spool), start: 0, len };
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

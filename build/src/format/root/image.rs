//! The root as one file for a disk: the file system and, if it is wanted, a dm-verity tree behind it.

use std::sync::Arc;

use super::super::{Extents, FileSink, FormatError, IsoFormat, Material, Sink, Watch, erofs, squashfs, verity};
use super::RootOn;
use crate::tree::{Body, Spool};

/// A root whose every byte is known.
#[derive(Debug, Clone)]
pub struct RootImage {
    /// The file.
    pub extents: Extents,
    /// Root hash of its dm-verity tree in hexadecimal digits, if it has one.
    pub roothash: Option<String>,
    /// What tells it from others: the first half of its root hash, also where no tree is wanted.
    pub uuid: [u8; 16],
}

/// Writes the root image. Without dm-verity nothing is written twice.
pub(in super::super) fn write(
    material: &Material<'_>,
    on: RootOn,
    sink: &mut dyn Sink,
    watch: Watch<'_>,
) -> Result<(), FormatError> {
    match material.options.verity {
        true => material.root(on, watch)?.extents.write(sink, watch),
        false => file_system(material, on, sink, watch),
    }
}

/// Makes the root image, in a spool.
pub(in super::super) fn image(material: &Material<'_>, on: RootOn, watch: Watch<'_>) -> Result<RootImage, FormatError> {
    let spool = Spool::create(watch.folder)?;
    let mut sink = FileSink::new(spool.file().try_clone()?);
    file_system(material, on, &mut sink, watch)?;
    let len = sink.finish()?.metadata()?.len();
    let body = Body::Spooled { spool: Arc::new(spool), start: 0, len };
    let sealed = verity::seal(Extents::from(body.clone()), material.packing.threads, watch)?;
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&sealed.root_hash[..16]);
    Ok(match material.options.verity {
        true => {
            let roothash = sealed.root_hash.iter().map(|byte| format!("{byte:02x}")).collect();
            RootImage { extents: sealed.extents, roothash: Some(roothash), uuid }
        }
        false => RootImage { extents: Extents::from(body), roothash: None, uuid },
    })
}

fn file_system(material: &Material<'_>, on: RootOn, sink: &mut dyn Sink, watch: Watch<'_>) -> Result<(), FormatError> {
    match on {
        RootOn::Erofs => erofs::write(material, sink, watch),
        RootOn::Squashfs => squashfs::write(material, sink, watch),
        RootOn::Iso => IsoFormat::Kernel.write(material, sink, watch),
    }
}

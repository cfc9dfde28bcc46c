//! The contents of OCI volumes: an image layout each (OCI image specification, `image-layout.md`), with the bytes that
//! LinuxKit's have.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use super::{AssembleError, Ingredients, own_path};
use crate::cancel::Cancel;
use crate::oci::{Digest, Layer, Store};
use crate::plan::Layout;
use crate::tree::{Body, Kind, Spool, Tree, TreeError};

/// `oci-layout`, as the library that LinuxKit uses writes it.
const LAYOUT_FILE: &str = "{\n\t\t\"imageLayoutVersion\": \"1.0.0\"\n\t}";

/// The layouts of OCI volumes and their blobs, by the number of the volume.
#[derive(Debug, Default)]
pub struct VolumeLayouts {
    layouts: BTreeMap<usize, Layout>,
    blobs: BTreeMap<Digest, Body>,
}

impl VolumeLayouts {
    /// Reads every blob out of the store, which verifies it. Contents go to unlinked files in `folder`.
    pub fn read(
        layouts: BTreeMap<usize, Layout>,
        store: &Store,
        folder: &Path,
        cancel: &Cancel,
    ) -> Result<Self, AssembleError> {
        let mut blobs = BTreeMap::new();
        for (layout, blob) in layouts.values().flat_map(|layout| layout.blobs.iter().map(move |blob| (layout, blob))) {
            if let Entry::Vacant(place) = blobs.entry(blob.digest) {
                place.insert(read(blob, layout, store, folder, cancel)?);
            }
        }
        Ok(Self { layouts, blobs })
    }

    /// The layout of a volume, if it is an OCI volume with an image.
    pub fn of(&self, volume: usize) -> Option<&Layout> {
        self.layouts.get(&volume)
    }

    /// Puts the layout of a volume into the folder `lower`.
    pub(super) fn put(
        &self,
        layout: &Layout,
        lower: &str,
        ingredients: &Ingredients<'_>,
        tree: &mut Tree,
    ) -> Result<(), TreeError> {
        for folder in ["", "/blobs", "/blobs/sha256"] {
            ingredients.generate(tree, &format!("{lower}{folder}"), 0o755, Kind::directory())?;
        }
        ingredients.generate(tree, &format!("{lower}/oci-layout"), 0o644, Kind::file(LAYOUT_FILE))?;
        ingredients.generate(tree, &format!("{lower}/index.json"), 0o644, Kind::file(index(layout)))?;
        for blob in &layout.blobs {
            if let Some(body) = self.blobs.get(&blob.digest) {
                let path = own_path(&format!("{lower}/blobs/sha256/{}", blob.digest.hex()));
                tree.put(&path, ingredients.generated(0o644), Kind::File(body.clone()))?;
            }
        }
        Ok(())
    }
}

fn index(layout: &Layout) -> String {
    let Layout { reference, index, media_type, size_bytes, .. } = layout;
    format!(
        r#"{{
   "schemaVersion": 2,
   "mediaType": "application/vnd.oci.image.index.v1+json",
   "manifests": [
      {{
         "mediaType": "{media_type}",
         "size": {size_bytes},
         "digest": "{index}",
         "annotations": {{
            "org.opencontainers.image.ref.name": "{reference}"
         }}
      }}
   ]
}}"#
    )
}

fn read(blob: &Layer, layout: &Layout, store: &Store, folder: &Path, cancel: &Cancel) -> Result<Body, AssembleError> {
    let spool = Spool::create(folder).map_err(|source| AssembleError::SpoolBlob { folder: folder.into(), source })?;
    let unreadable =
        |source| AssembleError::LayoutBlob { image: layout.reference.clone(), digest: blob.digest, source };
    let mut reader = store.open_layer(blob).map_err(|error| unreadable(io::Error::other(error)))?;
    let mut piece = vec![0; 128 << 10];
    loop {
        cancel.check()?;
        let count = reader.read(&mut piece).map_err(unreadable)?;
        if count == 0 {
            return Ok(Body::Spooled { spool: Arc::new(spool), start: 0, len: blob.size_bytes });
        }
        let written = spool.file().write_all(&piece[..count]);
        written.map_err(|source| AssembleError::SpoolBlob { folder: folder.into(), source })?;
    }
}

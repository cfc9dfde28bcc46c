//! What an OCI image layout of one image holds: its index, and for some of its platforms all that is below.

use super::put::TagEntry;
use super::{BlobKind, Store, StoreError};
use crate::oci::document::{Descriptor, Document, MANIFEST_BYTES_MAX, media_type, parse_document, select};
use crate::oci::{Digest, Layer, Platform, Reference};

impl Store {
    /// What the index behind a name is for; [`None`] if the name is unknown. Entries that describe others are left out.
    ///
    /// Errors: [`StoreError::NoIndex`] when the name means one platform's manifest.
    pub fn platforms(&self, reference: &Reference) -> Result<Option<Vec<Platform>>, StoreError> {
        let Some(root) = self.root_digest(reference)? else { return Ok(None) };
        let (entries, _) = self.index_entries(reference, root)?;
        let platforms = entries.into_iter().filter_map(|entry| entry.platform);
        Ok(Some(platforms.map(|entry| entry.to_platform()).filter(|platform| platform.os != "unknown").collect()))
    }

    /// The index behind a name, which is here, and every blob of `platforms`; of an empty list, every blob that is here.
    ///
    /// Errors: [`StoreError::NoIndex`], [`StoreError::Platform`], and [`StoreError::Missing`] for the index.
    pub fn layout(&self, reference: &Reference, platforms: &[Platform]) -> Result<(TagEntry, Vec<Layer>), StoreError> {
        let kind = BlobKind::Manifest;
        let root = self.root_digest(reference)?;
        let root = root.ok_or_else(|| StoreError::Unnamed { reference: reference.to_string() })?;
        let (entries, index) = self.index_entries(reference, root)?;
        let chosen: Vec<&Descriptor> = if platforms.is_empty() {
            entries.iter().collect()
        } else {
            let entry = |platform| {
                select(&entries, platform)
                    .ok_or_else(|| super::find::unavailable(&reference.to_string(), platform, &entries))
            };
            platforms.iter().map(entry).collect::<Result<_, _>>()?
        };
        let mut blobs =
            vec![Layer { digest: root, size_bytes: index.size_bytes, media_type: index.media_type.clone() }];
        for entry in chosen {
            let digest = entry.digest().map_err(|source| StoreError::Document { kind, digest: root, source })?;
            match self.manifest_blobs(digest, entry) {
                Ok(below) => blobs.extend(below),
                // An attestation that was never fetched. What it is about is whole.
                Err(StoreError::Missing { .. })
                    if entry.platform.as_ref().is_none_or(|platform| platform.os == "unknown") => {}
                Err(error) => return Err(error),
            }
        }
        blobs.sort_by_key(|blob| blob.digest);
        blobs.dedup_by_key(|blob| blob.digest);
        Ok((index, blobs))
    }

    fn index_entries(&self, reference: &Reference, root: Digest) -> Result<(Vec<Descriptor>, TagEntry), StoreError> {
        let kind = BlobKind::Manifest;
        let bytes = self.read_document(kind, &root, MANIFEST_BYTES_MAX)?;
        match parse_document(&bytes).map_err(|source| StoreError::Document { kind, digest: root, source })? {
            Document::Manifest(..) => Err(StoreError::NoIndex { reference: reference.to_string() }),
            Document::Index(entries) => {
                let size_bytes = bytes.len() as u64;
                Ok((entries, TagEntry { media_type: media_type(&bytes), digest: root, size_bytes, platform: None }))
            }
        }
    }

    fn manifest_blobs(&self, digest: Digest, entry: &Descriptor) -> Result<Vec<Layer>, StoreError> {
        let kind = BlobKind::Manifest;
        let fail = |source| StoreError::Document { kind, digest, source };
        let bytes = self.read_document(kind, &digest, MANIFEST_BYTES_MAX)?;
        let blob = |descriptor: &Descriptor| -> Result<Layer, StoreError> {
            let media_type = descriptor.media_type.clone();
            Ok(Layer { digest: descriptor.digest().map_err(fail)?, size_bytes: descriptor.size, media_type })
        };
        let Document::Manifest(config, layers) = parse_document(&bytes).map_err(fail)? else {
            return Ok(vec![blob(entry)?]); // an index below an index: its own entries are not for a platform
        };
        if let Some(layer) = self.missing_layers(&layers).first() {
            self.open_layer(layer)?;
        }
        Ok([vec![blob(entry)?, blob(&config)?], layers].concat())
    }
}

//! Statements about an image that its index has: read if they are here, and verified as everything is.

use std::collections::VecDeque;

use super::{BlobKind, Store, StoreError};
use crate::oci::attestation::{STATEMENT_BYTES_MAX, STATEMENTS_MAX, indexes, manifests, statements};
use crate::oci::document::MANIFEST_BYTES_MAX;
use crate::oci::{Digest, Image, Reference};

/// Indexes that are looked through for one image: real ones are not nested.
const INDEXES_MAX: usize = 8;

impl Store {
    /// The lists of packages (in-toto statements whose predicate is an SPDX document) that the image's index has about
    /// it, in its order: at most 4, each of at most 32 MiB. None for an image without an index.
    ///
    /// Errors: [`StoreError::Missing`] and [`StoreError::Damaged`] name what must be fetched.
    pub fn package_lists(&self, image: &Image) -> Result<Vec<Vec<u8>>, StoreError> {
        let Ok(reference) = image.reference.parse::<Reference>() else { return Ok(Vec::new()) };
        match self.root_digest(&reference)? {
            Some(root) => self.package_lists_below(root, image.manifest),
            None => Ok(Vec::new()),
        }
    }

    /// As [`package_lists`](Self::package_lists), for the manifest `about` in the index `root`.
    pub(in crate::oci) fn package_lists_below(&self, root: Digest, about: Digest) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut unread = VecDeque::from([root]);
        let mut lists = Vec::new();
        for _ in 0..INDEXES_MAX {
            let Some(index) = unread.pop_front().filter(|index| *index != about) else { break };
            let index = match self.read_document(BlobKind::Manifest, &index, MANIFEST_BYTES_MAX) {
                // Another platform's index is not fetched.
                Err(StoreError::Missing { .. }) if index != root => continue,
                other => other?,
            };
            for manifest in manifests(&index, &about) {
                let manifest = self.read_document(BlobKind::Manifest, &manifest, MANIFEST_BYTES_MAX)?;
                for statement in statements(&manifest) {
                    if lists.len() < STATEMENTS_MAX {
                        lists.push(self.read_document(BlobKind::Statement, &statement, STATEMENT_BYTES_MAX)?);
                    }
                }
            }
            unread.extend(indexes(&index));
        }
        Ok(lists)
    }
}

//! Fetches what an image's index states about it. An image is whole without: failures are told, not errors.

use super::{DOCUMENTS_MAX, Puller};
use crate::oci::attestation::STATEMENTS_MAX;
use crate::oci::registry::endpoint::Endpoint;
use crate::oci::{Digest, Image, StoreError};

impl Puller<'_> {
    /// Fetches the lists of packages about `image` from the index `root` into the store.
    pub(super) async fn package_lists(&self, what: &str, endpoint: &Endpoint, root: Digest, image: &Image) {
        if root == image.manifest {
            return;
        }
        // Each may need its manifest too.
        for _ in 0..DOCUMENTS_MAX + 2 * STATEMENTS_MAX {
            let (kind, digest) = match self.store.package_lists_below(root, image.manifest) {
                Err(StoreError::Missing { kind, digest, .. }) => (kind, digest),
                Err(StoreError::Damaged { kind, source }) => (kind, source.digest),
                // What is there and cannot be used is told by the build that wants to use it.
                Ok(_) | Err(_) => return,
            };
            if let Err(error) = self.document(what, endpoint, kind, &digest.to_string(), Some(digest)).await {
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
                self.progress.note(&format!("{what}: what it states about its packages is left out: {error}{cause}"));
                return;
            }
        }
    }
}

//! Pulls all that a name reaches: every platform of an index, and artifacts that are no image.

use std::collections::HashSet;

use futures_util::stream::{FuturesUnordered, TryStreamExt};

use super::endpoint::Endpoint;
use super::error::{Fault, FetchError};
use super::push::tag;
use super::{DOCUMENTS_MAX, Puller, RegistryOptions, Wanted, cancelled, fetch};
use crate::cancel::Cancel;
use crate::oci::document::{Document, MANIFEST_BYTES_MAX, parse_document};
use crate::oci::{BlobKind, Digest, Layer, Platform, Reference, Store, StoreError};
use crate::progress::{Meter, Progress};

/// Indexes and manifests of one name; `docker.io`'s have about ten platforms, with as many attestations.
const MANIFESTS_MAX: usize = 512;

/// How much of a name is pulled.
#[derive(Debug, Clone, Copy)]
pub enum Extent<'a> {
    /// The image for each of these platforms.
    Platforms(&'a [Platform]),
    /// All that the name reaches, attestations and artifacts too.
    All,
}

/// Asks the registry what `reference` means now and fetches what the store lacks of it.
///
/// Errors: as of a build; what was fetched until then stays.
pub fn pull(
    reference: &Reference,
    extent: Extent<'_>,
    store: &Store,
    options: &RegistryOptions,
    cancel: &Cancel,
    progress: &dyn Progress,
) -> Result<Digest, Box<FetchError>> {
    let url = Endpoint::of(reference, &options.mirrors).url("manifests", &tag(reference));
    let failed = |fault| Box::new(FetchError { what: reference.to_string(), url: url.clone(), fault });
    match extent {
        Extent::Platforms(platforms) => {
            for platform in platforms {
                let wanted = [Wanted { reference: reference.clone(), root: None }];
                fetch(&wanted, platform, store, options, cancel, progress).map_err(|(_, error)| error)?;
            }
            let root = store.root_digest(reference).map_err(|error| failed(error.into()))?;
            let lost = || failed(Fault::NotFound { host: reference.registry().into(), message: String::new() });
            root.ok_or_else(lost)
        }
        Extent::All => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| failed(Fault::Host(error.into())))?;
            let platform = Platform::linux("");
            let puller = Puller::new(store, &platform, options, progress);
            runtime.block_on(async {
                tokio::select! {
                    done = puller.named(reference) => done.map_err(Box::new),
                    () = cancelled(cancel) => Err(failed(Fault::Cancelled)),
                }
            })
        }
    }
}

impl Puller<'_> {
    async fn named(&self, reference: &Reference) -> Result<Digest, FetchError> {
        let endpoint = Endpoint::of(reference, &self.options.mirrors);
        let (what, name) = (reference.to_string(), tag(reference));
        let url = endpoint.url("manifests", &name);
        let local = |error: StoreError| FetchError { what: what.clone(), url: url.clone(), fault: error.into() };
        let root = self.document(&what, &endpoint, BlobKind::Manifest, &name, reference.digest()).await?;
        let meter = self.progress.begin(&format!("pull {what}"), None);
        let mut seen = HashSet::new();
        self.below(&what, &endpoint, root, &mut seen, 0, meter.as_ref()).await?;
        let entry = self.entry(root).map_err(local)?;
        self.store.tag(reference, &entry).map_err(local)?;
        Ok(root)
    }

    /// Fetches what an index or a manifest in the store names.
    async fn below(
        &self,
        what: &str,
        endpoint: &Endpoint,
        digest: Digest,
        seen: &mut HashSet<Digest>,
        depth: usize,
        meter: &dyn Meter,
    ) -> Result<(), FetchError> {
        if !seen.insert(digest) {
            return Ok(());
        }
        let kind = BlobKind::Manifest;
        let url = endpoint.url("manifests", &digest.to_string());
        let local = |error: StoreError| FetchError { what: what.to_owned(), url: url.clone(), fault: error.into() };
        let bytes = self.store.read_document(kind, &digest, MANIFEST_BYTES_MAX).map_err(local)?;
        let unusable = |source| local(StoreError::Document { kind, digest, source });
        match parse_document(&bytes).map_err(unusable)? {
            Document::Index(entries) if depth >= DOCUMENTS_MAX || entries.len() + seen.len() > MANIFESTS_MAX => {
                Err(local(StoreError::TooDeep { reference: what.to_owned(), limit: DOCUMENTS_MAX }))
            }
            Document::Index(entries) => {
                for entry in entries {
                    let below = entry.digest().map_err(unusable)?;
                    if self.store.read_document(kind, &below, MANIFEST_BYTES_MAX).is_err() {
                        self.document(what, endpoint, kind, &below.to_string(), Some(below)).await?;
                    }
                    Box::pin(self.below(what, endpoint, below, seen, depth + 1, meter)).await?;
                }
                Ok(())
            }
            Document::Manifest(config, layers) => {
                let digest = config.digest().map_err(unusable)?;
                let config = Layer { digest, size_bytes: config.size, media_type: config.media_type };
                let blobs = layers.iter().chain([&config]).map(|layer| self.layer(what, endpoint, layer, meter));
                let blobs: FuturesUnordered<_> = blobs.collect();
                blobs.try_collect::<Vec<()>>().await.map(|_| ())
            }
        }
    }
}

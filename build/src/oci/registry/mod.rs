//! Registries (OCI distribution specification): fetches what the store lacks, and no other platform's blobs.
//!
//! The store says what is missing; the answer is verified while it streams into it; then the store is asked again. All
//! waiting is done by one thread; nothing asynchronous is seen outside.

mod attestation;
mod client;
mod endpoint;
mod error;
mod http;
mod login;
mod options;
mod push;
mod remote;
mod retry_after;
mod upload;
mod whole;

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::Write;
use std::rc::Rc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, TryStreamExt};
use sha2::{Digest as _, Sha256};
use tokio::sync::{Mutex, Semaphore};

pub use error::{Fault, FetchError, PushError};
pub use options::{Mirror, MirrorError, RegistryOptions};
pub use push::{PushRequest, Pushed, push};
pub use remote::{RemoteManifest, put_remote_manifest, remote_manifest};
pub use whole::{Extent, pull};

use self::endpoint::Endpoint;
use self::http::{Asked, Http, Pace};
use super::attestation::STATEMENT_BYTES_MAX;
use super::document::{CONFIG_BYTES_MAX, MANIFEST_BYTES_MAX, media_type, parse_document};
use super::{BlobKind, BlobWriter, Digest, Image, Layer, Platform, Reference, Store, StoreError, TagEntry};
use crate::cancel::Cancel;
use crate::progress::{Meter, Progress};

/// An index in an index, a manifest and a configuration; more is no image.
const DOCUMENTS_MAX: usize = 16;
/// How often Ctrl-C is looked for while the network is slow.
const CANCEL_PAUSE: Duration = Duration::from_millis(50);

/// One image to fetch.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// Its name.
    pub reference: Reference,
    /// What the store knows under that name and lacks a part of. `None`: the registry is asked what the name means.
    pub root: Option<Digest>,
}

/// Fetches images into the store, all at the same time, and names them there.
///
/// Errors: the position of the first image that failed, and why.
pub(crate) fn fetch(
    wanted: &[Wanted],
    platform: &Platform,
    store: &Store,
    options: &RegistryOptions,
    cancel: &Cancel,
    progress: &dyn Progress,
) -> Result<Vec<Image>, (usize, Box<FetchError>)> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| (0, failed(wanted, Fault::Host(error.into()))))?;
    let puller = Puller::new(store, platform, options, progress);
    runtime.block_on(async {
        let images: FuturesUnordered<_> =
            wanted.iter().enumerate().map(|(number, want)| puller.image(number, want)).collect();
        let work = images.try_collect::<Vec<_>>();
        let mut done = tokio::select! {
            done = work => done?,
            () = cancelled(cancel) => return Err((0, failed(wanted, Fault::Cancelled))),
        };
        done.sort_by_key(|(number, _)| *number);
        Ok(done.into_iter().map(|(_, image)| image).collect())
    })
}

fn failed(wanted: &[Wanted], fault: Fault) -> Box<FetchError> {
    let what = wanted.first().map(|want| want.reference.to_string()).unwrap_or_default();
    Box::new(FetchError { url: "its registry".into(), what, fault })
}

async fn cancelled(cancel: &Cancel) {
    while cancel.check().is_ok() {
        tokio::time::sleep(CANCEL_PAUSE).await;
    }
}

struct Puller<'a> {
    store: &'a Store,
    platform: &'a Platform,
    http: Http<'a>,
    options: &'a RegistryOptions,
    progress: &'a dyn Progress,
    /// One for each document or blob that may be fetched at the same time.
    places: Semaphore,
    /// Two images can share a layer; it is fetched for one of them.
    layers: RefCell<HashMap<Digest, Rc<Mutex<()>>>>,
}

impl<'a> Puller<'a> {
    fn new(store: &'a Store, platform: &'a Platform, options: &'a RegistryOptions, progress: &'a dyn Progress) -> Self {
        let (http, places) = (Http::new(options, progress), Semaphore::new(options.parallel.max(1)));
        Self { store, platform, http, options, progress, places, layers: RefCell::default() }
    }
}

impl Puller<'_> {
    async fn image(&self, number: usize, want: &Wanted) -> Result<(usize, Image), (usize, Box<FetchError>)> {
        let reference = &want.reference;
        let mut result = self.image_below(reference, want.root).await;
        // What the name meant once may be gone there; what it means now may not.
        if let (Err(FetchError { fault: Fault::NotFound { .. }, .. }), Some(_), None) =
            (&result, want.root, reference.digest())
        {
            result = self.image_below(reference, None).await;
        }
        result.map(|image| (number, image)).map_err(|error| (number, Box::new(error)))
    }

    async fn image_below(&self, reference: &Reference, root: Option<Digest>) -> Result<Image, FetchError> {
        let endpoint = Endpoint::of(reference, &self.options.mirrors);
        let what = reference.to_string();
        let name = reference.digest().map(|digest| digest.to_string());
        let name = name.unwrap_or_else(|| reference.tag().unwrap_or("latest").to_owned());
        let manifest_url = endpoint.url("manifests", &name);
        let local =
            |error: StoreError| FetchError { what: what.clone(), url: manifest_url.clone(), fault: error.into() };
        let root = match root {
            Some(root) => root,
            None => self.document(&what, &endpoint, BlobKind::Manifest, &name, reference.digest()).await?,
        };
        let image = self.documents(reference, &what, &endpoint, root, &local).await?;
        self.layers(&what, &endpoint, &image).await?;
        self.package_lists(&what, &endpoint, root, &image).await;
        let entry = self.entry(root).map_err(local)?;
        self.store.tag(reference, &entry).map_err(local)?;
        Ok(image)
    }

    /// Fetches documents until the store can tell the image.
    async fn documents(
        &self,
        reference: &Reference,
        what: &str,
        endpoint: &Endpoint,
        root: Digest,
        local: &impl Fn(StoreError) -> FetchError,
    ) -> Result<Image, FetchError> {
        for _ in 0..DOCUMENTS_MAX {
            let (kind, digest) = match self.store.resolve(reference, root, self.platform) {
                Ok(image) => return Ok(image),
                Err(StoreError::Missing { kind, digest, .. }) => (kind, digest),
                Err(StoreError::Damaged { kind, source }) => (kind, source.digest),
                Err(error) => return Err(local(error)),
            };
            self.document(what, endpoint, kind, &digest.to_string(), Some(digest)).await?;
        }
        Err(local(StoreError::TooDeep { reference: what.to_owned(), limit: DOCUMENTS_MAX }))
    }

    /// Fetches a manifest, an index or a configuration into the store.
    async fn document(
        &self,
        what: &str,
        endpoint: &Endpoint,
        kind: BlobKind,
        name: &str,
        expected: Option<Digest>,
    ) -> Result<Digest, FetchError> {
        let (folder, limit) = match kind {
            BlobKind::Manifest => ("manifests", MANIFEST_BYTES_MAX),
            BlobKind::Config | BlobKind::Layer => ("blobs", CONFIG_BYTES_MAX),
            BlobKind::Statement => ("blobs", STATEMENT_BYTES_MAX),
        };
        let url = endpoint.url(folder, name);
        let _place = self.places.acquire().await;
        let fetched = self.http.retry(&url, async || {
            let response = self.http.get(endpoint, &url, 0).await?;
            let promised = response.headers().get("docker-content-digest");
            let promised = promised.and_then(|value| value.to_str().ok()?.parse::<Digest>().ok());
            let bytes = self.http.body(response, &endpoint.host, limit).await?;
            let found = Digest::from_bytes(Sha256::digest(&bytes).into());
            match expected.or(promised) {
                Some(expected) if expected != found => Err(Fault::Digest { expected, found }.into()),
                _ => Ok(bytes),
            }
        });
        let stored = async {
            let bytes = fetched.await?;
            if kind == BlobKind::Manifest {
                parse_document(&bytes).map_err(Fault::Document)?;
            }
            Ok(self.store.put_blob(&bytes)?)
        };
        stored.await.map_err(|fault| FetchError { what: what.to_owned(), url, fault })
    }

    async fn layers(&self, what: &str, endpoint: &Endpoint, image: &Image) -> Result<(), FetchError> {
        let mut missing = self.store.missing_layers(&image.layers);
        missing.sort_by_key(|layer| layer.digest);
        missing.dedup_by_key(|layer| layer.digest);
        if missing.is_empty() {
            return Ok(());
        }
        let total = missing.iter().fold(0_u64, |sum, layer| sum.saturating_add(layer.size_bytes));
        let meter = self.progress.begin(&format!("pull {what}"), Some(total));
        let meter = meter.as_ref();
        let layers: FuturesUnordered<_> =
            missing.into_iter().map(|layer| self.layer(what, endpoint, layer, meter)).collect();
        layers.try_collect::<Vec<()>>().await.map(|_| ())
    }

    async fn layer(&self, what: &str, endpoint: &Endpoint, layer: &Layer, meter: &dyn Meter) -> Result<(), FetchError> {
        let only_one = Rc::clone(self.layers.borrow_mut().entry(layer.digest).or_default());
        let _only_one = only_one.lock().await;
        if self.store.missing_layers(std::slice::from_ref(layer)).is_empty() {
            meter.advance(layer.size_bytes);
            return Ok(());
        }
        let _place = self.places.acquire().await;
        let url = endpoint.url("blobs", &layer.digest.to_string());
        let fetched = self.blob(endpoint, &url, layer, meter).await;
        fetched.map_err(|fault| FetchError { what: what.to_owned(), url, fault })
    }

    /// Fetches a layer's blob into the store; a connection that breaks is continued where it broke.
    async fn blob(&self, endpoint: &Endpoint, url: &str, layer: &Layer, meter: &dyn Meter) -> Result<(), Fault> {
        let writer = RefCell::new(self.store.blob_writer()?);
        #[expect(clippy::await_holding_refcell_ref, reason = "attempts follow each other, never run side by side")]
        let attempt = async || self.blob_part(endpoint, url, layer, &mut writer.borrow_mut(), meter).await;
        self.http.retry(url, attempt).await?;
        let (digest, size_bytes) = (layer.digest, layer.size_bytes);
        // Syncing a large file takes a while, and other blobs go on meanwhile.
        let commit = move || writer.into_inner().commit(Some(digest), Some(size_bytes));
        let committed = tokio::task::spawn_blocking(commit).await.map_err(|error| Fault::Host(error.into()))?;
        match committed {
            Ok(_) => Ok(()),
            Err(StoreError::Damaged { source, .. }) => Err(match source.fault {
                super::BlobFault::Content { found } => Fault::Digest { expected: digest, found },
                super::BlobFault::Length { expected, found } => Fault::Truncated { expected, found, attempts: 1 },
            }),
            Err(error) => Err(error.into()),
        }
    }

    async fn blob_part(
        &self,
        endpoint: &Endpoint,
        url: &str,
        layer: &Layer,
        writer: &mut BlobWriter,
        meter: &dyn Meter,
    ) -> Result<(), Asked> {
        let limit = layer.size_bytes;
        if writer.len_bytes() == limit && limit > 0 {
            return Ok(());
        }
        let mut response = self.http.get(endpoint, url, writer.len_bytes()).await?;
        if !continues_at(&response, writer.len_bytes()) {
            writer.restart().map_err(Fault::from)?;
        }
        let left_bytes = limit - writer.len_bytes();
        let mut pace = Pace::default();
        if response.content_length().is_some_and(|length| length > left_bytes) {
            return Err(Fault::TooLong { limit }.into());
        }
        loop {
            let chunk = match self.http.chunk(&mut response, &endpoint.host, &mut pace).await {
                Ok(Some(chunk)) => chunk,
                Ok(None) if writer.len_bytes() == limit => return Ok(()),
                // A body that breaks off before the length that its header told ends in the second.
                Ok(None) | Err(Asked { fault: Fault::Connection { .. }, .. }) => {
                    let found = writer.len_bytes();
                    return Err(Fault::Truncated { expected: limit, found, attempts: 1 }.into());
                }
                Err(asked) => return Err(asked),
            };
            if chunk.len() as u64 > limit - writer.len_bytes() {
                return Err(Fault::TooLong { limit }.into());
            }
            let path = writer.path().to_owned();
            let written = writer.write_all(&chunk);
            written.map_err(|source| Fault::from(StoreError::Io { action: "write", path, source }))?;
            meter.advance(chunk.len() as u64);
        }
    }

    /// The entry of `index.json` for a document that was stored before.
    fn entry(&self, digest: Digest) -> Result<TagEntry, StoreError> {
        let bytes = self.store.read_document(BlobKind::Manifest, &digest, MANIFEST_BYTES_MAX)?;
        Ok(TagEntry { media_type: media_type(&bytes), digest, size_bytes: bytes.len() as u64, platform: None })
    }
}

/// Whether the answer starts at byte `from`. A registry may ignore a range and start anew.
fn continues_at(response: &reqwest::Response, from: u64) -> bool {
    if response.status() != reqwest::StatusCode::PARTIAL_CONTENT {
        return from == 0;
    }
    let range = response.headers().get(reqwest::header::CONTENT_RANGE).and_then(|range| range.to_str().ok());
    let start = range.and_then(|range| range.strip_prefix("bytes ")?.split_once('-')?.0.parse::<u64>().ok());
    start == Some(from)
}

#[cfg(test)]
mod tests;

//! Pushes what the store has: blobs first, then manifests from the leaves up, the tag last, so that whoever pulls at the
//! same time sees all of the old image or all of the new one.
//!
//! What is there already is not sent; what another repository of the same registry has is mounted from there.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};

use futures_util::stream::{FuturesUnordered, TryStreamExt};
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Method, StatusCode};
use tokio::sync::Semaphore;

use super::endpoint::{Access, Endpoint};
use super::error::{Fault, PushError};
use super::http::{ACCEPTED_MANIFESTS, Asked, Http};
use super::{DOCUMENTS_MAX, RegistryOptions, cancelled};
use crate::cancel::Cancel;
use crate::oci::document::{Document, MANIFEST_BYTES_MAX, media_type, parse_document};
use crate::oci::{BlobKind, Digest, Layer, Platform, Reference, Store, StoreError};
use crate::progress::{Meter, Progress};

/// What to push, and where to.
#[derive(Debug, Clone)]
pub struct PushRequest<'a> {
    /// An index or a manifest in the store, such as [`Store::root_digest`] gives.
    pub root: Digest,
    /// What it is called there; without tag and digest, `latest`. Mirrors are not looked at.
    pub target: &'a Reference,
    /// Only this platform's manifest of an index, which then takes the tag; `None`: all that `root` names.
    pub platform: Option<&'a Platform>,
}

/// What a push did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pushed {
    /// What the tag points at now.
    pub digest: Option<Digest>,
    /// Bytes of blobs that were sent.
    pub sent_bytes: u64,
    /// Blobs that were sent.
    pub sent: usize,
    /// Blobs that another repository there had.
    pub mounted: usize,
    /// Blobs that were there already.
    pub skipped: usize,
}

/// Pushes an image or an index from the store to the registry of its new name.
///
/// Errors: what could not be read here or written there. Blobs that were sent until then stay there, without a name.
pub fn push(
    request: &PushRequest<'_>,
    store: &Store,
    options: &RegistryOptions,
    cancel: &Cancel,
    progress: &dyn Progress,
) -> Result<Pushed, Box<PushError>> {
    let endpoint = Endpoint::to_push(request.target);
    let url = endpoint.url("manifests", &tag(request.target));
    let failed = |fault| Box::new(PushError { what: request.target.to_string(), url: url.clone(), fault });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| failed(Fault::Host(error.into())))?;
    let pusher = Pusher {
        store,
        http: Http::new(options, progress),
        places: Semaphore::new(options.parallel.max(1)),
        elsewhere: store.repositories(request.target).map_err(|error| failed(error.into()))?,
        done: RefCell::default(),
        known: RefCell::default(),
        endpoint,
    };
    runtime.block_on(async {
        tokio::select! {
            done = pusher.all(request, progress) => done.map_err(|(url, fault)| {
                Box::new(PushError { what: request.target.to_string(), url, fault })
            }),
            () = cancelled(cancel) => Err(failed(Fault::Cancelled)),
        }
    })
}

/// What a name's manifest is called in its URL.
pub(super) fn tag(reference: &Reference) -> String {
    let digest = reference.digest().map(|digest| digest.to_string());
    digest.unwrap_or_else(|| reference.tag().unwrap_or("latest").to_owned())
}

/// A fault and where it was met.
type Failed = (String, Fault);

pub(super) struct Pusher<'a> {
    pub store: &'a Store,
    pub http: Http<'a>,
    pub endpoint: Endpoint,
    /// One for each blob that may be sent at the same time.
    places: Semaphore,
    /// Blobs that may be in another repository of this registry, by what the store knows of it.
    elsewhere: HashMap<Digest, String>,
    done: RefCell<Pushed>,
    /// Blobs and manifests that are there by now.
    known: RefCell<HashSet<Digest>>,
}

/// All documents below a root, each after those that it names, and all blobs.
#[derive(Default)]
struct Contents {
    manifests: Vec<(Digest, Vec<u8>, String)>,
    blobs: Vec<Layer>,
}

impl Pusher<'_> {
    async fn all(&self, request: &PushRequest<'_>, progress: &dyn Progress) -> Result<Pushed, Failed> {
        let name = tag(request.target);
        let here = |error: StoreError| (self.endpoint.url("manifests", &name), Fault::from(error));
        let root = match request.platform {
            Some(platform) => {
                self.store.resolve(request.target, request.root, platform).map(|image| image.manifest).map_err(here)?
            }
            None => request.root,
        };
        let mut contents = Contents::default();
        self.collect(root, 0, &mut contents).await?;
        let total = contents.blobs.iter().fold(0_u64, |sum, blob| sum.saturating_add(blob.size_bytes));
        let meter = progress.begin(&format!("push {}", request.target), Some(total));
        let blobs: FuturesUnordered<_> = contents.blobs.iter().map(|blob| self.blob(blob, meter.as_ref())).collect();
        blobs.try_collect::<Vec<()>>().await?;
        let last = contents.manifests.pop();
        for (digest, bytes, media_type) in &contents.manifests {
            self.manifest(&digest.to_string(), bytes, media_type).await?;
        }
        if let Some((_, bytes, media_type)) = last {
            self.manifest(&name, &bytes, &media_type).await?;
        }
        Ok(Pushed { digest: Some(root), ..self.done.take() })
    }

    /// Reads the documents below `digest` and notes what has to be sent.
    async fn collect(&self, digest: Digest, depth: usize, contents: &mut Contents) -> Result<(), Failed> {
        let url = || self.endpoint.url("manifests", &digest.to_string());
        let kind = BlobKind::Manifest;
        let read = |digest| self.store.read_document(kind, &digest, MANIFEST_BYTES_MAX);
        let bytes = read(digest).map_err(|error| (url(), error.into()))?;
        let document = parse_document(&bytes);
        let document = document.map_err(|source| (url(), StoreError::Document { kind, digest, source }.into()))?;
        match document {
            Document::Index(_) if depth >= DOCUMENTS_MAX => {
                let reference = digest.to_string();
                return Err((url(), StoreError::TooDeep { reference, limit: DOCUMENTS_MAX }.into()));
            }
            Document::Index(entries) => {
                for entry in entries {
                    let fail = |source| (url(), StoreError::Document { kind, digest, source }.into());
                    let below = entry.digest().map_err(fail)?;
                    if contents.manifests.iter().any(|(known, ..)| *known == below) {
                        continue;
                    }
                    if self.store.blob_path(&below).exists() {
                        Box::pin(self.collect(below, depth + 1, contents)).await?;
                    } else if !self.is_there("manifests", &below).await? {
                        let platform = entry.platform.as_ref().map(|entry| entry.to_platform());
                        let platform = platform.map(|platform| format!(" ({platform})")).unwrap_or_default();
                        return Err((url(), Fault::NotHere { digest: below, platform }));
                    }
                }
            }
            Document::Manifest(config, layers) => {
                let fail = |source| (url(), StoreError::Document { kind, digest, source }.into());
                let config_digest = config.digest().map_err(fail)?;
                let config =
                    Layer { digest: config_digest, size_bytes: config.size, media_type: config.media_type.clone() };
                for blob in layers.into_iter().chain([config]) {
                    if !contents.blobs.iter().any(|known| known.digest == blob.digest) {
                        contents.blobs.push(blob);
                    }
                }
            }
        }
        let media_type = media_type(&bytes);
        contents.manifests.push((digest, bytes, media_type));
        Ok(())
    }

    async fn blob(&self, blob: &Layer, meter: &dyn Meter) -> Result<(), Failed> {
        let _place = self.places.acquire().await;
        if self.is_there("blobs", &blob.digest).await? {
            self.done.borrow_mut().skipped += 1;
            meter.advance(blob.size_bytes);
            return Ok(());
        }
        // Layers that may not be given away are fetched from their makers by whoever unpacks them.
        let is_elsewhere = blob.media_type.contains("nondistributable") || blob.media_type.contains("foreign");
        if is_elsewhere && !self.store.blob_path(&blob.digest).exists() {
            return Ok(());
        }
        let counted = Cell::new(0);
        let url = self.endpoint.url("blobs", "uploads/");
        let mounted = self.upload(blob, &url, meter, &counted).await.map_err(|fault| (url, fault))?;
        let mut done = self.done.borrow_mut();
        if mounted {
            done.mounted += 1;
            meter.advance(blob.size_bytes);
        } else {
            done.sent += 1;
            done.sent_bytes += blob.size_bytes;
        }
        Ok(())
    }

    /// The repository to mount a blob from.
    pub(super) fn mount_from(&self, digest: &Digest) -> Option<&str> {
        self.elsewhere.get(digest).map(String::as_str)
    }

    async fn is_there(&self, folder: &str, digest: &Digest) -> Result<bool, Failed> {
        if self.known.borrow().contains(digest) {
            return Ok(true);
        }
        let url = self.endpoint.url(folder, &digest.to_string());
        let asked = self.http.retry(&url, async || {
            let head = |request: reqwest::RequestBuilder| request.header(ACCEPT, ACCEPTED_MANIFESTS);
            let response = self.http.ask(&self.endpoint, &Method::HEAD, &url, head).await?;
            match response.status() {
                StatusCode::OK => Ok(true),
                StatusCode::NOT_FOUND => Ok(false),
                _ => Err(self.http.refusal(response, &self.endpoint).await),
            }
        });
        let there = asked.await.map_err(|fault| (url.clone(), fault))?;
        if there {
            self.known.borrow_mut().insert(*digest);
        }
        Ok(there)
    }

    async fn manifest(&self, name: &str, bytes: &[u8], media_type: &str) -> Result<(), Failed> {
        let url = self.endpoint.url("manifests", name);
        put_manifest(&self.http, &self.endpoint, &url, bytes, media_type).await.map_err(|fault| (url, fault))
    }
}

/// Puts a manifest or an index in its place.
pub(super) async fn put_manifest(
    http: &Http<'_>,
    endpoint: &Endpoint,
    url: &str,
    bytes: &[u8],
    media_type: &str,
) -> Result<(), Fault> {
    debug_assert_eq!(endpoint.access, Access::Push);
    http.retry(url, async || {
        let put = |request: reqwest::RequestBuilder| request.header(CONTENT_TYPE, media_type).body(bytes.to_vec());
        let response = http.ask(endpoint, &Method::PUT, url, put).await?;
        match response.status() {
            StatusCode::CREATED | StatusCode::OK | StatusCode::ACCEPTED => Ok::<(), Asked>(()),
            _ => Err(http.refusal(response, endpoint).await),
        }
    })
    .await
}

#[cfg(test)]
mod tests;

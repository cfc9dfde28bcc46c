//! Single manifests of a registry, without the store: what a tag means there, and another tag for it.

use sha2::{Digest as _, Sha256};

use super::endpoint::{Access, Endpoint};
use super::error::{Fault, FetchError, PushError};
use super::http::Http;
use super::push::{put_manifest, tag};
use super::{RegistryOptions, cancelled};
use crate::cancel::Cancel;
use crate::oci::document::{MANIFEST_BYTES_MAX, media_type, parse_document};
use crate::oci::{Digest, Reference};
use crate::progress::Progress;

/// An index or a manifest as a registry has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteManifest {
    /// Of the bytes below.
    pub digest: Digest,
    /// What the document says that it is.
    pub media_type: String,
    /// The document.
    pub bytes: Vec<u8>,
}

/// What `reference` means at its registry (or at a mirror of it) now; `None` if nothing. Nothing is kept.
///
/// Errors: as of a pull; a document that is neither an index nor a manifest is an error.
pub fn remote_manifest(
    reference: &Reference,
    options: &RegistryOptions,
    cancel: &Cancel,
    progress: &dyn Progress,
) -> Result<Option<RemoteManifest>, Box<FetchError>> {
    let endpoint = Endpoint::of(reference, &options.mirrors);
    let url = endpoint.url("manifests", &tag(reference));
    let work = async {
        let http = Http::new(options, progress);
        let bytes = http.retry(&url, async || {
            let response = http.get(&endpoint, &url, 0).await?;
            http.body(response, &endpoint.host, MANIFEST_BYTES_MAX).await
        });
        let bytes = match bytes.await {
            Err(Fault::NotFound { .. }) => return Ok(None),
            bytes => bytes?,
        };
        parse_document(&bytes).map_err(Fault::Document)?;
        let digest = Digest::from_bytes(Sha256::digest(&bytes).into());
        match reference.digest() {
            Some(expected) if expected != digest => Err(Fault::Digest { expected, found: digest }),
            _ => Ok(Some(RemoteManifest { digest, media_type: media_type(&bytes), bytes })),
        }
    };
    let done = block_on(work, cancel);
    done.map_err(|fault| Box::new(FetchError { what: reference.to_string(), url: url.clone(), fault }))
}

/// Makes `reference` mean `manifest` at its registry, whose repository must have all that the manifest names. Mirrors are
/// not looked at.
///
/// Errors: as of a push; a registry refuses a manifest when it lacks what that names.
pub fn put_remote_manifest(
    reference: &Reference,
    manifest: &RemoteManifest,
    options: &RegistryOptions,
    cancel: &Cancel,
    progress: &dyn Progress,
) -> Result<(), Box<PushError>> {
    let endpoint = Endpoint::to_push(reference);
    debug_assert_eq!(endpoint.access, Access::Push);
    let url = endpoint.url("manifests", &tag(reference));
    let work = async {
        let http = Http::new(options, progress);
        put_manifest(&http, &endpoint, &url, &manifest.bytes, &manifest.media_type).await
    };
    let done = block_on(work, cancel);
    done.map_err(|fault| Box::new(PushError { what: reference.to_string(), url: url.clone(), fault }))
}

/// Waits for `work` until somebody cancels.
fn block_on<T>(work: impl Future<Output = Result<T, Fault>>, cancel: &Cancel) -> Result<T, Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Fault::Host(error.into()))?.block_on(async {
        tokio::select! {
            done = work => done,
            () = cancelled(cancel) => Err(Fault::Cancelled),
        }
    })
}

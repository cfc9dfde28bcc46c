//! One blob to a registry (distribution specification, "Pushing blobs"): mounted, in one piece, or in chunks.

use std::cell::Cell;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::stream;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use reqwest::{Body, Method, RequestBuilder, Response, StatusCode, Url};

use super::error::{Fault, sort};
use super::http::Asked;
use super::push::Pusher;
use crate::oci::{Layer, StoreError, VerifiedReader};
use crate::progress::Meter;

/// Read and handed to the connection at a time.
const PIECE_BYTES: usize = 256 << 10;
/// A chunk is sent again as a whole when the connection breaks; some proxies take no more than 100 MB in one request.
const CHUNK_BYTES: u64 = 16 << 20;
/// How often sent bytes are counted.
const COUNT_PAUSE: Duration = Duration::from_millis(100);
/// A registry hashes and keeps a blob at least this fast before it answers.
const COMMIT_BYTES_PER_S: u64 = 20_000_000;

/// How far the upload of a blob is, across attempts.
struct Upload {
    /// Where it goes on.
    location: String,
    /// Sent and kept there, in chunks.
    offset: u64,
}

impl Pusher<'_> {
    /// Sends a blob, or has it mounted: then `true`.
    pub(super) async fn upload(
        &self,
        blob: &Layer,
        url: &str,
        meter: &dyn Meter,
        counted: &Cell<u64>,
    ) -> Result<bool, Fault> {
        if self.mount(blob, url).await? {
            return Ok(true);
        }
        let in_chunks = Cell::new(false);
        let begun = Cell::new(None);
        let sent = self.http.retry(url, async || {
            if !in_chunks.get() {
                // Whatever breaks this attempt, the next one gets further piece by piece.
                in_chunks.set(blob.size_bytes > CHUNK_BYTES);
                match self.in_one_piece(blob, url, meter, counted).await {
                    Err(Asked { fault: Fault::Status { status: 413, .. }, .. }) => in_chunks.set(true),
                    done => return done,
                }
            }
            let upload = match begun.take() {
                Some(upload) => self.again(upload).await,
                None => None,
            };
            let mut upload = match upload {
                Some(upload) => upload,
                None => Upload { location: self.begin(url).await?, offset: 0 },
            };
            let done = self.in_chunks(blob, &mut upload, meter, counted).await;
            begun.set(Some(upload));
            done
        });
        sent.await.map(|()| false)
    }

    /// Asks for a blob out of another repository of this registry. A registry that will not is no error.
    async fn mount(&self, blob: &Layer, url: &str) -> Result<bool, Fault> {
        let Some(from) = self.mount_from(&blob.digest) else { return Ok(false) };
        let Ok(mount) = Url::parse_with_params(url, [("mount", blob.digest.to_string().as_str()), ("from", from)])
        else {
            return Ok(false);
        };
        let shape = |request: RequestBuilder| request.header(CONTENT_LENGTH, 0);
        match self.http.ask(&self.endpoint, &Method::POST, mount.as_str(), shape).await {
            Ok(response) if response.status() == StatusCode::CREATED => Ok(true),
            Ok(response) => {
                // It began an upload instead, which nobody will go on with.
                if let Some(location) = self.location(mount.as_str(), &response) {
                    let cancelled = self.http.ask(&self.endpoint, &Method::DELETE, &location, |request| request).await;
                    drop(cancelled);
                }
                Ok(false)
            }
            Err(Asked { fault: Fault::Unauthorized { .. } | Fault::NotFound { .. }, .. }) => Ok(false),
            Err(Asked { fault, .. }) if fault.may_pass() => Ok(false),
            Err(Asked { fault, .. }) => Err(fault),
        }
    }

    async fn begin(&self, url: &str) -> Result<String, Asked> {
        let shape = |request: RequestBuilder| request.header(CONTENT_LENGTH, 0);
        let response = self.http.ask(&self.endpoint, &Method::POST, url, shape).await?;
        match response.status() {
            StatusCode::ACCEPTED | StatusCode::CREATED => {
                self.location(url, &response).ok_or_else(|| Fault::NoLocation.into())
            }
            _ => Err(self.http.refusal(response, &self.endpoint).await),
        }
    }

    fn location(&self, asked: &str, response: &Response) -> Option<String> {
        let location = response.headers().get(LOCATION)?.to_str().ok()?;
        self.endpoint.location(asked, location)
    }

    async fn in_one_piece(&self, blob: &Layer, url: &str, meter: &dyn Meter, counted: &Cell<u64>) -> Result<(), Asked> {
        let location = self.begin(url).await?;
        let url = with_digest(&location, blob).ok_or(Fault::NoLocation)?;
        let reader = self.store.open_layer(blob).map_err(Fault::from)?;
        let (body, sending) = Sending::new(reader, self.store.blob_path(&blob.digest));
        let client = self.http.client(&self.endpoint)?;
        let request = client.put(&url).header(CONTENT_TYPE, "application/octet-stream");
        let request = request.header(CONTENT_LENGTH, blob.size_bytes).body(body);
        let request = self.http.with_login(request, &self.endpoint, &url);
        let response = self.watched(request, &sending, blob.size_bytes, meter, counted).await?;
        self.committed(response).await
    }

    async fn committed(&self, response: Response) -> Result<(), Asked> {
        match response.status() {
            StatusCode::CREATED | StatusCode::OK | StatusCode::ACCEPTED | StatusCode::NO_CONTENT => Ok(()),
            _ => Err(self.http.refusal(response, &self.endpoint).await),
        }
    }

    /// Waits for the answer to a long request, for as long as bytes go out.
    async fn watched(
        &self,
        request: RequestBuilder,
        sending: &Sending,
        size_bytes: u64,
        meter: &dyn Meter,
        counted: &Cell<u64>,
    ) -> Result<Response, Asked> {
        let idle_limit = self.http.options.idle_limit;
        let patience = idle_limit + Duration::from_secs(size_bytes / COMMIT_BYTES_PER_S);
        let mut answer = Box::pin(request.send());
        let (mut last, mut since) = (0, Instant::now());
        loop {
            let answered = tokio::time::timeout(COUNT_PAUSE, &mut answer).await;
            let sent = sending.sent.load(Ordering::Relaxed);
            count(sent, meter, counted);
            match answered {
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(error)) => {
                    let fault = sending.fault().unwrap_or_else(|| sort(error, &self.endpoint.host));
                    return Err(fault.into());
                }
                Err(_) if sent > last => (last, since) = (sent, Instant::now()),
                Err(_) if since.elapsed() > if sent < size_bytes { idle_limit } else { patience } => {
                    return Err(Fault::Hanging { limit_s: since.elapsed().as_secs_f64().round(), attempts: 1 }.into());
                }
                Err(_) => {}
            }
        }
    }

    /// Where an upload that broke goes on, if the registry still knows it.
    async fn again(&self, upload: Upload) -> Option<Upload> {
        let response = self.http.ask(&self.endpoint, &Method::GET, &upload.location, |request| request).await.ok()?;
        if response.status() != StatusCode::NO_CONTENT {
            return None;
        }
        let location = self.location(&upload.location, &response).unwrap_or(upload.location);
        let offset = kept(&response)?;
        Some(Upload { location, offset })
    }

    async fn in_chunks(
        &self,
        blob: &Layer,
        upload: &mut Upload,
        meter: &dyn Meter,
        counted: &Cell<u64>,
    ) -> Result<(), Asked> {
        let mut reader = self.store.open_layer(blob).map_err(Fault::from)?;
        let skipped = io::copy(&mut reader.by_ref().take(upload.offset), &mut io::sink());
        let path = self.store.blob_path(&blob.digest);
        let unreadable = |error| Fault::from(StoreError::of_read(error, path.clone()));
        skipped.map_err(unreadable)?;
        while upload.offset < blob.size_bytes {
            let mut chunk = Vec::new();
            let read = reader.by_ref().take(CHUNK_BYTES).read_to_end(&mut chunk);
            read.map_err(unreadable)?;
            let end = upload.offset + chunk.len() as u64;
            let (from, to) = (upload.offset, end.saturating_sub(1));
            let shape = |request: RequestBuilder| {
                let request = request.header(CONTENT_TYPE, "application/octet-stream");
                request.header(CONTENT_RANGE, format!("{from}-{to}")).body(chunk.clone())
            };
            let response = self.http.ask(&self.endpoint, &Method::PATCH, &upload.location, shape).await?;
            if response.status() != StatusCode::ACCEPTED && response.status() != StatusCode::NO_CONTENT {
                return Err(self.http.refusal(response, &self.endpoint).await);
            }
            if let Some(location) = self.location(&upload.location, &response) {
                upload.location = location;
            }
            upload.offset = end;
            count(end, meter, counted);
        }
        let url = with_digest(&upload.location, blob).ok_or(Fault::NoLocation)?;
        let shape = |request: RequestBuilder| request.header(CONTENT_LENGTH, 0);
        let response = self.http.ask(&self.endpoint, &Method::PUT, &url, shape).await?;
        self.committed(response).await
    }
}

/// Bytes that a registry has kept of an upload: `Range: 0-N`.
fn kept(response: &Response) -> Option<u64> {
    let range = response.headers().get(RANGE)?.to_str().ok()?;
    let (_, last) = range.trim_start_matches("bytes=").split_once('-')?;
    Some(last.parse::<u64>().ok()?.checked_add(1)?).filter(|kept| *kept > 1)
}

fn with_digest(location: &str, blob: &Layer) -> Option<String> {
    let mut url = Url::parse(location).ok()?;
    url.query_pairs_mut().append_pair("digest", &blob.digest.to_string());
    Some(url.into())
}

/// Tells the meter what went out for the first time.
fn count(sent: u64, meter: &dyn Meter, counted: &Cell<u64>) {
    if let Some(more) = sent.checked_sub(counted.get()).filter(|more| *more > 0) {
        meter.advance(more);
        counted.set(sent);
    }
}

/// What is known of a body while it is sent.
struct Sending {
    sent: Arc<AtomicU64>,
    broken: Arc<Mutex<Option<io::Error>>>,
    path: PathBuf,
}

impl Sending {
    /// A body that is read and verified while it is sent.
    fn new(reader: VerifiedReader, path: PathBuf) -> (Body, Self) {
        let sending = Self { sent: Arc::default(), broken: Arc::default(), path };
        let (sent, broken) = (Arc::clone(&sending.sent), Arc::clone(&sending.broken));
        let pieces = stream::unfold(reader, move |mut reader| {
            let mut piece = vec![0; PIECE_BYTES];
            let piece = match reader.read(&mut piece) {
                Ok(0) => None,
                Ok(count) => {
                    piece.truncate(count);
                    sent.fetch_add(count as u64, Ordering::Relaxed);
                    Some(Ok(piece))
                }
                Err(error) => {
                    *broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    Some(Err(io::Error::from(io::ErrorKind::InvalidData)))
                }
            };
            std::future::ready(piece.map(|piece| (piece, reader)))
        });
        (Body::wrap_stream(pieces), sending)
    }

    /// Why the body could not be read, if that is why the request failed.
    fn fault(&self) -> Option<Fault> {
        let error = self.broken.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(StoreError::of_read(error, self.path.clone()).into())
    }
}

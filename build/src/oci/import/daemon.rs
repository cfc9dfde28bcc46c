//! A running Docker (Engine API, "Export an image"), over its socket.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use reqwest::StatusCode;

use super::files::Files;
use super::{ImportError, Importing};
use crate::cancel::Cancel;
use crate::oci::Reference;

/// Docker looks an image up, and packs it while it sends.
const IDLE_LIMIT: Duration = Duration::from_secs(60);
const PROGRAM: &str = "Docker";
/// Of an error page.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Pieces on their way from the connection to the disk.
const PIECES: usize = 16;
/// How often Ctrl-C is looked for while Docker is slow.
const CANCEL_PAUSE: Duration = Duration::from_millis(50);

/// Where Docker is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DockerHost {
    /// Its socket.
    Socket(PathBuf),
    /// `HOST:PORT`, over http.
    Tcp(String),
    /// A way that is not known here, as it was written.
    Unknown(String),
}

impl Default for DockerHost {
    fn default() -> Self {
        Self::Socket("/var/run/docker.sock".into())
    }
}

impl From<&str> for DockerHost {
    /// Reads `DOCKER_HOST`.
    fn from(text: &str) -> Self {
        match text.split_once("://") {
            Some(("unix", path)) => Self::Socket(path.into()),
            Some(("tcp" | "http", host)) => Self::Tcp(host.trim_end_matches('/').to_owned()),
            _ => Self::Unknown(text.to_owned()),
        }
    }
}

/// What `docker save` would write of an image.
pub fn saved(reference: &Reference, host: &DockerHost, to: &Importing<'_>) -> Result<Files, ImportError> {
    let place = match host {
        DockerHost::Socket(path) => format!(" at `{}`; is it running, and may you use it?", path.display()),
        DockerHost::Tcp(host) => format!(" at {host}; is it running, and does it speak plain http?"),
        DockerHost::Unknown(text) => {
            return Err(ImportError::Program {
                program: PROGRAM,
                what: reference.to_string(),
                hint: String::new(),
                source: format!("DOCKER_HOST is `{text}`; only unix:// and tcp:// without TLS are supported").into(),
            });
        }
    };
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| match to.cancel.check() {
        Ok(()) => ImportError::Program { program: PROGRAM, what: reference.to_string(), hint: place.clone(), source },
        Err(_) => ImportError::Cancelled,
    };
    let (pieces, receive) = mpsc::sync_channel::<io::Result<Vec<u8>>>(PIECES);
    let (answered, answer) = mpsc::sync_channel(1);
    let (host, name) = (host.clone(), short(reference));
    // It ends when nobody takes its pieces any more, or with Docker's patience.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let asked =
            runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(ask(&host, &name, &answered, &pieces)));
        if let Err(error) = asked {
            // Either the one or the other is still listened to.
            let text = error.to_string();
            let _told = answered.send(Err(error));
            let _told = pieces.send(Err(io::Error::other(text)));
        }
    });
    let answer = loop {
        match answer.recv_timeout(CANCEL_PAUSE) {
            Err(mpsc::RecvTimeoutError::Timeout) if to.cancel.check().is_err() => return Err(ImportError::Cancelled),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            answer => break answer,
        }
    };
    match answer {
        Ok(Ok(None)) => {}
        Ok(Ok(Some(message))) => {
            return Err(ImportError::NotThere { program: PROGRAM, what: reference.to_string(), answer: message });
        }
        Ok(Err(error)) => return Err(failed(error)),
        Err(closed) => return Err(failed(closed.into())),
    }
    let mut stream = Pieces { receive, piece: io::Cursor::default(), cancel: to.cancel };
    Files::stream(&mut stream, to.store, to.cancel, to.meter).map_err(|fault| to.fault(fault))
}

type Answer = Result<Option<String>, Box<dyn std::error::Error + Send + Sync>>;

/// Tells whether the image is there (`None`) or what Docker says instead, then hands its bytes on.
async fn ask(
    host: &DockerHost,
    name: &str,
    answered: &mpsc::SyncSender<Answer>,
    pieces: &mpsc::SyncSender<io::Result<Vec<u8>>>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let _chosen = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    let builder = builder.read_timeout(IDLE_LIMIT).tls_certs_only([]);
    let (client, base) = match host {
        DockerHost::Socket(path) => (builder.unix_socket(path.clone()).build()?, "http://docker".to_owned()),
        DockerHost::Tcp(host) => (builder.build()?, format!("http://{host}")),
        DockerHost::Unknown(text) => return Err(text.clone().into()),
    };
    let mut response = client.get(format!("{base}/images/{name}/get")).send().await.map_err(innermost)?;
    if response.status() != StatusCode::OK {
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(innermost)?.filter(|_| body.len() < ANSWER_BYTES_MAX) {
            body.extend_from_slice(&piece);
        }
        let status = response.status();
        let message = message(&body).unwrap_or_default();
        return match status {
            StatusCode::NOT_FOUND => Ok(answered.send(Ok(Some(message)))?),
            _ => Err(format!("it answers with status {status}{message}").into()),
        };
    }
    answered.send(Ok(None))?;
    while let Some(piece) = response.chunk().await.map_err(innermost)? {
        if pieces.send(Ok(piece.to_vec())).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

fn message(body: &[u8]) -> Option<String> {
    let answer: serde_json::Value = serde_json::from_slice(body).ok()?;
    let message = answer.get("message")?.as_str()?;
    Some(format!(": {}", message.chars().filter(|c| !c.is_control()).take(200).collect::<String>()))
}

/// What lies between says only that a request failed.
fn innermost(error: reqwest::Error) -> Box<dyn std::error::Error + Send + Sync> {
    let mut cause: &dyn std::error::Error = &error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string().into()
}

/// The name as Docker lists it: complete names work for all registries, and no tag means `latest`.
fn short(reference: &Reference) -> String {
    match (reference.tag(), reference.digest()) {
        (None, None) => format!("{reference}:latest"),
        _ => reference.to_string(),
    }
}

struct Pieces<'a> {
    receive: mpsc::Receiver<io::Result<Vec<u8>>>,
    piece: io::Cursor<Vec<u8>>,
    cancel: &'a Cancel,
}

impl Read for Pieces<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.piece.read(out)? {
                0 => match self.receive.recv_timeout(CANCEL_PAUSE) {
                    Ok(piece) => self.piece = io::Cursor::new(piece?),
                    Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(0),
                    Err(mpsc::RecvTimeoutError::Timeout) => self.cancel.check().map_err(io::Error::other)?,
                },
                count => return Ok(count),
            }
        }
    }
}

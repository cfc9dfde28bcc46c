//! A text from an HTTP server, which may be anybody's: everything it can do is limited.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::{Certificate, Client, StatusCode, Url, redirect};

/// A server that does not answer a connection within this time is not there.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Time for the whole answer: even 16 MiB take less over a slow line.
const WHOLE_LIMIT: Duration = Duration::from_secs(60);
/// Redirects that are followed; download sites use two or three.
const REDIRECTS_MAX: usize = 5;

/// Why a URL gives no text.
#[derive(Debug, thiserror::Error)]
pub enum UrlFault {
    /// The network is not to be used.
    #[error("the network is not used with --offline; get the file first and name it instead")]
    Offline,
    /// It is none.
    #[error("it is no URL; write http://HOST/PATH or https://HOST/PATH")]
    NoUrl,
    /// A file with certificates is of no use.
    #[error("cannot read certificates from `{}`", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// No connection, no secure connection, or it broke.
    #[error("the server cannot be reached; check the address and the network")]
    Connection(#[source] Box<dyn Error + Send + Sync>),
    /// It takes too long.
    #[error("no complete answer within {} s", WHOLE_LIMIT.as_secs())]
    Slow,
    /// Redirected too often, or from https to http.
    #[error("redirected more than {REDIRECTS_MAX} times, or away from https")]
    Redirect,
    /// Another status than 200.
    #[error("the server answers {0}")]
    Status(StatusCode),
    /// More bytes than a configuration has.
    #[error("it is longer than {limit} bytes, so it is no configuration")]
    TooLong {
        /// The limit.
        limit: usize,
    },
    /// This process cannot start what it needs for it.
    #[error("cannot start an HTTP client")]
    Host(#[source] Box<dyn Error + Send + Sync>),
}

/// Whether `name` is meant as a URL.
pub(super) fn is_url(name: &str) -> bool {
    let scheme = name.split_once("://").map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)))
}

/// `written` relative to `base`; [`None`] if that is not on an HTTP server.
pub(super) fn joined(base: &str, written: &str) -> Option<String> {
    let joined = Url::parse(base).ok()?.join(written).ok()?;
    let leads_down = base.starts_with("https") && joined.scheme() == "http";
    (is_url(joined.as_str()) && !leads_down).then(|| joined.into())
}

/// The URL as messages show it.
pub(super) fn without_password(url: &str) -> String {
    let Ok(mut parsed) = Url::parse(url) else { return url.into() };
    if parsed.username().is_empty() && parsed.password().is_none() {
        return url.into();
    }
    // Both fail only for URLs without a host, which have neither.
    let _ = parsed.set_username("");
    let _ = parsed.set_password(None);
    parsed.into()
}

/// What the server answers, at most `limit` bytes.
pub(super) fn fetch(url: &str, certificates: &[PathBuf], limit: usize) -> Result<Vec<u8>, UrlFault> {
    let url = Url::parse(url).map_err(|_error| UrlFault::NoUrl)?;
    // Fails if a provider is chosen already, which is as good.
    let _chosen = rustls::crypto::ring::default_provider().install_default();
    let client = client(&url, certificates)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| UrlFault::Host(error.into()))?.block_on(body(&client, url, limit))
}

async fn body(client: &Client, url: Url, limit: usize) -> Result<Vec<u8>, UrlFault> {
    let mut response = client.get(url).send().await.map_err(sort)?;
    if response.status() != StatusCode::OK {
        return Err(UrlFault::Status(response.status()));
    }
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await.map_err(sort)? {
        if body.len() + part.len() > limit {
            return Err(UrlFault::TooLong { limit });
        }
        body.extend_from_slice(&part);
    }
    Ok(body)
}

fn client(url: &Url, certificates: &[PathBuf]) -> Result<Client, UrlFault> {
    let trusted: Vec<Vec<Certificate>> = certificates.iter().map(|path| read(path)).collect::<Result<_, _>>()?;
    let trusted = trusted.concat();
    let builder = || {
        let builder = Client::builder()
            .user_agent(concat!("kiln/", env!("CARGO_PKG_VERSION")))
            .referer(false)
            .connect_timeout(CONNECT_LIMIT)
            .timeout(WHOLE_LIMIT)
            .redirect(redirect::Policy::custom(follow));
        // A proxy has another idea of what this machine is.
        let here = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
        if here { builder.no_proxy() } else { builder }
    };
    let built = builder().tls_certs_merge(trusted.clone()).build();
    // A machine without any certificates can still use http.
    let built =
        if url.scheme() == "https" { built } else { built.or_else(|_| builder().tls_certs_only(trusted).build()) };
    built.map_err(|error| UrlFault::Host(error.into()))
}

fn read(path: &Path) -> Result<Vec<Certificate>, UrlFault> {
    let fail = |source| UrlFault::Certificate { path: path.to_owned(), source };
    let pem = std::fs::read(path).map_err(|error| fail(error.into()))?;
    Certificate::from_pem_bundle(&pem).map_err(|error| fail(error.into()))
}

fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let leads_down = attempt.url().scheme() != "https" && attempt.previous().iter().any(|url| url.scheme() == "https");
    if leads_down || attempt.previous().len() > REDIRECTS_MAX {
        attempt.error("redirected too far")
    } else {
        attempt.follow()
    }
}

fn sort(error: reqwest::Error) -> UrlFault {
    if error.is_timeout() {
        UrlFault::Slow
    } else if error.is_redirect() {
        UrlFault::Redirect
    } else {
        // Its text repeats the URL, which the caller names.
        UrlFault::Connection(error.without_url().into())
    }
}

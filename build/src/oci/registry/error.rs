//! What can go wrong between here and a registry, and how a user can mend it.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use super::super::{Digest, DocumentError, StoreError};

/// Something could not be fetched.
#[derive(Debug, thiserror::Error)]
#[error("cannot fetch `{what}` from {url}")]
pub struct FetchError {
    /// The image, as its full reference.
    pub what: String,
    /// Where it was looked for: scheme, host, repository and tag or digest.
    pub url: String,
    /// Why.
    #[source]
    pub fault: Fault,
}

/// Something could not be pushed.
#[derive(Debug, thiserror::Error)]
#[error("cannot push `{what}` to {url}")]
pub struct PushError {
    /// The image, as its full reference there.
    pub what: String,
    /// Where it should go: scheme, host, repository and tag or digest.
    pub url: String,
    /// Why.
    #[source]
    pub fault: Fault,
}

/// Why something could not be fetched or pushed. Variants with `attempts` were asked for that often.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say what the fields are")]
pub enum Fault {
    /// 404.
    #[error(
        "the registry does not know it (404{message}); check name, tag and spelling, and `docker login {host}` if it is private"
    )]
    NotFound { host: String, message: String },
    /// 401 or 403, also after logging in.
    #[error(
        "access is denied ({status}{message}); log in with `docker login {host}`, or check the entry for it in {credentials}"
    )]
    Unauthorized { status: u16, host: String, credentials: String, message: String },
    /// 429 until the end.
    #[error(
        "too many requests (429{message}), asked {}; wait, or `docker login {host}` for a higher limit",
        times(attempts)
    )]
    RateLimited { attempts: u32, host: String, message: String },
    /// 5xx until the end.
    #[error("the registry fails ({status}{message}), asked {}; try again later or use `--mirror`", times(attempts))]
    Server { status: u16, attempts: u32, message: String },
    /// A status that a registry never gives for a read.
    #[error("the answer has status {status}{message}; is this a registry, and does it speak {scheme}?")]
    Status { status: u16, scheme: &'static str, message: String },
    /// The registry keeps the connection and sends nothing.
    #[error(
        "the registry sent nothing for {limit_s} s, asked {}; check the network or use `--mirror`",
        times(attempts)
    )]
    Hanging { limit_s: f64, attempts: u32 },
    /// Nobody listens.
    #[error("connection refused; is a registry running at {host}?")]
    Refused { host: String },
    /// No address for the name.
    #[error("no address is known for {host}; check its spelling and the network, or use `--mirror`")]
    NoAddress {
        host: String,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// No route, or the connection broke.
    #[error("no connection to {host}, tried {}; check the network or use `--mirror`", times(attempts))]
    Connection {
        host: String,
        attempts: u32,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The certificate does not convince.
    #[error("no secure connection to {host}; name its certificate authority with `--cert-file`")]
    Tls {
        host: String,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// Too many redirects, or one from https to http.
    #[error("redirected in circles or away from https")]
    Redirect(#[source] Box<dyn Error + Send + Sync>),
    /// Fewer bytes than promised.
    #[error("it ended after {found} of {expected} bytes, asked {}", times(attempts))]
    Truncated { expected: u64, found: u64, attempts: u32 },
    /// More bytes than promised or allowed.
    #[error("it is longer than {limit} bytes: the registry sends something else")]
    TooLong { limit: u64 },
    /// Other bytes than asked for.
    #[error("it has digest {found}, not {expected}: the registry or something on the way is broken")]
    Digest { expected: Digest, found: Digest },
    /// A manifest that is none: a login page, for instance.
    #[error("the answer cannot be used")]
    Document(#[source] DocumentError),
    /// A login that cannot be followed.
    #[error("the registry asks for a login that cannot be followed: {0}")]
    Login(&'static str),
    /// Credentials cannot be read.
    #[error("credentials cannot be read")]
    Credentials(#[source] super::super::credentials::CredentialsError),
    /// A certificate file cannot be read.
    #[error("certificates in `{}` cannot be used; they must be PEM", path.display())]
    Certificate {
        path: PathBuf,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The host cannot make a connection of any kind.
    #[error("the network cannot be used")]
    Host(#[source] Box<dyn Error + Send + Sync>),
    /// It was fetched, and it is no image for this build.
    #[error("the image cannot be used")]
    Unusable(#[source] Box<StoreError>),
    /// It cannot be read from the store or kept there.
    #[error("the store cannot be used")]
    Store(#[source] Box<StoreError>),
    /// An index names a manifest that was never pulled.
    #[error(
        "manifest {digest}{platform} is neither in the store nor in the registry; get it with \
         `kiln cache pull --all-platforms`, or push one platform only"
    )]
    NotHere { digest: Digest, platform: String },
    /// The user said so.
    #[error("no registry may be asked, as `--offline` says")]
    Offline,
    /// The registry takes an upload and does not say where it goes on.
    #[error("the registry takes uploads, but its answer has no `Location` that can be used")]
    NoLocation,
    /// The registry's pace is a fault or an attack.
    #[error(
        "it came slower than {bytes_per_s} bytes a second, asked {}; check the network or use `--mirror`",
        times(attempts)
    )]
    Slow { bytes_per_s: u64, attempts: u32 },
    /// The user stopped the build.
    #[error("interrupted")]
    Cancelled,
}

impl Fault {
    /// Whether asking again can help.
    pub(super) fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::RateLimited { .. }
                | Self::Server { .. }
                | Self::Hanging { .. }
                | Self::Connection { .. }
                | Self::Truncated { .. }
                | Self::Slow { .. }
        )
    }

    /// The same after this many attempts.
    pub(super) fn after(mut self, count: u32) -> Self {
        match &mut self {
            Self::RateLimited { attempts, .. }
            | Self::Server { attempts, .. }
            | Self::Hanging { attempts, .. }
            | Self::Connection { attempts, .. }
            | Self::Truncated { attempts, .. }
            | Self::Slow { attempts, .. } => *attempts = count,
            _ => {}
        }
        self
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Platform { .. }
            | StoreError::Document { .. }
            | StoreError::TooDeep { .. }
            | StoreError::TooLarge { .. } => Self::Unusable(Box::new(error)),
            _ => Self::Store(Box::new(error)),
        }
    }
}

/// Sorts an error of the HTTP client. Its kinds are told only by what caused it.
pub(super) fn sort(error: reqwest::Error, host: &str) -> Fault {
    let host = host.to_owned();
    let mut refused = false;
    let mut tls = false;
    let mut innermost = String::new();
    let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
    while let Some(current) = cause {
        let io = current.downcast_ref::<io::Error>();
        refused |= io.is_some_and(|io| io.kind() == io::ErrorKind::ConnectionRefused);
        tls |= current.is::<rustls::Error>();
        innermost = current.to_string();
        // An I/O error does not count what it wraps as its cause, and these wrap each other.
        cause = match io.and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => current.source(),
        };
    }
    let (redirect, dns) = (error.is_redirect(), error.is_dns());
    // What lies between says only that a request failed.
    let source = innermost.into();
    match () {
        () if refused => Fault::Refused { host },
        () if dns => Fault::NoAddress { host, source },
        () if tls => Fault::Tls { host, source },
        () if redirect => Fault::Redirect(source),
        () => Fault::Connection { host, attempts: 1, source },
    }
}

/// `once`, `2 times`.
fn times(count: &u32) -> String {
    match count {
        1 => "once".into(),
        more => format!("{more} times"),
    }
}

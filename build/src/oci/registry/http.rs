//! One question to a registry and its answer: connections, logging in, limits, asking again.
//!
//! The requests are made with reqwest, the client below `oci-client`. That crate's own requests cannot be used for
//! reading: they keep manifests, error pages and token answers in memory whatever their length (a manifest without end
//! took 2.8 GB in two seconds), and hide `Retry-After`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant, SystemTime};

use oci_client::errors::OciEnvelope;
use oci_client::token_cache::RegistryToken;
use reqwest::header::{ACCEPT, CONTENT_TYPE, RANGE, RETRY_AFTER};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use tokio::sync::Mutex;

use super::RegistryOptions;
use super::endpoint::{Endpoint, LoginKey};
use super::error::{Fault, sort};
use super::login::{Challenge, Login, challenge};
use super::retry_after;
use crate::oci::credentials::{self, Credentials};
use crate::progress::Progress;

/// Error pages and token answers; the specification's errors have less than a KiB.
const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// A user who waited for the idle limit twice has waited long enough.
const HANGING_ATTEMPTS_MAX: u32 = 2;
/// A modem of 1990 was faster.
const SLOWEST_BYTES_PER_S: u64 = 1024;
/// Shown of an error page.
const MESSAGE_CHARS: usize = 200;
pub(super) const ACCEPTED_MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// Connections to registries, and what was learnt about them.
pub(super) struct Http<'a> {
    pub(super) options: &'a RegistryOptions,
    progress: &'a dyn Progress,
    /// By "reached over http", "on this machine".
    pub(super) clients: RefCell<HashMap<(bool, bool), Client>>,
    logins: RefCell<HashMap<LoginKey, Login>>,
    logging_in: Mutex<()>,
    /// By registry; a helper program is asked once.
    credentials: RefCell<HashMap<String, Option<Credentials>>>,
}

impl<'a> Http<'a> {
    pub(super) fn new(options: &'a RegistryOptions, progress: &'a dyn Progress) -> Self {
        // Fails if a provider is chosen already, which is as good.
        let _chosen = rustls::crypto::ring::default_provider().install_default();
        Self {
            options,
            progress,
            clients: RefCell::default(),
            logins: RefCell::default(),
            logging_in: Mutex::default(),
            credentials: RefCell::default(),
        }
    }

    /// Calls `attempt` until it succeeds, fails for good, or the attempts are used up.
    pub(super) async fn retry<T, F>(&self, url: &str, mut attempt: impl FnMut() -> F) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Asked>>,
    {
        let mut pause = self.options.pause;
        let mut count = 1;
        loop {
            let Asked { fault, wait } = match attempt().await {
                Ok(answer) => return Ok(answer),
                Err(asked) => asked,
            };
            let hangs = matches!(fault, Fault::Hanging { .. } | Fault::Slow { .. }) && count >= HANGING_ATTEMPTS_MAX;
            if !fault.may_pass() || hangs || count >= self.options.attempts {
                return Err(fault.after(count));
            }
            let pause_now = wait.unwrap_or_else(|| jitter(pause)).min(self.options.pause_max);
            let fault = fault.after(count);
            self.progress.note(&format!("{url}: {fault}; again in {:.1} s", pause_now.as_secs_f64()));
            tokio::time::sleep(pause_now).await;
            pause = (pause * 2).min(self.options.pause_max);
            count += 1;
        }
    }

    /// Asks for `url` from byte `from` on, logging in if the registry wants it. The answer's status is 200 or 206.
    pub(super) async fn get(&self, endpoint: &Endpoint, url: &str, from: u64) -> Result<Response, Asked> {
        let response = self.ask(endpoint, &Method::GET, url, |request| {
            let request = request.header(ACCEPT, ACCEPTED_MANIFESTS);
            if from > 0 { request.header(RANGE, format!("bytes={from}-")) } else { request }
        });
        let response = response.await?;
        match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(response),
            _ => Err(self.refusal(response, endpoint).await),
        }
    }

    /// Sends a request that `shape` completes, again after logging in if the registry wants that. Any status comes back.
    pub(super) async fn ask(
        &self,
        endpoint: &Endpoint,
        method: &Method,
        url: &str,
        shape: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, Asked> {
        let client = self.client(endpoint)?;
        let request = || shape(client.request(method.clone(), url));
        let login = self.login(endpoint);
        let response = self.send(self.with_login(request(), endpoint, url), &endpoint.host).await?;
        if response.status() != StatusCode::UNAUTHORIZED || !endpoint.owns(url) {
            return Ok(response);
        }
        let one_at_a_time = self.logging_in.lock().await;
        // Somebody else may have logged in meanwhile.
        let may_try = self.login(endpoint) != login || self.log_in_as_told(&client, endpoint, &response).await?;
        drop(one_at_a_time);
        match may_try {
            true => self.send(self.with_login(request(), endpoint, url), &endpoint.host).await,
            false => Ok(response),
        }
    }

    fn login(&self, endpoint: &Endpoint) -> Option<Login> {
        self.logins.borrow().get(&endpoint.login_key()).cloned()
    }

    /// Logs in as the answer to a request without a login tells. Whether there is now something to try again with.
    async fn log_in_as_told(&self, client: &Client, endpoint: &Endpoint, response: &Response) -> Result<bool, Asked> {
        let wanted = match challenge(response.headers(), endpoint) {
            Ok(wanted) => wanted,
            // Some registries refuse without saying how to log in.
            Err(_) if !response.headers().contains_key("www-authenticate") => return Ok(false),
            Err(fault) => return Err(fault.into()),
        };
        let Some(login) = self.log_in(client, endpoint, wanted).await? else { return Ok(false) };
        self.logins.borrow_mut().insert(endpoint.login_key(), login);
        Ok(true)
    }

    /// All bytes of an answer of at most `limit` bytes.
    pub(super) async fn body(&self, mut response: Response, host: &str, limit: u64) -> Result<Vec<u8>, Asked> {
        let mut bytes = Vec::new();
        if response.content_length().is_some_and(|length| length > limit) {
            return Err(Fault::TooLong { limit }.into());
        }
        let mut pace = Pace::default();
        while let Some(chunk) = self.chunk(&mut response, host, &mut pace).await? {
            if (bytes.len() + chunk.len()) as u64 > limit {
                return Err(Fault::TooLong { limit }.into());
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    /// The next bytes of an answer; `None` at its end.
    pub(super) async fn chunk(
        &self,
        response: &mut Response,
        host: &str,
        pace: &mut Pace,
    ) -> Result<Option<impl AsRef<[u8]> + std::ops::Deref<Target = [u8]> + use<>>, Asked> {
        let asked = Instant::now();
        let chunk = self.in_time(response.chunk()).await?.map_err(|error| sort(error, host))?;
        pace.waited(asked.elapsed(), chunk.as_ref().map_or(0, |chunk| chunk.len()), self.options.idle_limit)?;
        Ok(chunk)
    }

    pub(super) async fn send(&self, request: RequestBuilder, host: &str) -> Result<Response, Asked> {
        let response = self.in_time(request.send()).await?;
        response.map_err(|error| sort(error, host).into())
    }

    async fn in_time<T>(&self, work: impl Future<Output = T>) -> Result<T, Asked> {
        let limit = self.options.idle_limit;
        let late = |_| Fault::Hanging { limit_s: limit.as_secs_f64(), attempts: 1 };
        tokio::time::timeout(limit, work).await.map_err(|elapsed| late(elapsed).into())
    }

    /// Adds what the registry wants to see, unless `url` leads elsewhere.
    pub(super) fn with_login(&self, request: RequestBuilder, endpoint: &Endpoint, url: &str) -> RequestBuilder {
        match self.logins.borrow().get(&endpoint.login_key()) {
            _ if !endpoint.owns(url) => request,
            Some(Login::Basic { user, password }) => request.basic_auth(user, Some(password)),
            Some(Login::Token(token)) => request.bearer_auth(token),
            None => request,
        }
    }

    /// `None` when a password is needed and there is none.
    async fn log_in(&self, client: &Client, endpoint: &Endpoint, wanted: Challenge) -> Result<Option<Login>, Asked> {
        let credentials = self.credentials(&endpoint.login).await?;
        let (realm, credentials) = match (wanted, credentials) {
            (_, Some(Credentials::Token(token))) => return Ok(Some(Login::Token(token))),
            (Challenge::Basic, Some(Credentials::Password { user, password })) => {
                return Ok(Some(Login::Basic { user, password }));
            }
            (Challenge::Basic, _) => return Ok(None),
            (Challenge::Token(realm), credentials) => (realm, credentials),
        };
        let host = realm.url.host_str().unwrap_or_default().to_owned();
        let request = match credentials {
            Some(Credentials::Password { user, password }) => {
                client.get(realm.with_query()).basic_auth(user, Some(password))
            }
            Some(Credentials::Identity(token)) => client
                .post(realm.url.clone())
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(realm.refresh_form(&token)),
            _ => client.get(realm.with_query()),
        };
        let response = self.send(request, &host).await?;
        if response.status() != StatusCode::OK {
            return Err(self.refusal(response, endpoint).await);
        }
        let bytes = self.body(response, &host, ANSWER_BYTES_MAX).await?;
        let token: RegistryToken =
            serde_json::from_slice(&bytes).map_err(|_| Fault::Login("the answer of the `realm` has no token"))?;
        Ok(Some(Login::Token(token.token().to_owned())))
    }

    async fn credentials(&self, registry: &str) -> Result<Option<Credentials>, Fault> {
        let Some(config) = &self.options.docker_config else { return Ok(None) };
        if let Some(known) = self.credentials.borrow().get(registry) {
            return Ok(known.clone());
        }
        let (config, name) = (config.clone(), registry.to_owned());
        let found = tokio::task::spawn_blocking(move || credentials::look_up(&config, &name)).await;
        let found = found.map_err(|error| Fault::Host(error.into()))?.map_err(Fault::Credentials)?;
        self.credentials.borrow_mut().insert(registry.to_owned(), found.clone());
        Ok(found)
    }

    /// The fault that an answer with another status than success tells.
    pub(super) async fn refusal(&self, response: Response, endpoint: &Endpoint) -> Asked {
        let status = response.status().as_u16();
        let wait = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let wait = wait.and_then(|text| retry_after::wait(text, SystemTime::now()));
        let host = endpoint.login.clone();
        let body = self.body(response, &endpoint.host, ANSWER_BYTES_MAX).await.unwrap_or_default();
        let message = message(&body);
        let attempts = 1;
        let fault = match status {
            401 | 403 => Fault::Unauthorized { status, credentials: self.credentials_place(), host, message },
            404 => Fault::NotFound { host, message },
            429 => Fault::RateLimited { attempts, host, message },
            500..=599 => Fault::Server { status, attempts, message },
            _ => Fault::Status { status, scheme: if endpoint.tls { "https" } else { "http" }, message },
        };
        Asked { fault, wait }
    }

    fn credentials_place(&self) -> String {
        match &self.options.docker_config {
            Some(path) => format!("`{}`", path.display()),
            None => "Docker's configuration file".to_owned(),
        }
    }
}

/// How fast an answer comes: one byte before each time-out would keep a pull for ever.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Only waiting counts: the disk may be slow too.
    waited: Duration,
    bytes: usize,
}

impl Pace {
    /// An error if too little came over a whole time-out.
    fn waited(&mut self, time: Duration, bytes: usize, limit: Duration) -> Result<(), Fault> {
        self.waited += time;
        self.bytes += bytes;
        if self.waited < limit {
            return Ok(());
        }
        let needed = SLOWEST_BYTES_PER_S as f64 * self.waited.as_secs_f64();
        let is_slow = (self.bytes as f64) < needed;
        *self = Self::default();
        match is_slow {
            true => Err(Fault::Slow { bytes_per_s: SLOWEST_BYTES_PER_S, attempts: 1 }),
            false => Ok(()),
        }
    }
}

/// How one attempt failed, and how long the registry wants to be left alone.
pub(super) struct Asked {
    pub fault: Fault,
    pub wait: Option<Duration>,
}

impl From<Fault> for Asked {
    fn from(fault: Fault) -> Self {
        Self { fault, wait: None }
    }
}

/// What an error page says, as the end of a sentence: `: manifest unknown`. It comes from outside: control characters
/// could rewrite a terminal.
fn message(body: &[u8]) -> String {
    let Ok(envelope) = serde_json::from_slice::<OciEnvelope>(body) else { return String::new() };
    let Some(first) = envelope.errors.first().filter(|error| !error.message.is_empty()) else { return String::new() };
    let printable = first.message.chars().filter(|c| !c.is_control());
    printable.take(MESSAGE_CHARS).fold(": ".to_owned(), |text, c| text + c.encode_utf8(&mut [0; 4]))
}

/// Between half of `pause` and all of it, so that many builds do not come back at once.
fn jitter(pause: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish();
    pause.mul_f64(0.5 + 0.5 * (random % 1024) as f64 / 1024.0)
}

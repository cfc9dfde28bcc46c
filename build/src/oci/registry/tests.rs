//! A registry that misbehaves in one way at a time. The real one is met in the end-to-end tests.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::json;

use super::*;
use crate::progress::Silent;

/// One question.
#[derive(Debug, Clone, Default)]
pub(super) struct Request {
    pub method: String,
    pub path: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
    pub body: Vec<u8>,
    /// 1 for the first question for this path.
    pub count: usize,
}

pub(super) enum Reply {
    /// Status line's end, header lines, body; with a right `Content-Length`.
    Full(&'static str, String, Vec<u8>),
    /// These bytes, then the connection is closed.
    Raw(Vec<u8>),
    /// These bytes, then nothing, for ever.
    Hang(Vec<u8>),
    /// These bytes, then zeros, for ever.
    Endless(Vec<u8>),
    /// These bytes, then a zero after each of these pauses.
    Drip(Vec<u8>, Duration),
}

pub(super) fn ok(body: &[u8]) -> Reply {
    Reply::Full("200 OK", String::new(), body.to_vec())
}

pub(super) fn status(line: &'static str) -> Reply {
    Reply::Full(line, String::new(), Vec::new())
}

pub(super) struct Fake {
    pub host: String,
    pub log: Arc<Mutex<Vec<Request>>>,
}

impl Fake {
    /// Its threads end with the connections, and the listener with the test's process.
    pub(super) fn serve(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (answer, requests) = (Arc::new(answer), Arc::clone(&log));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, requests) = (Arc::clone(&answer), Arc::clone(&requests));
                // An error is a client that went away.
                thread::spawn(move || talk(&stream, &*answer, &requests).err());
            }
        });
        Self { host, log }
    }

    pub(super) fn count(&self, path: &str) -> usize {
        self.log.lock().unwrap().iter().filter(|request| request.path.contains(path)).count()
    }
}

fn talk(stream: &TcpStream, answer: &dyn Fn(&Request) -> Reply, log: &Mutex<Vec<Request>>) -> std::io::Result<()> {
    let mut from = BufReader::new(stream);
    let mut out = stream;
    stream.set_nodelay(true)?;
    while let Some(first) = from.by_ref().lines().next().transpose()? {
        let mut words = first.split(' ').map(str::to_owned);
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut request = Request { method, path, ..Request::default() };
        let mut body_bytes = 0;
        while let Some(line) = from.by_ref().lines().next().transpose()?.filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(": ").unwrap_or_default();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => body_bytes = value.parse().unwrap(),
                "range" | "content-range" => request.range = Some(value.to_owned()),
                "authorization" => request.authorization = Some(value.to_owned()),
                _ => {}
            }
        }
        from.by_ref().take(body_bytes).read_to_end(&mut request.body)?;
        if request.body.len() as u64 != body_bytes {
            return Ok(());
        }
        let mut known = log.lock().unwrap();
        request.count = 1 + known.iter().filter(|old| old.path == request.path).count();
        known.push(request.clone());
        drop(known);
        match answer(&request) {
            Reply::Full(status, headers, body) => {
                write!(out, "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n", body.len())?;
                if request.method != "HEAD" {
                    out.write_all(&body)?;
                }
            }
            Reply::Raw(bytes) => {
                out.write_all(&bytes)?;
                return out.shutdown(std::net::Shutdown::Write);
            }
            Reply::Hang(bytes) => {
                out.write_all(&bytes)?;
                return out.read(&mut [0]).map(|_| ());
            }
            Reply::Drip(bytes, pause) => {
                out.write_all(&bytes)?;
                loop {
                    thread::sleep(pause);
                    out.write_all(&[0])?;
                }
            }
            Reply::Endless(bytes) => {
                out.write_all(&bytes)?;
                loop {
                    out.write_all(&[0; 65536])?;
                }
            }
        }
    }
    Ok(())
}

/// A good image with one layer of 100,000 bytes.
#[derive(Clone)]
struct Good {
    layer: Vec<u8>,
    config: Vec<u8>,
    manifest: Vec<u8>,
    index: Vec<u8>,
}

pub(super) fn digest(bytes: &[u8]) -> Digest {
    Digest::from_bytes(Sha256::digest(bytes).into())
}

fn good() -> Good {
    let layer: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).step_by(4).collect();
    let config = br#"{"os":"linux","architecture":"amd64","config":{"Cmd":["/a"]}}"#.to_vec();
    let descriptor = |bytes: &[u8]| json!({"digest": digest(bytes).to_string(), "size": bytes.len()});
    let manifest = json!({"schemaVersion": 2, "config": descriptor(&config), "layers": [descriptor(&layer)]});
    let manifest = manifest.to_string().into_bytes();
    let other = json!({"digest": format!("sha256:{}", "1".repeat(64)), "size": 1,
        "platform": {"os": "linux", "architecture": "arm64"}});
    let mut this = descriptor(&manifest);
    this["platform"] = json!({"os": "linux", "architecture": "amd64"});
    let index = json!({"schemaVersion": 2, "manifests": [other, this]}).to_string().into_bytes();
    Good { layer, config, manifest, index }
}

impl Good {
    /// As a registry that does all right answers.
    fn answer(&self, request: &Request) -> Reply {
        let ending = |bytes: &[u8]| request.path.ends_with(&digest(bytes).to_string());
        match () {
            () if request.path.ends_with("/manifests/1") => ok(&self.index),
            () if ending(&self.index) => ok(&self.index),
            () if ending(&self.manifest) => ok(&self.manifest),
            () if ending(&self.config) => ok(&self.config),
            () if ending(&self.layer) => ok(&self.layer),
            () => status("404 Not Found"),
        }
    }
}

pub(super) fn options() -> RegistryOptions {
    RegistryOptions {
        idle_limit: Duration::from_millis(300),
        attempts: 3,
        pause: Duration::from_millis(1),
        pause_max: Duration::from_millis(5),
        ..RegistryOptions::default()
    }
}

struct Pulled {
    result: Result<Image, Fault>,
    text: String,
    store: Store,
    _folder: tempfile::TempDir,
}

fn pull(host: &str, options: &RegistryOptions) -> Pulled {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let (result, text) = pull_into(&store, host, options);
    Pulled { result, text, store, _folder: folder }
}

fn pull_into(store: &Store, host: &str, options: &RegistryOptions) -> (Result<Image, Fault>, String) {
    let wanted = [Wanted { reference: format!("{host}/a/b:1").parse().unwrap(), root: None }];
    let platform = Platform::linux("amd64");
    match fetch(&wanted, &platform, store, options, &Cancel::default(), &Silent) {
        Ok(mut images) => (Ok(images.remove(0)), String::new()),
        Err((0, error)) => {
            let text = format!("{error}: {}", error.fault);
            assert!(text.contains(&format!("`{host}/a/b:1`")), "the error names the image: {text}");
            (Err(error.fault), text)
        }
        Err((number, error)) => panic!("{number}: {error}"),
    }
}

/// Nothing but the documents of the good image may be left.
fn assert_no_remains(pulled: &Pulled) {
    let root = pulled.store.root();
    assert_eq!(std::fs::read_dir(root.join("tmp")).unwrap().count(), 0, "temp files stay");
    assert!(pulled.store.root_digest(&"a/b:1".parse().unwrap()).unwrap().is_none());
}

/// The good image, but `place` (a part of the path) is answered with `reply`.
fn spoilt(place: impl Fn(&Good) -> String, reply: impl Fn(&Request, &Good) -> Reply + Send + Sync + 'static) -> Fake {
    let good = good();
    let place = place(&good);
    Fake::serve(move |request| match request.path.contains(&place) {
        true => reply(request, &good),
        false => good.answer(request),
    })
}

fn layer_path(good: &Good) -> String {
    digest(&good.layer).to_string()
}

fn tag_path(_: &Good) -> String {
    "/manifests/1".into()
}

#[test]
fn an_image_that_is_not_known_is_not_found_at_once() {
    let fake = Fake::serve(|_| {
        let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no \u001b[31msuch"}]}"#;
        Reply::Full("404 Not Found", String::new(), body.to_vec())
    });
    let pulled = pull(&fake.host, &options());
    assert!(matches!(pulled.result, Err(Fault::NotFound { .. })));
    assert!(pulled.text.contains("404: no [31msuch") && pulled.text.contains("/v2/a/b/manifests/1"), "{}", pulled.text);
    assert_eq!(fake.count("/"), 1);
}

#[test]
fn a_registry_that_always_wants_another_login_is_asked_twice() {
    let header = "WWW-Authenticate: Bearer realm=\"http://HOST/token\",service=\"s\"\r\n";
    let host = Arc::new(Mutex::new(String::new()));
    let known = Arc::clone(&host);
    let fake = Fake::serve(move |request| match request.path.starts_with("/token") {
        true => ok(br#"{"token":"t"}"#),
        false => Reply::Full("401 No", header.replace("HOST", &known.lock().unwrap()), Vec::new()),
    });
    host.lock().unwrap().clone_from(&fake.host);
    let pulled = pull(&fake.host, &options());
    assert!(matches!(pulled.result, Err(Fault::Unauthorized { status: 401, .. })), "{}", pulled.text);
    assert!(pulled.text.contains(&format!("docker login {}", fake.host)), "{}", pulled.text);
    assert_eq!((fake.count("/v2"), fake.count("/token?service=s&scope=repository%3Aa%2Fb%3Apull")), (2, 1));
}

#[test]
fn a_login_that_cannot_be_followed_is_an_error() {
    for header in ["", "WWW-Authenticate: Negotiate\r\n", "WWW-Authenticate: Bearer realm=\"\"\r\n"] {
        let fake = Fake::serve(move |_| Reply::Full("401 No", header.into(), Vec::new()));
        let pulled = pull(&fake.host, &options());
        let expected = matches!(pulled.result, Err(Fault::Unauthorized { .. } | Fault::Login(_)));
        assert!(expected && fake.count("/") == 1, "{header}: {}", pulled.text);
    }
}

#[test]
fn a_token_answer_without_end_or_token_is_an_error() {
    for endless in [true, false] {
        let host = Arc::new(Mutex::new(String::new()));
        let known = Arc::clone(&host);
        let fake = Fake::serve(move |request| match request.path.starts_with("/token") {
            true if endless => Reply::Endless(b"HTTP/1.1 200 OK\r\n\r\n".to_vec()),
            true => ok(b"{}"),
            false => {
                let header = format!("WWW-Authenticate: Bearer realm=\"http://{}/token\"\r\n", known.lock().unwrap());
                Reply::Full("401 No", header, Vec::new())
            }
        });
        host.lock().unwrap().clone_from(&fake.host);
        let pulled = pull(&fake.host, &options());
        assert!(matches!(pulled.result, Err(Fault::TooLong { .. } | Fault::Login(_))), "{}", pulled.text);
    }
}

#[test]
fn name_and_password_are_sent_only_when_asked_for() {
    use base64::Engine;
    let secret = base64::engine::general_purpose::STANDARD.encode("u:p");
    let good = good();
    let expected = format!("Basic {secret}");
    let fake = Fake::serve(move |request| match request.authorization.as_deref() == Some(&expected) {
        true => good.answer(request),
        false => Reply::Full("401 No", "WWW-Authenticate: Basic realm=\"r\"\r\n".into(), Vec::new()),
    });
    let config = tempfile::NamedTempFile::new().unwrap();
    let text = json!({"auths": {fake.host.clone(): {"auth": secret}}}).to_string();
    std::fs::write(config.path(), text).unwrap();
    let with_config = RegistryOptions { docker_config: Some(config.path().to_owned()), ..options() };
    let pulled = pull(&fake.host, &with_config);
    assert!(pulled.result.is_ok(), "{}", pulled.text);
    assert!(fake.log.lock().unwrap()[0].authorization.is_none());
    assert!(matches!(pull(&fake.host, &options()).result, Err(Fault::Unauthorized { .. })));
}

#[test]
fn what_passes_is_asked_for_again() {
    let replies: [fn() -> Reply; 4] = [
        || Reply::Full("429 Slow Down", "Retry-After: 0\r\n".into(), Vec::new()),
        || status("500 Broken"),
        || Reply::Raw(Vec::new()),
        || Reply::Hang(Vec::new()),
    ];
    for (number, reply) in replies.into_iter().enumerate() {
        for place in [tag_path, layer_path] {
            let fake = spoilt(place, move |request, good| match request.count {
                1 => reply(),
                _ => good.answer(request),
            });
            let pulled = pull(&fake.host, &options());
            assert!(pulled.result.is_ok(), "{number}: {}", pulled.text);
        }
    }
}

#[test]
fn what_does_not_pass_is_given_up() {
    let check = |reply: fn() -> Reply, asked: usize, text: &str| {
        let fake = spoilt(layer_path, move |_, _| reply());
        let pulled = pull(&fake.host, &options());
        assert!(pulled.result.is_err() && pulled.text.contains(text), "{text}: {}", pulled.text);
        assert_eq!(fake.count(&layer_path(&good())), asked, "{text}");
        assert_no_remains(&pulled);
    };
    check(|| status("404 Not Found"), 1, "does not know it (404)");
    check(|| status("403 No"), 1, "access is denied (403)");
    check(|| status("418 Teapot"), 1, "status 418");
    check(|| status("429 Slow Down"), 3, "too many requests (429), asked 3 times");
    check(|| Reply::Full("429 Slow Down", "Retry-After: 99999999999\r\n".into(), Vec::new()), 3, "asked 3 times");
    check(|| status("503 Broken"), 3, "fails (503), asked 3 times");
    check(|| Reply::Raw(Vec::new()), 3, "tried 3 times");
    check(|| Reply::Raw(b"SSH-2.0-x\r\n".to_vec()), 3, "tried 3 times");
    check(|| Reply::Hang(Vec::new()), 2, "sent nothing for 0.3 s, asked 2 times");
    check(|| Reply::Hang(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nabc".to_vec()), 2, "sent nothing");
    check(|| Reply::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n".to_vec()), 3, "after 0 of 100000 bytes");
    let drip = || Reply::Drip(b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), Duration::from_millis(50));
    check(drip, 2, "slower than 1024 bytes a second, asked 2 times");
    check(|| Reply::Drip(b"HTTP/1.1 200 OK\r\nX: ".to_vec(), Duration::from_millis(50)), 2, "sent nothing for 0.3 s");
    check(|| Reply::Endless(b"HTTP/1.1 200 OK\r\n\r\n".to_vec()), 1, "longer than 100000 bytes");
    check(|| Reply::Endless(b"HTTP/1.1 500 Broken\r\n\r\n".to_vec()), 3, "fails (500), asked 3 times");
    check(|| Reply::Endless(b"HTTP/1.1 200 OK\r\nX: ".to_vec()), 3, "tried 3 times");
    check(|| ok(&[0; 100_001]), 1, "longer than 100000 bytes");
    check(|| ok(&[0; 100_000]), 1, "it has digest sha256:");
    check(|| ok(&[0; 10]), 3, "after");
    check(|| Reply::Full("302 Found", "Location: /v2/a/b/blobs/x\r\n".into(), Vec::new()), 1, "404");
}

#[test]
fn a_connection_that_breaks_is_continued_where_it_broke() {
    let fake = spoilt(layer_path, |request, good| {
        let from = request.range.as_deref().and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-'));
        let from: usize = from.map_or(0, |from| from.parse().unwrap());
        let left = &good.layer[from..];
        let status = if from > 0 { "206 Partial" } else { "200 OK" };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Range: bytes {from}-99999/100000\r\nContent-Length: {}\r\n\r\n",
            left.len()
        );
        let part = left.get(..40_000).unwrap_or(left);
        Reply::Raw([head.as_bytes(), part].concat())
    });
    let pulled = pull(&fake.host, &options());
    assert!(pulled.result.is_ok(), "{}", pulled.text);
    let ranges: Vec<_> = fake.log.lock().unwrap().iter().filter_map(|request| request.range.clone()).collect();
    assert_eq!(ranges, ["bytes=40000-", "bytes=80000-"]);
}

#[test]
fn a_registry_that_cannot_continue_starts_anew() {
    for header in ["", "Content-Range: bytes 5-99999/100000\r\n"] {
        let fake = spoilt(layer_path, move |request, good| match request.count {
            1 => {
                let head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n".to_vec();
                Reply::Raw([&head, &good.layer[..40_000]].concat())
            }
            2 if !header.is_empty() => Reply::Full("206 Partial", header.into(), good.layer.clone()),
            _ => ok(&good.layer),
        });
        let pulled = pull(&fake.host, &options());
        assert!(pulled.result.is_ok(), "{}", pulled.text);
    }
}

#[test]
fn a_manifest_that_is_none_is_refused_and_not_kept() {
    let check = |body: Vec<u8>, text: &str| {
        let fake = spoilt(tag_path, move |_, _| ok(&body));
        let pulled = pull(&fake.host, &options());
        let cause = match &pulled.result {
            Err(Fault::Document(cause)) => cause.to_string(),
            Err(Fault::Unusable(cause)) => cause.to_string(),
            _ => pulled.text.clone(),
        };
        assert!(pulled.result.is_err() && cause.contains(text), "{text}: {cause}");
        assert_no_remains(&pulled);
    };
    check(b"<html>Please log in</html>".to_vec(), "no image document");
    check(b"{}".to_vec(), "neither");
    check(br#"{"schemaVersion":1,"name":"a"}"#.to_vec(), "schema version 1");
    check(br#"{"schemaVersion":2,"manifests":[]}"#.to_vec(), "it is for no platform");
    check("[".repeat(1 << 20).into_bytes(), "no image document");
    check(vec![b' '; 5 << 20], "longer than 4194304 bytes");
}

#[test]
fn a_manifest_without_end_is_cut() {
    let fake = spoilt(tag_path, |_, _| Reply::Endless(b"HTTP/1.1 200 OK\r\n\r\n".to_vec()));
    assert!(matches!(pull(&fake.host, &options()).result, Err(Fault::TooLong { .. })));
}

#[test]
fn a_document_with_another_digest_is_refused() {
    let promised = format!("Docker-Content-Digest: sha256:{}\r\n", "0".repeat(64));
    let fake = spoilt(tag_path, move |_, good| Reply::Full("200 OK", promised.clone(), good.index.clone()));
    assert!(matches!(pull(&fake.host, &options()).result, Err(Fault::Digest { .. })));
    let fake = spoilt(|good| digest(&good.manifest).to_string(), |_, good| ok(&good.index));
    assert!(matches!(pull(&fake.host, &options()).result, Err(Fault::Digest { .. })));
    let fake = spoilt(|good| digest(&good.config).to_string(), |_, good| ok(&good.index));
    assert!(matches!(pull(&fake.host, &options()).result, Err(Fault::Digest { .. })));
}

#[test]
fn redirects_end() {
    let fake = Fake::serve(|request| Reply::Full("302 Found", format!("Location: {}x\r\n", request.path), Vec::new()));
    let pulled = pull(&fake.host, &options());
    assert!(matches!(pulled.result, Err(Fault::Redirect(_))), "{}", pulled.text);
    assert!(fake.count("/") <= 7);
}

#[test]
fn a_login_is_not_taken_along_to_another_host() {
    use base64::Engine;
    let secret = base64::engine::general_purpose::STANDARD.encode("u:p");
    let good_image = good();
    let elsewhere = Fake::serve(move |request| good_image.answer(request));
    let (expected, other) = (format!("Basic {secret}"), elsewhere.host.clone());
    let good_image = good();
    let fake = Fake::serve(move |request| match request.authorization.as_deref() == Some(&expected) {
        true if request.path.contains("/blobs/") => {
            Reply::Full("307 There", format!("Location: http://{other}{}\r\n", request.path), Vec::new())
        }
        true => good_image.answer(request),
        false => Reply::Full("401 No", "WWW-Authenticate: Basic realm=\"r\"\r\n".into(), Vec::new()),
    });
    let config = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(config.path(), json!({"auths": {fake.host.clone(): {"auth": secret}}}).to_string()).unwrap();
    let with_config = RegistryOptions { docker_config: Some(config.path().to_owned()), ..options() };
    let pulled = pull(&fake.host, &with_config);
    assert!(pulled.result.is_ok(), "{}", pulled.text);
    let log = elsewhere.log.lock().unwrap();
    assert!(!log.is_empty() && log.iter().all(|request| request.authorization.is_none()));
}

#[test]
fn a_refresh_token_is_exchanged_by_a_post() {
    let host = Arc::new(Mutex::new(String::new()));
    let known = Arc::clone(&host);
    let good_image = good();
    let fake = Fake::serve(move |request| match request.authorization.as_deref() {
        _ if request.path == "/token" => {
            let form = String::from_utf8(request.body.clone()).unwrap();
            assert!(request.method == "POST" && form.contains("grant_type=refresh_token"), "{form}");
            assert!(form.contains("&refresh_token=r%2Ft") && request.authorization.is_none(), "{form}");
            ok(br#"{"access_token":"t"}"#)
        }
        Some("Bearer t") => good_image.answer(request),
        _ => {
            let header = format!("WWW-Authenticate: Bearer realm=\"http://{}/token\"\r\n", known.lock().unwrap());
            Reply::Full("401 No", header, Vec::new())
        }
    });
    host.lock().unwrap().clone_from(&fake.host);
    let config = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(config.path(), json!({"auths": {fake.host.clone(): {"identitytoken": "r/t"}}}).to_string()).unwrap();
    let with_config = RegistryOptions { docker_config: Some(config.path().to_owned()), ..options() };
    let pulled = pull(&fake.host, &with_config);
    assert!(pulled.result.is_ok(), "{}", pulled.text);
}

#[test]
fn indexes_in_indexes_end() {
    let leaf = good().index;
    let mut chain = vec![leaf];
    for _ in 0..40 {
        let below = chain.last().unwrap();
        let entry = json!({"digest": digest(below).to_string(), "size": below.len(),
            "platform": {"os": "linux", "architecture": "amd64"}});
        chain.push(json!({"schemaVersion": 2, "manifests": [entry]}).to_string().into_bytes());
    }
    let documents: HashMap<String, Vec<u8>> =
        chain.iter().map(|bytes| (digest(bytes).to_string(), bytes.clone())).collect();
    let top = chain.last().unwrap().clone();
    let fake = Fake::serve(move |request| match documents.get(request.path.rsplit('/').next().unwrap()) {
        Some(bytes) => ok(bytes),
        None => ok(&top),
    });
    let pulled = pull(&fake.host, &options());
    let is_too_deep =
        |fault: &Fault| matches!(fault, Fault::Unusable(cause) if matches!(**cause, StoreError::TooDeep { .. }));
    assert!(pulled.result.as_ref().is_err_and(is_too_deep), "{}", pulled.text);
    let name: Reference = format!("{}/a/b:1", fake.host).parse().unwrap();
    let all = super::pull(&name, Extent::All, &pulled.store, &options(), &Cancel::default(), &Silent);
    assert!(all.is_err_and(|error| is_too_deep(&error.fault)));
    assert!(fake.count("/") < 60, "{}", fake.count("/"));
}

#[test]
fn all_platforms_and_artifacts_are_pulled_whole() {
    let good_image = good();
    let fake = Fake::serve(move |request| match request.path.contains(&"1".repeat(64)) {
        true => status("404 Not Found"),
        false => good_image.answer(request),
    });
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let pull = |name: &str, options: &RegistryOptions| {
        let name: Reference = format!("{}/{name}", fake.host).parse().unwrap();
        super::pull(&name, Extent::All, &store, options, &Cancel::default(), &Silent)
    };
    let missing = pull("a/b:1", &options()).unwrap_err();
    assert!(matches!(missing.fault, Fault::NotFound { .. }), "an index with a platform that is gone: {missing}");
    let name = format!("a/b@{}", digest(&good().manifest));
    assert_eq!(pull(&name, &options()).unwrap(), digest(&good().manifest));
    let offline = pull(&name, &RegistryOptions { offline: true, ..options() }).unwrap_err();
    assert!(matches!(offline.fault, Fault::Offline), "{offline}");
}

#[test]
fn nobody_listening_is_told_at_once() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let pulled = pull(&free, &RegistryOptions { pause: Duration::from_secs(3600), ..options() });
    assert!(matches!(pulled.result, Err(Fault::Refused { .. })), "{}", pulled.text);
}

/// The certificate, trusted by nobody, and its key of a server on 127.0.0.1.
const LOOPBACK_PEM: &str = include_str!("testdata/loopback.pem");

/// Serves the good image over https; returns the host.
fn serve_tls() -> String {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let certificate = CertificateDer::from_pem_slice(LOOPBACK_PEM.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(LOOPBACK_PEM.as_bytes()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut tls = BufReader::new(rustls::StreamOwned::new(connection, stream));
            let mut first = String::new();
            // An error is a client that does not like the certificate.
            if tls.read_line(&mut first).is_err() {
                continue;
            }
            let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
            if let Reply::Full(status, _, body) = good().answer(&Request { path, ..Request::default() }) {
                let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
                tls.get_mut().write_all(&[head.as_bytes(), &body].concat()).unwrap();
                tls.get_mut().flush().unwrap();
            }
        }
    });
    host
}

#[test]
fn a_certificate_that_nobody_knows_is_refused_at_once_and_a_file_can_make_it_known() {
    let mirror: Mirror = format!("https://{}", serve_tls()).parse().unwrap();
    let with_mirror = RegistryOptions { mirrors: vec![mirror], ..options() };
    let pulled = pull("r.example", &RegistryOptions { pause: Duration::from_secs(3600), ..with_mirror.clone() });
    assert!(matches!(pulled.result, Err(Fault::Tls { .. })) && pulled.text.contains("--cert-file"), "{}", pulled.text);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), LOOPBACK_PEM).unwrap();
    let pulled = pull("r.example", &RegistryOptions { certificates: vec![file.path().to_owned()], ..with_mirror });
    assert!(pulled.result.is_ok(), "{}", pulled.text);
}

#[test]
fn plain_http_behind_an_https_mirror_is_told_as_no_secure_connection() {
    let fake = Fake::serve(|_| ok(b""));
    let mirror: Mirror = format!("https://{}", fake.host).parse().unwrap();
    let pulled = pull("r.example", &RegistryOptions { mirrors: vec![mirror], ..options() });
    assert!(pulled.result.is_err() && pulled.text.contains("https://"), "{}", pulled.text);
}

#[test]
fn a_file_without_certificates_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for text in ["", "no PEM"] {
        std::fs::write(file.path(), text).unwrap();
        let with_file = RegistryOptions { certificates: vec![file.path().to_owned()], ..options() };
        let pulled = pull("127.0.0.1:1", &with_file);
        assert!(matches!(pulled.result, Err(Fault::Certificate { .. })), "{}", pulled.text);
    }
}

#[test]
fn a_build_that_is_stopped_leaves_a_hanging_registry() {
    let fake = Fake::serve(|_| Reply::Hang(Vec::new()));
    let (folder, cancel) = (tempfile::tempdir().unwrap(), Cancel::default());
    let store = Store::open(folder.path()).unwrap();
    let wanted = [Wanted { reference: format!("{}/a:1", fake.host).parse().unwrap(), root: None }];
    let patient = RegistryOptions { idle_limit: Duration::from_secs(3600), ..options() };
    cancel.cancel();
    let result = fetch(&wanted, &Platform::linux("amd64"), &store, &patient, &cancel, &Silent);
    assert!(matches!(result, Err((_, error)) if matches!(error.fault, Fault::Cancelled)));
}

#[test]
fn only_the_wanted_platform_is_fetched_and_only_once() {
    let good = good();
    let fake = Fake::serve(move |request| good.answer(request));
    let pulled = pull(&fake.host, &options());
    let image = pulled.result.unwrap();
    assert_eq!(fake.count("/"), 4, "index, manifest, configuration, layer");
    let found = pulled.store.find(&format!("{}/a/b:1", fake.host).parse().unwrap(), &Platform::linux("amd64"));
    assert_eq!(found.unwrap(), Some(image));
    let (again, text) = pull_into(&pulled.store, &fake.host, &options());
    assert!(again.is_ok(), "{text}");
    assert_eq!(fake.count("/"), 5, "the tag is asked again, nothing else");
}

#[test]
fn what_is_damaged_in_the_store_is_fetched_by_its_digest() {
    let good_image = good();
    let fake = spoilt(tag_path, move |request, good| match request.count {
        1 => good.answer(request),
        _ => status("404 Not Found"),
    });
    let pulled = pull(&fake.host, &options());
    let image = pulled.result.unwrap();
    let reference: Reference = format!("{}/a/b:1", fake.host).parse().unwrap();
    for damaged in [digest(&good_image.index), image.manifest, image.layers[0].digest] {
        std::fs::write(pulled.store.blob_path(&damaged), "damaged").unwrap();
        let root = pulled.store.root_digest(&reference).unwrap();
        let wanted = [Wanted { reference: reference.clone(), root }];
        let platform = Platform::linux("amd64");
        fetch(&wanted, &platform, &pulled.store, &options(), &Cancel::default(), &Silent).unwrap();
        assert_eq!(pulled.store.find(&reference, &platform).unwrap().as_ref(), Some(&image));
    }
}

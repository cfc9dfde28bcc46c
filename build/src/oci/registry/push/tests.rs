//! A registry in memory that takes uploads, and can be told to be difficult. The real one is met in the end-to-end tests.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::cancel::Cancel;
use crate::oci::registry::tests::{Fake, Reply, Request, digest, ok, options, status};
use crate::oci::{
    Digest, Fault, Layer, Platform, PushRequest, Pushed, Reference, RegistryOptions, Store, push, put_remote_manifest,
    remote_manifest,
};
use crate::progress::Silent;

const LAYER_BYTES: usize = 40 << 20;

#[derive(Default)]
struct Kept {
    /// `REPOSITORY/blobs/DIGEST`, `REPOSITORY/manifests/NAME`.
    things: BTreeMap<String, Vec<u8>>,
    uploads: BTreeMap<String, Vec<u8>>,
    /// Uploads so far: each has a number of its own.
    begun: usize,
    order: Vec<String>,
}

#[derive(Clone, Copy, Default)]
struct Manners {
    /// Longer bodies are refused.
    body_bytes_max: Option<usize>,
    /// The first upload in one piece and the second chunk are cut off.
    breaks: bool,
    never_mounts: bool,
    wants_token: bool,
    refuses_uploads: bool,
}

struct Memory {
    fake: Fake,
    kept: Arc<Mutex<Kept>>,
}

impl Memory {
    fn start(manners: Manners) -> Self {
        let kept: Arc<Mutex<Kept>> = Arc::default();
        let state = Arc::clone(&kept);
        let host = Arc::new(Mutex::new(String::new()));
        let known = Arc::clone(&host);
        let fake =
            Fake::serve(move |request| answer(request, &mut state.lock().unwrap(), manners, &known.lock().unwrap()));
        host.lock().unwrap().clone_from(&fake.host);
        Self { fake, kept }
    }

    fn has(&self, path: &str) -> bool {
        self.kept.lock().unwrap().things.contains_key(path)
    }

    fn reference(&self, name: &str) -> Reference {
        format!("{}/{name}", self.fake.host).parse().unwrap()
    }
}

fn answer(request: &Request, kept: &mut Kept, manners: Manners, host: &str) -> Reply {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    if path == "/token" {
        let pushes = query.contains("%3Apull%2Cpush");
        return ok(if pushes { br#"{"token":"push"}"# } else { br#"{"token":"pull"}"# });
    }
    let allowed = match request.authorization.as_deref() {
        Some("Bearer push") => true,
        Some("Bearer pull") => matches!(request.method.as_str(), "GET" | "HEAD"),
        _ => !manners.wants_token,
    };
    if !allowed {
        let challenge =
            format!("WWW-Authenticate: Bearer realm=\"http://{host}/token\",scope=\"repository:a:pull\"\r\n");
        return Reply::Full("401 No", challenge, Vec::new());
    }
    if manners.body_bytes_max.is_some_and(|max| request.body.len() > max) {
        return status("413 Too Large");
    }
    keep(request, kept, manners)
}

fn keep(request: &Request, kept: &mut Kept, manners: Manners) -> Reply {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let path = path.strip_prefix("/v2/").unwrap();
    let parameter = |name: &str| {
        let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        value.map(|value| value.replace("%3A", ":").replace("%2F", "/"))
    };
    let (repository, _) = path.split_once("/blobs/").or_else(|| path.split_once("/manifests/")).unwrap();
    let upload = |kept: &Kept| {
        let range = kept.uploads.get(path).map_or(0, |bytes| bytes.len().saturating_sub(1));
        format!("Location: /v2/{path}?state=1\r\nRange: 0-{range}\r\n")
    };
    match request.method.as_str() {
        "HEAD" | "GET" if kept.uploads.contains_key(path) => Reply::Full("204 There", upload(kept), Vec::new()),
        "HEAD" | "GET" => kept.things.get(path).map_or_else(|| status("404 Not Found"), |bytes| ok(bytes)),
        "POST" if manners.refuses_uploads => status("403 Forbidden"),
        "POST" => {
            if let (Some(mount), Some(from), false) = (parameter("mount"), parameter("from"), manners.never_mounts)
                && let Some(bytes) = kept.things.get(&format!("{from}/blobs/{mount}")).cloned()
            {
                kept.things.insert(format!("{repository}/blobs/{mount}"), bytes);
                return status("201 Created");
            }
            kept.begun += 1;
            let path = format!("{repository}/blobs/uploads/{}", kept.begun);
            kept.uploads.insert(path.clone(), Vec::new());
            Reply::Full("202 Accepted", format!("Location: /v2/{path}?state=0\r\n"), Vec::new())
        }
        "PATCH" => {
            let bytes = kept.uploads.get_mut(path).unwrap();
            assert_eq!(request.range, Some(format!("{}-{}", bytes.len(), bytes.len() + request.body.len() - 1)));
            bytes.extend_from_slice(&request.body);
            if manners.breaks && request.count == 2 {
                return Reply::Raw(Vec::new());
            }
            Reply::Full("202 Accepted", upload(kept), Vec::new())
        }
        "PUT" if path.contains("/manifests/") => {
            kept.order.push(path.to_owned());
            kept.things.insert(path.to_owned(), request.body.clone());
            kept.things.insert(format!("{repository}/manifests/{}", digest(&request.body)), request.body.clone());
            status("201 Created")
        }
        "PUT" if manners.breaks && request.body.len() > 1 << 20 => Reply::Raw(Vec::new()),
        "PUT" => {
            let mut bytes = kept.uploads.remove(path).unwrap();
            bytes.extend_from_slice(&request.body);
            let expected = parameter("digest").unwrap();
            if digest(&bytes).to_string() != expected {
                return status("400 Digest");
            }
            kept.order.push(format!("{repository}/blobs/{expected}"));
            kept.things.insert(format!("{repository}/blobs/{expected}"), bytes);
            status("201 Created")
        }
        "DELETE" => {
            kept.uploads.remove(path);
            status("204 Gone")
        }
        other => panic!("{other} {path}"),
    }
}

struct Source {
    store: Store,
    _folder: tempfile::TempDir,
}

/// A store with the image `name` for two platforms; both share a large layer.
fn source(name: &Reference) -> Source {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let bytes = vec![7; LAYER_BYTES];
    let digest = store.put_blob(&bytes).unwrap();
    let media_type = "application/vnd.oci.image.layer.v1.tar".to_owned();
    for architecture in ["amd64", "arm64"] {
        let config = format!(r#"{{"os":"linux","architecture":"{architecture}"}}"#);
        let layers = vec![Layer { digest, size_bytes: bytes.len() as u64, media_type: media_type.clone() }];
        store.put_image(name, &Platform::linux(architecture), config.as_bytes(), layers).unwrap();
    }
    Source { store, _folder: folder }
}

fn push_as(source: &Source, from: &Reference, to: &Reference, platform: Option<&Platform>) -> Result<Pushed, Fault> {
    let root = source.store.root_digest(from).unwrap().unwrap();
    let request = PushRequest { root, target: to, platform };
    let patient = RegistryOptions { idle_limit: std::time::Duration::from_secs(20), ..options() };
    push(&request, &source.store, &patient, &Cancel::default(), &Silent).map_err(|error| {
        assert!(error.to_string().contains(&format!("cannot push `{to}` to http://")), "{error}");
        error.fault
    })
}

fn large(source: &Source, name: &Reference) -> Digest {
    source.store.find(name, &Platform::linux("amd64")).unwrap().unwrap().layers[0].digest
}

#[test]
fn an_index_arrives_with_its_tag_last_and_only_once() {
    let there = Memory::start(Manners::default());
    let name = there.reference("a:1");
    let source = source(&name);
    let root = source.store.root_digest(&name).unwrap().unwrap();
    let pushed = push_as(&source, &name, &name, None).unwrap();
    assert_eq!((pushed.digest, pushed.sent, pushed.skipped), (Some(root), 3, 0), "two configurations, one layer");
    assert_eq!(there.kept.lock().unwrap().order.last().unwrap(), "a/manifests/1");
    assert!(there.has(&format!("a/manifests/{root}")));
    let again = push_as(&source, &name, &name, None).unwrap();
    assert_eq!((again.sent, again.skipped, again.sent_bytes), (0, 3, 0));
    let (silent, never) = (Silent, Cancel::default());
    let manifest = remote_manifest(&name, &options(), &never, &silent).unwrap().unwrap();
    assert_eq!(manifest.digest, root);
    put_remote_manifest(&there.reference("a:2"), &manifest, &options(), &never, &silent).unwrap();
    assert!(there.has("a/manifests/2"));
    assert!(remote_manifest(&there.reference("a:3"), &options(), &never, &silent).unwrap().is_none());
}

#[test]
fn one_platform_can_be_pushed_alone() {
    let there = Memory::start(Manners::default());
    let name = there.reference("a:1");
    let source = source(&name);
    let arm = Platform::linux("arm64");
    let pushed = push_as(&source, &name, &name, Some(&arm)).unwrap();
    assert_eq!(pushed.digest, Some(source.store.find(&name, &arm).unwrap().unwrap().manifest));
    assert_eq!(there.kept.lock().unwrap().order.iter().filter(|path| path.contains("manifests")).count(), 1);
}

#[test]
fn what_another_repository_there_has_is_mounted_unless_the_registry_will_not() {
    for never_mounts in [false, true] {
        let there = Memory::start(Manners { never_mounts, ..Manners::default() });
        let name = there.reference("a:1");
        let source = source(&name);
        push_as(&source, &name, &name, None).unwrap();
        let pushed = push_as(&source, &name, &there.reference("b/c:1"), None).unwrap();
        let expected = if never_mounts { (3, 0) } else { (0, 3) };
        assert_eq!((pushed.sent, pushed.mounted), expected);
        assert!(there.has(&format!("b/c/blobs/{}", large(&source, &name))));
        assert!(there.kept.lock().unwrap().uploads.is_empty(), "an upload stays open");
    }
}

#[test]
fn a_body_that_is_too_large_or_breaks_goes_in_chunks() {
    let check = |manners: Manners, patches: usize| {
        let there = Memory::start(manners);
        let name = there.reference("a:1");
        let source = source(&name);
        let large = large(&source, &name);
        push_as(&source, &name, &name, Some(&Platform::linux("amd64"))).unwrap();
        assert!(there.has(&format!("a/blobs/{large}")));
        let log = there.fake.log.lock().unwrap();
        assert_eq!(log.iter().filter(|request| request.method == "PATCH").count(), patches);
    };
    check(Manners { body_bytes_max: Some(17 << 20), ..Manners::default() }, 3);
    check(Manners { breaks: true, ..Manners::default() }, 3);
}

#[test]
fn a_login_for_pushing_is_asked_for_at_once() {
    let there = Memory::start(Manners { wants_token: true, ..Manners::default() });
    let name = there.reference("a:1");
    let source = source(&name);
    push_as(&source, &name, &name, None).unwrap();
    assert_eq!(there.fake.count("/token"), 1);
}

#[test]
fn a_registry_that_takes_nothing_is_told_by_its_answer() {
    let there = Memory::start(Manners { refuses_uploads: true, ..Manners::default() });
    let name = there.reference("a:1");
    let refused = push_as(&source(&name), &name, &name, None);
    assert!(matches!(refused, Err(Fault::Unauthorized { status: 403, .. })), "{refused:?}");
    assert!(!there.has("a/manifests/1"));
}

#[test]
fn what_the_store_lacks_or_has_damaged_is_named_and_no_tag_is_set() {
    let there = Memory::start(Manners::default());
    let name = there.reference("a:1");
    let source = source(&name);
    let blob = source.store.blob_path(&large(&source, &name));
    let mut bytes = std::fs::read(&blob).unwrap();
    bytes[0] = 8;
    std::fs::write(&blob, bytes).unwrap();
    let damaged = push_as(&source, &name, &name, None);
    assert!(matches!(&damaged, Err(Fault::Store(_))), "{damaged:?}");
    let missing = push_as(&source, &name, &name, None);
    assert!(matches!(&missing, Err(Fault::Store(error)) if error.to_string().contains("is not in the store")));
    let arm = source.store.find(&name, &Platform::linux("arm64"));
    assert!(arm.is_err());
    assert!(!there.has("a/manifests/1"));
}

#[test]
fn a_manifest_that_was_never_pulled_must_be_there_already() {
    let there = Memory::start(Manners::default());
    let name = there.reference("a:1");
    let source = source(&name);
    let arm = source.store.find(&name, &Platform::linux("arm64")).unwrap().unwrap().manifest;
    std::fs::remove_file(source.store.blob_path(&arm)).unwrap();
    let missing = push_as(&source, &name, &name, None).unwrap_err();
    assert!(matches!(missing, Fault::NotHere { digest, .. } if digest == arm), "{missing}");
    assert!(missing.to_string().contains("linux/arm64"), "{missing}");
    there.kept.lock().unwrap().things.insert(format!("a/manifests/{arm}"), Vec::new());
    push_as(&source, &name, &name, None).unwrap();
}

//! Archives as other tools write them, and as nobody should.

use std::fs;
use std::io::{Cursor, Write};
use std::os::unix::net::UnixListener;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::*;
use crate::oci::{Layer, StoreError};
use crate::progress::Silent;

type Members = Vec<(String, Vec<u8>)>;

fn digest(bytes: &[u8]) -> Digest {
    Digest::from_bytes(Sha256::digest(bytes).into())
}

fn tar(members: &Members) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    for (name, content) in members {
        let mut header = ::tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, content.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

const LAYER: &[u8] = b"the layer";

fn config() -> Vec<u8> {
    let config = json!({"os": "linux", "architecture": "amd64", "config": {"Cmd": ["/a"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(LAYER).to_string()]}});
    config.to_string().into_bytes()
}

fn manifest() -> Vec<u8> {
    let config = config();
    let descriptor = |bytes: &[u8]| json!({"digest": digest(bytes).to_string(), "size": bytes.len()});
    json!({"schemaVersion": 2, "config": descriptor(&config), "layers": [descriptor(LAYER)]}).to_string().into_bytes()
}

fn blob(bytes: &[u8]) -> (String, Vec<u8>) {
    (format!("blobs/sha256/{}", digest(bytes).hex()), bytes.to_vec())
}

/// An OCI layout whose one image has these annotations.
fn oci(annotations: &Value) -> Members {
    let manifest = manifest();
    let entry = json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(&manifest).to_string(),
        "size": manifest.len(), "annotations": annotations});
    let index = json!({"schemaVersion": 2, "manifests": [entry]}).to_string().into_bytes();
    vec![("index.json".into(), index), blob(&manifest), blob(&config()), blob(LAYER)]
}

/// What `docker save` wrote before version 25.
fn docker(tags: &Value) -> Members {
    let list = json!([{"Config": "c.json", "RepoTags": tags, "Layers": ["l/layer.tar"]}]).to_string().into_bytes();
    vec![("l/layer.tar".into(), LAYER.into()), ("c.json".into(), config()), ("manifest.json".into(), list)]
}

struct Place {
    folder: tempfile::TempDir,
    store: Store,
}

fn place() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    Place { folder, store }
}

impl Place {
    fn import(&self, archive: &[u8], name: Option<&str>) -> Result<Vec<String>, ImportError> {
        let name = name.map(|name| name.parse::<Reference>().unwrap());
        let mut stream = Cursor::new(archive);
        let from = ImportFrom::Stream(&mut stream);
        let imported = import(from, name.as_ref(), &self.store, &Cancel::default(), &Silent)?;
        let temps = fs::read_dir(self.store.root().join("tmp")).unwrap().count();
        assert_eq!(temps, 0, "temp files stay");
        Ok(imported.iter().flat_map(|imported| &imported.names).map(ToString::to_string).collect())
    }

    fn source(&self, text: &str) -> Result<crate::oci::Image, ImportError> {
        let options = SourceOptions { folder: self.folder.path().to_owned(), ..SourceOptions::default() };
        self.source_with(text, &options)
    }

    fn source_with(&self, text: &str, options: &SourceOptions) -> Result<crate::oci::Image, ImportError> {
        let (source, platform) = (text.parse::<Source>().unwrap(), Platform::linux("amd64"));
        let root = import_source(&source, &platform, &self.store, options, &Cancel::default(), &Silent)?;
        Ok(self.store.resolve_root(text, root, &platform)?)
    }
}

fn text(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(text).unwrap_or_default();
    format!("{error} {cause}")
}

#[test]
fn what_holds_no_images_is_refused_by_name() {
    let place = place();
    let refused = |archive: &[u8], words: &str| {
        let error = text(&place.import(archive, None).unwrap_err());
        assert!(error.contains("`standard input`") && error.contains(words), "{words}: {error}");
    };
    refused(b"", "holds no images");
    refused(&[7; 4096], "no tar header");
    refused(&tar(&vec![("a".into(), b"b".to_vec())]), "holds no images");
    refused(&tar(&vec![("index.json".into(), b"{".to_vec())]), "`index.json`");
    refused(&tar(&vec![("manifest.json".into(), b"{}".to_vec())]), "`manifest.json`");
    refused(&[0x1f, 0x8b, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14], "standard input");
    for (text, words) in
        [("oci:nothing", "No such file"), ("oci-archive:nothing", "No such file"), ("oci-archive:.", "folder")]
    {
        let error = self::text(&place.source(text).unwrap_err());
        assert!(error.contains(words) && error.contains(text), "{error}");
    }
}

#[test]
fn what_is_missing_or_damaged_is_named() {
    let named = json!({"org.opencontainers.image.ref.name": "a:1"});
    let check = |members: Members, words: &str| {
        let place = place();
        let error = text(&place.import(&tar(&members), None).unwrap_err());
        assert!(error.contains(words), "{words}: {error}");
        let found = place.store.root_digest(&"a:1".parse().unwrap()).unwrap();
        assert!(found.is_none(), "{words}");
    };
    for number in 1..4 {
        let mut lacking = oci(&named);
        let (name, _) = lacking.remove(number);
        check(lacking, &format!("lacks `{name}`"));
        let mut damaged = oci(&named);
        damaged[number].1[0] ^= 1;
        check(damaged.clone(), &format!("`{}` in `standard input` is damaged", damaged[number].0));
        damaged[number].1.push(0);
        check(damaged.clone(), "is damaged");
    }
    let mut damaged = docker(&json!(["a:1"]));
    damaged[0].1[0] ^= 1;
    check(damaged, "`l/layer.tar` in `standard input` is damaged");
    let mut lacking = docker(&json!(["a:1"]));
    lacking.remove(0);
    check(lacking, "lacks `l/layer.tar`");
    let list = json!([{"Config": "../../etc/passwd", "RepoTags": ["a:1"], "Layers": []}]).to_string();
    check(vec![("manifest.json".into(), list.into_bytes())], "lacks `../../etc/passwd`");
    let list = json!([{"Config": "c.json", "RepoTags": ["a:1"], "Layers": []}]).to_string();
    check(vec![("manifest.json".into(), list.into_bytes()), ("c.json".into(), config())], "1 layers by digest");
}

#[test]
fn any_usual_annotation_is_a_name() {
    let check = |members: &Members, expected: &[&str]| {
        assert_eq!(place().import(&tar(members), None).unwrap(), expected);
    };
    let both = json!({"io.containerd.image.name": "docker.io/me/a:1", "org.opencontainers.image.ref.name": "1"});
    check(&oci(&both), &["docker.io/me/a:1"]);
    check(&oci(&json!({"org.opencontainers.image.ref.name": "busybox"})), &["docker.io/library/busybox"]);
    check(&oci(&json!({"org.opencontainers.image.ref.name": "quay.io/a:1"})), &["quay.io/a:1"]);
    check(&docker(&json!(["a:1", "quay.io/b:2"])), &["docker.io/library/a:1", "quay.io/b:2"]);
    let dotted = oci(&both).into_iter().map(|(name, bytes)| (format!("./{name}"), bytes)).collect();
    check(&dotted, &["docker.io/me/a:1"]);
    // Docker 25 and later write both lists.
    let mut both = oci(&json!({"org.opencontainers.image.ref.name": "1"}));
    let name = |bytes: &[u8]| blob(bytes).0;
    let list = json!([{"Config": name(&config()), "RepoTags": ["a:1"], "Layers": [name(LAYER)]}]);
    both.push(("manifest.json".into(), list.to_string().into_bytes()));
    check(&both, &["docker.io/library/a:1"]);
}

#[test]
fn an_image_without_a_name_gets_one_or_is_refused() {
    for (members, hint) in [
        (oci(&json!({})), "has no name;"),
        (oci(&json!({"org.opencontainers.image.ref.name": "latest"})), "only the tag `latest`"),
        (oci(&json!({"org.opencontainers.image.ref.name": "1.36"})), "only the tag `1.36`"),
        (docker(&Value::Null), "has no name;"),
    ] {
        let place = place();
        let error = place.import(&tar(&members), None).unwrap_err().to_string();
        assert!(error.contains(hint) && error.contains("--name"), "{error}");
        assert_eq!(place.import(&tar(&members), Some("b:2")).unwrap(), ["docker.io/library/b:2"]);
    }
}

#[test]
fn compressed_archives_are_read_too() {
    let bytes = tar(&docker(&json!(["a:1"])));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&bytes).unwrap();
    for packed in [gzip.finish().unwrap(), zstd::stream::encode_all(bytes.as_slice(), 1).unwrap()] {
        let place = place();
        assert_eq!(place.import(&packed, None).unwrap(), ["docker.io/library/a:1"]);
        fs::write(place.folder.path().join("a.tar.x"), &packed).unwrap();
        assert_eq!(place.source("docker-archive:a.tar.x").unwrap().layers.len(), 1);
    }
}

#[test]
fn a_compressed_layer_must_unpack_to_what_its_configuration_says() {
    let packed = zstd::stream::encode_all(LAYER, 1).unwrap();
    let mut members = docker(&json!(["a:1"]));
    members[0].1.clone_from(&packed);
    let place = place();
    place.import(&tar(&members), None).unwrap();
    let image = place.store.find(&"a:1".parse().unwrap(), &Platform::linux("amd64")).unwrap().unwrap();
    assert_eq!((image.layers[0].digest, image.layers[0].media_type.ends_with("+zstd")), (digest(&packed), true));
    members[0].1 = zstd::stream::encode_all(&b"another"[..], 1).unwrap();
    assert!(matches!(place.import(&tar(&members), None), Err(ImportError::Damaged { .. })));
}

#[test]
fn a_source_gives_the_one_image_or_the_one_that_is_named() {
    let place = place();
    let layout = place.folder.path().join("layout");
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    let mut members = oci(&json!({"org.opencontainers.image.ref.name": "a:1"}));
    for (name, bytes) in &members {
        fs::write(layout.join(name), bytes).unwrap();
    }
    let image = place.source("oci:layout").unwrap();
    assert_eq!(image.manifest, digest(&manifest()));
    for name in ["a:1", "1", "docker.io/library/a:1"] {
        assert_eq!(place.source(&format!("oci:layout:{name}")).unwrap().manifest, image.manifest, "{name}");
    }
    let error = place.source("oci:layout:b").unwrap_err().to_string();
    assert!(error.contains("has no image `b`") && error.contains("`a:1`"), "{error}");
    let mut index: Value = serde_json::from_slice(&members[0].1).unwrap();
    let mut other = index["manifests"][0].clone();
    other["annotations"]["org.opencontainers.image.ref.name"] = json!("b:1");
    index["manifests"].as_array_mut().unwrap().push(other);
    members[0].1 = index.to_string().into_bytes();
    fs::write(place.folder.path().join("two.tar"), tar(&members)).unwrap();
    let error = place.source("oci-archive:two.tar").unwrap_err().to_string();
    assert!(error.contains("several images: `a:1`, `b:1`"), "{error}");
    assert!(place.source("oci-archive:two.tar:b").unwrap_err().to_string().contains("no image"));
    assert!(place.source("oci-archive:two.tar:b:1").is_ok());
    assert_eq!(place.import(&tar(&members), None).unwrap().len(), 2);
    assert!(matches!(place.import(&tar(&members), Some("c")), Err(ImportError::OneName { .. })));
}

#[test]
fn an_image_for_another_platform_is_told_as_that() {
    let place = place();
    fs::write(place.folder.path().join("a.tar"), tar(&docker(&json!(["a:1"])))).unwrap();
    let options = SourceOptions { folder: place.folder.path().to_owned(), ..SourceOptions::default() };
    let (source, arm) = ("docker-archive:a.tar".parse().unwrap(), Platform::linux("arm64"));
    let root = import_source(&source, &arm, &place.store, &options, &Cancel::default(), &Silent).unwrap();
    let error = place.store.resolve_root("docker-archive:a.tar", root, &arm).unwrap_err();
    assert!(matches!(error, StoreError::Platform { .. }), "{error}");
}

#[test]
fn what_the_store_has_is_not_copied_again() {
    let place = place();
    place.store.put_blob(LAYER).unwrap();
    let mut members = docker(&json!(["a:1"]));
    members[0].1 = vec![0; LAYER.len()];
    // Only the length is looked at; whoever reads the layer verifies it.
    place.import(&tar(&members), None).unwrap();
    let layer = Layer { digest: digest(LAYER), size_bytes: LAYER.len() as u64, media_type: String::new() };
    assert!(place.store.open_layer(&layer).unwrap().finish().is_ok());
}

/// A Docker that answers each request with `answer`.
fn daemon(place: &Place, answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> SourceOptions {
    let socket = place.folder.path().join("docker.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut from = std::io::BufReader::new(stream.try_clone().unwrap());
            let lines = std::io::BufRead::lines(&mut from).map_while(Result::ok);
            let request: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            // An error is a client that has heard enough.
            let _heard = stream.write_all(&answer(request.first().map_or("", String::as_str)));
        }
    });
    SourceOptions { docker: DockerHost::Socket(socket), ..SourceOptions::default() }
}

#[test]
fn a_running_docker_is_asked_over_its_socket() {
    let place = place();
    let archive = tar(&docker(&json!(["a:1"])));
    let options = daemon(&place, move |request| match request {
        "GET /images/docker.io/library/a:latest/get HTTP/1.1" => {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/x-tar\r\nConnection: close\r\n\r\n";
            [head.as_bytes(), &archive].concat()
        }
        "GET /images/docker.io/library/cut:1/get HTTP/1.1" => {
            b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nabc".to_vec()
        }
        "GET /images/docker.io/library/broken:1/get HTTP/1.1" => {
            b"HTTP/1.1 500 Broken\r\nContent-Length: 21\r\n\r\n{\"message\":\"no disk\"}".to_vec()
        }
        _ => b"HTTP/1.1 404 No\r\nContent-Length: 32\r\n\r\n{\"message\":\"No such image: b:1\"}".to_vec(),
    });
    assert_eq!(place.source_with("docker-daemon:a", &options).unwrap().layers[0].digest, digest(LAYER));
    let error = |text: &str| self::text(&place.source_with(text, &options).unwrap_err());
    assert!(
        error("docker:b:1").contains("Docker has no image `docker.io/library/b:1`: No such image"),
        "{}",
        error("docker:b:1")
    );
    assert!(error("docker:broken:1").contains("status 500"), "{}", error("docker:broken:1"));
    assert!(error("docker:cut:1").contains("cannot read"), "{}", error("docker:cut:1"));
    let (name, platform) = ("b:1".parse().unwrap(), Platform::linux("amd64"));
    let asked = import_if_docker_has_it(&name, &platform, &place.store, &options, &Cancel::default(), &Silent);
    assert!(matches!(asked, Ok(None)));
}

#[test]
fn a_docker_that_is_not_there_is_named_with_its_socket() {
    let place = place();
    let options = |text: &str| SourceOptions { docker: DockerHost::from(text), ..SourceOptions::default() };
    for (host, words) in [
        ("unix:///nonexistent.sock", "`/nonexistent.sock`"),
        ("ssh://a", "ssh://a"),
        ("tcp://127.0.0.1:1", "127.0.0.1:1"),
    ] {
        let error = text(&place.source_with("docker-daemon:a", &options(host)).unwrap_err());
        assert!(error.contains("cannot ask Docker") && error.contains(words), "{error}");
    }
}

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::thread;

use serde_json::{Value, json};

use super::*;
use crate::oci::{Image, Layer, Reference};

const CONFIG: &[u8] = br#"{"os":"linux","architecture":"amd64","config":{"Cmd":["/a"]}}"#;

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    (folder, store)
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

fn layer(store: &Store, bytes: &[u8]) -> Layer {
    let digest = store.put_blob(bytes).unwrap();
    let media_type = "application/vnd.oci.image.layer.v1.tar".into();
    Layer { digest, size_bytes: bytes.len() as u64, media_type }
}

fn put(store: &Store, name: &str, architecture: &str) -> Image {
    let layers = vec![layer(store, b"layer one"), layer(store, name.as_bytes())];
    let config = String::from_utf8(CONFIG.to_vec()).unwrap().replace("amd64", architecture);
    store.put_image(&reference(name), &Platform::linux(architecture), config.as_bytes(), layers).unwrap()
}

fn find(store: &Store, name: &str) -> Result<Option<Image>, StoreError> {
    store.find(&reference(name), &Platform::linux("amd64"))
}

fn texts(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(texts).unwrap_or_default();
    format!("{error}\n{cause}")
}

#[test]
fn an_unknown_name_is_no_error() {
    let (_folder, store) = store();
    assert!(find(&store, "a:1").unwrap().is_none());
    assert!(find(&store, &format!("a@sha256:{}", "0".repeat(64))).unwrap().is_none());
}

#[test]
fn a_folder_that_holds_another_layout_is_refused() {
    for text in ["", "{}", r#"{"imageLayoutVersion":"2.0.0"}"#, "[1"] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("oci-layout"), text).unwrap();
        assert!(matches!(Store::open(folder.path()), Err(StoreError::NoLayout { .. })), "{text}");
    }
}

#[test]
fn an_index_that_cannot_be_read_is_an_error_that_says_how_to_mend_it() {
    let (folder, store) = store();
    for text in ["", "{", "\0\0\0\0"] {
        fs::write(folder.path().join("index.json"), text).unwrap();
        let error = find(&store, "a:1").unwrap_err().to_string();
        assert!(error.contains("index.json") && error.contains("remove it"), "{error}");
    }
    for text in ["[]", "{}", r#"{"manifests":7}"#, r#"{"manifests":[7,{},{"annotations":[]}]}"#] {
        fs::write(folder.path().join("index.json"), text).unwrap();
        assert!(find(&store, "a:1").unwrap().is_none(), "{text}");
    }
}

#[test]
fn a_damaged_document_is_told_by_its_digest() {
    let (_folder, store) = store();
    let image = put(&store, "a:1", "amd64");
    let path = store.blob_path(&image.manifest);
    let good = fs::read(&path).unwrap();
    fs::write(&path, good.to_ascii_uppercase()).unwrap();
    let error = find(&store, "a:1").unwrap_err();
    assert!(matches!(error, StoreError::Damaged { kind: BlobKind::Manifest, .. }));
    assert!(texts(&error).contains(&image.manifest.to_string()), "{}", texts(&error));
    fs::remove_file(&path).unwrap();
    assert!(matches!(find(&store, "a:1"), Err(StoreError::Missing { digest, .. }) if digest == image.manifest));
    fs::write(&path, good).unwrap();
    assert_eq!(find(&store, "a:1").unwrap(), Some(image));
}

#[test]
fn a_document_of_any_length_is_not_read_into_memory() {
    let (_folder, store) = store();
    let image = put(&store, "a:1", "amd64");
    let file = fs::OpenOptions::new().write(true).open(store.blob_path(&image.manifest)).unwrap();
    file.set_len(1 << 40).unwrap();
    assert!(matches!(find(&store, "a:1"), Err(StoreError::TooLarge { .. })));
}

#[test]
fn a_missing_or_truncated_layer_is_told_before_it_is_needed() {
    let (_folder, store) = store();
    let image = put(&store, "a:1", "amd64");
    let path = store.blob_path(&image.layers[1].digest);
    fs::write(&path, b"a").unwrap();
    assert!(matches!(find(&store, "a:1"), Err(StoreError::Damaged { kind: BlobKind::Layer, .. })));
    fs::remove_file(&path).unwrap();
    assert!(matches!(find(&store, "a:1"), Err(StoreError::Missing { kind: BlobKind::Layer, .. })));
    assert_eq!(store.missing_layers(&image.layers), [&image.layers[1]]);
}

#[test]
fn a_changed_layer_fails_while_it_is_read_and_is_gone_then() {
    let (_folder, store) = store();
    let layer = layer(&store, b"twelve bytes");
    let path = store.blob_path(&layer.digest);
    fs::write(&path, b"other! bytes").unwrap();
    let mut reader = store.open_layer(&layer).unwrap();
    let error = reader.read_to_end(&mut Vec::new()).unwrap_err();
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<DamagedBlob>()).unwrap();
    assert!(matches!(inner.fault, BlobFault::Content { .. }) && inner.digest == layer.digest);
    assert!(!path.exists());
}

#[test]
fn the_read_of_the_last_byte_already_tells_the_damage() {
    let (_folder, store) = store();
    let layer = layer(&store, b"twelve bytes");
    fs::write(store.blob_path(&layer.digest), b"other! bytes").unwrap();
    let mut reader = store.open_layer(&layer).unwrap();
    reader.read_exact(&mut [0; 11]).unwrap();
    assert!(reader.read_exact(&mut [0; 1]).is_err());
    fs::write(store.blob_path(&layer.digest), b"other! bytes").unwrap();
    let mut reader = store.open_layer(&layer).unwrap();
    reader.read_exact(&mut [0; 5]).unwrap();
    assert!(reader.finish().is_err());
}

#[test]
fn a_layer_that_shrinks_or_grows_while_it_is_read_fails() {
    let (_folder, store) = store();
    for len in [3, 2000] {
        let layer = layer(&store, &[7; 1000]);
        let mut reader = store.open_layer(&layer).unwrap();
        let path = store.blob_path(&layer.digest);
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(len).unwrap();
        let mut bytes = Vec::new();
        let read = reader.read_to_end(&mut bytes);
        assert!(bytes.len() <= 1000);
        assert_eq!(read.is_err(), len == 3, "more bytes behind the end are not handed out");
    }
}

#[test]
fn a_blob_that_is_not_what_was_expected_is_not_kept() {
    let (folder, store) = store();
    let wrong = Digest::from_bytes([0; 32]);
    let write = |bytes: &[u8]| {
        let mut writer = store.blob_writer().unwrap();
        writer.write_all(bytes).unwrap();
        writer
    };
    assert!(matches!(write(b"a").commit(Some(wrong), None), Err(StoreError::Damaged { .. })));
    assert!(matches!(write(b"a").commit(None, Some(2)), Err(StoreError::Damaged { .. })));
    drop(write(b"a"));
    for place in ["blobs/sha256", "tmp"] {
        assert_eq!(fs::read_dir(folder.path().join(place)).unwrap().count(), 0, "{place}");
    }
}

#[test]
fn a_temp_file_goes_when_its_writer_is_dead_and_stays_while_it_lives() {
    let (folder, store) = store();
    let mut living = store.blob_writer().unwrap();
    living.write_all(b"alive").unwrap();
    let dead = folder.path().join("tmp/1-1");
    fs::write(&dead, b"half a blob").unwrap();
    Store::open(folder.path()).unwrap();
    assert!(!dead.exists() && living.path().exists());
    assert!(store.blob_path(&living.commit(None, None).unwrap()).exists());
}

#[test]
fn an_index_bomb_ends() {
    let (_folder, store) = store();
    let mut bytes = br#"{"manifests":[]}"#.to_vec();
    let mut digest = store.put_blob(&bytes).unwrap();
    for _ in 0..50 {
        let platform = json!({"os": "linux", "architecture": "amd64"});
        let entry = json!({"digest": digest.to_string(), "size": bytes.len(), "platform": platform});
        bytes = json!({"schemaVersion": 2, "manifests": [entry]}).to_string().into_bytes();
        digest = store.put_blob(&bytes).unwrap();
    }
    let named = reference(&format!("a@{digest}"));
    let found = store.find(&named, &Platform::linux("amd64"));
    assert!(matches!(found, Err(StoreError::TooDeep { .. })));
}

#[test]
fn an_image_for_another_platform_is_told_with_what_there_is() {
    let (_folder, store) = store();
    put(&store, "a:1", "arm64");
    let error = find(&store, "a:1").unwrap_err().to_string();
    assert!(error.contains("not for linux/amd64, it is for linux/arm64"), "{error}");
    let manifest = store.find(&reference("a:1"), &Platform::linux("arm64")).unwrap().unwrap().manifest;
    let error = find(&store, &format!("a@{manifest}")).unwrap_err().to_string();
    assert!(error.contains("it is for linux/arm64"), "a single manifest is checked by its configuration: {error}");
}

#[test]
fn an_image_of_a_layer_that_is_not_there_is_refused() {
    let (_folder, store) = store();
    let mut layer = layer(&store, b"x");
    layer.digest = Digest::from_bytes([1; 32]);
    let put = store.put_image(&reference("a:1"), &Platform::linux("amd64"), CONFIG, vec![layer]);
    assert!(matches!(put, Err(StoreError::Missing { .. })));
}

#[test]
fn platforms_under_one_name_stay_and_the_bytes_do_not_depend_on_the_order() {
    let bytes = |order: [&str; 3]| {
        let (folder, store) = store();
        for architecture in order {
            put(&store, "a:1", architecture);
        }
        assert!(store.find(&reference("a:1"), &Platform::linux("arm64")).unwrap().is_some());
        assert!(find(&store, "a:1").unwrap().is_some());
        fs::read(folder.path().join("index.json")).unwrap()
    };
    assert_eq!(bytes(["amd64", "arm64", "amd64"]), bytes(["arm64", "arm64", "amd64"]));
}

#[test]
fn names_with_and_without_latest_find_each_other() {
    let (_folder, store) = store();
    let image = put(&store, "a:latest", "amd64");
    assert_eq!(find(&store, "a").unwrap().map(|found| found.manifest), Some(image.manifest));
    let image = put(&store, "b", "amd64");
    assert_eq!(find(&store, "b:latest").unwrap().map(|found| found.manifest), Some(image.manifest));
}

#[test]
fn what_others_wrote_into_the_index_stays() {
    let (folder, store) = store();
    let path = folder.path().join("index.json");
    let theirs = json!({"schemaVersion": 2, "mediaType": "x", "annotations": {"k": "v"}, "manifests": [
        {"digest": "sha512:00", "size": 1, "new-field": [1, 2]},
        {"digest": "sha256:11", "size": 1, "annotations": {"org.opencontainers.image.ref.name": "docker.io/library/a:1"}},
        {"digest": "sha256:22", "size": 1, "annotations": {"org.opencontainers.image.ref.name": "other"}},
    ]});
    fs::write(&path, theirs.to_string()).unwrap();
    put(&store, "a:1", "amd64");
    let now: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for place in [0, 2] {
        assert_eq!(now["manifests"][place], theirs["manifests"][place]);
    }
    assert_eq!(now["manifests"].as_array().unwrap().len(), 3);
    assert_eq!(now["annotations"], theirs["annotations"]);
    assert!(find(&store, "a:1").unwrap().is_some());
}

#[test]
fn names_given_by_many_at_once_are_all_there() {
    let (folder, _store) = store();
    let give = |path: &Path, number: usize| {
        let store = Store::open(path).unwrap();
        for round in 0..5 {
            put(&store, &format!("image{number}:{round}"), "amd64");
        }
    };
    thread::scope(|scope| {
        for number in 0..6 {
            let path = folder.path();
            scope.spawn(move || give(path, number));
        }
    });
    let store = Store::open(folder.path()).unwrap();
    for number in 0..6 {
        for round in 0..5 {
            assert!(find(&store, &format!("image{number}:{round}")).unwrap().is_some());
        }
    }
    assert_eq!(fs::read_dir(folder.path().join("tmp")).unwrap().count(), 0);
}

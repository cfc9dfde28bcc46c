use super::*;

fn cache(limit_bytes: u64) -> (tempfile::TempDir, Cache) {
    let store = tempfile::tempdir().unwrap();
    let cache = Cache::with_limit(store.path(), limit_bytes);
    (store, cache)
}

const A: Key = [0xaa; 32];
const B: Key = [0xbb; 32];

#[test]
fn a_damaged_entry_is_none_and_can_be_kept_again() {
    let (_store, cache) = cache(LIMIT_BYTES);
    let damage: [fn(&mut Vec<u8>); 4] =
        [|bytes| bytes[0] ^= 1, |bytes| bytes.truncate(5), Vec::clear, |bytes| bytes.push(0)];
    for damage in damage {
        cache.put(Shelf::Packed, &A, b"content");
        assert_eq!(cache.get(Shelf::Packed, &A).unwrap(), b"content");
        let path = cache.path(Shelf::Packed, &A).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        damage(&mut bytes);
        fs::write(&path, bytes).unwrap();
        assert_eq!(cache.get(Shelf::Packed, &A), None);
        assert!(!path.exists());
    }
    cache.put(Shelf::Packed, &A, b"content");
    let path = |key| cache.path(Shelf::Packed, key).unwrap();
    fs::rename(path(&A), path(&B)).unwrap();
    assert_eq!(cache.get(Shelf::Packed, &B), None, "under another's name");
}

#[test]
fn an_entry_has_a_name_only_when_it_is_complete() {
    let (store, cache) = cache(LIMIT_BYTES);
    let names = || fs::read_dir(store.path().join(FOLDER).join("layers")).unwrap().count();
    let mut file = tempfile::tempfile_in(store.path()).unwrap();
    file.write_all(b"half").unwrap();
    assert_eq!(names(), 0);
    assert!(cache.keep_file(Shelf::Layers, &A, &file));
    assert!(cache.keep_file(Shelf::Layers, &A, &file), "somebody else was faster");
    assert_eq!(names(), 1);
    assert!(cache.file(Shelf::Layers, &A).is_some());
    assert!(cache.file(Shelf::Layers, &B).is_none());
}

#[test]
fn the_least_lately_used_goes_first() {
    let (_store, cache) = cache(3000);
    let age = |key, hours: u64| {
        let file = File::options().write(true).open(cache.path(Shelf::Packed, key).unwrap()).unwrap();
        let then = SystemTime::now() - Duration::from_secs(hours * 3600);
        file.set_times(FileTimes::new().set_modified(then)).unwrap();
    };
    cache.put(Shelf::Packed, &A, &[0; 1000]);
    cache.put(Shelf::Packed, &B, &[0; 1000]);
    age(&A, 9);
    age(&B, 5);
    assert!(cache.get(Shelf::Packed, &A).is_some(), "used now");
    cache.trim();
    assert!(cache.get(Shelf::Packed, &B).is_some(), "all is within the limit");
    age(&B, 5);
    cache.put(Shelf::Packed, &[0xcc; 32], &[0; 1200]);
    cache.trim();
    assert!(cache.path(Shelf::Packed, &A).unwrap().exists());
    assert!(!cache.path(Shelf::Packed, &B).unwrap().exists());
    assert!(cache.path(Shelf::Packed, &[0xcc; 32]).unwrap().exists());
    cache.put(Shelf::Packed, &B, &[0; 2400]);
    assert!(cache.get(Shelf::Packed, &B).is_none(), "more than three quarters of the limit");
}

#[test]
fn without_a_folder_nothing_is_kept_and_nothing_fails() {
    for cache in [Cache::none(), Cache::in_store(Path::new("/proc/no/such"))] {
        cache.put(Shelf::Packed, &A, b"content");
        assert!(cache.get(Shelf::Packed, &A).is_none());
        assert!(!cache.keep_file(Shelf::Layers, &A, &tempfile::tempfile().unwrap()));
        cache.trim();
    }
}
